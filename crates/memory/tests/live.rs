//! Live processes, against the processes' own word.

mod live {
    mod bytes;
    mod errors;
    mod families;
    mod guarded;
    mod harmless;
    mod kept;
    mod odd;
    mod python_loops;
    mod traceless;
}

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use wmr_memory::live::{AttachError, LiveOptions, attach};
use wmr_testing::{READY, Target};

/// Compiles a C program once for all tests of this file.
fn program(source: &'static str) -> Command {
    static BUILT: OnceLock<std::sync::Mutex<Vec<(&'static str, wmr_testing::TempFile)>>> = OnceLock::new();
    let mut built = BUILT.get_or_init(Default::default).lock().unwrap();
    if !built.iter().any(|(known, _)| *known == source) {
        built.push((source, wmr_testing::compile_c(source, &["-O1", "-pthread"]).unwrap()));
    }
    let path: PathBuf = built.iter().find(|(known, _)| *known == source).unwrap().1.to_path_buf();
    Command::new(path)
}

fn start(source: &'static str, args: &[&str]) -> Target {
    let mut command = program(source);
    command.args(args);
    Target::start(command).unwrap()
}

/// The picture of a target, with the default options.
fn picture(pid: i32) -> wmr_memory::Target {
    attach(pid, &LiveOptions::default()).unwrap()
}

/// A field of /proc/PID/status, the text behind the colon.
fn status(pid: i32, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// This test program anew, running one helper "test" with a variable set: an inspector that can be
/// killed, or that has fewer rights.
fn inspector(pid: i32) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "helper_inspects", "--nocapture"]).env("WMR_INSPECT", pid.to_string());
    command
}

/// Not a test: what [`inspector`] runs. Inspects again and again until it is killed or refused.
#[test]
fn helper_inspects() {
    let Ok(pid) = std::env::var("WMR_INSPECT") else { return };
    let pid = pid.parse().unwrap();
    println!("inspecting");
    loop {
        match attach(pid, &LiveOptions::default()) {
            Ok(picture) if std::env::var_os("WMR_ONCE").is_some() => {
                println!("{} images, notes {:?}", picture.images.len(), picture.notes);
                return;
            }
            Ok(_) => {}
            // The inspector before was killed and is not quite gone yet.
            Err(AttachError::Traced { .. }) => {}
            Err(error) => {
                println!("refused {error:?}");
                return;
            }
        }
    }
}

#[test]
fn python_processes_are_found_whatever_they_are_called() {
    let python = wmr_testing::interpreters().first().expect("an interpreter");
    let target = python.spawn(READY).unwrap();
    let other = start(
        "#include <stdio.h>\n#include <unistd.h>\nint main() { printf(\"ready %d\\n\", getpid()); fflush(stdout); getchar(); }",
        &[],
    );
    let list = wmr_memory::live::processes();
    let row =
        list.rows.iter().find(|row| row.process.pid == target.pid()).expect("the interpreter is listed");
    assert_eq!(row.version.as_deref(), Some(python.tag.trim_end_matches('d')));
    assert!(row.process.rss.unwrap() >= row.process.uss.unwrap());
    assert_eq!(row.process.ppid, Some(std::process::id() as i32));
    assert!(list.rows.iter().all(|row| row.process.pid != other.pid()));
}
