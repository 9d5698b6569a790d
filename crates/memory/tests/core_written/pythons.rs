//! Of interpreters.

use crate::{assert_same, write};
use std::path::PathBuf;
use wmr_memory::live::{Capturing, LiveOptions, attach};
use wmr_testing::READY;

const SCRIPT: &str = "
import sys, threading
started, stop = threading.Barrier(4), threading.Event()
def body():
    started.wait()
    stop.wait()
threads = [threading.Thread(target=body, name='worker %d' % i) for i in range(3)]
for t in threads:
    t.daemon = True
    t.start()
started.wait()
s = b'a marker in the heap %d' % 42
print(hex(id(s) + 32))
sys.stdout.flush()
";

#[test]
fn gdb_and_we_read_what_was_captured() {
    for tag in ["3.11", "3.13"] {
        let Some(python) = wmr_testing::python(tag) else { continue };
        let target = python.spawn(&format!("{SCRIPT}{READY}")).unwrap();
        let marker = &target.truth()[0];
        for capture in [Capturing::Clone, Capturing::Stop] {
            let options = LiveOptions { capture, max_pause: None, ..LiveOptions::default() };
            let live = attach(target.pid(), &options).unwrap();
            let core = write(&live);
            assert!(core.written.notes.is_empty(), "{tag}: {:?}", core.written.notes);

            let copy = core.open();
            assert!(copy.notes.is_empty(), "{tag}: {:?}", copy.notes);
            assert_same(&live, &copy);
            let main = copy.threads.first().unwrap();
            assert_eq!(main.tid, target.pid());
            assert!(main.name.starts_with(b"python"), "{}", String::from_utf8_lossy(&main.name));
            let addr = u64::from_str_radix(&marker[2..], 16).unwrap();
            assert_eq!(copy.reader().cstr(addr, 100).unwrap(), b"a marker in the heap 42");
            // Types have names, which are in constants of the interpreter: in its file.
            let kind = copy.reader().u64(addr - 24).unwrap();
            let name = copy.reader().u64(kind + 24).unwrap();
            assert_eq!(copy.reader().cstr(name, 20).unwrap(), b"bytes");

            let exe = PathBuf::from(std::ffi::OsStr::new(std::str::from_utf8(&live.process.exe).unwrap()));
            let said = core.gdb(Some(&exe), &["info threads".into(), format!("x/s {marker}"), "bt".into()]);
            assert!(said.contains(&format!("{marker}:\t\"a marker in the heap 42\"")), "{tag}: {said}");
            let tids = std::fs::read_dir(format!("/proc/{}/task", target.pid())).unwrap();
            for tid in tids.map(|tid| tid.unwrap().file_name().into_string().unwrap()) {
                assert!(said.contains(&format!("LWP {tid}")), "{tag}: {tid}: {said}");
            }
            assert_eq!(copy.threads.len(), 4);
            // The whole stack, from the call that waits to where the program began.
            assert!(said.contains("in _start") || said.contains("main ("), "{tag}: {said}");
        }
    }
}
