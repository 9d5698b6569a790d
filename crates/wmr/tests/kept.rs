//! Files that keep a target: they answer as it did, and tell no more than they should.

mod common;

use common::{SCRIPT, failure, json, stdout, wmr};
use serde_json::Value;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use wmr_testing::{Interpreter, READY, Target, at_rest, gcore, python};

const CENSUS: [&[&str]; 8] = [
    &[],
    &["heap"],
    &["heap", "--by", "type"],
    &["heap", "--by", "module"],
    &["heap", "--by", "size"],
    &["arenas"],
    &["map"],
    &["sizes"],
];

/// What a command says of a target, without what is the capture's, and without what other processes
/// share at the moment: they come and go.
fn said(command: &[&str], of: &str) -> Value {
    let words: Vec<&str> = match command {
        [] => vec![of],
        [first, rest @ ..] => [&[*first, of][..], rest].concat(),
    };
    let mut document = json(&words);
    let fields = document.as_object_mut().unwrap();
    fields.remove("capture");
    for fact in ["kind", "pss", "uss", "rss"] {
        fields["target"].as_object_mut().unwrap().remove(fact);
    }
    forget(&mut document, of);
    document
}

fn forget(value: &mut Value, name: &str) {
    match value {
        Value::Object(fields) => {
            for key in ["pss", "private", "shared"] {
                if fields.get(key).is_some_and(Value::is_u64) {
                    fields.remove(key);
                }
            }
            // What only a running kernel tells of a page.
            for key in ["dirty", "ksm", "mapped_by"] {
                fields.remove(key);
            }
            fields.values_mut().for_each(|value| forget(value, name));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| forget(value, name)),
        // Advice names the target as it was typed: a word of its own, as a pid may stand in an address.
        Value::String(text) => {
            let words = text.split(' ').map(|word| if word == name { "TARGET" } else { word });
            *text = words.collect::<Vec<_>>().join(" ");
        }
        _ => {}
    }
}

fn start(python: &Interpreter, script: &str) -> Target {
    let target = python.spawn(&format!("{script}{READY}")).unwrap();
    at_rest(target.pid()).unwrap();
    target
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

/// All others that can be asked of a file, about an address too.
fn questions(entry: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["select", "bytes > 1K and refcount > 0", "--limit", "100"],
        vec!["used", "--limit", "100"],
        vec!["free", "--limit", "100"],
        vec!["show", entry],
        vec!["hexdump", entry, "1K"],
        vec!["leaks"],
        vec!["path", entry],
        vec!["path", "--type", "__main__.Entry"],
        vec!["retained"],
        vec!["retained", "--by", "type"],
    ]
}

#[test]
fn a_snapshot_answers_as_the_process_did() {
    let folder = tempfile::tempdir().unwrap();
    for version in ["3.8", "3.11", "3.13", "3.15"] {
        let python = python(version).unwrap_or_else(|| panic!("CPython {version} is needed"));
        let target = start(python, SCRIPT);
        let pid = target.pid().to_string();
        let file = path(folder.path(), &format!("{version}.wmr"));
        let written = json(&["snapshot", &pid, "-o", &file]);
        assert_eq!(written["bytes"], std::fs::metadata(&file).unwrap().len());
        let entry = &json(&["select", &pid, "type = '__main__.Entry'", "--limit", "1"])["rows"][0]["addr"];
        let entry = entry.as_str().unwrap();
        let commands = [CENSUS.map(<[_]>::to_vec).to_vec(), questions(entry)].concat();
        let live: Vec<Value> = commands.iter().map(|command| said(command, &pid)).collect();
        drop(target);
        for (command, live) in commands.iter().zip(live) {
            let mut kept = said(command, &file);
            // The number of its first thread is the same as that of the process.
            forget(&mut kept, &pid);
            assert_eq!(kept, live, "{version}: {command:?}");
        }
        // A snapshot of a snapshot has all that was in it.
        let again = path(folder.path(), "again.wmr");
        stdout(&mut wmr(&["snapshot", &file, "-o", &again, "--force", "--level", "3"]));
        assert_eq!(said(&["heap"], &again), said(&["heap"], &file), "{version}");
        let summary = json(&[&file]);
        assert_eq!(summary["target"]["kind"], "snapshot");
        assert_eq!(
            (&summary["capture"]["method"], &summary["capture"]["consistent"]),
            (&"clone".into(), &true.into())
        );
    }
}

/// Cut off it tells what is missing, and of what is there as much as before. What is kept of programs and
/// libraries comes first, and what the process had at its beginning.
#[test]
fn a_snapshot_cut_in_half_is_of_use() {
    let folder = tempfile::tempdir().unwrap();
    for version in ["3.8", "3.13"] {
        let target = start(python(version).unwrap(), &SCRIPT.replace("range(3000)", "range(100000)"));
        let file = &path(folder.path(), &format!("{version}.wmr"));
        json(&["snapshot", &target.pid().to_string(), "-o", file]);
        let whole = json(&["heap", file, "--by", "type"]);
        let length = std::fs::metadata(file).unwrap().len();
        std::fs::File::options().write(true).open(file).unwrap().set_len(length / 2).unwrap();
        let half = json(&["heap", file, "--by", "type"]);
        let notes = half["notes"].as_array().unwrap();
        assert!(
            notes.iter().any(|note| note.as_str().unwrap().contains("is cut off, with all behind it")),
            "{notes:?}"
        );
        let count = |document: &Value| {
            let rows = document["rows"].as_array().unwrap().iter();
            rows.map(|row| row["count"].as_u64().unwrap()).sum::<u64>()
        };
        let (half, whole) = (count(&half), count(&whole));
        assert!(half * 10 > whole && half < whole, "{version}: {half} of {whole}, cut from {length} bytes");
    }
}

/// What is cut off may have held what looks lost now: nothing is called a leak, and nobody is told that all is well.
#[test]
fn of_a_file_that_was_cut_off_nothing_is_said_to_be_lost() {
    let folder = tempfile::tempdir().unwrap();
    let target = start(python("3.11").unwrap(), SCRIPT);
    for command in ["snapshot", "core"] {
        let file = &path(folder.path(), command);
        json(&[command, &target.pid().to_string(), "-o", file]);
        let lost = json(&["leaks", file]);
        assert!(lost["notes"].as_array().unwrap().iter().all(|note| !is_doubt(note)), "{lost:#}");
        let length = std::fs::metadata(file).unwrap().len();
        for percent in [95, 80, 70, 50, 10] {
            std::fs::File::options().write(true).open(file).unwrap().set_len(length * percent / 100).unwrap();
            let output = wmr(&["leaks", file, "--json"]).output().unwrap();
            let document: Value = serde_json::from_slice(&output.stdout).unwrap();
            let told = format!("{command} cut to {percent} %: {document:#}");
            let findings = document["findings"].as_array().unwrap();
            assert!(findings.iter().all(|finding| finding["sure"] == "possible"), "{told}");
            assert!(document["notes"].as_array().unwrap().iter().any(is_doubt), "{told}");
            assert!(document["verdict"].as_str().unwrap().starts_with("not all could be read"), "{told}");
            let page = wmr(&["leaks", file]).output().unwrap();
            assert!(!String::from_utf8_lossy(&page.stdout).contains("Everything in use"), "{told}");
        }
    }
}

fn is_doubt(note: &Value) -> bool {
    note.as_str().unwrap().contains("nothing is called lost for more than possible")
}

#[test]
fn without_a_python_nobody_is_told_that_its_objects_are_reached() {
    let mut command = Command::new("cat");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut process = command.spawn().unwrap();
    // What comes back says that it runs.
    let mut answer = [0];
    process.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    process.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    let output = wmr(&["leaks", &process.id().to_string()]).output().unwrap();
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    drop(process.stdin.take());
    process.wait().unwrap();
    assert!(!page.contains("Everything in use") && page.contains("looked at"), "{page}");
}

#[test]
fn a_core_can_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let target = start(python("3.11").unwrap(), SCRIPT);
    let core = gcore(target.pid()).unwrap();
    let core = core.to_str().unwrap();
    let file = path(folder.path(), "core.wmr");
    stdout(&mut wmr(&["snapshot", core, "-o", &file]));
    for command in CENSUS {
        assert_eq!(said(command, &file), said(command, core), "{command:?}");
    }
    let stored = std::fs::metadata(&file).unwrap().len();
    assert!(stored * 3 < std::fs::metadata(core).unwrap().len(), "{stored} bytes");
}

#[test]
fn a_core_is_written_that_gdb_and_this_program_open() {
    let folder = tempfile::tempdir().unwrap();
    for version in ["3.8", "3.11", "3.13"] {
        let python = python(version).unwrap();
        let planted = "import sys\nPLANTED = b'core ' + str(sys.maxsize).encode()\nprint(id(PLANTED) + 32)";
        let target = start(python, &format!("{SCRIPT}{planted}"));
        let address = target.truth().last().unwrap().clone();
        let pid = target.pid().to_string();
        let file = path(folder.path(), &format!("{version}.core"));
        let written = json(&["core", &pid, "-o", &file]);
        assert_eq!(written["threads"], 2);
        let live = said(&["heap", "--by", "type"], &pid);
        drop(target);
        let exe = python.exe.to_str().unwrap();
        let gdb = Command::new("gdb")
            .args(["--batch", "-nx", "-ex", "info threads", "-ex", &format!("x/s {address}"), exe, &file])
            .output()
            .unwrap();
        let gdb = String::from_utf8_lossy(&gdb.stdout).into_owned();
        assert!(gdb.lines().filter(|line| line.contains("LWP")).count() >= 2, "{gdb}");
        assert!(gdb.contains("\"core 9223372036854775807\""), "{gdb}");
        assert_eq!(said(&["heap", "--by", "type"], &file)["rows"], live["rows"], "{version}");
    }
}

#[test]
fn a_full_disk_leaves_nothing_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut target = start(python("3.11").unwrap(), SCRIPT);
    let pid = target.pid().to_string();
    let disk = path(folder.path(), "disk");
    std::fs::create_dir(&disk).unwrap();
    // A disk of a megabyte, in a mount namespace of its own.
    let script = r#"mount -t tmpfs -o size=1m small "$1" && cd "$1" || exit 99
        "$2" "$3" "$4" -o it; echo "exit $?"; ls -A; df --output=used . | tail -1"#;
    for command in ["snapshot", "core"] {
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh", &disk, &common::program(), command, &pid])
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        let (answer, complaint) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let words: Vec<&str> = answer.split_whitespace().collect();
        assert_eq!(words, ["exit", "1", "0"], "{complaint}");
        assert!(complaint.starts_with("wmr: cannot write it: No space left on device"), "{complaint}");
    }
    assert!(target.is_running().unwrap());
    json(&[&pid]);
}

#[test]
fn no_file_is_overwritten_unless_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(folder.path(), "it.wmr");
    std::fs::write(&file, "theirs").unwrap();
    let target = start(python("3.11").unwrap(), SCRIPT);
    let pid = target.pid().to_string();
    let said = failure(&["snapshot", &pid, "-o", &file]);
    assert_eq!(
        said.replace(&file, "FILE"),
        "exit 1, 0 bytes of answer\nwmr: cannot write FILE: there is such a file\n  replace it: --force\n"
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"theirs");
    stdout(&mut wmr(&["snapshot", &pid, "-o", &file, "--force"]));
    assert!(json(&[&file])["ledger"]["total"].as_u64().unwrap() > 1 << 20);
    let missing = path(folder.path(), "no/such/folder.wmr");
    assert!(failure(&["snapshot", &pid, "-o", &missing]).contains("No such file or directory"));
}

/// Everything that a snapshot holds, unpacked without the program's help: docs/snapshot-format.md.
fn unpacked(file: &Path) -> Vec<u8> {
    let bytes = std::fs::read(file).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut out) = (24, Vec::new());
    while bytes[at..].starts_with(b"wmrC") {
        let (kind, codec, stored) = (word(at + 4), word(at + 8), word(at + 20) as usize);
        let data = &bytes[at + 48..at + 48 + stored];
        at += 48 + stored;
        match codec {
            // Parts of files on disk are no values of the process; the index is not either.
            _ if matches!(kind, 3 | 4) => {}
            0 => out.extend_from_slice(data),
            _ => out.extend(zstd::decode_all(data).unwrap()),
        }
    }
    out
}

/// Plants a text that is in no source: made from numbers, and kept in every kind of place.
const SECRETS: &str = r#"
import sys, os, io, array, ctypes, threading, collections, decimal
two = sys.version_info[0] == 2
codes = [ord(c) ^ 3 for c in sys.argv[1]]
text = ''.join(chr(c) for c in codes)
uni = text.decode('ascii') if two else text
raw = text if two else text.encode()
chr_ = unichr if two else chr
keep = [text, raw, bytearray(raw), array.array('B', bytearray(raw)), uni + chr_(0xe9), uni + chr_(0x20ac)]
keep += [uni + chr_(0x1f600)] if sys.maxunicode > 0xffff else []
keep += [text * 1000, raw * 40000, bytearray(raw * 40000), {text + 'key': 1, raw + b'k': 2}, set([text + 'set'])]
keep += [ctypes.create_string_buffer(raw), ctypes.create_string_buffer(raw * 50), (ctypes.c_char * 64)(*[raw[i:i+1] for i in range(20)])]
keep += [io.BytesIO(raw * 3), io.StringIO(uni * 3), memoryview(bytearray(raw + b'mv'))]
keep += [int(''.join('%02x' % c for c in codes), 16)]
class Text(type(text)): pass
class Raw(bytes): pass
t, r = Text(text + 'sub'), Raw(raw + b'sub')
t.more = text + 'attribute'; r.more = raw + b'attribute'
keep += [t, r, collections.OrderedDict([(text + 'od', text)]), collections.deque([text + 'dq'])]
setattr(Text, text + 'name', text)
w = io.BufferedWriter(io.FileIO(os.devnull, 'w')); w.write(raw * 5); keep.append(w)
os.environ['PLANTED'] = text
try: sys.intern(text + 'interned')
except AttributeError: intern(text + 'interned')
hash(text); repr(raw); text.encode('utf-16')
import re
keep += [re.compile(text + '[a-z]+'), re.match('(' + text + ')', text)]
# Freed into a cache right before the end of the heap: its last word lies in the header behind it.
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
last = [libc.malloc(200) for n in range(400)]
for p in last: ctypes.memmove(p, raw * 10, 200)
for p in last: libc.free(p)
ctypes.c_wchar_p(uni)
gone = [text + 'gone%d' % n for n in range(5000)]; del gone
gone = [raw * 400 for n in range(50)]; del gone
def f(a, b=text):
    ready.set(); stop.wait()
ready, stop = threading.Event(), threading.Event()
th = threading.Thread(target=f, args=(text + 'argument',)); th.daemon = True; th.start(); ready.wait()
"#;
const SECRET: &str = "Zq7vWx9KjTg4mPb2RdYs";

#[test]
fn no_secret_survives_in_a_stripped_file() {
    let folder = tempfile::tempdir().unwrap();
    let coded: String = SECRET.bytes().map(|b| char::from(b ^ 3)).collect();
    for tag in ["2.7", "3.8", "3.11", "3.13", "3.15"] {
        let python = python(tag).unwrap_or_else(|| panic!("CPython {tag} is needed"));
        let allocators = if tag == "3.11" { &["pymalloc", "malloc", "debug"][..] } else { &["pymalloc"] };
        for allocator in allocators {
            let mut command = python.command();
            command.args(["-c", &format!("{SECRETS}{READY}"), &coded]).env("PYTHONMALLOC", allocator);
            let target = Target::start(command).unwrap();
            at_rest(target.pid()).unwrap();
            let pid = target.pid().to_string();
            let [whole, stripped] = ["whole", "stripped"].map(|name| path(folder.path(), name));
            stdout(&mut wmr(&["snapshot", &pid, "-o", &whole, "--force"]));
            stdout(&mut wmr(&["snapshot", &pid, "-o", &stripped, "--force", "--strip-values"]));
            let (whole_bytes, stripped_bytes) = (unpacked(Path::new(&whole)), unpacked(Path::new(&stripped)));
            // Python 2 has one width of two.
            assert!(3 * windows(&whole_bytes).len() >= 2 * windows_of_secret().len(), "it was planted");
            assert_eq!(windows(&stripped_bytes), [""; 0], "{}, {allocator}", python.version);
            for command in [&["heap"][..], &["heap", "--by", "type"], &["arenas"], &["map"]] {
                let [mut a, mut b] = [&whole, &stripped].map(|file| said(command, file));
                for document in [&mut a, &mut b] {
                    document["notes"] = Value::Null;
                    told_by_content(document);
                    document["target"]["cmdline"] = Value::Null;
                    // Whether something nobody knows is text cannot be told once the text is gone.
                    if let Some(rows) = document["rows"].as_array_mut() {
                        rows.retain(|row| row["domain"] != "unknown");
                    }
                }
                assert_eq!(b, a, "{}, {allocator}: {command:?}", python.version);
            }
        }
    }
}

/// A process's picture in two files, and what the second one holds, which is stripped.
fn stripped(target: &Target, folder: &Path) -> ([String; 2], Vec<u8>) {
    let pid = target.pid().to_string();
    let [whole, stripped] = ["whole", "stripped"].map(|name| path(folder, name));
    stdout(&mut wmr(&["snapshot", &pid, "-o", &whole, "--force"]));
    stdout(&mut wmr(&["snapshot", &pid, "-o", &stripped, "--force", "--strip-values"]));
    let bytes = unpacked(Path::new(&stripped));
    ([whole, stripped], bytes)
}

/// The configuration has the command line, code of `-c` and all.
#[test]
fn nothing_of_the_command_line_survives_in_a_stripped_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut looked_at = 0;
    for tag in ["2.7", "3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"] {
        let Some(python) = python(tag) else { continue };
        let mut command = python.command();
        command.args(["-c", &format!("password = '{SECRET}'\n{READY}"), &format!("--password={SECRET}")]);
        command.env("PYTHONWARNINGS", format!("ignore:{SECRET}"));
        let target = Target::start(command).unwrap();
        at_rest(target.pid()).unwrap();
        let ([whole, _], bytes) = stripped(&target, folder.path());
        assert_ne!(windows(&unpacked(Path::new(&whole))), [""; 0], "it was planted");
        assert_eq!(windows(&bytes), [""; 0], "{}", python.version);
        looked_at += 1;
    }
    assert!(looked_at >= 4, "{looked_at} interpreters");
}

/// Fills freed memory of every size with a mark, then makes objects there: what they do not write to has it.
const REUSED: &str = r#"
import sys, datetime, decimal
def mark():
    held = []
    for size in list(range(16, 520, 8)) + [700, 1100, 1500, 3000]:
        held += [(MARK * (size // 8 + 2))[:max(size - 40, 8)] for n in range(400)]
        held += [bytearray((MARK * (size // 8 + 1))[:size - 1]) for n in range(400)]
MARK = sys.argv[1].encode()
class Plain(object): pass
class Text(str): pass
class Moment(datetime.datetime): pass
def steps(): yield 1
def plain(n):
    made = Plain()
    made.a = made.b = n
    return made
KINDS = [lambda n: decimal.Decimal(n), lambda n: datetime.datetime(2020, 1, 2), lambda n: datetime.time(1),
    lambda n: Moment(2020, 1, 2), lambda n: datetime.datetime(2020, 1, 2), plain, lambda n: steps(), lambda n: {n},
    lambda n: {n: n}, lambda n: {str(n): n}, lambda n: (n,), lambda n: 1000.0 + n, lambda n: 1000 + n, lambda n: n << 70,
    lambda n: Text(n), lambda n: type('Named%d' % (n % 20), (), {})]
def make():
    mark()
    return [[kind(n) for n in range(60)] for kind in KINDS]
KEPT = make()
"#;

#[test]
fn what_memory_held_before_does_not_survive_behind_objects() {
    let folder = tempfile::tempdir().unwrap();
    const MARK: &[u8] = b"Q0kW9zXv";
    for tag in ["2.7", "3.8", "3.11", "3.13", "3.15"] {
        let python = python(tag).unwrap_or_else(|| panic!("CPython {tag} is needed"));
        let mut command = python.command();
        command.args(["-c", &format!("{REUSED}{READY}"), std::str::from_utf8(MARK).unwrap()]);
        let target = Target::start(command).unwrap();
        at_rest(target.pid()).unwrap();
        let (files, bytes) = stripped(&target, folder.path());
        // Eight bytes of it, wherever they begin.
        let parts: Vec<Vec<u8>> = (0..8).map(|at| [&MARK[at..], &MARK[..at]].concat()).collect();
        let count =
            |bytes: &[u8]| bytes.windows(8).filter(|window| parts.iter().any(|part| part == window)).count();
        assert!(count(&unpacked(Path::new(&files[0]))) > 10_000, "it was planted");
        assert_eq!(count(&bytes), 0, "{}", python.version);
    }
}

/// Short texts could be found again by their hashes, where nothing or a known number went into these.
#[test]
fn no_hash_of_a_text_survives_in_a_stripped_file() {
    let folder = tempfile::tempdir().unwrap();
    const SEED: u32 = 3_987_654_321;
    let script = "import sys, collections, weakref\n\
        def key(n): return 'pin' + str(8361 + n)\n\
        class Text(str): pass\n\
        kept = [{1: 0, key(0): 1}, set([key(1)]), frozenset([key(2)]), (key(3),), dict.fromkeys(map(key, range(4, 99)))]\n\
        kept += [set(map(key, range(99, 200))), collections.OrderedDict([(key(200), 1)]), Text(key(201))]\n\
        kept += [u'pin' + str(n) for n in range(5)] + [key(203).encode('ascii')]\n\
        hashes = [hash(key(n)) for n in range(202)] + [hash(kept[2]), hash(kept[3])] + [hash(k) for k in kept[7:]]\n\
        for n in hashes: print(n)\n\
        del hashes, n\n";
    for tag in ["2.7", "3.7", "3.8", "3.11", "3.13", "3.15"] {
        let Some(python) = python(tag) else { continue };
        let seeded = |command: &mut Command| {
            command.env("PYTHONHASHSEED", SEED.to_string());
        };
        let target = python.spawn_with(&format!("{script}{READY}"), seeded).unwrap();
        at_rest(target.pid()).unwrap();
        let numbers = target.truth().iter().filter_map(|line| line.parse::<i64>().ok());
        let mut secrets: Vec<[u8; 8]> = numbers.map(i64::to_le_bytes).collect();
        assert!(secrets.len() > 205, "{secrets:?}");
        secrets.push(u64::from(SEED).to_le_bytes());
        let (files, bytes) = stripped(&target, folder.path());
        let secrets: std::collections::HashSet<&[u8]> = secrets.iter().map(|secret| &secret[..]).collect();
        let count = |bytes: &[u8]| bytes.windows(8).filter(|window| secrets.contains(window)).count();
        assert!(count(&unpacked(Path::new(&files[0]))) > 200, "it was there");
        assert_eq!(count(&bytes), 0, "{}", python.version);
        // What is counted and listed is the same without them: types without instances have their names, too.
        for command in [&["heap", "--by", "type"][..], &["types"]] {
            let [mut a, mut b] = [&files[0], &files[1]].map(|file| said(command, file));
            for document in [&mut a, &mut b] {
                document["notes"] = Value::Null;
                document["target"]["cmdline"] = Value::Null;
                told_by_content(document);
            }
            assert_eq!(b, a, "{}: {command:?}", python.version);
        }
    }
}

/// Takes out what is named by what is in it: native memory, of which nothing but addresses is kept.
fn told_by_content(document: &mut Value) {
    let native =
        |row: &Value| matches!(row["domain"].as_str(), Some("native" | "unknown")) || row["sure"] == "owner";
    document["total"] = Value::Null;
    if let Some(rows) = document["rows"].as_array_mut() {
        rows.retain(|row| !native(row));
    }
    if let Some(ledger) = document["ledger"].as_object_mut() {
        for figure in ["named", "unknown", "heap_named_percent", "rows"] {
            ledger.remove(figure);
        }
    }
}

/// Any six characters of it, however wide they are kept.
fn windows_of_secret() -> Vec<Vec<u8>> {
    let text = SECRET.as_bytes();
    let wide = |width: usize| {
        text.windows(6).map(move |part| {
            part.iter().flat_map(|&c| std::iter::once(c).chain(std::iter::repeat_n(0, width - 1))).collect()
        })
    };
    wide(1).chain(wide(2)).chain(wide(4)).collect()
}

fn windows(bytes: &[u8]) -> Vec<String> {
    let all = windows_of_secret();
    let mut found = vec![false; all.len()];
    for at in (0..bytes.len()).filter(|&at| SECRET.as_bytes().contains(&bytes[at])) {
        for (part, found) in all.iter().zip(&mut found) {
            *found |= bytes[at..].starts_with(part);
        }
    }
    let found = all.iter().zip(found).filter(|(_, found)| *found);
    found.map(|(part, _)| String::from_utf8_lossy(part).into_owned()).collect()
}

#[test]
fn a_process_that_grows_is_kept_when_it_is_large_enough() {
    let folder = tempfile::tempdir().unwrap();
    let script = "import os, sys\nsys.stdout.write('ready %d\\n' % os.getpid()); sys.stdout.flush()\n\
        keep = []\nwhile os.read(0, 1) == b'\\n': keep.append(bytearray(b'x' * (8 << 20)))\n";
    let mut target = python("3.11").unwrap().spawn(script).unwrap();
    let pid = target.pid().to_string();
    let file = path(folder.path(), "large.wmr");
    let watch = |limit: &str, more: &[&str]| {
        let words = ["watch", &pid, "--rss", limit, "--snapshot", &file, "--every", "5ms"];
        wmr(&[&words, more].concat()).stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let given_up = watch("1T", &["--times", "3"]).wait_with_output().unwrap();
    assert_eq!((given_up.status.code(), Path::new(&file).exists()), (Some(1), false));
    let mut waiting = watch("64M", &["--json"]);
    for _ in 0..10 {
        assert!(waiting.try_wait().unwrap().is_none() || Path::new(&file).exists());
        target.send("").unwrap();
    }
    let written = waiting.wait_with_output().unwrap();
    assert!(written.status.success());
    let kept: Value = serde_json::from_slice(&written.stdout).unwrap();
    assert!(kept["target"]["rss"].as_u64().unwrap() >= 64 << 20, "{kept}");
    assert!(json(&[&file])["ledger"]["total"].as_u64().unwrap() >= 64 << 20);
    // One that ends is told, not waited for.
    let waiting = watch("1T", &[]);
    drop(target);
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(1), "the file is there");
    let elsewhere = path(folder.path(), "never.wmr");
    let gone = failure(&["watch", &pid, "--rss", "1T", "--snapshot", &elsewhere]);
    assert!(gone.starts_with("exit 1, 0 bytes of answer\nwmr: no process"), "{gone}");
}
