/* What probe.py is for a workload, in a process of one block of memory: `probe MIB huge|small`. */
#define _GNU_SOURCE
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
static uint64_t now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}
static int told(void) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, 0) != 0;
}
int main(int argc, char **argv) {
    size_t size = strtoul(argv[1], 0, 10) << 20, huge = 2 << 20;
    char *space = mmap(0, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *block = (char *)(((uintptr_t)space + huge - 1) & -huge), order[32];
    madvise(space, size + huge, argv[2][0] == 'h' ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    memset(block, 1, size);
    setvbuf(stdin, 0, _IONBF, 0);
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (fgets(order, sizeof order, stdin)) {
        uint64_t largest = 0, rounds = 0, wall = 0, cpu = 0;
        int spins = !strcmp(order, "spin\n");
        printf("begins\n");
        fflush(stdout);
        if (spins) {
            uint64_t last = now(CLOCK_MONOTONIC), next;
            while (!told()) {
                for (int i = 0; i < 2000; i++, last = next) {
                    next = now(CLOCK_MONOTONIC);
                    if (next - last > largest) largest = next - last;
                }
            }
        } else do {
            uint64_t began = now(CLOCK_MONOTONIC), began_cpu = now(CLOCK_THREAD_CPUTIME_ID);
            /* As far apart as reference counts may be: something on every page. */
            for (size_t at = 0; at < size; at += 256) ((volatile char *)block)[at]++;
            wall += now(CLOCK_MONOTONIC) - began;
            cpu += now(CLOCK_THREAD_CPUTIME_ID) - began_cpu;
            rounds++;
        } while (!told());
        if (!fgets(order, sizeof order, stdin)) break;
        if (spins) printf("%lu\n", (unsigned long)largest);
        else printf("%lu %lu %lu\n", (unsigned long)rounds, (unsigned long)wall, (unsigned long)cpu);
        fflush(stdout);
    }
}
