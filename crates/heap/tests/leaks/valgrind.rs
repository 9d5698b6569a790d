//! Side by side with valgrind: the same program once under it and once as it is.

use super::{Seen, expect_nearly, look};
use std::path::Path;
use std::process::{Command, Stdio};
use wmr_heap::leaks::State;
use wmr_testing::{build_extension, compile_c, compile_cpp, python, workload};

/// What valgrind says of a program that ends, as XML.
fn under_valgrind(command: &Command) -> String {
    let said = tempfile::NamedTempFile::new().unwrap();
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--leak-check=full", "--xml=yes"]);
    valgrind.arg(format!("--xml-file={}", said.path().display()));
    valgrind.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        valgrind.env(name, value.unwrap_or_default());
    }
    let output = valgrind.stdin(Stdio::null()).output().expect("valgrind is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(said.path()).unwrap()
}

/// Of that what is definitely lost: where one of the functions on the stack is called `by`, or everywhere.
/// Blocks, and bytes as malloc rounds them.
fn definitely_lost(said: &str, by: &str) -> (u64, u64) {
    let number = |text: &str, tag: &str| -> u64 {
        let (_, rest) = text.split_once(&format!("<{tag}>")).unwrap_or_else(|| panic!("no {tag}: {text}"));
        rest.split('<').next().unwrap().parse().unwrap()
    };
    let lost = said.split("<error>").skip(1).filter(|error| error.contains("Leak_DefinitelyLost"));
    let lost = lost.filter(|error| by.is_empty() || error.contains(&format!("<fn>{by}</fn>")));
    let (mut blocks, mut bytes) = (0, 0);
    for error in lost {
        let (count, size) = (number(error, "leakedblocks"), number(error, "leakedbytes"));
        // With a head of eight bytes, in units of sixteen.
        blocks += count;
        bytes += count * (size / count + 8).next_multiple_of(16).max(32);
    }
    (blocks, bytes)
}

/// Loses blocks in every way that valgrind knows; waits for its input when it is asked to.
const PROGRAM: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
struct node { struct node *next; char pad[92]; };
struct node *kept;
char *inside;
static void *in_a_thread(void *unused) {
    char *block = memset(malloc(700), 1, 700);
    __asm__ volatile("" : : "r"(block) : "memory");
    return unused;
}
static void lose(void) {
    for (int i = 0; i < 100; i++) memset(malloc(500), 1, 500);
    struct node *list = 0;
    for (int i = 0; i < 10; i++) { struct node *n = calloc(1, sizeof *n); n->next = list; list = n; }
    struct node *ring = calloc(1, 300), *other = calloc(1, 300);
    ring->next = other; other->next = ring;
    for (int i = 0; i < 5; i++) { struct node *n = calloc(1, sizeof *n); n->next = kept; kept = n; }
    inside = (char *)calloc(1, 4000) + 400;
    pthread_t t;
    for (int i = 0; i < 3; i++) { pthread_create(&t, 0, in_a_thread, 0); pthread_join(t, 0); }
    for (int i = 0; i < 20; i++) free(malloc(500));
}
static void scrub(void) { volatile char below[16384]; memset((char *)below, 0, sizeof below); }
int main(int argc, char **argv) {
    lose();
    scrub();
    if (argc > 1) { printf("ready %d\n", getpid()); fflush(stdout); char c; while (read(0, &c, 1) > 0) {} }
    return 0;
}
"#;

#[test]
fn lost_blocks_are_those_of_valgrind() {
    let program = compile_c(PROGRAM, &["-O1", "-pthread"]).unwrap();
    let valgrind = Command::new("valgrind").args(["--leak-check=full"]).arg(&*program).output().unwrap();
    let text = String::from_utf8_lossy(&valgrind.stderr).into_owned();
    // ==1==    definitely lost: 52,700 bytes in 105 blocks
    let figure = |what: &str| -> (u64, u64) {
        let line = text.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {text}"));
        let words: Vec<u64> = line
            .split_once(':')
            .map(|(_, rest)| {
                rest.split_whitespace().filter_map(|w| w.replace(',', "").parse().ok()).collect()
            })
            .unwrap_or_default();
        (words[0], words[1])
    };
    let (definite, indirect) = (figure("definitely lost:"), figure("indirectly lost:"));
    let mut command = Command::new(&*program);
    command.arg("wait");
    let seen = look(wmr_testing::Target::start(command).unwrap());
    let blocks = |state: State| -> u64 {
        seen.leaks.native.iter().filter(|n| n.state == state).map(|n| n.count).sum()
    };
    // 100 + head of the list + one of the ring + 3 of the threads.
    assert_eq!((definite.1, blocks(State::Definite)), (105, 105), "{:?}\n{text}", seen.leaks.native);
    assert_eq!(indirect.1, 10, "{text}");
    let hanging: u64 = seen.leaks.native.iter().map(|n| n.indirect).sum();
    // Nine of the list, and the other of the ring, as malloc rounds them.
    assert_eq!(hanging, 9 * 112 + 320);
    // Besides, a dead thread's vector of thread-local memory, whose beginning nobody has.
    let inside = seen.leaks.native.iter().filter(|n| n.state == State::Possible && n.usable == (4008, 4008));
    assert_eq!(
        (figure("possibly lost:").1, inside.map(|n| n.count).sum()),
        (1, 1),
        "{:?}",
        seen.leaks.native
    );
    assert_eq!((seen.definite(504), seen.definite(712)), (100, 3));
}

/// Objects of two classes that are never deleted.
const OBJECTS: &str = r#"
#include <cstdio>
#include <cstring>
#include <unistd.h>
class Session { public: virtual ~Session() {} char buffer[300] = {}; };
class Named { public: virtual ~Named() {} char name[40] = {}; };
template <class T> static void lose(int count) {
    for (int i = 0; i < count; i++) { T *made = new T; __asm__ volatile("" : : "r"(made) : "memory"); }
}
static void scrub() { volatile char below[16384]; memset((char *)below, 0, sizeof below); }
int main(int argc, char **) {
    lose<Session>(300);
    lose<Named>(50);
    scrub();
    if (argc > 1) { printf("ready %d\n", getpid()); fflush(stdout); char c; while (read(0, &c, 1) > 0) {} }
}
"#;

#[test]
fn lost_objects_of_cpp_are_those_of_valgrind_and_have_their_classes() {
    let program = compile_cpp(OBJECTS, &["-O1"]).unwrap();
    let (blocks, bytes) = definitely_lost(&under_valgrind(&Command::new(&*program)), "");
    let mut command = Command::new(&*program);
    command.arg("wait");
    let seen = look(wmr_testing::Target::start(command).unwrap());
    let lost = || seen.leaks.native.iter().filter(|n| n.state == State::Definite);
    assert_eq!((blocks, lost().map(|n| n.count).sum()), (350, 350), "{:?}", seen.leaks.native);
    assert_eq!(bytes, lost().map(|n| n.bytes).sum::<u64>(), "{:?}", seen.leaks.native);
    let of = |class: &str| lost().filter(|n| n.kind.contains(class)).map(|n| n.count).sum::<u64>();
    assert_eq!((of("Session"), of("Named")), (300, 50), "{:?}", seen.leaks.native);
}

/// Without pymalloc valgrind sees objects, too.
#[test]
fn what_an_extension_loses_is_what_valgrind_says() {
    const KEPT: u64 = 300;
    let python = python("3.11").unwrap();
    let extension = build_extension(python, &workload("leakext.c")).expect("the extension builds");
    let folder = extension.parent().map(Path::to_owned).unwrap();
    let prepare = |command: &mut Command| {
        command.arg(KEPT.to_string()).env("PYTHONPATH", &folder).env("PYTHONMALLOC", "malloc");
    };
    let mut command = Command::new(&python.command[0]);
    command.args(&python.command[1..]).arg(workload("w4c_cext.py"));
    prepare(&mut command);
    // It is to end by itself, as valgrind looks for what is lost at the end.
    let ending = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ending.path(), "raise SystemExit").unwrap();
    command.env("WORKLOAD_HOOK", ending.path());
    let said = under_valgrind(&command);
    let (blocks, objects) = (definitely_lost(&said, "leak_malloc"), definitely_lost(&said, "leak_ref"));
    let seen: Seen = look(python.spawn_file(&workload("w4c_cext.py"), prepare).unwrap());
    let usable = |n: &&wmr_heap::leaks::Native| (500..=524).contains(&n.usable.0);
    let of_blocks = seen.leaks.native.iter().filter(usable).map(|n| n.bytes).sum();
    let types = &seen.inspection.census.types;
    let ours = |ty: u32| matches!(types[ty as usize].name.as_str(), "float" | "str");
    let of_objects: u64 = seen.leaks.unheld.iter().filter(|row| ours(row.ty)).map(|row| row.bytes).sum();
    // As malloc rounds them: 500 bytes; a float, and a str of 20 characters.
    const BLOCK: u64 = 512;
    const OBJECTS: u64 = 32 + 80;
    // The stale words that make a lost block pass for held are other ones in each run, so neither is the other's limit.
    for (found, valgrinds, made, what) in [
        (seen.definite(500), blocks.0, KEPT, "blocks"),
        (of_blocks, blocks.1, KEPT * BLOCK, "bytes of blocks"),
        (seen.unheld("float") + seen.unheld("str"), objects.0, KEPT * 2, "objects"),
        (of_objects, objects.1, KEPT * OBJECTS, "bytes of objects"),
    ] {
        expect_nearly(found, made, what);
        expect_nearly(valgrinds, made, &format!("{what}, by valgrind"));
    }
}
