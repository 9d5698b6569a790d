//! A process of which nothing is asked but its size.

use super::procdir::ProcDir;
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
        let status = self.dir.status().map_err(|error| refusal(&self.dir, "read /proc/PID/status", error))?;
        match status.state {
            'Z' | 'X' => Err(AttachError::Zombie { pid: self.dir.pid, ppid: status.ppid }),
            _ => Ok(status.rss.unwrap_or(0)),
        }
    }
}
