/* A target with a known heap: does what argv[1] says, then prints what malloc says of itself and every
 * block it holds, "ready PID", and the same again after each line it reads.
 *
 * Nothing here uses stdio: it would allocate. With -DPORTABLE it asks only for symbols that glibc 2.2.5
 * had, so that one build runs on all. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef PORTABLE
#define OLD(name) __asm__(".symver " #name "," #name "@GLIBC_2.2.5")
OLD(pthread_create);
OLD(pthread_join);
OLD(memcpy);
typedef struct mallinfo info_t;
#define INFO mallinfo
#define FIELD(f) ((unsigned long)(unsigned)info.f)
#else
typedef struct mallinfo2 info_t;
#define INFO mallinfo2
#define FIELD(f) ((unsigned long)info.f)
#endif

#define MAX_LIVE 2000000
static void *live[MAX_LIVE];
static int lives;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static char out[1 << 16];
static int filled;

static void flush(void) {
  for (int done = 0; done < filled;) done += write(1, out + done, filled - done);
  filled = 0;
}

static void put(const char *s) {
  if (filled + 64 > (int)sizeof out) flush();
  while (*s) out[filled++] = *s++;
}

static void number(unsigned long n) {
  char digits[24], *p = digits + 23;
  *p = 0;
  do *--p = '0' + n % 10; while (n /= 10);
  *--p = ' ';
  put(p);
}

static void keep(void *p) {
  pthread_mutex_lock(&lock);
  live[lives++] = p;
  pthread_mutex_unlock(&lock);
}

static void *get(size_t n) {
  char *p = malloc(n);
  memset(p, 0x5a, n);
  keep(p);
  return p;
}

/* Frees one of the live blocks and forgets it. */
static void drop(int i) {
  free(live[i]);
  live[i] = live[--lives];
}

static void report(void) {
  info_t info = INFO();
  put("m");
  number(FIELD(arena)); number(FIELD(ordblks)); number(FIELD(smblks)); number(FIELD(hblks));
  number(FIELD(hblkhd)); number(FIELD(usmblks)); number(FIELD(fsmblks)); number(FIELD(uordblks));
  number(FIELD(fordblks)); number(FIELD(keepcost));
  put("\n");
  for (int i = 0; i < lives; i++) {
    put("b"); number((unsigned long)live[i]); number(malloc_usable_size(live[i])); put("\n");
  }
}

static uint64_t seed = 88172645463325252ull;
static uint64_t rnd(void) {
  seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17;
  return seed;
}

static size_t size(void) {
  switch (rnd() % 16) {
    case 0: return rnd() % 200000;
    case 1: case 2: return rnd() % 8000;
    default: return rnd() % 300;
  }
}

static void churn(int n) {
  while (n--) {
    switch (rnd() % 5) {
      case 0: case 1: if (lives < 4000) { keep(malloc(size())); break; }
      case 2: case 3: if (lives) drop(rnd() % lives); break;
      case 4: if (lives) { int i = rnd() % lives; live[i] = realloc(live[i], size() + 1); } break;
    }
  }
}

static int go[2];
static void *worker(void *arg) {
  long kind = (long)arg;
  char c;
  void *mine[64];
  for (int i = 0; i < 64; i++) mine[i] = malloc(24 + 16 * (i % 8));
  if (kind == 0) for (int i = 0; i < 90000; i++) get(1000);          /* more than one 64 MiB heap */
  else for (int i = 0; i < 3000; i++) get(rnd() % 500);
  for (int i = 0; i < 64; i++) free(mine[i]);                        /* tcache full, then fastbins */
  char ok = 1;
  if (write(go[1], &ok, 1) != 1) abort();
  for (;;) pause();
  return 0;
}

static int is(const char *a, const char *b) { return strcmp(a, b) == 0; }

static int run(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "none";
  if (is(what, "small")) {
    for (int i = 0; i < 1500; i++) get(i % 15 + 1);
  } else if (is(what, "big")) {
    for (int i = 1; i <= 10; i++) get((size_t)i << 20);
  } else if (is(what, "mixed")) {
    for (int i = 0; i < 100; i++) get(256);
    drop(50);
    get(1000); get(1000); get(256000);
  } else if (is(what, "random")) {
    churn(5000);
  } else if (is(what, "threads")) {
    pthread_t t;
    if (pipe(go)) return 1;
    for (long i = 0; i < 4; i++) {
      char c;
      pthread_create(&t, 0, worker, (void *)i);
      if (read(go[0], &c, 1) != 1) return 1;
    }
    /* what one thread got, another frees: chunks of other arenas in this thread's tcache */
    for (int i = 0; i < 2000; i++) drop(rnd() % lives);
  } else if (is(what, "fastbins")) {
    static void *p[400];
    for (int i = 0; i < 400; i++) { p[i] = malloc(16 + 16 * (i % 6)); get(24); }
    for (int i = 0; i < 400; i++) free(p[i]);
  } else if (is(what, "tcache")) {
    static void *p[2000];
    for (int i = 0; i < 2000; i++) { p[i] = malloc(16 * (i % 70) + 8); get(24); }
    for (int i = 0; i < 2000; i++) free(p[i]);
  } else if (is(what, "noncontiguous")) {
    for (int i = 0; i < 50; i++) get(1000);
    void *end = (void *)(((uintptr_t)sbrk(0) + 4095) & ~4095ul);
    mmap(end, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (int i = 0; i < 30000; i++) get(rnd() % 300);
    for (int i = 0; i < 5000; i++) drop(rnd() % lives);
    get(300000);
  } else if (is(what, "mmap-only")) {
    void *end = (void *)(((uintptr_t)sbrk(0) + 4095) & ~4095ul);
    mmap(end, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (int i = 0; i < 20000; i++) get(rnd() % 300);
  } else if (is(what, "foreign")) {
    for (int round = 0; round < 5; round++) {
      for (int i = 0; i < 3000; i++) get(rnd() % 300);
      char *mine = sbrk(8192 + 40);
      memset(mine, round, 8192 + 40);
    }
    for (int i = 0; i < 3000; i++) get(rnd() % 300);
    for (int i = 0; i < 4000; i++) drop(rnd() % lives);
  } else if (is(what, "aligned")) {
    for (int shift = 5; shift <= 22; shift++) {
      void *p = memalign((size_t)1 << shift, 300000 + 1000 * shift);
      *(volatile char *)p = 1;
      keep(p);
      keep(memalign((size_t)1 << (shift % 12 + 4), 100));
    }
  }
  report();
  put("ready"); number(getpid()); put("\n"); flush();
  char c;
  while (read(0, &c, 1) == 1) {
    if (c != '\n') continue;
    churn(700);
    report();
    put("done\n"); flush();
  }
  return 0;
}

#ifdef PORTABLE
__asm__(".symver __libc_start_main,__libc_start_main@GLIBC_2.2.5");
int __libc_start_main(int (*)(int, char **), int, char **, void (*)(void), void (*)(void), void (*)(void), void *);
__attribute__((used)) static void begin(long *sp) {
  __libc_start_main(run, (int)sp[0], (char **)(sp + 1), 0, 0, 0, (void *)0);
}
__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n hlt\n");
#else
int main(int argc, char **argv) { return run(argc, argv); }
#endif
