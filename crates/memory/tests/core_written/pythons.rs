//! Of interpreters.

use crate::{assert_same, write};
use std::path::PathBuf;
use wmr_memory::live::{Capturing, LiveOptions, attach};
use wmr_memory::{CoreOptions, open_core};
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

#[test]
fn the_signal_of_a_core_is_written_again() {
    let python = wmr_testing::python("3.11").expect("a CPython 3.11");
    let core = match wmr_testing::kernel_core(python.spawn(&format!("{SCRIPT}{READY}")).unwrap()) {
        Ok(core) => core,
        Err(why) => return println!("{why}: nothing tested"),
    };
    let of_kernel = open_core(&core, &CoreOptions::default()).unwrap();
    const SIGABRT: u8 = 6;
    assert_eq!((of_kernel.process.siginfo.len(), of_kernel.process.siginfo[0]), (128, SIGABRT));
    let copy = write(&of_kernel);
    assert_eq!(copy.open().process.siginfo, of_kernel.process.siginfo);
    assert_eq!(copy.open().threads[0].tid, of_kernel.threads[0].tid);
    let said = copy.gdb(Some(&python.exe), &["p $_siginfo.si_signo".into(), "info threads".into()]);
    assert!(said.contains("Program terminated with signal SIGABRT"), "{said}");
    assert!(said.contains("$1 = 6"), "{said}");
}
