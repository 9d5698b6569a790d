use crate::live::Lost;
use crate::{Fault, Image, Mapping, Reader, text};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The bytes of one address space, wherever they come from.
///
/// Untouched anonymous memory reads as the zeroes it is by definition; everything else that is not
/// there is a [`Fault`].
pub trait Memory: Send + Sync {
    /// The longest stretch of bytes around `addr` that is held contiguously: its first address and
    /// the bytes. `None` when the bytes are not held here (a streamed source): use [`read`](Self::read).
    fn extent(&self, addr: u64) -> Option<(u64, &[u8])>;

    /// Fills `buf` from `addr`, all of it or a fault that names the first address that failed.
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault>;

    /// A streamed source's unit of reading around `addr`, lent out so that many small reads cost one.
    /// `None` where bytes are held as an [`extent`](Self::extent), and where not all of the unit can be
    /// read: [`read`](Self::read) tells why.
    fn window(&self, _addr: u64) -> Option<Window> {
        None
    }

    /// Up to `len` bytes from the page of `addr` on, lent to one cursor that goes on behind them.
    /// `None` as for a [`window`](Self::window).
    fn stretch(&self, addr: u64, _len: u64) -> Option<Window> {
        self.window(addr)
    }

    /// What was found broken while reading, in words: for sources that are looked into as they are read.
    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }

    /// Of private memory nothing but these ranges will be read, in any order: copies what they hold and lets go of what
    /// the source holds outside of this program. False where that would take more than `room` bytes or is of no use:
    /// then all is as it was.
    fn keep(&self, _ranges: Vec<Range<u64>>, _room: u64) -> bool {
        false
    }

    /// Nothing more will be read: lets go of what the source holds outside of this program. How long a
    /// clone lived, where there was one; an error when it ended too early, so that what was read since
    /// is not to be relied on.
    fn finish(&self) -> Result<Option<Duration>, Lost> {
        Ok(None)
    }
}

/// Bytes of a streamed source, shared between those who read them.
#[derive(Clone)]
pub struct Window {
    pub start: u64,
    pub bytes: Arc<[u8]>,
}

impl Window {
    /// `len` bytes from `addr` on, where the window has them all.
    #[inline]
    pub fn get(&self, addr: u64, len: usize) -> Option<&[u8]> {
        let at = usize::try_from(addr.checked_sub(self.start)?).ok()?;
        self.bytes.get(at..at.checked_add(len)?)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetKind {
    Process,
    Core,
    Snapshot,
}

/// How the bytes were got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// All threads stopped for as long as a copy-on-write clone takes, resumed; the clone is read.
    Clone,
    /// All threads stopped, private memory copied, resumed.
    Stop,
    /// Copied while it ran: not consistent.
    None,
    /// Read from a core file.
    File,
}

/// What the capture cost and how far it can be trusted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Capture {
    pub method: Method,
    /// How long the target was stopped. Zero for files and for [`Method::None`].
    pub pause: Duration,
    pub consistent: bool,
    /// When the picture was taken; for a core its file's modification time.
    pub time: SystemTime,
}

/// A thread at the time of the capture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thread {
    pub tid: i32,
    #[serde(with = "text::latin1")]
    pub name: Vec<u8>,
    /// Stack pointer, 0 when unknown.
    pub sp: u64,
    /// Instruction pointer, 0 when unknown.
    pub ip: u64,
    /// Thread pointer: `fs` base on x86-64, `tpidr_el0` on aarch64; 0 when unknown.
    pub tls: u64,
    /// General registers in the order of the kernel's `user_regs_struct`; empty when unknown.
    pub regs: Vec<u64>,
}

/// What the system says of the process. Bytes, not pages; absent facts are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub pid: i32,
    pub ppid: Option<i32>,
    /// Path of the executable as the kernel names it, without " (deleted)".
    #[serde(with = "text::latin1")]
    pub exe: Vec<u8>,
    #[serde(with = "text::latin1_list")]
    pub cmdline: Vec<Vec<u8>>,
    pub rss: Option<u64>,
    pub pss: Option<u64>,
    pub uss: Option<u64>,
    pub swap: Option<u64>,
    pub peak_rss: Option<u64>,
    /// The tightest limit of the memory cgroups it is in.
    pub memory_limit: Option<u64>,
    /// The auxiliary vector as the kernel gave it: pairs of 64-bit words, `AT_NULL` last; empty when
    /// unknown.
    #[serde(with = "text::latin1")]
    pub auxv: Vec<u8>,
    /// The signal that the first of its threads had when a core was written, as the kernel's `siginfo_t`;
    /// empty when unknown.
    #[serde(with = "text::latin1")]
    pub siginfo: Vec<u8>,
}

/// One opened target: what every layer above works on.
pub struct Target {
    pub kind: TargetKind,
    pub memory: Arc<dyn Memory>,
    /// In address order, not overlapping.
    pub mappings: Vec<Mapping>,
    /// Every ELF file that is mapped, in address order of their first mapping.
    pub images: Vec<Image>,
    pub threads: Vec<Thread>,
    pub process: Process,
    pub capture: Capture,
    pub page_size: u64,
    /// What could not be read or decided on the way here, and what it cost: for the user.
    pub notes: Vec<String>,
}

impl Target {
    /// Is it known which pages were in RAM and swapped? Else residency means what is stored.
    pub fn knows_residency(&self) -> bool {
        // A core does not tell, nor does what was kept of one.
        self.kind != TargetKind::Core && self.process.rss.is_some()
    }

    /// A cursor for reading; cheap, make one per thread or pass.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(&*self.memory)
    }

    /// The mapping that contains `addr`.
    pub fn mapping(&self, addr: u64) -> Option<&Mapping> {
        let i = self.mappings.partition_point(|m| m.end <= addr);
        self.mappings.get(i).filter(|m| m.start <= addr)
    }

    /// The image one of whose segments contains `addr`.
    pub fn image(&self, addr: u64) -> Option<&Image> {
        self.images.iter().find(|i| i.contains(addr))
    }
}
