//! Which pages are there: `ioctl(PAGEMAP_SCAN)` (Linux 6.7), else the entries of `/proc/PID/pagemap`.

use crate::{PageState, Residency, Run};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

pub(super) const PAGE: u64 = 4096;

/// include/uapi/linux/fs.h
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

#[repr(C)]
#[derive(Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
const IS_PFNZERO: u64 = 1 << 5;
const IS_HUGE: u64 = 1 << 6;

/// Regions fetched per call: 96 KiB.
const SCAN_REGIONS: usize = 4096;
/// Pagemap entries fetched per call: 128 KiB, 64 MiB of addresses.
const WINDOW: usize = 16 * 1024;

/// Appends the runs of present and swapped pages in `range`, in address order.
///
/// Walks page tables that exist, so a terabyte that was never touched costs nothing. Bare page frames
/// (`[vvar]`, device memory) are left out, which fits smaps: it does not count them either. Says
/// nothing on `exclusive`. [`io::ErrorKind::Unsupported`] before Linux 6.7.
///
/// Whether a page is a file's is asked only where it `may_be_file`: the kernel looks at the `struct page` of each for
/// that (`vm_normal_page` in fs/proc/task_mmu.c), 0.1 µs a page.
pub(super) fn scan(
    pagemap: &File,
    range: Range<u64>,
    may_be_file: bool,
    runs: &mut Residency,
) -> io::Result<()> {
    let file = if may_be_file { IS_FILE } else { 0 };
    let mut regions = vec![PageRegion::default(); SCAN_REGIONS];
    let mut start = range.start;
    while start < range.end {
        let mut arg = PmScanArg {
            size: size_of::<PmScanArg>() as u64,
            start,
            end: range.end,
            vec: regions.as_mut_ptr() as u64,
            vec_len: SCAN_REGIONS as u64,
            category_anyof_mask: IS_PRESENT | IS_SWAPPED,
            return_mask: file | IS_PRESENT | IS_SWAPPED | IS_PFNZERO | IS_HUGE,
            ..PmScanArg::default()
        };
        let request = libc::_IOWR::<PmScanArg>(u32::from(b'f'), 16);
        // SAFETY: the argument is the structure this request takes, of the size it states, and `vec`
        // points to `vec_len` regions that live across the call.
        let filled = unsafe { libc::ioctl(pagemap.as_raw_fd(), request as _, &raw mut arg) };
        if filled < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => continue,
                // A seccomp filter may answer EPERM for what it does not know.
                Some(libc::ENOTTY | libc::EINVAL | libc::EPERM | libc::ENOSYS) if start == range.start => {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                _ => return Err(error),
            }
        }
        let told = &regions[..regions.len().min(filled as usize)];
        for region in told {
            let has = |bit| region.categories & bit != 0;
            let state = PageState {
                present: has(IS_PRESENT),
                swapped: has(IS_SWAPPED),
                file: has(IS_FILE),
                exclusive: false,
                zero: has(IS_PFNZERO),
                huge: has(IS_HUGE),
            };
            runs.push(region.start, region.end, state);
        }
        // Of a walk that came to the end `walk_end` says where the kernel's own buffer, of 512 regions, was full last
        // (do_pagemap_scan in fs/proc/task_mmu.c, as of 6.18).
        let next = arg.walk_end.max(told.last().map_or(0, |region| region.end));
        if next <= start {
            break;
        }
        start = next;
    }
    Ok(())
}

/// Appends the runs of present and swapped pages in `range`, on any kernel. For ranges that are known
/// to be no larger than what is in them deserves.
pub(super) fn present(pagemap: &File, range: Range<u64>, runs: &mut Residency) -> io::Result<()> {
    match scan(pagemap, range.clone(), true, runs) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            Entries::new(pagemap).runs(range, None, runs)
        }
        result => result,
    }
}

pub(super) const PM_PRESENT: u64 = 1 << 63;
const PM_SWAPPED: u64 = 1 << 62;
const PM_FILE: u64 = 1 << 61;
const PM_EXCLUSIVE: u64 = 1 << 56;
pub(super) const PM_FRAME: u64 = (1 << 55) - 1;

/// Sequential access to pagemap entries through a window, so that many small runs close together
/// cost one read.
pub(super) struct Entries<'f> {
    pagemap: &'f File,
    first: u64,
    bytes: Vec<u8>,
}

impl<'f> Entries<'f> {
    pub fn new(pagemap: &'f File) -> Self {
        Entries { pagemap, first: 0, bytes: Vec::new() }
    }

    /// The entries from page number `page` on, at least one, at most a window.
    fn at(&mut self, page: u64) -> io::Result<impl Iterator<Item = u64> + use<'_, 'f>> {
        let have = (self.bytes.len() / 8) as u64;
        if page.wrapping_sub(self.first) >= have {
            self.bytes.resize(WINDOW * 8, 0);
            let got = self.pagemap.read_at(&mut self.bytes, page.saturating_mul(8));
            self.first = page;
            self.bytes.truncate(got.as_ref().map_or(0, |n| n & !7));
            if got? < 8 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let from = (page - self.first) as usize * 8;
        Ok(self.bytes[from..].chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap_or_default())))
    }

    /// Calls `each` with page address and entry for every page of `range`.
    fn walk(&mut self, range: Range<u64>, mut each: impl FnMut(u64, u64)) -> io::Result<()> {
        let mut addr = range.start;
        while addr < range.end {
            for entry in self.at(addr / PAGE)? {
                if addr >= range.end {
                    break;
                }
                each(addr, entry);
                addr += PAGE;
            }
        }
        Ok(())
    }

    /// What [`scan`] does, from the entries: 8 bytes to read for each page of `range`, touched or not.
    /// Cannot tell huge pages; tells the zero page only where the system shows frame numbers (root).
    pub fn runs(&mut self, range: Range<u64>, flags: Option<&File>, runs: &mut Residency) -> io::Result<()> {
        self.walk(range, |addr, entry| {
            let has = |bit| entry & bit != 0;
            if !has(PM_PRESENT | PM_SWAPPED) {
                return;
            }
            let mut state = PageState {
                present: has(PM_PRESENT),
                swapped: has(PM_SWAPPED),
                file: has(PM_FILE),
                exclusive: has(PM_EXCLUSIVE),
                ..PageState::default()
            };
            // No struct page stands behind the zero page, so it is never "file" nor "exclusive".
            if state.present && !state.file && !state.exclusive {
                state.zero = flags.is_some_and(|flags| is_zero_frame(flags, entry & PM_FRAME));
            }
            runs.push(addr, addr + PAGE, state);
        })
    }

    /// Splits runs by who else maps the pages.
    pub fn exclusive(&mut self, runs: &Residency) -> io::Result<Residency> {
        let mut out = Residency { runs: Vec::with_capacity(runs.runs.len()) };
        for run in &runs.runs {
            if !run.state.present || run.state.zero {
                out.push(run.start, run.end, run.state);
                continue;
            }
            self.walk(run.start..run.end, |addr, entry| {
                let state = PageState { exclusive: entry & PM_EXCLUSIVE != 0, ..run.state };
                out.push(addr, addr + PAGE, state);
            })?;
        }
        Ok(out)
    }

    /// Is this one page in RAM now?
    pub fn present(pagemap: &File, addr: u64) -> bool {
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, addr / PAGE * 8).is_ok()
            && u64::from_le_bytes(entry) & PM_PRESENT != 0
    }
}

/// `KPF_ZERO_PAGE` in /proc/kpageflags.
fn is_zero_frame(flags: &File, frame: u64) -> bool {
    let mut word = [0; 8];
    frame != 0
        && flags.read_exact_at(&mut word, frame * 8).is_ok()
        && u64::from_le_bytes(word) & (1 << 24) != 0
}

/// The runs of `all` that lie in `range`, cut to it.
pub(super) fn clip(all: &[Run], range: Range<u64>) -> impl Iterator<Item = Run> + '_ {
    let first = all.partition_point(|run| run.end <= range.start);
    all[first..]
        .iter()
        .take_while({
            let end = range.end;
            move |run| run.start < end
        })
        .map(move |run| Run {
            start: run.start.max(range.start),
            end: run.end.min(range.end),
            state: run.state,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::MmapMut;

    /// Sixteen pages: written, read only (zero page), untouched, written.
    fn pages() -> (MmapMut, u64) {
        let mut map = MmapMut::map_anon(16 * PAGE as usize).unwrap();
        map[0] = 1;
        std::hint::black_box(map[PAGE as usize]);
        map[3 * PAGE as usize] = 1;
        let start = map.as_ptr() as u64;
        (map, start)
    }

    fn layout(runs: &Residency, start: u64) -> Vec<(u64, u64, bool)> {
        let at = |addr| (addr - start) / PAGE;
        runs.runs.iter().map(|r| (at(r.start), at(r.end), r.state.zero)).collect()
    }

    #[test]
    fn pages_far_apart_are_told_once() {
        // More regions than the kernel hands on at once, and than are asked for at once.
        const REGIONS: u64 = SCAN_REGIONS as u64 + 1500;
        let mut map = MmapMut::map_anon((2 * REGIONS * PAGE) as usize).unwrap();
        let _ = map.advise(memmap2::Advice::NoHugePage);
        map.iter_mut().step_by(2 * PAGE as usize).for_each(|byte| *byte = 1);
        let start = map.as_ptr() as u64;
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        for regions in [1, 500, 513, 1500, SCAN_REGIONS as u64, REGIONS] {
            let mut scanned = Residency::default();
            present(&pagemap, start..start + 2 * regions * PAGE, &mut scanned).unwrap();
            let expected: Vec<_> = (0..regions).map(|at| (2 * at, 2 * at + 1, false)).collect();
            assert!(layout(&scanned, start) == expected, "{regions}");
        }
    }

    #[test]
    fn both_ways_agree_on_our_own_pages() {
        let (_map, start) = pages();
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let range = start..start + 16 * PAGE;
        let expected = [(0, 1, false), (1, 2, true), (3, 4, false)];

        let mut scanned = Residency::default();
        match scan(&pagemap, range.clone(), true, &mut scanned) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            result => {
                result.unwrap();
                assert_eq!(layout(&scanned, start), expected);
            }
        }

        let flags = File::open("/proc/kpageflags").ok();
        let mut read = Residency::default();
        Entries::new(&pagemap).runs(range, flags.as_ref(), &mut read).unwrap();
        if flags.is_some() {
            assert_eq!(layout(&read, start), expected);
        }
        assert!(read.runs[0].state.exclusive && !read.runs[1].state.exclusive);
    }
}
