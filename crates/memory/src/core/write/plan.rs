//! Which pages go into a core, and into which segments.

use crate::core::pages::{Mark, Marked};
use crate::file::{same_file, slow_devices};
use crate::{Backing, Mapping, PageState, Perms, Target, Why};
use rustc_hash::{FxHashMap, FxHashSet};
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What was never touched is a hole in the file up to this size, and beyond it not in the file at all:
/// mappings of terabytes with little in them exist, files of that size not on every file system.
pub(super) const VAST: u64 = 1 << 30;

/// A `PT_LOAD`. Addresses: `start <= filled <= end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub start: u64,
    /// Up to here it is in the file, as bytes or as a hole.
    pub filled: u64,
    pub end: u64,
    /// In the file.
    pub offset: u64,
    pub perms: Perms,
}

#[derive(Default)]
pub(super) struct Plan {
    /// By address.
    pub segments: Vec<Segment>,
    /// What is to be read and stored, by address; each in one segment.
    pub stored: Vec<Range<u64>>,
    /// For our own note, by address.
    pub marked: Vec<Marked>,
    /// For the user.
    pub notes: Vec<String>,
}

/// What becomes of some pages.
enum Fate {
    Store,
    /// Zeroes, in the file as a hole.
    Hole,
    /// In the segment's `p_memsz` alone.
    Leave,
    /// In no segment.
    Absent(Mark),
}

/// How a mapping's file counts.
enum Behind {
    /// Here under its name: what is clean is left to it.
    AtHand,
    /// The mapping was written to, or may have been: all of it is stored, as the kernel does.
    Written,
    /// Deleted, or not the file of that name here.
    Elsewhere { constants: bool },
}

impl Plan {
    pub fn of(target: &Target) -> Self {
        let mut files = Files::new(target);
        let mut plan = Plan::default();
        let mut swapped = 0;
        for mapping in target.mappings.iter().filter(|m| !m.is_empty()) {
            let behind = files.behind(mapping);
            let head = match behind {
                Behind::AtHand => head(target, mapping),
                _ => mapping.start,
            };
            // A segment begins with every mapping.
            let mut open = false;
            if mapping.start < head {
                // Names the file by its build-id.
                let loaded = mapping.residency.charge(mapping.start..head).resident > 0;
                let mark = (!loaded).then_some(Mark::Untouched);
                plan.add(mapping, mapping.start..head, Fate::Store, mark, &mut open);
            }
            for (range, state) in stretches(mapping, head) {
                let (fate, mark) = fate(target, mapping, &behind, &range, state);
                if matches!(fate, Fate::Absent(Mark::Swapped)) {
                    swapped += range.end - range.start;
                }
                plan.add(mapping, range, fate, mark, &mut open);
            }
        }
        if swapped > 0 {
            plan.notes.push(format!("{swapped} bytes were swapped out and are not in the core"));
        }
        plan
    }

    /// Appends a stretch of a mapping. `open`: the last segment can be continued.
    fn add(&mut self, mapping: &Mapping, range: Range<u64>, fate: Fate, mark: Option<Mark>, open: &mut bool) {
        let Range { start, end } = range;
        let mark = if let Fate::Absent(mark) = fate { Some(mark) } else { mark };
        if let Some(mark) = mark {
            let (from_inside, to_inside) = (mapping.start < start, end < mapping.end);
            self.marked.push(Marked { start, end, mark, perms: mapping.perms, from_inside, to_inside });
        }
        if matches!(fate, Fate::Absent(_)) {
            *open = false;
            return;
        }
        let fills = !matches!(fate, Fate::Leave);
        let last = self.segments.last_mut().filter(|last| *open && (!fills || last.filled == last.end));
        match last {
            Some(last) => last.end = end,
            None => {
                let perms = mapping.perms;
                self.segments.push(Segment { start, filled: start, end, offset: 0, perms });
                *open = true;
            }
        }
        if let Some(last) = self.segments.last_mut().filter(|_| fills) {
            last.filled = end;
        }
        if matches!(fate, Fate::Store) {
            match self.stored.last_mut() {
                // Not across segments, which need not lie one behind the other in the file.
                Some(last) if last.end == start && self.segments.last().is_some_and(|s| s.start < start) => {
                    last.end = end;
                }
                _ => self.stored.push(start..end),
            }
        }
    }

    /// Gives every segment its place in the file, from `at` on; answers where the last one ends.
    pub fn place(&mut self, at: u64, page: u64) -> u64 {
        let mut at = at.next_multiple_of(page);
        for segment in &mut self.segments {
            // Offset and address agree modulo the alignment, also where a segment was cut off.
            segment.offset = at + segment.start % page;
            at = (segment.offset + (segment.filled - segment.start)).next_multiple_of(page);
        }
        at
    }
}

fn fate(
    target: &Target,
    mapping: &Mapping,
    behind: &Behind,
    range: &Range<u64>,
    state: Option<PageState>,
) -> (Fate, Option<Mark>) {
    if state.is_some_and(|state| state.swapped) {
        return (Fate::Absent(Mark::Swapped), None);
    }
    let present = state.is_some_and(|state| state.present && !state.zero);
    let vast = range.end - range.start >= VAST;
    let untouched = Some(Mark::Untouched);
    match mapping.backing {
        // The kernel has segments for [vvar] and for devices, and nothing in them.
        Backing::Device => (Fate::Leave, None),
        Backing::Kernel if present => (Fate::Store, None),
        // gdb takes [vdso] for an ELF file, and wants all of it.
        Backing::Kernel if !vast && target.memory.read(range.start, &mut [0]).is_ok() => {
            (Fate::Store, untouched)
        }
        Backing::Kernel => (Fate::Leave, None),
        // Others may have written to the rest: it is not known to be zeroes.
        Backing::SharedMemory if present => (Fate::Store, None),
        Backing::SharedMemory => (Fate::Absent(Mark::Unread), None),
        Backing::File => match behind {
            Behind::AtHand => (Fate::Leave, None),
            _ if present => (Fate::Store, None),
            Behind::Written | Behind::Elsewhere { constants: true } if !vast => (Fate::Store, untouched),
            _ => (Fate::Absent(Mark::LeftOut), None),
        },
        Backing::Anonymous | Backing::Brk | Backing::Stack if present => (Fate::Store, None),
        Backing::Anonymous | Backing::Brk | Backing::Stack => {
            match target.memory.read(range.start, &mut [0]).map_err(|fault| fault.why) {
                Ok(()) if !vast && mapping.perms.read => (Fate::Hole, untouched),
                Ok(()) | Err(Why::NotReadable) => (Fate::Leave, untouched),
                // Not looked through, managed by userfaultfd, or not in a core that this is read from.
                Err(_) => (Fate::Absent(Mark::Unread), None),
            }
        }
    }
}

/// The first page of a program or library, as the kernel stores it: up to where, the start if not.
fn head(target: &Target, mapping: &Mapping) -> u64 {
    let mut magic = [0; 4];
    let elf = mapping.offset == 0
        && mapping.perms.read
        && target.memory.read(mapping.start, &mut magic).is_ok()
        && magic == object::elf::ELFMAG;
    if elf { mapping.start.saturating_add(target.page_size).min(mapping.end) } else { mapping.start }
}

/// A mapping's pages from `from` on: runs, and what lies between them.
fn stretches(mapping: &Mapping, from: u64) -> impl Iterator<Item = (Range<u64>, Option<PageState>)> + '_ {
    let mut runs = mapping.residency.runs.iter().filter(move |run| from < run.end).peekable();
    let mut at = from;
    std::iter::from_fn(move || {
        if at >= mapping.end {
            return None;
        }
        let start = at;
        match runs.next_if(|run| run.start <= start) {
            Some(run) => {
                at = run.end.clamp(start, mapping.end);
                Some((start..at, Some(run.state)))
            }
            None => {
                at = runs.peek().map_or(mapping.end, |run| run.start.min(mapping.end));
                Some((start..at, None))
            }
        }
    })
    .filter(|(range, _)| range.start < range.end)
}

/// Device, inode and name.
type Key<'t> = ((u32, u32), u64, &'t [u8]);

/// Which mapped files are here under their names.
struct Files<'t> {
    here: FxHashMap<Key<'t>, bool>,
    slow: FxHashSet<(u32, u32)>,
    images: FxHashSet<&'t [u8]>,
}

impl<'t> Files<'t> {
    fn new(target: &'t Target) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Files {
            here: FxHashMap::default(),
            slow: slow_devices(&mounts),
            images: target.images.iter().map(|image| image.path.as_slice()).collect(),
        }
    }

    fn behind(&mut self, mapping: &'t Mapping) -> Behind {
        let image = self.images.contains(mapping.name.as_slice());
        let private = |state: PageState| state.swapped || state.present && !state.file && !state.zero;
        let written = !mapping.perms.shared
            && (image && mapping.perms.write || mapping.residency.runs.iter().any(|run| private(run.state)));
        if mapping.backing == Backing::File && written {
            Behind::Written
        } else if self.at_hand(mapping) {
            Behind::AtHand
        } else {
            // Text that did not run is missed by nobody; names and tables are constants.
            Behind::Elsewhere { constants: image && !mapping.perms.exec }
        }
    }

    /// Will gdb find the file by its name? Nothing is opened for it.
    fn at_hand(&mut self, mapping: &'t Mapping) -> bool {
        if mapping.backing != Backing::File || mapping.deleted || self.slow.contains(&mapping.dev) {
            return false;
        }
        let key = (mapping.dev, mapping.inode, mapping.name.as_slice());
        *self.here.entry(key).or_insert_with(|| {
            let metadata = std::fs::metadata(Path::new(OsStr::from_bytes(&mapping.name)));
            metadata.is_ok_and(|metadata| metadata.is_file() && same_file(mapping, &metadata))
        })
    }
}
