//! What a forked process still shares with its parent: their page tables side by side.
//!
//! A fork shares all private memory until one of both writes to a page and gets a copy of it. Pages are
//! compared at the same address, as a fork keeps all of them. Nothing is stopped and no memory is read.

use super::list;
use super::pagemap::PAGE;
use super::picture::residency;
use super::procdir::ProcDir;
use super::smaps;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// How it is told whether two processes have the same page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToldBy {
    /// The frames of both are the same. The kernel tells frames to root alone.
    Frames,
    /// Others map the worker's page too; it may be another one than the parent.
    Exclusive,
}

#[derive(Debug, Clone)]
pub struct SharingOptions {
    /// Use frames where the kernel tells them.
    pub frames: bool,
    /// Keep the addresses of un-shared pages.
    pub pages: bool,
}

impl Default for SharingOptions {
    fn default() -> Self {
        SharingOptions { frames: true, pages: false }
    }
}

/// The private anonymous memory of a forked process that is in RAM, bytes. What is in swap is not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shares {
    /// The page is the parent's too.
    pub with_parent: u64,
    /// Both have a page there, and not the same: one of them wrote to it since the fork.
    pub unshared: u64,
    /// The parent has none there: allocated since, or given back by the parent.
    pub own: u64,
    /// Of what is not shared with the parent: another worker has that page, as when the parent wrote
    /// to its own. Known from frames alone.
    pub with_siblings: Option<u64>,
    /// Where `unshared` is, if asked for; in address order.
    pub unshared_pages: Vec<Range<u64>>,
}

/// Why nothing is known of a process.
#[derive(Debug, thiserror::Error)]
pub enum SharingError {
    #[error("process {0} ended meanwhile")]
    Ended(i32),
    #[error("process {0} may not be looked into")]
    NotPermitted(i32),
    #[error("process {child} is not a child of process {parent}")]
    NotAChild { child: i32, parent: i32 },
    #[error("process {child} runs another program than its parent, process {parent}")]
    OtherProgram { child: i32, parent: i32 },
    #[error("process {pid}: {source}")]
    System { pid: i32, source: io::Error },
}

impl SharingError {
    fn of(pid: i32, source: io::Error) -> SharingError {
        match source.kind() {
            io::ErrorKind::PermissionDenied => SharingError::NotPermitted(pid),
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => SharingError::Ended(pid),
            _ if source.raw_os_error() == Some(libc::ESRCH) => SharingError::Ended(pid),
            _ => SharingError::System { pid, source },
        }
    }
}

/// What several processes share with the parent that forked them.
#[derive(Debug)]
pub struct Compared {
    pub told_by: ToldBy,
    /// By child, in the order they were asked for.
    pub children: Vec<Result<Shares, SharingError>>,
}

/// Compares children with their parent.
///
/// # Errors
/// What is wrong with the parent; with a child, it is that child's entry.
pub fn compare(parent: i32, children: &[i32], options: &SharingOptions) -> Result<Compared, SharingError> {
    let dir = ProcDir::open(parent).map_err(|e| SharingError::of(parent, e))?;
    let view = dir.view().map_err(|e| SharingError::of(parent, e))?;
    let mut parent = Member::open(parent, &view)?;
    let frames = options.frames && parent.shows_frames().map_err(|e| SharingError::of(parent.pid, e))?;
    let told_by = if frames { ToldBy::Frames } else { ToldBy::Exclusive };
    let exe = list::executable(&view);
    let mut members: Vec<_> =
        children.iter().map(|&pid| open_child(pid, parent.pid, &exe).map(Child::new)).collect();
    let mut at = 0;
    while let Some(next) = members.iter().flatten().filter_map(|child| child.member.next(at)).min() {
        let window = next / WINDOW * WINDOW;
        parent.look(window, told_by).map_err(|e| SharingError::of(parent.pid, e))?;
        for slot in &mut members {
            let Ok(child) = slot else { continue };
            if let Err(error) = child.member.look(window, told_by) {
                *slot = Err(SharingError::of(child.member.pid, error));
            }
        }
        let mut present: Vec<&mut Child> = members.iter_mut().flatten().collect();
        add_up(window, &parent, &mut present, told_by, options.pages);
        at = window + WINDOW;
    }
    let finished = |child: Child| Shares {
        with_siblings: (told_by == ToldBy::Frames).then_some(child.with_siblings),
        ..child.shares
    };
    Ok(Compared { told_by, children: members.into_iter().map(|child| child.map(finished)).collect() })
}

fn open_child(pid: i32, parent: i32, exe: &[u8]) -> Result<Member, SharingError> {
    let failed = |e| SharingError::of(pid, e);
    let dir = ProcDir::open(pid).map_err(failed)?;
    let view = dir.view().map_err(failed)?;
    let member = Member::open(pid, &view)?;
    // Asked of the directory held open: a number may have come to mean another process.
    if dir.status().map_err(failed)?.ppid != parent {
        return Err(SharingError::NotAChild { child: pid, parent });
    }
    if list::executable(&view) != exe {
        return Err(SharingError::OtherProgram { child: pid, parent });
    }
    Ok(member)
}

/// Pages looked at together: 4 MiB of addresses, 8 KiB a process.
const PAGES: usize = 1024;
const WINDOW: u64 = PAGES as u64 * PAGE;

const PRESENT: u64 = 1 << 63;
const FILE: u64 = 1 << 61;
const EXCLUSIVE: u64 = 1 << 56;
const FRAME: u64 = (1 << 55) - 1;

/// The private anonymous pages of one process.
struct Member {
    pid: i32,
    pagemap: File,
    /// In address order.
    runs: Vec<Range<u64>>,
    /// Per page of the window: what it is compared by, 0 for no private page.
    keys: Vec<u64>,
    entries: Vec<u8>,
}

impl Member {
    fn open(pid: i32, view: &ProcDir) -> Result<Member, SharingError> {
        let failed = |e| SharingError::of(pid, e);
        // First of all and kept: it reads as nothing once this address space has gone.
        let pagemap = view.file("pagemap").map_err(failed)?;
        let mut entries = smaps::parse(&view.read("maps").map_err(failed)?);
        if entries.is_empty() {
            return Err(SharingError::Ended(pid));
        }
        residency(&pagemap, &mut entries).map_err(failed)?;
        let mut runs: Vec<Range<u64>> = Vec::new();
        let private = entries.iter().map(|entry| &entry.mapping).filter(|mapping| !mapping.perms.shared);
        for run in private.flat_map(|mapping| &mapping.residency.runs) {
            if run.state.present && !run.state.file && !run.state.zero {
                append(&mut runs, run.start..run.end);
            }
        }
        Ok(Member { pid, pagemap, runs, keys: vec![0; PAGES], entries: vec![0; 8 * PAGES] })
    }

    /// The first address from `at` on that has a page.
    fn next(&self, at: u64) -> Option<u64> {
        let i = self.runs.partition_point(|run| run.end <= at);
        self.runs.get(i).map(|run| run.start.max(at))
    }

    fn shows_frames(&self) -> io::Result<bool> {
        for run in &self.runs {
            let mut entry = [0; 8];
            self.pagemap.read_exact_at(&mut entry, run.start / PAGE * 8)?;
            let entry = u64::from_le_bytes(entry);
            if entry & PRESENT != 0 {
                return Ok(entry & FRAME != 0);
            }
        }
        Ok(false)
    }

    /// Fills in the keys of the window at `start`.
    fn look(&mut self, start: u64, told_by: ToldBy) -> io::Result<()> {
        self.keys.fill(0);
        let end = start + WINDOW;
        let first = self.runs.partition_point(|run| run.end <= start);
        let runs = self.runs[first..].iter().take_while(|run| run.start < end);
        let mut read = false;
        for run in runs {
            if !read {
                fill(&self.pagemap, &mut self.entries, start / PAGE * 8)?;
                read = true;
            }
            let page = |addr: u64| ((addr - start) / PAGE) as usize;
            let pages = page(run.start.max(start))..page(run.end.min(end));
            let entries =
                self.entries.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap_or_default()));
            let entries = entries.skip(pages.start);
            for (key, entry) in self.keys[pages.clone()].iter_mut().zip(entries) {
                // It may have gone since the runs were taken.
                *key = match told_by {
                    _ if entry & PRESENT == 0 || entry & FILE != 0 => 0,
                    ToldBy::Frames => entry & FRAME,
                    ToldBy::Exclusive => 1 | entry & EXCLUSIVE,
                };
            }
        }
        Ok(())
    }
}

/// Reads what there is; the file ends with the address space, perhaps within a window.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            // The address space has gone.
            Ok(0) if filled == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer[filled..].fill(0);
    Ok(())
}

struct Child {
    member: Member,
    shares: Shares,
    with_siblings: u64,
}

impl Child {
    fn new(member: Member) -> Child {
        Child { member, shares: Shares::default(), with_siblings: 0 }
    }
}

/// Adds one window to what is known of each child.
fn add_up(start: u64, parent: &Member, children: &mut [&mut Child], told_by: ToldBy, keep: bool) {
    let mut apart: Vec<u64> = Vec::with_capacity(children.len());
    for (page, &of_parent) in parent.keys.iter().enumerate() {
        apart.clear();
        let same = |key: u64| match told_by {
            ToldBy::Frames => key == of_parent,
            ToldBy::Exclusive => of_parent != 0 && key & EXCLUSIVE == 0,
        };
        for child in children.iter_mut() {
            let key = child.member.keys[page];
            if key == 0 {
                continue;
            }
            if same(key) {
                child.shares.with_parent += PAGE;
                continue;
            }
            apart.push(key);
            if of_parent == 0 {
                child.shares.own += PAGE;
                continue;
            }
            child.shares.unshared += PAGE;
            if keep {
                let addr = start + page as u64 * PAGE;
                append(&mut child.shares.unshared_pages, addr..addr + PAGE);
            }
        }
        if told_by == ToldBy::Frames && apart.len() > 1 {
            apart.sort_unstable();
            for child in children.iter_mut() {
                let key = child.member.keys[page];
                let first = apart.partition_point(|&other| other < key);
                if key != 0 && apart.get(first) == Some(&key) && apart.get(first + 1) == Some(&key) {
                    child.with_siblings += PAGE;
                }
            }
        }
    }
}

/// Appends a range, merging it with the last one where they touch.
fn append(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}
