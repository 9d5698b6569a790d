//! Of a program that has every kind of memory.

use crate::{PAGE, assert_same, write};
use std::process::Command;
use wmr_memory::live::{LiveOptions, attach};
use wmr_memory::{Target, Why};

const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (1ul << 20)
#define GIB (1ul << 30)

static int file(const char *name) {
    int fd = open(name, O_RDWR | O_CREAT, 0600);
    static char bytes[8 * 4096];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = i / 4096 + 'a';
    write(fd, bytes, sizeof bytes);
    return fd;
}

static char *map(const char *what, size_t size, int prot, int flags, int fd) {
    char *p = mmap(0, size, prot, flags, fd, 0);
    /* Neighbours alike would be one mapping. */
    mmap(0, 4096, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    printf("%s %lx\n", what, (unsigned long)p);
    return p;
}

int main(void) {
    const int rw = PROT_READ | PROT_WRITE, anonymous = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *p = map("written", 4 * MIB, rw, anonymous, -1);
    madvise(p, 4 * MIB, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < 4 * MIB; i++) p[i] = i * 31 >> 3;
    p = map("sparse", 64 * MIB, rw, anonymous, -1);
    madvise(p, 64 * MIB, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < 64 * MIB; i += 3 * 4096) p[i] = i >> 12 | 1;
    /* In RAM, and zeroes all the same. */
    p = map("zeroed", MIB, rw, anonymous, -1);
    madvise(p, MIB, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < MIB; i += 4096) p[i] = 1;
    memset(p, 0, MIB);
    map("reserved", GIB, PROT_NONE, anonymous, -1);
    map("untouched", GIB - 4096, rw, anonymous, -1);
    p = map("vast", 2048 * GIB, rw, anonymous, -1);
    madvise(p, 2048 * GIB, MADV_NOHUGEPAGE);
    strcpy(p + 1024 * GIB, "far out");
    p = map("hidden", 4 * MIB, rw, anonymous, -1);
    madvise(p, 4 * MIB, MADV_NOHUGEPAGE);
    strcpy(p + MIB, "not for everybody");
    mprotect(p, 4 * MIB, PROT_NONE);

    p = map("clean", 8 * 4096, PROT_READ, MAP_PRIVATE, file("clean"));
    volatile char sum = p[0] + p[4096];
    p = map("changed", 8 * 4096, rw, MAP_PRIVATE, file("changed"));
    sum += p[0];
    p[5 * 4096] = 'C';
    p = map("shared", 8 * 4096, rw, MAP_SHARED, file("shared"));
    p[0] = 'S';
    int fd = file("removed");
    p = map("removed", 8 * 4096, PROT_READ, MAP_PRIVATE, fd);
    sum += p[2 * 4096];
    unlink("removed");
    fd = memfd_create("memory", 0);
    ftruncate(fd, MIB);
    p = map("memfd", MIB, rw, MAP_SHARED, fd);
    strcpy(p + 2 * 4096, "in a memfd");
    fd = memfd_create("private", 0);
    write(fd, "of the file", 12);
    ftruncate(fd, 4 * 4096);
    p = map("private_memfd", 4 * 4096, rw, MAP_PRIVATE, fd);
    strcpy(p + 4096, "of the process");
    p = map("anonymous_shared", MIB, rw, MAP_SHARED | MAP_ANONYMOUS, -1);
    strcpy(p, "with children");

    printf("ready %d\n", getpid());
    fflush(stdout);
    getchar();
}
"#;

#[test]
fn every_kind_of_memory_is_stored_or_said_to_lack() {
    let program = wmr_testing::compile_c(PROGRAM, &["-O1"]).unwrap();
    let process = wmr_testing::Target::start(Command::new(&*program)).unwrap();
    let at = |what: &str| {
        let line = process.truth().iter().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
        u64::from_str_radix(line.expect(what), 16).unwrap()
    };
    let live = attach(process.pid(), &LiveOptions { max_pause: None, ..LiveOptions::default() }).unwrap();
    let core = write(&live);
    assert!(core.written.notes.is_empty(), "{:?}", core.written.notes);
    let copy = core.open();
    assert_same(&live, &copy);

    // Sparse: one page in three of 64 MiB, 4 MiB, and what a small program has; blocks of metadata.
    let metadata = std::fs::metadata(&core.path).unwrap();
    let stored = core.written.bytes;
    assert!((25 << 20..30 << 20).contains(&stored), "{stored}");
    assert!((stored..stored + (4 << 20)).contains(&core.on_disk()), "{} {stored}", core.on_disk());
    assert!(metadata.len() > 1 << 30, "holes count");
    assert!(metadata.len() < 2 << 30, "what is vast is not in the file: {}", metadata.len());
    let resident: u64 = live.mappings.iter().map(|m| m.residency.charge(m.start..m.end).resident).sum();
    assert!((stored..resident).contains(&core.progress), "{} {stored} {resident}", core.progress);

    let word = |target: &Target, addr| target.reader().u8(addr).map_err(|fault| fault.why);
    for (what, offset, expected) in [
        ("untouched", 0, Ok(0)),
        ("untouched", (1 << 30) - 2 * PAGE, Ok(0)),
        ("zeroed", 0, Ok(0)),
        ("vast", 0, Ok(0)),
        ("vast", 1 << 40, Ok(b'f')),
        ("vast", (1 << 41) - 1, Ok(0)),
        ("reserved", 0, Err(Why::NotReadable)),
        ("hidden", 0, Err(Why::NotReadable)),
        ("hidden", 1 << 20, Ok(b'n')),
        ("hidden", 2 << 20, Err(Why::NotReadable)),
        ("changed", 0, Ok(b'a')),
        ("changed", 5 * PAGE, Ok(b'C')),
        ("changed", 7 * PAGE, Ok(b'h')),
        ("clean", 0, Err(Why::NotCaptured)),
        ("shared", 0, Err(Why::NotCaptured)),
        ("removed", 2 * PAGE, Ok(b'c')),
        ("memfd", 2 * PAGE, Ok(b'i')),
        ("memfd", 64 * PAGE, Err(Why::NotCaptured)),
        ("private_memfd", PAGE, Ok(b'o')),
        ("anonymous_shared", 0, Ok(b'w')),
    ] {
        assert_eq!(word(&copy, at(what) + offset), expected, "{what} {offset:x}");
    }
    // In RAM though it is zeroes; and not, though it is in the file.
    let charge = |what: &str, size: u64| {
        let range = at(what)..at(what) + size;
        let here = copy.mappings.iter().filter(|m| m.start < range.end && range.start < m.end);
        here.map(|m| m.residency.charge(range.clone()).resident).sum::<u64>()
    };
    assert_eq!(charge("zeroed", 1 << 20), 1 << 20);
    assert_eq!(charge("untouched", (1 << 30) - PAGE) + charge("reserved", 1 << 30), 0);
    assert_eq!(charge("vast", 1 << 41), PAGE);

    // gdb takes zeroes from p_memsz, clean pages from their files, and nothing from where nothing is.
    let cases = [
        ("untouched", 0, "0x00"),
        ("vast", 0, "0x00"),
        ("vast", 1 << 40, "0x66"),
        ("vast", (1 << 41) - 1, "0x00"),
        ("hidden", 1 << 20, "0x6e"),
        ("clean", PAGE, "0x62"),
        ("changed", 5 * PAGE, "0x43"),
        ("shared", 0, "0x53"),
        ("removed", 2 * PAGE, "0x63"),
        ("memfd", 2 * PAGE, "0x69"),
        ("memfd", 64 * PAGE, ""),
        ("anonymous_shared", 0, "0x77"),
    ];
    let commands: Vec<String> =
        cases.iter().map(|(what, offset, _)| format!("x/bx {:#x}", at(what) + offset)).collect();
    let said = core.gdb(Some(&program), &commands);
    for (what, offset, expected) in cases {
        let addr = at(what) + offset;
        let expected = match expected {
            "" => format!("Cannot access memory at address {addr:#x}"),
            byte => format!("{addr:#x}:\t{byte}"),
        };
        assert!(said.contains(&expected), "{what} {offset:x}: {said}");
    }
}
