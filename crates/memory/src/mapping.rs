use crate::text;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// One mapping of the address space, as `/proc/PID/smaps` or a core's program headers list it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub perms: Perms,
    /// Offset in the file, bytes.
    pub offset: u64,
    pub dev: (u32, u32),
    pub inode: u64,
    /// The kernel's name for it: a path without " (deleted)", `[heap]`, `[stack]`, `[anon:…]`, or empty.
    #[serde(with = "text::latin1")]
    pub name: Vec<u8>,
    /// The file behind it was deleted or replaced.
    pub deleted: bool,
    pub backing: Backing,
    /// What smaps says; zeroes for a core.
    pub usage: Usage,
    /// Which pages are there. For a core: which bytes are stored.
    pub residency: Residency,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Perms {
    pub read: bool,
    pub write: bool,
    pub exec: bool,
    pub shared: bool,
}

/// What lies behind a mapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    #[default]
    Anonymous,
    /// `[heap]`: what `brk` moved.
    Brk,
    /// `[stack]` of the first thread. Other threads' stacks are anonymous.
    Stack,
    /// A regular file, mapped privately or shared.
    File,
    /// Shared anonymous memory, System V, memfd, `/dev/shm`.
    SharedMemory,
    /// `[vdso]`, `[vvar]`, `[vsyscall]`.
    Kernel,
    /// A device, or memory flagged `io`/`pf`/userfaultfd: never read.
    Device,
}

/// The figures of one smaps entry, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub rss: u64,
    pub pss: u64,
    pub shared_clean: u64,
    pub shared_dirty: u64,
    pub private_clean: u64,
    pub private_dirty: u64,
    pub anonymous: u64,
    pub anon_huge: u64,
    pub swap: u64,
}

/// State of the pages of a [`Run`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageState {
    /// In RAM, or stored in the core.
    pub present: bool,
    pub swapped: bool,
    /// A page of the file or of shared memory, not a private anonymous copy.
    pub file: bool,
    /// Mapped by this process alone.
    pub exclusive: bool,
    /// The shared zero page: present but not charged to anybody.
    pub zero: bool,
    pub huge: bool,
}

impl PageState {
    /// Is the process charged for it (Rss or Swap)?
    pub fn charged(self) -> bool {
        self.swapped || self.present && !self.zero
    }
}

/// Bytes `start..end` in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u8)", into = "(u64, u64, u8)")]
pub struct Run {
    pub start: u64,
    pub end: u64,
    pub state: PageState,
}

/// In files: start, end, and the flags of the state from bit 0 on in the order of their declaration.
impl From<Run> for (u64, u64, u8) {
    fn from(run: Run) -> Self {
        let PageState { present, swapped, file, exclusive, zero, huge } = run.state;
        let flags = [present, swapped, file, exclusive, zero, huge];
        let bits = flags.iter().enumerate().fold(0, |bits, (i, &set)| bits | u8::from(set) << i);
        (run.start, run.end, bits)
    }
}

impl From<(u64, u64, u8)> for Run {
    fn from((start, end, bits): (u64, u64, u8)) -> Self {
        let [present, swapped, file, exclusive, zero, huge] = std::array::from_fn(|i| bits & 1 << i != 0);
        Run { start, end, state: PageState { present, swapped, file, exclusive, zero, huge } }
    }
}

/// Runs in address order, not overlapping; what no run covers was never touched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Residency {
    pub runs: Vec<Run>,
}

/// Bytes of an address range the process is charged for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    /// In RAM (for a core: stored).
    pub resident: u64,
    pub swapped: u64,
    /// Of what is in RAM, on pages that this process alone maps. Unknown for a core, and then 0.
    pub exclusive: u64,
}

impl Charge {
    /// What `bytes` of pages in one state are charged.
    #[inline]
    pub fn of(state: PageState, bytes: u64) -> Charge {
        match state {
            PageState { swapped: true, .. } => Charge { swapped: bytes, ..Charge::default() },
            state if state.charged() => {
                let exclusive = if state.exclusive { bytes } else { 0 };
                Charge { resident: bytes, swapped: 0, exclusive }
            }
            _ => Charge::default(),
        }
    }

    pub fn total(self) -> u64 {
        self.resident + self.swapped
    }

    /// On pages that others map too. Of what is in swap nobody tells who else has it: it is not in this.
    pub fn shared(self) -> u64 {
        self.resident - self.exclusive
    }

    /// All that is not [`shared`](Self::shared).
    pub fn private(self) -> u64 {
        self.exclusive + self.swapped
    }
}

impl std::ops::AddAssign for Charge {
    fn add_assign(&mut self, other: Self) {
        self.resident += other.resident;
        self.swapped += other.swapped;
        self.exclusive += other.exclusive;
    }
}

impl Residency {
    /// What of `range` is charged. O(log runs + runs touched).
    pub fn charge(&self, range: Range<u64>) -> Charge {
        let mut sum = Charge::default();
        let first = self.runs.partition_point(|r| r.end <= range.start);
        for run in &self.runs[first..] {
            if run.start >= range.end {
                break;
            }
            sum += Charge::of(run.state, run.end.min(range.end) - run.start.max(range.start));
        }
        sum
    }

    /// Appends a run, merging it with the last one when they touch and agree.
    pub fn push(&mut self, start: u64, end: u64, state: PageState) {
        if let Some(last) = self.runs.last_mut()
            && last.end == start
            && last.state == state
        {
            last.end = end;
            return;
        }
        self.runs.push(Run { start, end, state });
    }
}

impl Mapping {
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    pub fn contains(&self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Code of the kernel that programs may call: an ELF image without a file.
    pub(crate) fn is_vdso(&self) -> bool {
        self.backing == Backing::Kernel && self.name == b"[vdso]"
    }
}
