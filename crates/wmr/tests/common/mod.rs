//! Running the program as a user would.
#![allow(dead_code, reason = "each test file uses a part")]

use serde_json::Value;
use std::process::{Command, Output};
use wmr_testing::{Target, python};

/// Where the program is: another build of it than the tests' own where `WMR_PROGRAM` says so.
pub fn program() -> String {
    std::env::var("WMR_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_wmr").to_owned())
}

/// The program, in a plain environment: a UTF-8 locale, no colour, 80 columns unless `wide` says more.
pub fn wmr(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).env("LC_ALL", "C.UTF-8").env("COLUMNS", "80").env_remove("NO_COLOR");
    command
}

pub fn output(arguments: &[&str]) -> Output {
    wmr(arguments).output().expect("the program runs")
}

/// Standard output of a command that must succeed.
pub fn stdout(command: &mut Command) -> String {
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The document a command prints with `--json`.
pub fn json(arguments: &[&str]) -> Value {
    let text = stdout(wmr(arguments).arg("--json"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"))
}

/// Exit code and standard error, pids and the program's path taken out.
pub fn failure(arguments: &[&str]) -> String {
    let output = output(arguments);
    let said = String::from_utf8_lossy(&output.stderr).replace(&program(), "wmr");
    format!("exit {}, {} bytes of answer\n{said}", output.status.code().unwrap_or(-1), output.stdout.len())
}

/// A program with something of everything: objects of its own, an arena mostly free, a thread.
pub const SCRIPT: &str = r#"
import threading
class Entry(object):
    def __init__(self, n):
        self.name = "entry %d" % n
        self.values = [n, float(n), (n,)]
ENTRIES = [Entry(n) for n in range(3000)]
BIG = bytearray(3 << 20)
FREED = ["x%099d" % n for n in range(100000)]
KEPT = FREED[::2000]
del FREED
STOP = threading.Event()
THREAD = threading.Thread(target=STOP.wait)
THREAD.daemon = True
THREAD.start()
"#;

/// The script on CPython 3.11, ready to be looked at.
pub fn target() -> Target {
    let python = python("3.11").expect("a CPython 3.11 is needed");
    python.spawn(&format!("{SCRIPT}{}", wmr_testing::READY)).expect("the target starts")
}
