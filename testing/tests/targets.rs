//! The harness itself: what it promises to the tests that stand on it.

use std::process::Command;
use wmr_testing::{READY, compile_c, gcore, interpreters, kernel_core, python};

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[test]
fn every_interpreter_becomes_ready_and_says_the_truth_before() -> Outcome {
    for python in interpreters() {
        let script = format!("import sys\nprint('{{\"hex\": %d}}' % sys.hexversion)\n{READY}");
        let target = python.spawn(&script)?;
        let said = target.json().ok_or("no JSON")?;
        let (major, minor) = python.minor();
        assert_eq!(
            said["hex"].as_u64().map(|h| (h >> 24, h >> 16 & 0xff)),
            Some((major.into(), minor.into()))
        );
        assert!(std::fs::metadata(format!("/proc/{}/maps", target.pid())).is_ok());
    }
    Ok(())
}

#[test]
fn a_script_that_fails_is_an_error_with_its_words() {
    let Some(python) = interpreters().last() else { return };
    let error = python.spawn("raise ValueError('no' + 'pe')").map(|t| t.pid()).unwrap_err();
    assert!(error.to_string().contains("ValueError: nope"), "{error}");
}

#[test]
fn a_dropped_target_is_gone() -> Outcome {
    let Some(python) = interpreters().last() else { return Ok(()) };
    let pid = python.spawn(READY)?.pid();
    assert!(std::fs::metadata(format!("/proc/{pid}")).is_err());
    Ok(())
}

#[test]
fn a_target_can_be_talked_to() -> Outcome {
    let Some(python) = interpreters().last() else { return Ok(()) };
    let script = "import sys\nprint('ready %d' % __import__('os').getpid(), flush=True)\n\
                  for line in sys.stdin: print(line.upper(), end='', flush=True)";
    let mut target = python.spawn(script)?;
    target.send("where's my ram")?;
    assert_eq!(target.line()?, "WHERE'S MY RAM");
    assert!(target.is_running()?);
    Ok(())
}

#[test]
fn both_kinds_of_core_are_elf_cores() -> Outcome {
    let Some(python) = python("3.11") else { return Ok(()) };
    let target = python.spawn(READY)?;
    let core = gcore(target.pid())?;
    assert_eq!(elf_type(&core)?, 4);
    // Where the system pipes cores to a program there is none to look at.
    match kernel_core(target) {
        Ok(core) => assert_eq!(elf_type(&core)?, 4),
        Err(why) => assert!(why.to_string().contains("core_pattern"), "{why}"),
    }
    Ok(())
}

/// `e_type` of an ELF header: 4 is a core.
fn elf_type(path: &std::path::Path) -> std::io::Result<u16> {
    use std::io::Read;
    let mut header = [0; 18];
    std::fs::File::open(path)?.read_exact(&mut header)?;
    assert_eq!(&header[..4], b"\x7fELF");
    Ok(u16::from_le_bytes([header[16], header[17]]))
}

#[test]
fn a_c_program_is_compiled_and_run() -> Outcome {
    let source = "#include <stdio.h>\n#include <unistd.h>\n\
                  int main(void) { printf(\"{\\\"n\\\": 3}\\nready %d\\n\", getpid()); fflush(stdout); pause(); }";
    let program = compile_c(source, &["-O2"])?;
    let target = wmr_testing::Target::start(Command::new(&*program))?;
    assert_eq!(target.truth(), [r#"{"n": 3}"#]);
    Ok(())
}
