/* One mapping of each sort, and their addresses on stdout: name, address, length in bytes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096UL
#define MIB (1UL << 20)

static unsigned char global[3 * PAGE] = {7};

static unsigned char *anonymous(size_t length, int flags) {
    void *p = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (p == MAP_FAILED) exit(2);
    return p;
}

static void pattern(unsigned char *p, size_t length, unsigned seed) {
    for (size_t i = 0; i < length; i++) p[i] = (unsigned char)((i * 7 + (i >> 12) + seed) & 0xff);
}

static void say(const char *name, void *p, size_t length) { printf("%s %p %zu\n", name, p, length); }

static unsigned char *file(const char *name, size_t length, int flags) {
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    unsigned char *text = malloc(length);
    pattern(text, length, 3);
    if (fd < 0 || write(fd, text, length) != (ssize_t)length) exit(2);
    free(text);
    unsigned char *p = mmap(0, length, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (p == MAP_FAILED) exit(2);
    close(fd);
    return p;
}

int main(void) {
    volatile unsigned char sink;

    unsigned char *written = anonymous(5 * MIB, 0);
    pattern(written, 5 * MIB, 1);
    say("written", written, 5 * MIB);

    /* Every third page of it. */
    unsigned char *sparse = anonymous(3 * MIB, 0);
    for (size_t at = 0; at < 3 * MIB; at += 3 * PAGE) sparse[at] = (unsigned char)(at >> 12 | 1);
    say("sparse", sparse, 3 * MIB);

    say("untouched", anonymous(64 * MIB, 0), 64 * MIB);

    unsigned char *zero = anonymous(1 * MIB, 0);
    for (size_t at = 0; at < 1 * MIB; at += PAGE) sink = zero[at];
    say("zero", zero, 1 * MIB);

    unsigned char *huge = anonymous(8 * MIB, 0);
    madvise(huge, 8 * MIB, MADV_HUGEPAGE);
    pattern(huge, 4 * MIB, 2);
    say("huge", huge, 4 * MIB);

    unsigned char *hidden = anonymous(2 * PAGE, 0);
    pattern(hidden, PAGE, 4);
    mprotect(hidden, 2 * PAGE, PROT_NONE);
    say("hidden", hidden, 2 * PAGE);

    unsigned char *vast = anonymous(1UL << 42, MAP_NORESERVE);
    vast[1UL << 41] = 9;
    say("vast", vast, 1UL << 42);

    unsigned char *mapped = file("private", 32 * MIB, MAP_PRIVATE);
    mapped[5 * PAGE + 1] = 'C';
    say("private_file", mapped, 32 * MIB);
    say("shared_file", file("shared", 16 * PAGE, MAP_SHARED), 16 * PAGE);

    unsigned char *removed = file("removed", 16 * PAGE, MAP_PRIVATE);
    unlink("removed");
    say("removed_file", removed, 16 * PAGE);

    /* Cut to one and a half pages after it was mapped: the third page raises SIGBUS. */
    unsigned char *cut = file("cut", 4 * PAGE, MAP_SHARED);
    if (truncate("cut", PAGE + PAGE / 2)) return 2;
    say("cut_file", cut, 4 * PAGE);

    unsigned char *shm = mmap(0, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pattern(shm, 4 * PAGE, 5);
    say("shm", shm, 16 * PAGE);

    int memfd = memfd_create("code", 0);
    if (ftruncate(memfd, 4 * PAGE)) return 2;
    unsigned char *code = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    pattern(code, PAGE, 6);
    unsigned char *private_memfd = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, memfd, 0);
    say("private_memfd", private_memfd, 4 * PAGE);

    say("global", global, sizeof global);
    unsigned char *block = malloc(300);
    pattern(block, 300, 8);
    say("block", block, 300);

    printf("ready %d\n", getpid());
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        puts("here");
        fflush(stdout);
    }
    (void)sink;
    return 0;
}
