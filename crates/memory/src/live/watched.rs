//! A process of which nothing is asked but its size, or what it is doing.

use super::procdir::{ProcDir, field_of_stat, state_of_stat};
use super::{AttachError, open_dir, refusal};

/// Held so that a reused pid cannot stand in for it.
pub struct Watched {
    dir: ProcDir,
}

impl Watched {
    /// # Errors
    /// There is no such process.
    pub fn open(pid: i32) -> Result<Watched, AttachError> {
        Ok(Watched { dir: open_dir(pid)? })
    }

    /// Pages it had to be given or to have copied so far, without the disk. A capture by a clone makes some.
    ///
    /// # Errors
    /// It has ended.
    pub fn faults(&self) -> Result<u64, AttachError> {
        let text = self.dir.text("stat").map_err(|error| refusal(&self.dir, "read /proc/PID/stat", error))?;
        // Behind the name, which may contain anything: state is the first, `minflt` the eighth.
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
        Ok(fields.split_whitespace().nth(7).and_then(|field| field.parse().ok()).unwrap_or(0))
    }

    /// Resident bytes, as the kernel counts them between threads: near enough, and it costs microseconds.
    ///
    /// # Errors
    /// It has ended.
    pub fn rss(&self) -> Result<u64, AttachError> {
        let status = self.dir.view().and_then(|view| view.status());
        let status = status.map_err(|error| refusal(&self.dir, "read /proc/PID/status", error))?;
        Ok(status.rss.unwrap_or(0))
    }
}

/// Threads that are asked what they do: more are not all at work.
const MAX_ASKED: usize = 4096;

/// The processors on which those threads of a process are, or were last, that have work to do now.
pub fn busy_processors(pid: i32) -> Vec<usize> {
    let Ok(dir) = ProcDir::open(pid) else { return Vec::new() };
    let processor = |tid: i32| {
        let stat = dir.text(&format!("task/{tid}/stat")).ok()?;
        let processor = field_of_stat(&stat, 39)?;
        (state_of_stat(&stat) == Some('R')).then_some(processor as usize)
    };
    dir.tids().unwrap_or_default().into_iter().take(MAX_ASKED).filter_map(processor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_waits_is_on_no_processor_and_this_thread_on_its_own() {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        cat.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        // It has nothing left to do but to wait for more.
        while !busy_processors(cat.id() as i32).is_empty() {}
        assert!(busy_processors(cat.id() as i32).is_empty());
        cat.kill().unwrap();
        cat.wait().unwrap();
        assert!(!busy_processors(std::process::id() as i32).is_empty());
        assert!(busy_processors(i32::MAX).is_empty());
    }
}
