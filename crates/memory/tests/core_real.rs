//! Cores of real processes, by gdb and by the kernel, against the process's own word.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use wmr_memory::{Backing, CoreError, CoreOptions, Target, Why, open_core, open_core_bytes};
use wmr_testing::{READY, compile_c, gcore, kernel_core, python};

/// Reports `address content` of every kind of memory, then waits.
const PROGRAM: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char constant[] = "a constant in .rodata";
static char data[] = "a variable in .data";
static char bss[64];
static __thread char local[32];

static void say(const char *what, const char *p, size_t n) {
    printf("%s %lx ", what, (unsigned long)p);
    for (size_t i = 0; i < n; i++) printf("%02x", (unsigned char)p[i]);
    printf("\n");
}

static pthread_barrier_t barrier;

static void *thread(void *unused) {
    char stack[32] = "on the stack of a thread";
    strcpy(local, "thread-local");
    say("stack2", stack, sizeof stack);
    say("tls", local, sizeof local);
    printf("tid %ld\n", syscall(SYS_gettid));
    pthread_barrier_wait(&barrier);
    pause();
    return stack;
}

int main(int argc, char **argv) {
    char stack[32] = "on the main stack";
    strcpy(bss, "in .bss");
    char *heap = strdup("on the heap");
    char *large = malloc(1 << 20);
    strcpy(large, "mmapped by malloc");
    /* Neighbours with the same permissions would be joined to one mapping. */
    char *fence = mmap(0, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *untouched = fence + 0x10000, *half = fence + 0x40000, *dont = fence + 0x80000;
    mprotect(untouched, 1 << 16, PROT_READ | PROT_WRITE);
    mprotect(half, 1 << 16, PROT_READ | PROT_WRITE);
    mprotect(dont, 1 << 16, PROT_READ | PROT_WRITE);
    strcpy(half + 0x2000, "in the middle of nothing");
    strcpy(dont, "not to be dumped");
    madvise(dont, 1 << 16, MADV_DONTDUMP);
    /* .text is never written to: the kernel leaves it out. */
    say("text", (char *)main, 64);
    say("libc", (char *)qsort, 64);
    say("constant", constant, sizeof constant);
    say("data", data, sizeof data);
    say("bss", bss, sizeof bss);
    say("heap", heap, 12);
    say("large", large, 64);
    say("half", half + 0x1ff0, 64);
    say("stack", stack, sizeof stack);
    say("argument", argv[1], strlen(argv[1]) + 1);
    printf("untouched %lx\n", (unsigned long)untouched);
    printf("fence %lx\n", (unsigned long)fence);
    printf("dont %lx\n", (unsigned long)dont);
    printf("main %lx\n", (unsigned long)main);
    prctl(PR_SET_NAME, "some name");
    pthread_barrier_init(&barrier, 0, 2);
    pthread_t other;
    pthread_create(&other, 0, thread, 0);
    pthread_barrier_wait(&barrier);
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (getchar() != EOF) {}
    return 0;
}
"#;

fn options() -> CoreOptions {
    CoreOptions::default()
}

/// The program's report: what, address, bytes.
fn report(truth: &[String]) -> Vec<(String, u64, Vec<u8>)> {
    let line = |line: &String| {
        let mut words = line.split(' ');
        let (what, addr) = (words.next()?, words.next()?);
        let hex = words.next().unwrap_or_default();
        let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
        Some((what.to_owned(), u64::from_str_radix(addr, 16).ok()?, bytes.collect()))
    };
    truth.iter().filter_map(line).collect()
}

fn addr_of(truth: &[(String, u64, Vec<u8>)], what: &str) -> u64 {
    truth.iter().find(|t| t.0 == what).expect(what).1
}

fn start() -> (wmr_testing::TempFile, wmr_testing::Target) {
    let program = compile_c(PROGRAM, &["-O1", "-pthread"]).unwrap();
    let mut command = Command::new(&*program);
    command.args(["an argument", "", "last"]);
    let target = wmr_testing::Target::start(command).unwrap();
    (program, target)
}

fn maps_of(pid: i32) -> Vec<(u64, u64, String, String)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let perms = words.next()?.to_owned();
        let name = words.nth(3).unwrap_or_default().to_owned();
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?, perms, name))
    };
    maps.lines().map(|l| line(l).unwrap()).collect()
}

struct Case {
    truth: Vec<(String, u64, Vec<u8>)>,
    maps: Vec<(u64, u64, String, String)>,
    threads: HashSet<i32>,
    pid: i32,
    program: wmr_testing::TempFile,
    core: wmr_testing::TempFile,
}

fn case(kernel: bool) -> Case {
    let (program, target) = start();
    let pid = target.pid();
    let truth = report(target.truth());
    let maps = maps_of(pid);
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let threads = tasks.map(|t| t.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let core = if kernel { kernel_core(target).unwrap() } else { gcore(pid).unwrap() };
    Case { truth, maps, threads, pid, program, core }
}

/// What holds for either writer's core, with the target's files at hand.
fn check(case: &Case, kernel: bool) -> Target {
    let target = open_core(&case.core, &options()).unwrap();
    assert!(target.notes.is_empty(), "{:?}", target.notes);
    let mut reader = target.reader();
    for (what, addr, bytes) in case.truth.iter().filter(|t| !t.2.is_empty()) {
        let mut got = vec![0; bytes.len()];
        reader.read(*addr, &mut got).unwrap_or_else(|fault| panic!("{what}: {fault}"));
        assert_eq!(&got, bytes, "{what}");
    }

    assert_eq!(target.process.pid, case.pid);
    // The kernel names the thread that forked, gdb the process.
    let parent = target.process.ppid.unwrap();
    assert!(Path::new(&format!("/proc/self/task/{parent}")).exists(), "{parent}");
    assert_eq!(target.process.exe, case.program.as_os_str().as_encoded_bytes());
    let arguments: Vec<&[u8]> = target.process.cmdline.iter().skip(1).map(|a| &a[..]).collect();
    assert_eq!(arguments, [&b"an argument"[..], b"", b"last"]);
    assert_eq!(target.process.cmdline[0], target.process.exe);

    let tids: HashSet<i32> = target.threads.iter().map(|t| t.tid).collect();
    assert_eq!(tids, case.threads);
    for (what, thread) in
        [("stack", case.pid), ("stack2", tids.iter().copied().find(|&t| t != case.pid).unwrap())]
    {
        let thread = target.threads.iter().find(|t| t.tid == thread).unwrap();
        let at = addr_of(&case.truth, what);
        assert!(thread.sp <= at && at - thread.sp < 0x2000, "{what}: {thread:x?}");
        assert!(target.image(thread.ip).is_some(), "{thread:x?}");
        // The first word of a thread's control block points at itself.
        assert_eq!(reader.u64(thread.tls), Ok(thread.tls));
    }
    let main = target.threads.iter().find(|t| t.tid == case.pid).unwrap();
    // gdb takes the name from the program's file.
    let by_file = case.program.file_name().unwrap().as_encoded_bytes();
    assert_eq!(main.name, if kernel { b"some name" } else { by_file });

    let image = target.image(addr_of(&case.truth, "text")).unwrap();
    assert_eq!(image.symbol("main"), Some(addr_of(&case.truth, "main")));
    assert_eq!(image.symbolize(addr_of(&case.truth, "constant") + 2), Some(("constant", 2)));
    let libc = target.image(addr_of(&case.truth, "libc")).unwrap();
    assert_eq!(libc.symbol("qsort"), Some(addr_of(&case.truth, "libc")));

    // Mappings, by the live process's own list.
    assert!(target.mappings.windows(2).all(|w| w[0].end <= w[1].start));
    for mapping in &target.mappings {
        let (start, end) = (mapping.start, mapping.end);
        let theirs = case.maps.iter().find(|m| m.0 <= start && end <= m.1);
        let (_, _, perms, name) = theirs.unwrap_or_else(|| panic!("{start:x}-{end:x} is not in maps"));
        let name = name.trim_end_matches("_vclock]").trim_end_matches(']');
        assert!(
            String::from_utf8_lossy(&mapping.name).starts_with(name),
            "{start:x}: {name} {:?}",
            mapping.name
        );
        if mapping.backing != Backing::Kernel {
            assert_eq!(mapping.perms.write, perms.contains('w'), "{start:x} {name}");
            assert_eq!(mapping.perms.exec, perms.contains('x'), "{start:x} {name}");
        }
    }
    for (name, backing) in [("[heap]", Backing::Brk), ("[stack]", Backing::Stack)] {
        let ours = target.mappings.iter().find(|m| m.name == name.as_bytes()).expect(name);
        let theirs = case.maps.iter().find(|m| m.3 == name).unwrap();
        assert_eq!((ours.start, ours.backing), (theirs.0, backing), "{name}");
    }
    assert_eq!(charged(&target), stored_by_readelf(&case.core));
    target
}

fn charged(target: &Target) -> u64 {
    target.mappings.iter().map(|m| m.residency.charge(m.start..m.end).total()).sum()
}

/// Σ p_filesz of the loadable segments.
fn stored_by_readelf(core: &Path) -> u64 {
    let out = Command::new("readelf").args(["-lW"]).arg(core).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let size = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "LOAD").then(|| words.nth(3))?.map(|w| w.to_owned())
    };
    text.lines().filter_map(size).map(|w| u64::from_str_radix(&w[2..], 16).unwrap()).sum()
}

#[test]
fn a_core_by_gdb_equals_the_process() {
    let case = case(false);
    let target = check(&case, false);
    let mut reader = target.reader();
    // gdb stores what it can read.
    assert_eq!(reader.u64(addr_of(&case.truth, "untouched")), Ok(0));
}

#[test]
fn a_core_by_the_kernel_equals_the_process() {
    let case = case(true);
    let target = check(&case, true);
    let why = |what| target.reader().u64(addr_of(&case.truth, what)).map_err(|f| f.why);
    assert_eq!(why("untouched"), Err(Why::NotCaptured));
    assert_eq!(why("dont"), Err(Why::NotCaptured), "never zeroes, and never a neighbour's bytes");
    assert_eq!(why("fence"), Err(Why::NotReadable));
    assert_eq!(target.reader().u64(0x10).map_err(|f| f.why), Err(Why::NotMapped));
}

#[test]
fn without_the_files_their_text_is_missing_and_told_once() {
    let case = case(true);
    let bytes = std::fs::read(&case.core).unwrap();
    let target = open_core_bytes(bytes).unwrap();
    let text = addr_of(&case.truth, "text");
    let mut buf = [0; 16];
    let fault = target.reader().read(text, &mut buf).unwrap_err();
    assert_eq!((fault.addr, fault.why), (text, Why::NotCaptured));
    // A read across the end of what is stored names the first address that is not.
    let start = target.mapping(text).unwrap().start;
    let fault = target.reader().read(start - 8, &mut buf).unwrap_err();
    assert_eq!((fault.addr, fault.why), (start, Why::NotCaptured));

    let exe = case.program.to_str().unwrap();
    let told: Vec<&String> = target.notes.iter().filter(|n| n.contains(exe)).collect();
    assert_eq!(told.len(), 1, "{:?}", target.notes);
    let readelf = Command::new("readelf").arg("-n").arg(&*case.program).output().unwrap();
    let readelf = String::from_utf8_lossy(&readelf.stdout).into_owned();
    let id = readelf.split("Build ID: ").nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(told[0].contains(id), "{told:?}");
    // Its dynamic symbols are in writable memory, .dynsym is not.
    let data = addr_of(&case.truth, "data");
    assert_eq!(target.reader().u8(data), Ok(b'a'));
}

#[test]
fn only_the_file_with_the_same_build_id_is_used() {
    let case = case(true);
    let text = addr_of(&case.truth, "text");
    let truth = &case.truth.iter().find(|t| t.0 == "text").unwrap().2;
    // Another program in its place, and the right one under a sysroot.
    let root = tempfile::tempdir().unwrap();
    let below = root.path().join(case.program.strip_prefix("/").unwrap());
    std::fs::create_dir_all(below.parent().unwrap()).unwrap();
    std::fs::copy(&*case.program, &below).unwrap();
    let other = compile_c("int main(void) { return 1; }", &[]).unwrap();
    std::fs::remove_file(&*case.program).unwrap();
    std::fs::copy(&*other, &*case.program).unwrap();

    let target = open_core(&case.core, &options()).unwrap();
    assert_eq!(target.reader().u64(text).map_err(|f| f.why), Err(Why::NotCaptured));
    let exe = case.program.to_str().unwrap();
    assert_eq!(target.notes.iter().filter(|n| n.contains(exe)).count(), 1);

    let with_root = CoreOptions { sysroot: Some(root.path().to_owned()), ..options() };
    let target = open_core(&case.core, &with_root).unwrap();
    let mut got = vec![0; truth.len()];
    target.reader().read(text, &mut got).unwrap();
    assert_eq!(&got, truth);
    assert!(target.notes.is_empty(), "{:?}", target.notes);
}

#[test]
fn compressed_cores_open_like_plain_ones() {
    let case = case(true);
    let plain = open_core(&case.core, &options()).unwrap();
    let bytes = std::fs::read(&case.core).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (tool, name) in [("zstd", "core.zst"), ("lz4", "core.lz4")] {
        let path = folder.path().join(name);
        let packed = match tool {
            "zstd" => zstd::encode_all(&bytes[..], 3).unwrap(),
            _ => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                std::io::Write::write_all(&mut encoder, &bytes).unwrap();
                encoder.finish().unwrap()
            }
        };
        std::fs::write(&path, &packed).unwrap();
        let target = open_core(&path, &options()).unwrap();
        assert!(target.notes.is_empty(), "{:?}", target.notes);
        assert_eq!(charged(&target), charged(&plain));
        for (what, addr, bytes) in case.truth.iter().filter(|t| !t.2.is_empty()) {
            let mut got = vec![0; bytes.len()];
            target.reader().read(*addr, &mut got).unwrap();
            assert_eq!(&got, bytes, "{tool} {what}");
        }

        let tight = CoreOptions { max_unpacked: Some(4096), ..options() };
        let refused = open_core(&path, &tight).err().unwrap();
        assert!(matches!(refused, CoreError::Unpack { .. }), "{refused}");

        std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
        match open_core(&path, &options()) {
            Ok(target) => assert!(target.notes[0].contains("ends early"), "{:?}", target.notes),
            // The whole is one block for lz4.
            Err(refused) => assert!(matches!(refused, CoreError::Unpack { .. }), "{refused}"),
        }
    }
}

#[test]
fn a_core_cut_anywhere_opens_in_part_or_says_why() {
    let case = case(true);
    let bytes = std::fs::read(&case.core).unwrap();
    let whole = open_core_bytes(bytes.clone()).unwrap();
    let total = charged(&whole);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let cuts = (0..200).map(|i| i * 8).chain((0..200).map(|i| 4096 * i)).chain((0..200).map(|_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % bytes.len()
    }));
    for cut in cuts.filter(|&cut| cut < bytes.len()) {
        let target = match open_core_bytes(bytes[..cut].to_vec()) {
            Ok(target) => target,
            Err(CoreError::Empty) if cut == 0 => continue,
            Err(CoreError::NoHeader(_)) if cut < 64 => continue,
            Err(CoreError::NoSegments(_)) if cut < 64 + 2 * 56 => continue,
            Err(other) => panic!("cut at {cut}: {other}"),
        };
        let told = target.notes.iter().find(|n| n.contains("truncated core"));
        let told = told.unwrap_or_else(|| panic!("cut at {cut}: nothing told"));
        let kept = charged(&target);
        // With all program headers there, the loss is told to the byte.
        if target.mappings.len() == whole.mappings.len() {
            assert!(told.contains(&format!("{} bytes", total - kept)), "cut at {cut}: {told}");
        }
        // What is still read is what was there.
        let mut reader = target.reader();
        for (what, addr, bytes) in &case.truth {
            let mut got = vec![0; bytes.len()];
            if reader.read(*addr, &mut got).is_ok() {
                assert_eq!(&got, bytes, "cut at {cut}: {what}");
            }
        }
    }
}

#[test]
fn a_python_core_has_its_interpreter() {
    for (tag, kernel) in [("3.11", false), ("3.13", true), ("3.13", false)] {
        let Some(python) = python(tag) else { continue };
        let script = format!(
            "s = b'a marker in the heap %d' % 42\nimport sys\nprint(hex(id(s))[2:], len(s))\nsys.stdout.flush()\n{READY}"
        );
        let target = python.spawn(&script).unwrap();
        let truth = target.truth()[0].clone();
        let core = if kernel { kernel_core(target).unwrap() } else { gcore(target.pid()).unwrap() };
        let target = open_core(&core, &options()).unwrap();
        assert!(target.notes.is_empty(), "{:?}", target.notes);
        let (addr, len) = truth.split_once(' ').unwrap();
        let addr = u64::from_str_radix(addr, 16).unwrap();
        // PyBytesObject.ob_sval at 32.
        let mut got = vec![0; len.parse().unwrap()];
        target.reader().read(addr + 32, &mut got).unwrap();
        assert_eq!(got, b"a marker in the heap 42");
        // Its type, and the type's name: a constant, left out by the kernel.
        let kind = target.reader().u64(addr + 8).unwrap();
        let image = target.image(kind).unwrap();
        assert_eq!(image.symbol("PyBytes_Type"), Some(kind));
        let name = target.reader().u64(kind + 24).unwrap();
        assert_eq!(target.reader().cstr(name, 20).unwrap(), b"bytes");
        assert!(image.section(".PyRuntime").is_some() || image.symbol("_PyRuntime").is_some());
    }
}
