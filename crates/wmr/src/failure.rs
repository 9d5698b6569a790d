//! Errors that teach: what was tried, what the system said, what would work.

use crate::numbers::scaled;
use crate::text;
use std::fmt;
use std::time::Duration;
use unicode_width::UnicodeWidthStr;
use wmr_cpython::FindError;
use wmr_heap::filter::{Column, FilterError};
use wmr_memory::Method;
use wmr_memory::live::{AttachError, Burden, Denied, Lost};

/// Exit codes, part of the program's contract.
pub mod code {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NOT_PERMITTED: u8 = 3;
    pub const NOT_PYTHON: u8 = 4;
    pub const VANISHED: u8 = 5;
    /// `wmr leaks` found more than its gate lets through.
    pub const LEAKS: u8 = 6;
}

/// Why the program ends without an answer.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do about it, a line each.
    pub advice: Vec<String>,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), advice: Vec::new() }
    }

    pub fn advise(mut self, line: impl Into<String>) -> Failure {
        self.advice.push(line.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wmr: {}", self.message)?;
        self.advice.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// The command as it was typed, with words before or after it.
fn again(before: &str, after: &str) -> String {
    let words = std::env::args_os().map(|word| text::quoted(&word.to_string_lossy()));
    let typed = words.collect::<Vec<_>>().join(" ");
    format!("{before}{typed}{after}")
}

/// An expression that cannot be read: the place in it, a caret below, and the columns where they help.
pub fn of_filter(text: &str, error: &FilterError) -> Failure {
    /// Characters of the expression before and after the place.
    const BEFORE: usize = 48;
    const AFTER: usize = 24;
    let at = error.at.min(text.len());
    let (head, tail) = text.split_at_checked(at).unwrap_or((text, ""));
    let skipped = head.chars().count().saturating_sub(BEFORE);
    let head: String = head.chars().skip(skipped).collect();
    let dots = if skipped > 0 { "…" } else { "" };
    let head = format!("{dots}{}", text::shown(&head));
    let meant: String = tail.chars().take(tail.get(..error.len).map_or(1, |t| t.chars().count())).collect();
    let carets = text::shown(&meant).width().clamp(1, AFTER);
    let rest: String = tail.chars().take(AFTER).collect();
    let dots = if tail.chars().nth(AFTER).is_some() { "…" } else { "" };
    let failure = Failure::new(code::USAGE, text::shown(&error.message))
        .advise(format!("{head}{}{dots}", text::shown(&rest)))
        .advise(format!("{}{}", " ".repeat(head.width()), "^".repeat(carets)));
    match error.list_columns {
        true => with_columns(failure),
        false => failure,
    }
}

/// The columns there are.
pub fn with_columns(failure: Failure) -> Failure {
    let list = format!("columns: {} (size is bytes, start is addr)", Column::list());
    text::wrap(&list, 76).into_iter().fold(failure, Failure::advise)
}

pub fn of_attach(error: AttachError) -> Failure {
    let message = text::shown(&error.to_string());
    match error {
        AttachError::NotPermitted(denied) => not_permitted(&denied),
        AttachError::NoSuchProcess { .. } => Failure::new(code::FAILED, message)
            .advise("wmr ps lists the Python processes")
            .advise("a file whose name is all digits is written ./123"),
        AttachError::Own { .. } => Failure::new(code::FAILED, message),
        AttachError::Zombie { ppid, .. } => Failure::new(code::VANISHED, message)
            .advise("it has ended and has no memory any more; only its entry in the process table is left")
            .advise(format!("its parent is process {ppid}: wmr {ppid}")),
        AttachError::KernelThread { .. } => {
            Failure::new(code::FAILED, message).advise("it has no memory of its own")
        }
        AttachError::Vanished { .. } => Failure::new(code::VANISHED, message),
        AttachError::Replaced { .. } => {
            Failure::new(code::VANISHED, message).advise("when it has settled down:").advise(again("", ""))
        }
        AttachError::Traced { tracer, .. } => Failure::new(code::FAILED, message)
            .advise("a process can have one tracer: end that one, or look without stopping the process:")
            .advise(again("", " --capture none"))
            .advise(format!("tracer: process {tracer}")),
        AttachError::NotStopped(laggard) => {
            let why = match laggard.state {
                // `__refrigerator`, `do_freezer_trap`, as its kernel has it.
                _ if ["refrigerator", "freezer"].iter().any(|name| laggard.wchan.contains(name)) => {
                    "its cgroup is frozen"
                }
                'D' => "it waits in the kernel, for a disk or for a child that vfork made",
                'R' => "it waits for a processor: the machine is busy",
                _ => "it did not answer",
            };
            Failure::new(code::FAILED, message)
                .advise(format!("{why}; all other threads were let go on at once"))
                .advise("try again, or look without stopping the process:")
                .advise(again("", " --capture none"))
        }
        AttachError::TooLarge { pid, needed, limit, not_cloned } => {
            too_large(pid, needed, limit, not_cloned.as_deref())
        }
        AttachError::NotCloned { predicted, .. } => Failure::new(code::FAILED, message)
            .advise(format!("if that is acceptable: {}", accepting(predicted)))
            .advise("or look without stopping it: --capture none"),
        AttachError::TooLong { method, predicted, burden, .. } => {
            let failure = Failure::new(code::FAILED, message)
                .advise(format!("told from {}", told_from(&burden)))
                .advise(format!("if that is acceptable: {}", accepting(predicted)));
            match method {
                Method::Stop => failure.advise("a clone stops it for a shorter time: --capture clone"),
                _ => failure.advise("or look without stopping it: --capture none"),
            }
        }
        AttachError::ThirtyTwoBit { .. } => {
            Failure::new(code::FAILED, message).advise("64-bit processes are supported")
        }
        AttachError::Growing { .. } => Failure::new(code::FAILED, message).advise("try again in a moment"),
        AttachError::PageSize { .. } | AttachError::System { .. } => Failure::new(code::FAILED, message),
    }
}

fn too_large(pid: i32, needed: u64, limit: u64, not_cloned: Option<&str>) -> Failure {
    let gib = needed.div_ceil(1 << 30) + 1;
    let (needed, limit) = (scaled(needed), scaled(limit));
    let held = "what is copied is held in memory while it is looked at";
    let with_room = again("", &format!(" --max-memory {gib}G"));
    match not_cloned {
        // Not simply with more: where the cgroup of both is full, that would have one of them killed.
        Some(why) => Failure::new(
            code::FAILED,
            format!(
                "process {pid} cannot be cloned ({}), and a copy needs {needed}, above the limit of {limit}",
                text::shown(why)
            ),
        )
        .advise(held)
        .advise("outside of the container of the process, on the host, there may be room for it;")
        .advise(format!("where there is: {with_room}")),
        None => Failure::new(
            code::FAILED,
            format!("a copy of process {pid} needs {needed}, above the limit of {limit}"),
        )
        .advise(held)
        .advise(format!("where there is room for it: {with_room}"))
        .advise(format!("or, where it can be cloned, without a copy: {}", again("", " --capture clone"))),
    }
}

/// The command that accepts such a pause, with some room.
fn accepting(predicted: Duration) -> String {
    let millis = predicted.as_millis() as u64;
    again("", &format!(" --max-pause {}", (millis + millis / 4 + 10).next_multiple_of(10)))
}

fn told_from(burden: &Burden) -> String {
    let parts = [
        (burden.small, "in small pages"),
        (burden.huge, "in huge pages"),
        (burden.pinned, "pinned for devices or io_uring"),
        (burden.apart, "kept out of clones"),
    ];
    let mut words: Vec<String> = parts
        .iter()
        .filter(|(bytes, _)| *bytes > 0)
        .map(|(bytes, what)| format!("{} {what}", scaled(*bytes)))
        .collect();
    words.push(format!("{} threads", burden.threads));
    words.join(", ")
}

/// Why there is no interpreter to read, of a process with so many bytes in swap.
pub fn of_python(error: &FindError, swap: Option<u64>) -> String {
    let looked_for =
        matches!(error, FindError::NotPython | FindError::NotRunning | FindError::Unreadable { .. });
    match swap {
        Some(bytes @ 1..) if looked_for => {
            format!("{error} ({} of the process is in swap, which is not read)", scaled(bytes))
        }
        _ => error.to_string(),
    }
}

/// The clone that was being read has gone.
pub fn of_lost(lost: Lost) -> Failure {
    let failure = Failure::new(code::FAILED, lost.to_string());
    match lost {
        Lost::NoRoom => failure.advise("the process itself goes on unharmed").advise(format!(
            "a copy takes its memory elsewhere, and a longer pause: {}",
            again("", " --capture stop")
        )),
        Lost::TooLong | Lost::Killed => failure.advise("try again"),
    }
}

/// Which of the things that decide is in the way, its present value, and the command that changes it.
fn not_permitted(denied: &Denied) -> Failure {
    let Denied { pid, uid, our_uid, .. } = *denied;
    let name = text::shown(&denied.name);
    let mut failure =
        Failure::new(code::NOT_PERMITTED, format!("not permitted to look at process {pid} ({name})"))
            .advise(format!("tried to {}: {}", denied.what, denied.source));
    let sudo = again("sudo ", "");
    if uid != our_uid && !denied.capable {
        failure = failure.advise(format!(
            "the process belongs to user {uid}, you are user {our_uid} without the capability CAP_SYS_PTRACE"
        ));
    } else if !denied.dumpable && !denied.capable {
        failure = failure.advise(
            "the process is not dumpable (it changed its user, or asked so by prctl PR_SET_DUMPABLE): \
             that takes the capability CAP_SYS_PTRACE",
        );
    } else if let Some(scope @ 1..) = denied.yama {
        let meaning = match scope {
            1 => "only a parent may look at its children",
            2 => "that takes the capability CAP_SYS_PTRACE",
            _ => "nobody may, not even root, until the next boot",
        };
        failure = failure.advise(format!("the sysctl kernel.yama.ptrace_scope is {scope}: {meaning}"));
        if scope >= 3 {
            return failure
                .advise(format!("what is left is a core file, which ends the process: kill -ABRT {pid}"));
        }
        if uid == our_uid {
            failure =
                failure.advise("allow it for your own processes: sudo sysctl kernel.yama.ptrace_scope=0");
        }
    } else {
        return failure
            .advise("neither user, CAP_SYS_PTRACE nor Yama forbid it: a container, a seccomp filter or SELinux may")
            .advise("in a container, run it on the host, or give the container --cap-add=SYS_PTRACE");
    }
    failure.advise(format!("run it as root: {sudo}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(uid: u32, our_uid: u32, yama: Option<u8>, dumpable: bool) -> String {
        let source = std::io::Error::from_raw_os_error(1);
        let what = "open /proc/PID/mem";
        let name = "python3".into();
        not_permitted(&Denied { pid: 7, name, uid, our_uid, capable: false, yama, dumpable, what, source })
            .to_string()
    }

    #[test]
    fn what_may_be_in_swap_is_said_where_that_may_be_why() {
        let of = |error: FindError, swap| of_python(&error, swap);
        let unreadable = || FindError::Unreadable { version: None, fault: None };
        let why = "CPython is there, but its structures could not be followed";
        assert_eq!(of(unreadable(), Some(0)), why);
        let swapped = format!("{why} (100.0 MiB of the process is in swap, which is not read)");
        assert_eq!(of(unreadable(), Some(100 << 20)), swapped);
        assert_eq!(of(FindError::PyPy, Some(100 << 20)), FindError::PyPy.to_string());
    }

    #[test]
    fn a_refusal_names_what_decides() {
        assert!(denied(0, 1000, Some(1), true).contains("belongs to user 0, you are user 1000"));
        assert!(denied(1000, 1000, Some(1), true).contains("sudo sysctl kernel.yama.ptrace_scope=0"));
        let nobody = denied(1000, 1000, Some(3), true);
        assert!(nobody.contains("until the next boot") && !nobody.contains("sudo"), "{nobody}");
        assert!(denied(1000, 1000, None, false).contains("PR_SET_DUMPABLE"));
        assert!(denied(1000, 1000, Some(0), true).contains("--cap-add=SYS_PTRACE"));
        assert!(denied(0, 1000, Some(1), true).contains("run it as root: sudo "));
    }
}
