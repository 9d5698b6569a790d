//! What could not be looked at: a pointer in it would hold what seems to be lost.

use std::ops::Range;
use wmr_memory::{Fault, Mapping, Target, Why};

/// Memory and registers that nobody could look into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unread {
    /// Of blocks, and of what may refer to them.
    pub bytes: u64,
    /// Neither the registers of threads are known nor where their stacks end.
    pub threads: bool,
}

impl Unread {
    pub fn is_none(self) -> bool {
        self == Unread::default()
    }
}

/// How much of a range was there and is not to be had; nothing of what no process could read.
pub(super) fn lost(range: &Range<u64>, fault: Fault) -> u64 {
    match fault.why {
        Why::NotMapped | Why::NotReadable | Why::Unsafe => 0,
        _ => range.end.saturating_sub(range.start),
    }
}

/// Bytes of private memory that were written to and are neither in RAM nor in the file. What was never touched
/// reads as zeroes or, at the end of a stack, not at all.
pub(super) fn absent(target: &Target) -> u64 {
    let reader = target.reader();
    let of = |mapping: &Mapping| -> u64 {
        let present = mapping.residency.runs.iter().filter(|run| run.state.present);
        let ends = present.clone().map(|run| run.end);
        let starts = present.map(|run| run.start).chain([mapping.end]);
        let gaps = [mapping.start].into_iter().chain(ends).zip(starts).map(|(end, start)| end..start);
        let missing = |gap: Range<u64>| match reader.memory().read(gap.start, &mut [0]) {
            Err(Fault { why: Why::Swapped | Why::Truncated | Why::Damaged, .. }) => gap.end - gap.start,
            _ => 0,
        };
        gaps.filter(|gap| gap.start < gap.end).map(missing).fold(0, u64::saturating_add)
    };
    let private = target.mappings.iter().filter(|m| m.perms.read && m.perms.write && !m.perms.shared);
    private.map(of).fold(0, u64::saturating_add)
}
