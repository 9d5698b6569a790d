//! What people see: nothing too wide, nothing harmful, colour only where it belongs.

mod common;

use common::{output, stdout, target, wmr};
use unicode_width::UnicodeWidthStr;

const COMMANDS: [&[&str]; 26] = [
    &["select", "type like '%.%' or bytes > 1M", "--columns", "addr,type,mapping,refcount,owner"],
    &["used", "--sort", "bytes"],
    &["free"],
    &["all"],
    &[],
    &["heap"],
    &["heap", "--by", "type"],
    &["heap", "--by", "module"],
    &["heap", "--by", "size"],
    &["heap", "--by", "clodo"],
    &["heap", "--by", "referrer-types"],
    &["heap", "--by", "retained"],
    &["types"],
    &["tree"],
    &["retained"],
    &["retained", "--by", "module"],
    &["retained", "--by", "root"],
    &["path", "--type", "function"],
    &["path", "--where", "type = 'dict'", "--paths", "2"],
    &["what-if", "--without", "type = 'list'"],
    &["arenas"],
    &["map"],
    &["map", "--sharing"],
    &["sizes"],
    &["ps"],
    &["ps", "--tree"],
];

/// The words of a command about a target.
fn about<'a>(command: &[&'a str], pid: &'a str) -> Vec<&'a str> {
    match command {
        ["ps", ..] => command.to_vec(),
        [] => vec![pid],
        [verb, rest @ ..] => [&[*verb, pid], rest].concat(),
    }
}

#[test]
fn no_line_is_wider_than_the_screen() {
    let target = target();
    let pid = target.pid().to_string();
    for columns in ["80", "100", "160"] {
        for command in COMMANDS {
            let text = stdout(wmr(&about(command, &pid)).env("COLUMNS", columns));
            for line in text.lines() {
                assert!(line.width() <= columns.parse().unwrap(), "{command:?} at {columns}: {line:?}");
            }
            assert!(!text.contains('\u{1b}'), "colour in a pipe");
        }
    }
    let screen = stdout(&mut wmr(&[&pid]));
    assert!(screen.lines().count() <= 42, "more than a screen:\n{screen}");
    for title in ["WHERE IT IS", "WHAT IT IS", "WHAT STANDS OUT"] {
        assert!(screen.contains(title), "{screen}");
    }
}

/// Every command that a screen says to try can be run.
#[test]
fn advice_can_be_followed() {
    let target = target();
    let screen = stdout(&mut wmr(&[&target.pid().to_string()]));
    let mut tried = 0;
    for line in screen.lines() {
        if let Some((_, command)) = line.split_once("wmr ") {
            let words: Vec<&str> = command.split(' ').collect();
            assert_eq!(output(&words).status.code(), Some(0), "{line}");
            tried += 1;
        }
    }
    assert!(tried >= 3, "{screen}");
}

#[test]
fn a_plain_terminal_gets_ascii() {
    let target = target();
    let pid = target.pid().to_string();
    for command in COMMANDS {
        let text = stdout(wmr(&about(command, &pid)).env("LC_ALL", "C"));
        let stray: Vec<&str> = text.lines().filter(|line| !line.is_ascii()).collect();
        assert!(stray.is_empty() || command[..1] == ["ps"], "{command:?}: {stray:?}");
    }
}

#[test]
fn colour_when_asked_for() {
    let target = target();
    let pid = target.pid().to_string();
    assert!(stdout(&mut wmr(&[&pid, "--color", "always"])).contains("\u{1b}[1m"));
    assert!(!stdout(wmr(&[&pid]).env("NO_COLOR", "1")).contains('\u{1b}'));
}

/// Names that would move the cursor, ring the bell or turn the line around are shown, not obeyed.
#[test]
fn names_cannot_reach_the_terminal() {
    let script = r#"
names = ["A\x1b[2J\x1b]0;title\x07", "B\nfake row 1,000,000", "C\u202egnp.exe", "D" * 1000000]
classes = [type(name, (), {"__module__": "m\x9b31m"}) for name in names]
keep = [[cls() for _ in range(3000)] for cls in classes]
"#;
    let python = wmr_testing::python("3.11").unwrap();
    let target = python
        .spawn_with(&format!("{script}{}", wmr_testing::READY), |command| {
            command.arg("\u{1b}[31margument\n\u{202e}").arg("x".repeat(100_000));
        })
        .unwrap();
    let pid = target.pid().to_string();
    for command in COMMANDS {
        let text = stdout(&mut wmr(&about(command, &pid)));
        let harmful = |c: char| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
        assert!(!text.contains(harmful), "{command:?}: {text:?}");
        assert!(!text.contains("\nfake row"), "{command:?}: {text:?}");
        assert!(text.lines().all(|line| line.width() <= 80), "{command:?}");
    }
    let types = stdout(&mut wmr(&["heap", &pid, "--by", "type"]));
    assert!(types.contains(r"m\u{9b}31m.C\u{202e}gnp.exe"), "{types}");
}

#[test]
fn the_target_runs_on() {
    let mut target = target();
    let pid = target.pid().to_string();
    for arguments in [vec![pid.as_str()], vec![&pid, "--no-pause"], vec!["map", &pid]] {
        stdout(&mut wmr(&arguments));
    }
    assert!(target.is_running().unwrap());
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(state.contains(") S "), "{state}");
}

#[test]
fn demo_without_a_python() {
    let live = output(&["demo"]);
    assert_eq!(live.status.code(), Some(0), "{}", String::from_utf8_lossy(&live.stderr));
    for arguments in [["demo"].as_slice(), &["demo", "--core"]] {
        let text = stdout(wmr(arguments).env("PATH", "/nonexistent"));
        for row in ["namedtuple", "class with __slots__", "dataclass(slots=True)"] {
            let line = text.lines().find(|line| line.trim_start().starts_with(row)).expect(row);
            assert!(line.ends_with("500"), "{line}");
        }
    }
}
