//! Core files of running targets.

use crate::{Target, TempFile};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Writes a core with gdb's `gcore`; the process goes on.
///
/// # Errors
/// gdb is not installed, or cannot read the process.
pub fn gcore(pid: i32) -> io::Result<TempFile> {
    let folder = tempfile::tempdir()?;
    let prefix = folder.path().join("core");
    let mut command = Command::new("gcore");
    command.arg("-o").arg(&prefix).arg(pid.to_string()).stdin(Stdio::null());
    let out = command.output().map_err(|e| io::Error::other(format!("gcore (package gdb): {e}")))?;
    let path = folder.path().join(format!("core.{pid}"));
    if !path.is_file() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(io::Error::other(format!("gcore {pid}: {}: {said}", out.status)));
    }
    Ok(TempFile::new(folder, path))
}

/// Ends the target with SIGABRT and takes the core that the kernel writes.
///
/// # Errors
/// This machine pipes cores to a program instead of writing files (`kernel.core_pattern`), the
/// target's folder cannot be written, or no core appears.
pub fn kernel_core(mut target: Target) -> io::Result<TempFile> {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    let pattern = pattern.trim();
    if pattern.contains(['|', '%', '@']) {
        return Err(io::Error::other(format!("kernel.core_pattern is {pattern:?}, not a plain file name")));
    }
    let pid = target.pid();
    // The kernel takes a relative pattern from the folder that the target is in, and its root.
    let root = PathBuf::from(format!("/proc/{pid}/root")).canonicalize()?;
    let inside = if Path::new(pattern).is_absolute() {
        root.join(pattern.trim_start_matches('/'))
    } else {
        std::fs::read_link(format!("/proc/{pid}/cwd"))?.join(pattern)
    };
    let limit = Command::new("prlimit").args(["--core=unlimited", "--pid"]).arg(pid.to_string()).status()?;
    if !limit.success() {
        return Err(io::Error::other(format!("prlimit: {limit}")));
    }
    kill(Pid::from_raw(pid), Signal::SIGABRT)?;
    let status = target.child().wait()?;
    let mut with_pid = inside.clone().into_os_string();
    with_pid.push(format!(".{pid}"));
    let written = [PathBuf::from(with_pid), inside].into_iter().find(|p| p.is_file());
    let written = written.ok_or_else(|| io::Error::other(format!("pid {pid}: {status}, and no core")))?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("core");
    // Not a rename: the folder may be on another file system.
    std::fs::copy(&written, &path)?;
    std::fs::remove_file(&written)?;
    Ok(TempFile::new(folder, path))
}
