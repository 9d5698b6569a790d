//! What has to be known by the next run: clones that were not cleared away, because somebody killed
//! the helper; and system calls that were begun anew.
//!
//! Small files in a folder of this user's own, below `$XDG_RUNTIME_DIR` or the folder for temporary
//! files. What they say is checked against the kernel before anything is done about it.

use super::interrupted::Restarted;
use super::{Call, Order, helper};
use crate::live::procdir::{ProcDir, field_of_stat};
use rustc_hash::FxHashSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::time::Duration;

/// More files than this in the folder are not ours.
const MAX_RECORDS: usize = 1000;

/// More threads than these do not wait at once in calls that a stop interrupts.
const MAX_CALLS: usize = 10_000;

/// The folder, made if need be; `None` when it is not surely ours.
fn folder() -> Option<PathBuf> {
    // SAFETY: takes nothing and cannot fail.
    let uid = unsafe { libc::geteuid() };
    let parent = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = parent.unwrap_or_else(std::env::temp_dir).join(format!("wheresmyram-{uid}"));
    let _ = DirBuilder::new().mode(0o700).create(&folder);
    let metadata = fs::symlink_metadata(&folder).ok()?;
    (metadata.is_dir() && metadata.uid() == uid && metadata.mode() & 0o077 == 0).then_some(folder)
}

/// Start time of a process in clock ticks since boot: with the pid it names a process for good.
fn start_time(pid: i32) -> Option<u64> {
    field_of_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, 22)
}

/// Notes that `child` is to be cleared away.
pub(super) fn write(dir: &ProcDir, child: i32) -> Option<PathBuf> {
    let name = format!("clone.{child}.{}.{}", start_time(child)?, dir.pid);
    let path = folder()?.join(name);
    fs::write(&path, "").ok()?;
    Some(path)
}

pub(super) fn forget(record: Option<PathBuf>) {
    if let Some(path) = record {
        let _ = fs::remove_file(path);
    }
}

/// Clears away what an earlier helper left of clones of this target.
pub(super) fn sweep(order: &Order) {
    let Some(entries) = folder().and_then(|folder| fs::read_dir(folder).ok()) else { return };
    for entry in entries.flatten().take(MAX_RECORDS) {
        let name = entry.file_name();
        let numbers = name.to_str().and_then(|name| name.strip_prefix("clone."));
        let numbers: Vec<u64> =
            numbers.map(|text| text.split('.').flat_map(str::parse).collect()).unwrap_or_default();
        let &[child, started, parent] = numbers.as_slice() else { continue };
        let child = child as i32;
        let gone = start_time(child) != Some(started);
        let left = || parent == order.dir.pid as u64 && is_zombie_of(child, order.dir.pid);
        if gone || left() && helper::clear(order, child, 4) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Has `child` ended without a signal to `parent`, who has yet to collect it?
pub(super) fn is_zombie_of(child: i32, parent: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else { return false };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    // Fields 4 and 38: its parent, and the signal that its end sends, none for a clone of ours.
    state == Some('Z')
        && field_of_stat(&stat, 4) == Some(parent as u64)
        && field_of_stat(&stat, 38) == Some(0)
}

/// The number by which its own pid namespace knows a process: the last of `NSpid`.
pub(super) fn number_in_namespace(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    match line {
        Some(line) => line.split_ascii_whitespace().last()?.parse().ok(),
        // Before Linux 4.1.
        None => Some(pid as u64),
    }
}

fn calls_file(dir: &ProcDir) -> Option<PathBuf> {
    Some(folder()?.join(format!("calls.{}.{}", dir.pid, start_time(dir.pid)?)))
}

/// Calls that were begun anew by earlier captures of this target, in order of threads.
pub(super) fn restarted(dir: &ProcDir) -> Vec<Restarted> {
    let text = calls_file(dir).and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let mut all: Vec<Restarted> = text.lines().take(MAX_CALLS).filter_map(parse).collect();
    all.sort_by_key(|call| call.tid);
    all
}

fn parse(line: &str) -> Option<Restarted> {
    let mut words = line.split(' ').map(|word| word.parse::<u64>().ok());
    let mut next = || words.next().flatten();
    let (tid, number, stack, since) = (next()? as i32, next()? as i64, next()?, next()?);
    let (last, times) = (next()?, next()?);
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = next()?;
    }
    let call = Call { number, arguments };
    let (since, last) = (Duration::from_nanos(since), Duration::from_nanos(last));
    Some(Restarted { tid, call, stack, since, last, times })
}

/// Replaces what was remembered of these threads.
pub(super) fn remember(dir: &ProcDir, new: &[Restarted]) {
    if new.is_empty() {
        return;
    }
    let Some(path) = calls_file(dir) else { return };
    let threads: FxHashSet<i32> = new.iter().map(|call| call.tid).collect();
    let mut all = restarted(dir);
    all.retain(|old| !threads.contains(&old.tid));
    all.extend_from_slice(new);
    let mut text = String::new();
    for Restarted { tid, call, stack, since, last, times } in &all {
        use std::fmt::Write;
        let _ =
            write!(text, "{tid} {} {stack} {} {} {times}", call.number, since.as_nanos(), last.as_nanos());
        for argument in call.arguments {
            let _ = write!(text, " {argument}");
        }
        text.push('\n');
    }
    let _ = fs::write(path, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_comes_back() {
        let own = ProcDir::open(std::process::id() as i32).unwrap();
        let call = Call { number: 128, arguments: [1, u64::MAX, 3, 4, 5, 6] };
        let since = Duration::from_nanos(123_456_789_012);
        let one = Restarted { tid: 7, call, stack: 1 << 47, since, last: since * 2, times: 9 };
        remember(&own, std::slice::from_ref(&one));
        assert_eq!(restarted(&own), std::slice::from_ref(&one));
        let later = Restarted { since: Duration::from_secs(900), ..one };
        remember(&own, std::slice::from_ref(&later));
        assert_eq!(restarted(&own), [later]);
        fs::remove_file(calls_file(&own).unwrap()).unwrap();
    }

    #[test]
    fn only_a_dead_clone_is_one() {
        let own = std::process::id() as i32;
        assert!(!is_zombie_of(own, own));
        assert_eq!(number_in_namespace(own), Some(own as u64));
    }
}
