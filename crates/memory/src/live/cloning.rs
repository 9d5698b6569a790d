//! A picture by a clone: what is private comes from the child, what is of files and shared from the
//! process itself, as a fork copies no page tables of those.

use super::clone::{self, Holder, NoClone, Order};
use super::copy::{Buffer, Extents};
use super::headroom::{self, Groups};
use super::pagemap::clip;
use super::picture::{Frozen, inherit, residency};
use super::predict::Burden;
use super::procdir::ProcDir;
use super::smaps::{self, Entry};
use super::stream::Stream;
use super::{AttachError, LiveOptions, Source, refusal};
use crate::{Backing, Capture, Method, PageState, Residency, Run, Target};
use std::ops::Range;

impl Source {
    pub(super) fn by_clone(&self, limit: u64, options: &LiveOptions) -> Result<Target, NoClone> {
        let pid = self.dir.pid;
        let (mut before, files, process) = self.look()?;
        // Before there is a child: then all that is private would be shared with it.
        residency(&self.pagemap, &mut before).map_err(|e| refusal(&self.dir, "read /proc/PID/pagemap", e))?;
        let mut notes = self.notes.clone();
        self.sharing(&mut before, &mut notes);

        let burden = Burden::of(&before, self.status.pinned, self.status.threads);
        let groups = Groups::of(self.view.path("cgroup"));
        if let Some(why) = self.obstacle(&before, &burden, &groups) {
            return Err(NoClone::Refused(why));
        }
        let predicted = burden.of_clone();
        if let Some(limit) = options.max_pause.filter(|&limit| predicted > limit) {
            let method = Method::Clone;
            return Err(AttachError::TooLong { pid, method, predicted, limit, burden }.into());
        }
        let instruction = clone::find_instruction(&self.mem, &self.pagemap, &before);
        let Some(instruction) = instruction else {
            self.is_the_same(&self.view)?;
            return Err(NoClone::Refused("no system call instruction was found in it".to_owned()));
        };
        let apart: Vec<Range<u64>> = before
            .iter()
            .filter(|entry| entry.flags.apart() && !entry.mapping.perms.shared)
            .map(|entry| entry.mapping.start..entry.mapping.end)
            .collect();
        // Twice what there is, as it may grow until the stop.
        let apart_room = if apart.is_empty() { 0 } else { burden.apart.saturating_mul(2).max(1 << 20) };
        if apart_room > limit {
            return Err(AttachError::TooLarge { pid, needed: apart_room, limit, not_cloned: None }.into());
        }
        let order = Order {
            dir: &self.dir,
            mem: &self.mem,
            pagemap: &self.pagemap,
            instruction,
            apart: &apart,
            apart_room,
            seccomp: self.status.seccomp != 0,
            groups: &groups,
            reserve: headroom::last_reserve(burden.private()),
            // What is only copied has its room made by itself.
            room_for: if options.hold { 0 } else { burden.private() },
            budget: options.stop_budget,
            patience: options.stop_patience,
        };
        let cloned = clone::take(&order)?;

        let gone = |error| refusal(&self.dir, "read its clone", error);
        let child = ProcDir::open(cloned.child.pid).map_err(gone)?;
        self.is_the_same(&child)?;
        let (mem, pages) = (child.file("mem").map_err(gone)?, child.file("pagemap").map_err(gone)?);
        let mut entries = smaps::parse(&child.read("maps").map_err(gone)?);
        inherit(&mut entries, &before);
        let unscanned = residency(&pages, &mut entries).map_err(gone)?;
        add_apart(&mut entries, &before);
        let mut ranges = Vec::new();
        for entry in &mut entries {
            let has_file = files.get(&entry.mapping).is_some();
            complete(entry, &before, &cloned.extents, has_file, &mut ranges);
        }
        let child = Holder::new(cloned.child);
        let extents = Extents::of(&ranges);
        let held = options.hold && cloned.extents.is_empty() && extents.bytes <= limit;
        let mut consistent = true;
        let (extents, copied, stream, failed) = if held {
            let room = Buffer::new(extents.bytes, extents.bytes);
            let mut buffer =
                room.map_err(|source| AttachError::System { pid, what: "make room for the copy", source })?;
            let failed = buffer.fill(&mem, &extents).map_err(gone)?;
            if child.end(false).is_err() {
                consistent = false;
                notes.push("the clone ended too early: what is shown may contradict itself".to_owned());
            }
            (extents.without(&failed), Some(buffer.into_map()), None, failed)
        } else {
            let stream = Stream::new(mem, ranges, child, cloned.room);
            (Extents::of(&cloned.extents).all, cloned.copied, Some(stream), Vec::new())
        };
        let frozen = Frozen {
            entries,
            extents,
            copied,
            stream,
            failed,
            unscanned,
            threads: cloned.threads,
            time: cloned.time,
        };
        let capture = Capture { method: Method::Clone, pause: cloned.pause, consistent, time: cloned.time };
        Ok(self.target(frozen, process, &files, capture, notes)?)
    }

    /// Why a clone would fail, or do harm.
    fn obstacle(&self, before: &[Entry], burden: &Burden, groups: &Groups) -> Option<String> {
        if before.iter().any(|entry| entry.flags.userfault) {
            // With UFFD_FEATURE_EVENT_FORK, clone waits until somebody has heard of it.
            return Some("its memory is managed by userfaultfd".to_owned());
        }
        // Page tables: 8 bytes a page and some; and what it may write until it is noticed that it
        // writes a lot.
        let tables = burden.private() / 500 + burden.mappings * 1024 + (1 << 20);
        let needed = tables + headroom::last_reserve(burden.private()) * 3 / 2 + burden.private() / 20;
        let left = groups.available();
        let mib = |bytes: u64| bytes >> 20;
        if let Some(left) = left.filter(|&left| left < needed) {
            let (left, needed) = (mib(left), mib(needed));
            return Some(format!(
                "its memory cgroup has {left} MiB left, and what it writes meanwhile may take {needed} MiB"
            ));
        }
        let left = headroom::system()?;
        let (has, needs) = (mib(left), mib(needed));
        (left < needed).then(|| {
            format!("the system has {has} MiB left, and what it writes meanwhile may take {needs} MiB")
        })
    }
}

/// Memory of `MADV_DONTFORK` is not among the child's mappings.
fn add_apart(entries: &mut Vec<Entry>, before: &[Entry]) {
    for entry in before.iter().filter(|entry| entry.flags.apart()) {
        let at = entries.partition_point(|other| other.mapping.end <= entry.mapping.start);
        if entries.get(at).is_none_or(|next| next.mapping.start >= entry.mapping.end) {
            entries.insert(at, entry.clone());
        }
    }
}

/// Puts together what is known of the pages of one mapping, and which of them the child has.
fn complete(
    entry: &mut Entry,
    before: &[Entry],
    copied: &[Range<u64>],
    has_file: bool,
    ranges: &mut Vec<Range<u64>>,
) {
    let mapping = &mut entry.mapping;
    let range = mapping.start..mapping.end;
    let known = runs_of(before, &range);
    if entry.flags.apart() && !mapping.perms.shared {
        let state = PageState { present: true, exclusive: true, ..PageState::default() };
        let first = copied.partition_point(|extent| extent.end <= range.start);
        let here = copied[first..].iter().take_while(|extent| extent.start < range.end);
        let here = here.map(|e| Run { start: e.start.max(range.start), end: e.end.min(range.end), state });
        let mut residency = Residency { runs: here.collect() };
        let gone = known.iter().filter(|run| run.state.swapped).copied();
        residency.runs.extend(gone.filter(|run| !overlaps(copied, run)));
        residency.runs.sort_by_key(|run| run.start);
        mapping.residency = residency;
        return;
    }
    let of_child = std::mem::take(&mut mapping.residency.runs);
    let private = !mapping.perms.shared
        && !matches!(mapping.backing, Backing::SharedMemory | Backing::Device | Backing::Kernel);
    mapping.residency = if private {
        layered(of_child.iter().filter(|run| !run.state.file), &known)
    } else {
        Residency { runs: known }
    };
    let streamed = |run: &Run| {
        let state = run.state;
        state.present
            && !state.zero
            && match mapping.backing {
                Backing::Anonymous | Backing::Brk | Backing::Stack => private,
                Backing::Kernel => true,
                Backing::File => !state.file || !has_file,
                Backing::SharedMemory | Backing::Device => false,
            }
    };
    for run in mapping.residency.runs.iter().filter(|run| streamed(run)) {
        match ranges.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => ranges.push(run.start..run.end),
        }
    }
}

fn overlaps(extents: &[Range<u64>], run: &Run) -> bool {
    let first = extents.partition_point(|extent| extent.end <= run.start);
    extents.get(first).is_some_and(|extent| extent.start < run.end)
}

/// The runs found before in this range, whatever mappings it was then.
fn runs_of(before: &[Entry], range: &Range<u64>) -> Vec<Run> {
    let first = before.partition_point(|entry| entry.mapping.end <= range.start);
    let here = before[first..].iter().take_while(|entry| entry.mapping.start < range.end);
    here.flat_map(|entry| clip(&entry.mapping.residency.runs, range.clone())).collect()
}

/// The child's private pages over the pages of files and shared memory that were there before. Who else
/// had a private page was known before; one that is new since is its own.
fn layered<'r>(own: impl Iterator<Item = &'r Run>, known: &[Run]) -> Residency {
    let mut out = Residency::default();
    let mut known = known.iter().copied().peekable();
    let mut pending: Option<Run> = None;
    // Yields what was known up to `end`, cut there.
    let mut next_known = |end: u64| -> Option<Run> {
        let run = match pending.take() {
            Some(run) => run,
            None => known.next_if(|run| run.start < end)?,
        };
        if run.start >= end {
            pending = Some(run);
            return None;
        }
        if run.end > end {
            pending = Some(Run { start: end, ..run });
        }
        Some(Run { end: run.end.min(end), ..run })
    };
    for run in own {
        while let Some(old) = next_known(run.start) {
            if old.state.file {
                out.push(old.start, old.end, old.state);
            }
        }
        let mut at = run.start;
        while let Some(old) = next_known(run.end) {
            if old.state.file || !old.state.present {
                continue;
            }
            let fresh = PageState { exclusive: run.state.present && !run.state.zero, ..run.state };
            if at < old.start {
                out.push(at, old.start, fresh);
            }
            let exclusive = old.state.exclusive && run.state.present;
            out.push(old.start, old.end, PageState { exclusive, ..run.state });
            at = old.end;
        }
        if at < run.end {
            let exclusive = run.state.present && !run.state.zero;
            out.push(at, run.end, PageState { exclusive, ..run.state });
        }
    }
    while let Some(old) = next_known(u64::MAX) {
        if old.state.file {
            out.push(old.start, old.end, old.state);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: PageState =
        PageState { present: true, file: true, swapped: false, exclusive: false, zero: false, huge: false };
    const OURS: PageState = PageState { file: false, exclusive: true, ..FILE };
    const SHARED: PageState = PageState { file: false, ..FILE };

    fn run(start: u64, end: u64, state: PageState) -> Run {
        Run { start, end, state }
    }

    #[test]
    fn the_childs_pages_lie_over_those_of_the_file() {
        let known = [run(0, 4, FILE), run(4, 6, OURS), run(6, 8, SHARED), run(10, 12, FILE)];
        // Page 1 was written since, pages 5 to 9 are private; 8 and 9 are new; 4 has gone.
        let child = [run(1, 2, SHARED), run(5, 10, SHARED)];
        let layered = layered(child.iter(), &known);
        assert_eq!(
            layered.runs,
            [
                run(0, 1, FILE),
                run(1, 2, OURS),
                run(2, 4, FILE),
                run(5, 6, OURS),
                run(6, 8, SHARED),
                run(8, 10, OURS),
                run(10, 12, FILE),
            ]
        );
    }
}
