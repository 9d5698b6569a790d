//! What is read equals what the target has there.

use super::super::{picture, start, status};
use std::collections::HashMap;
use wmr_memory::live::{Capturing, LiveOptions, attach};
use wmr_memory::{Backing, Memory, Method, Why};
use wmr_testing::{READY, Target, at_rest};

pub const MENAGERIE: &str = include_str!("menagerie.c");
const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// Addresses and lengths by name, as the target printed them.
pub fn places(target: &Target) -> HashMap<String, (u64, u64)> {
    let parse = |line: &String| {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        let addr = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
        Some((name, (addr, words.next()?.parse().ok()?)))
    };
    target.truth().iter().filter_map(parse).collect()
}

/// What `pattern` in the C program writes.
fn pattern(len: u64, seed: u64) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + (i >> 12) + seed) as u8).collect()
}

fn read(memory: &dyn Memory, addr: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0xee; len as usize];
    memory.read(addr, &mut bytes).unwrap();
    bytes
}

#[test]
fn every_sort_of_mapping_reads_as_the_target_sees_it() {
    let target = start(MENAGERIE, &[]);
    let places = places(&target);
    for (capture, method) in
        [(Capturing::Clone, Method::Clone), (Capturing::Stop, Method::Stop), (Capturing::None, Method::None)]
    {
        let picture = attach(target.pid(), &LiveOptions { capture, ..LiveOptions::default() }).unwrap();
        assert_eq!(picture.capture.method, method);
        assert_eq!(picture.capture.consistent, method != Method::None);
        let memory = &*picture.memory;
        let fault = |addr| memory.read(addr, &mut [0; 8]).unwrap_err();

        let (written, len) = places["written"];
        assert!(read(memory, written, len) == pattern(len, 1));
        let window = memory.window(written + 77).map(|window| (window.start, window.bytes.to_vec()));
        let held = memory.extent(written + 77).map(|(start, bytes)| (start, bytes.to_vec()));
        assert_eq!((window.is_some(), held.is_some()), (method == Method::Clone, method != Method::Clone));
        let (start, bytes) = window.or(held).unwrap();
        assert!(start <= written && bytes[(written - start) as usize..][..99] == pattern(99, 1));

        // Every third page holds something, the others are zeroes; in one read over all of them.
        let (sparse, len) = places["sparse"];
        let mut expected = vec![0; len as usize];
        for at in (0..len).step_by(3 * PAGE as usize) {
            expected[at as usize] = ((at >> 12) | 1) as u8;
        }
        assert!(read(memory, sparse, len) == expected);

        for name in ["untouched", "zero"] {
            let (addr, len) = places[name];
            assert!(read(memory, addr, len).iter().all(|&b| b == 0), "{name}");
        }
        let (huge, len) = places["huge"];
        assert!(read(memory, huge, len) == pattern(len, 2));

        let (hidden, _) = places["hidden"];
        assert!(read(memory, hidden, PAGE) == pattern(PAGE, 4));
        assert_eq!((fault(hidden + PAGE).addr, fault(hidden + PAGE).why), (hidden + PAGE, Why::NotReadable));

        let (vast, _) = places["vast"];
        assert_eq!(read(memory, vast + (1 << 41) - 1, 3), [0, 9, 0]);

        let (file, len) = places["private_file"];
        let mut expected = pattern(len, 3);
        expected[5 * PAGE as usize + 1] = b'C';
        assert!(read(memory, file, len) == expected);
        for name in ["shared_file", "removed_file"] {
            let (addr, len) = places[name];
            assert!(read(memory, addr, len) == pattern(len, 3), "{name}");
        }
        let (cut, _) = places["cut_file"];
        let mut expected = pattern(PAGE + PAGE / 2, 3);
        expected.resize(2 * PAGE as usize, 0);
        assert!(read(memory, cut, 2 * PAGE) == expected);
        let mut over = vec![0; 3 * PAGE as usize];
        assert_eq!(memory.read(cut, &mut over).unwrap_err().addr, cut + 2 * PAGE);

        let (shm, _) = places["shm"];
        assert!(read(memory, shm, 4 * PAGE) == pattern(4 * PAGE, 5));
        // Its other pages are not there; reading them would make them.
        assert_eq!(fault(shm + 4 * PAGE).why, Why::NotCaptured);
        assert_eq!(picture.mapping(shm).unwrap().backing, Backing::SharedMemory);
        let (private, _) = places["private_memfd"];
        assert!(read(memory, private, PAGE) == pattern(PAGE, 6));

        let (global, _) = places["global"];
        assert_eq!(read(memory, global, 2), [7, 0]);
        let (block, _) = places["block"];
        assert_eq!(read(memory, block, 300), pattern(300, 8));
        assert_eq!(picture.mapping(block).unwrap().backing, Backing::Brk);

        assert_eq!(fault(16).why, Why::NotMapped);
        assert_eq!(fault(u64::MAX - 3).why, Why::NotMapped);
        for mapping in &picture.mappings {
            if mapping.backing == Backing::Kernel && mapping.name != b"[vdso]" {
                assert_eq!(fault(mapping.start).why, Why::Unsafe);
            }
        }
        let vdso = picture.mappings.iter().find(|m| m.name == b"[vdso]").unwrap();
        assert_eq!(read(memory, vdso.start, 4), b"\x7fELF");

        let state = |addr| {
            let runs = &picture.mapping(addr).unwrap().residency.runs;
            runs.iter().find(|run| run.start <= addr && addr < run.end).map(|run| run.state)
        };
        assert!(state(written).unwrap().exclusive);
        assert!(state(places["untouched"].0 + MIB).is_none());
        assert!(state(places["zero"].0).is_none_or(|state| state.zero));
        assert!(state(file + 5 * PAGE).is_some_and(|state| !state.file));
        let names: Vec<_> = picture.images.iter().map(|image| image.path.clone()).collect();
        assert!(names.iter().any(|name| name.ends_with(b"/program")), "{names:?}");
    }
}

/// Of a target at rest, to the byte.
fn assert_charged_as_smaps_says(pid: i32, what: &str) {
    at_rest(pid).unwrap();
    let picture = picture(pid);
    let charge = |m: &wmr_memory::Mapping| m.residency.charge(m.start..m.end);
    for mapping in &picture.mappings {
        let name = String::from_utf8_lossy(&mapping.name);
        assert_eq!(charge(mapping).resident, mapping.usage.rss, "{what}: {:x} {name}", mapping.start);
        assert_eq!(charge(mapping).swapped, mapping.usage.swap, "{what}: {:x} {name}", mapping.start);
        let huge: u64 = mapping
            .residency
            .runs
            .iter()
            .filter(|r| r.state.huge && !r.state.zero && !r.state.file)
            .map(|r| r.end - r.start)
            .sum();
        assert_eq!(huge, mapping.usage.anon_huge, "{what}: {:x} {name}", mapping.start);
        // Whether a file's page is private changes with who else maps the file.
        if matches!(mapping.backing, Backing::Anonymous | Backing::Brk | Backing::Stack) {
            let exclusive = mapping.residency.runs.iter().filter(|r| r.state.exclusive && r.state.charged());
            let private: u64 = exclusive.map(|r| r.end - r.start).sum();
            assert_eq!(private, mapping.usage.private_clean + mapping.usage.private_dirty, "{what}: {name}");
        }
    }
    let total: u64 = picture.mappings.iter().map(|m| charge(m).total()).sum();
    assert_eq!(total, picture.process.rss.unwrap() + picture.process.swap.unwrap(), "{what}");
    assert!(total > 0);
}

#[test]
fn the_charge_is_that_of_smaps() {
    let target = start(MENAGERIE, &[]);
    assert_charged_as_smaps_says(target.pid(), "menagerie");
    for python in wmr_testing::interpreters() {
        let script = format!("import json, threading\nx = [str(i) for i in range(20000)]\n{READY}");
        let target = python.spawn(&script).unwrap();
        assert_charged_as_smaps_says(target.pid(), &python.tag);
    }
}

const THREADS: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static pthread_barrier_t barrier;
static void *body(void *index) {
    char name[16];
    int here;
    snprintf(name, sizeof name, "worker-%ld", (long)index);
    pthread_setname_np(pthread_self(), name);
    flockfile(stdout);
    printf("%d %p %p\n", gettid(), (void *)&here, (void *)pthread_self());
    funlockfile(stdout);
    pthread_barrier_wait(&barrier);
    pause();
    return 0;
}
int main(void) {
    pthread_t thread;
    pthread_barrier_init(&barrier, 0, 21);
    for (long i = 0; i < 20; i++) pthread_create(&thread, 0, body, (void *)i);
    pthread_barrier_wait(&barrier);
    printf("ready %d\n", getpid());
    fflush(stdout);
    getchar();
}
"#;

#[test]
fn threads_have_their_registers_and_names() {
    let target = start(THREADS, &[]);
    let picture = picture(target.pid());
    assert_eq!(picture.threads.len(), 21);
    assert_eq!(status(target.pid(), "Threads"), "21");
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let mut workers = 0;
    for line in target.truth() {
        let words: Vec<_> = line.split(' ').collect();
        let (tid, local, own) = (words[0].parse::<i32>().unwrap(), hex(words[1]), hex(words[2]));
        let thread = picture.threads.iter().find(|thread| thread.tid == tid).unwrap();
        // glibc's pthread_t is the thread pointer, on x86-64 that is.
        if cfg!(target_arch = "x86_64") {
            assert_eq!(thread.tls, own);
        }
        assert!(thread.sp < local && local - thread.sp < 4096, "{:x} {local:x}", thread.sp);
        assert!(picture.mapping(thread.ip).unwrap().perms.exec);
        assert!(thread.name.starts_with(b"worker-"));
        workers += 1;
    }
    assert_eq!(workers, 20);
    let first = picture.threads.iter().find(|thread| thread.tid == target.pid()).unwrap();
    assert_eq!(picture.mapping(first.sp).unwrap().backing, Backing::Stack);
}
