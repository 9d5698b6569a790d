//! `/proc/PID`, held open so that a reused pid cannot stand in for the process we began with.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

pub(super) struct ProcDir {
    pub pid: i32,
    dir: File,
}

/// The lines of `/proc/PID/status` we use.
#[derive(Debug, Clone, Default)]
pub(super) struct Status {
    pub name: String,
    /// `R`, `S`, `D`, `Z`, …
    pub state: char,
    pub tgid: i32,
    pub ppid: i32,
    pub tracer: i32,
    pub uid: u32,
    pub rss: Option<u64>,
    pub rss_anon: Option<u64>,
    pub peak_rss: Option<u64>,
    pub swap: Option<u64>,
    /// Signals it has handlers for, one bit each.
    pub caught: u64,
    pub cap_effective: u64,
    /// Bytes pinned in place for devices and io_uring.
    pub pinned: u64,
    pub threads: u64,
    /// 0 none, 1 strict, 2 filters.
    pub seccomp: u8,
}

/// Where a program's code and stack were put when it was executed: with addresses at random, no two have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Program {
    code: u64,
    stack: u64,
}

impl ProcDir {
    pub fn open(pid: i32) -> io::Result<Self> {
        Ok(ProcDir { pid, dir: File::open(format!("/proc/{pid}"))? })
    }

    /// Where the memory can be seen: here, or at a living thread when the first one has ended before the others
    /// (`pthread_exit`), as nothing but its name and numbers is left here then. Not found: none lives.
    pub fn view(&self) -> io::Result<Self> {
        let status = self.status()?;
        if !status.has_ended() {
            return Ok(ProcDir { pid: self.pid, dir: self.dir.try_clone()? });
        }
        for tid in self.tids()? {
            // Not below `task`, where there is no `map_files`.
            let Ok(thread) = ProcDir::open(tid) else { continue };
            let lives = |of: Status| of.tgid == status.tgid && !of.has_ended();
            if thread.status().is_ok_and(lives) {
                return Ok(thread);
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    pub fn as_raw_fd(&self) -> i32 {
        self.dir.as_raw_fd()
    }

    /// A path below the held directory: it leads nowhere once the process has gone, whoever has its
    /// number then.
    pub fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()).into()
    }

    pub fn file(&self, name: &str) -> io::Result<File> {
        File::open(self.path(name))
    }

    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut file = self.file(name)?;
        // Without a length to go by std starts with 32 bytes; maps is made anew for each read call.
        let mut bytes = Vec::with_capacity(1 << 16);
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub fn text(&self, name: &str) -> io::Result<String> {
        self.read(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn link(&self, name: &str) -> io::Result<Vec<u8>> {
        use std::os::unix::ffi::OsStringExt;
        std::fs::read_link(self.path(name)).map(|path| path.into_os_string().into_vec())
    }

    /// Every thread, zombies included, in the kernel's order.
    pub fn tids(&self) -> io::Result<Vec<i32>> {
        let mut tids = Vec::new();
        for entry in std::fs::read_dir(self.path("task"))? {
            // An entry that cannot be read is a thread that ended between two getdents calls.
            if let Ok(entry) = entry
                && let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            {
                tids.push(tid);
            }
        }
        Ok(tids)
    }

    /// The program that runs in it; nothing once it has ended, or for whom may not read its memory.
    pub fn program(&self) -> Option<Program> {
        let stat = self.text("stat").ok()?;
        // `startcode` and `startstack` of proc(5), which are 1 and 0 for whom they are not told.
        let program = Program { code: field_of_stat(&stat, 26)?, stack: field_of_stat(&stat, 28)? };
        (program.stack != 0).then_some(program)
    }

    pub fn status(&self) -> io::Result<Status> {
        self.text("status").map(|text| Status::parse(&text))
    }

    /// State letter of one thread; `None` when it has gone.
    pub fn thread_state(&self, tid: i32) -> Option<char> {
        let text = self.text(&format!("task/{tid}/stat")).ok()?;
        state_of_stat(&text)
    }

    /// Is this thread the kernel's own, at work for the process?
    pub fn is_worker(&self, tid: i32) -> bool {
        // include/linux/sched.h; PF_USER_WORKER since 6.4.
        const PF_IO_WORKER: u64 = 0x10;
        const PF_USER_WORKER: u64 = 0x4000;
        let flags = self.text(&format!("task/{tid}/stat")).ok().and_then(|stat| flags_of_stat(&stat));
        flags.is_some_and(|flags| flags & (PF_IO_WORKER | PF_USER_WORKER) != 0)
    }

    pub fn thread_name(&self, tid: i32) -> Vec<u8> {
        let mut name = self.read(&format!("task/{tid}/comm")).unwrap_or_default();
        if name.last() == Some(&b'\n') {
            name.pop();
        }
        name
    }
}

/// The letter after the last `)`: the name before it may hold anything, parentheses included.
pub(super) fn state_of_stat(text: &str) -> Option<char> {
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The ninth field of stat, the seventh after the name.
fn flags_of_stat(stat: &str) -> Option<u64> {
    field_of_stat(stat, 9)
}

/// A numeric field of stat behind the name, counted from 1 as proc(5) does.
pub(super) fn field_of_stat(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// Is `PF_KTHREAD` set?
pub(super) fn is_kernel_thread(stat: &str) -> bool {
    const PF_KTHREAD: u64 = 0x0020_0000;
    flags_of_stat(stat).is_some_and(|flags| flags & PF_KTHREAD != 0)
}

impl Status {
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    pub fn parse(text: &str) -> Self {
        let mut status = Status { state: '?', ..Status::default() };
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let first = value.split_ascii_whitespace().next().unwrap_or_default();
            let bytes = || first.parse::<u64>().ok().map(|kb| kb.saturating_mul(1024));
            match key {
                "Name" => status.name = value.trim().to_owned(),
                "State" => status.state = first.chars().next().unwrap_or('?'),
                "Tgid" => status.tgid = first.parse().unwrap_or_default(),
                "PPid" => status.ppid = first.parse().unwrap_or_default(),
                "TracerPid" => status.tracer = first.parse().unwrap_or_default(),
                "Uid" => status.uid = first.parse().unwrap_or_default(),
                "VmRSS" => status.rss = bytes(),
                "RssAnon" => status.rss_anon = bytes(),
                "VmHWM" => status.peak_rss = bytes(),
                "VmSwap" => status.swap = bytes(),
                "VmPin" => status.pinned = bytes().unwrap_or_default(),
                "Threads" => status.threads = first.parse().unwrap_or_default(),
                "Seccomp" => status.seccomp = first.parse().unwrap_or_default(),
                "SigCgt" => status.caught = u64::from_str_radix(first, 16).unwrap_or_default(),
                "CapEff" => status.cap_effective = u64::from_str_radix(first, 16).unwrap_or_default(),
                _ => {}
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_does_not_hide_the_state() {
        assert_eq!(state_of_stat("12 (a) R) b) Z 1 12 12 0 -1 0"), Some('Z'));
        assert!(is_kernel_thread("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0"));
        assert!(!is_kernel_thread("9 (x (y) z) S 1 9 9 0 -1 4194560 0 0"));
    }

    #[test]
    fn status_is_read_in_bytes() {
        let status =
            Status::parse("Name:\tpy thon\nState:\tS (sleeping)\nUid:\t5\t6\t7\t8\nVmHWM:\t  12 kB\n");
        assert_eq!((status.name.as_str(), status.state, status.uid), ("py thon", 'S', 5));
        assert_eq!((status.peak_rss, status.rss), (Some(12288), None));
    }

    #[test]
    fn our_own_directory() {
        let dir = ProcDir::open(std::process::id() as i32).unwrap();
        assert_eq!(dir.status().unwrap().tgid, dir.pid);
        assert!(dir.tids().unwrap().contains(&dir.pid));
    }
}
