//! The page frame behind one address, where the kernel tells: to root, of a process that still runs.

use super::pagemap::{PM_FRAME, PM_PRESENT};
use super::procdir::ProcDir;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// What the kernel says of a page frame (`Documentation/admin-guide/mm/pagemap.rst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Page tables that lead to it.
    pub mapped: u64,
    /// Its content is newer than what is on disk.
    pub dirty: bool,
    /// Merged with equal pages of others.
    pub ksm: bool,
    /// Part of a huge page.
    pub huge: bool,
}

const KPF_DIRTY: u64 = 1 << 4;
const KPF_HUGE: u64 = 1 << 17;
const KPF_KSM: u64 = 1 << 21;
const KPF_THP: u64 = 1 << 22;

fn entry(file: &File, index: u64) -> Option<u64> {
    let mut word = [0; 8];
    file.read_exact_at(&mut word, index.checked_mul(8)?).ok()?;
    Some(u64::from_le_bytes(word))
}

/// The frame that process `pid` has at an address now. Nothing is stopped for it, and no page is brought in.
pub fn frame(pid: i32, addr: u64, page_size: u64) -> Option<Frame> {
    let pagemap =
        entry(&ProcDir::open(pid).ok()?.view().ok()?.file("pagemap").ok()?, addr / page_size.max(1))?;
    let number = (pagemap & PM_PRESENT != 0).then_some(pagemap & PM_FRAME).filter(|number| *number != 0)?;
    let flags = entry(&File::open("/proc/kpageflags").ok()?, number)?;
    Some(Frame {
        mapped: entry(&File::open("/proc/kpagecount").ok()?, number)?,
        dirty: flags & KPF_DIRTY != 0,
        ksm: flags & KPF_KSM != 0,
        huge: flags & (KPF_HUGE | KPF_THP) != 0,
    })
}
