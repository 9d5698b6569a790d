//! Live processes: stop, copy what is private and present, resume.
//!
//! Nothing is written to the process and nothing runs in it. Pages that are not in RAM are not
//! brought there, so its resident size, page tables and huge pages stay as they were; and shared
//! copy-on-write pages stay shared, as `/proc/PID/mem` reads without un-sharing.

mod copy;
mod error;
mod files;
mod headroom;
mod list;
mod memory;
mod pagemap;
mod procdir;
mod smaps;
mod stop;

pub use error::{AttachError, Denied, Laggard};
pub use list::{ProcessList, PythonProcess, processes};

use crate::{Backing, Capture, Mapping, Method, Process, Residency, Target, TargetKind, Thread, Why};
use copy::{Buffer, Extents};
use files::LiveFiles;
use memory::{Hole, LiveMemory, Region, Rest};
use pagemap::{Entries, PAGE};
use procdir::{ProcDir, Status};
use smaps::Entry;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How to take the picture.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// Stop the process while its memory is copied. Without, the picture may contradict itself.
    pub pause: bool,
    /// How long a try to stop all threads may hold some of them while waiting for others. Ten times
    /// as long when the others merely wait for a processor.
    pub stop_budget: Duration,
    /// After how long such tries are given up.
    pub stop_patience: Duration,
    /// Bytes to copy at most. `None`: nine tenths of what the system and our cgroup have left.
    pub max_memory: Option<u64>,
}

impl Default for LiveOptions {
    fn default() -> Self {
        LiveOptions {
            pause: true,
            stop_budget: Duration::from_millis(5),
            stop_patience: Duration::from_secs(3),
            max_memory: None,
        }
    }
}

/// Takes a picture of process `pid`. It runs on before this returns.
pub fn attach(pid: i32, options: &LiveOptions) -> Result<Target, AttachError> {
    let source = Source::open(pid)?;
    let limit = options.max_memory.unwrap_or_else(headroom::available);
    let mut estimate = source.status.rss_anon.or(source.status.rss).unwrap_or_default();
    for _ in 0..4 {
        match source.picture(estimate, limit, options) {
            // It has more memory than when it was asked. Once more, with room for twice that.
            Err(AttachError::Growing { .. }) => estimate = estimate.saturating_mul(2).max(1 << 28),
            result => return result,
        }
    }
    Err(AttachError::Growing { pid })
}

/// The process, held by descriptors that cannot come to mean another one.
struct Source {
    /// The thread group: pid, threads, status.
    dir: ProcDir,
    /// Where its memory can be seen: the same, or a living thread when the first one has ended.
    view: ProcDir,
    status: Status,
    mem: File,
    pagemap: File,
    notes: Vec<String>,
}

/// What is found while the process is stopped.
struct Frozen {
    entries: Vec<Entry>,
    extents: Extents,
    /// Pages that could not be copied.
    failed: Vec<Range<u64>>,
    /// Mappings whose pages were not looked for.
    unscanned: Vec<u64>,
    threads: Vec<Thread>,
    buffer: Buffer,
    time: SystemTime,
}

impl Source {
    fn open(pid: i32) -> Result<Self, AttachError> {
        check_page_size()?;
        let mut dir = open_dir(pid)?;
        let vanished = |_| AttachError::Vanished { pid };
        let mut status = dir.status().map_err(vanished)?;
        let mut notes = Vec::new();
        if status.tgid != pid && status.tgid > 0 {
            notes.push(format!("{pid} is a thread of process {}", status.tgid));
            dir = open_dir(status.tgid)?;
            status = dir.status().map_err(vanished)?;
        }
        let pid = dir.pid;
        if pid == std::process::id() as i32 {
            return Err(AttachError::Own { pid });
        }
        if procdir::is_kernel_thread(&dir.text("stat").map_err(vanished)?) {
            return Err(AttachError::KernelThread { pid, name: status.name });
        }
        let mut view = open_dir(pid)?;
        if matches!(status.state, 'Z' | 'X') {
            // The first thread may end before the others; the memory is then seen through those.
            let tids = dir.tids().map_err(vanished)?;
            let living =
                tids.into_iter().find(|&tid| !matches!(dir.thread_state(tid), None | Some('Z' | 'X')));
            let living = living.ok_or(AttachError::Zombie { pid, ppid: status.ppid })?;
            view = open_dir(living)?;
            let tgid = status.tgid;
            status = view.status().map_err(vanished)?;
            if status.tgid != tgid {
                return Err(AttachError::Vanished { pid });
            }
            notes.push(format!("the first thread has ended; looked through thread {living}"));
        }
        let open = |name, what| view.file(name).map_err(|error| refusal(&dir, what, error));
        // First of all and kept: it reads as nothing once the process has gone.
        let mem = open("mem", "open /proc/PID/mem")?;
        let pagemap = open("pagemap", "open /proc/PID/pagemap")?;
        Ok(Source { dir, view, status, mem, pagemap, notes })
    }

    fn picture(&self, estimate: u64, limit: u64, options: &LiveOptions) -> Result<Target, AttachError> {
        let pid = self.dir.pid;
        let too_large = |needed| AttachError::TooLarge { pid, needed, limit };
        if estimate > limit {
            return Err(too_large(estimate));
        }
        // Ahead of the stop: room for the copy, the figures of smaps, the files.
        let (buffer, before) = std::thread::scope(|scope| {
            let room = estimate.saturating_mul(2).max(estimate.saturating_add(1 << 28));
            let buffer = scope.spawn(move || Buffer::new(estimate, room));
            let before = self.view.read("smaps").map(|text| {
                let entries = smaps::parse(&text);
                let files = LiveFiles::open(&self.view, &entries);
                (entries, files)
            });
            (buffer.join(), before)
        });
        let buffer = buffer
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(|source| AttachError::System { pid, what: "make room for the copy", source })?;
        let (before, files) = before.map_err(|error| refusal(&self.dir, "read /proc/PID/smaps", error))?;
        // The stack of a 64-bit program lies far above.
        if !before.is_empty() && before.iter().all(|entry| entry.mapping.end <= 1 << 32) {
            return Err(AttachError::ThirtyTwoBit { pid });
        }

        let (mut frozen, pause) = if options.pause {
            stop::with_stopped(&self.dir, options.stop_budget, options.stop_patience, |stopped| {
                let mut frozen = self.freeze(buffer, &before, &files, limit)?;
                frozen.threads = stopped.threads();
                Ok(frozen)
            })?
        } else {
            let mut frozen = self.freeze(buffer, &before, &files, limit)?;
            frozen.threads = self.running_threads();
            (frozen, Duration::ZERO)
        };
        frozen.buffer.shrink(frozen.extents.bytes);
        for thread in &mut frozen.threads {
            thread.name = self.dir.thread_name(thread.tid);
        }
        let mut notes = self.notes.clone();
        if !options.pause {
            notes.push("the process was not stopped: what is shown may contradict itself".to_owned());
        }
        self.sharing(&mut frozen, &mut notes);
        notes.extend(frozen.losses(&files));

        let capture = Capture {
            method: if options.pause { Method::Stop } else { Method::None },
            pause,
            consistent: options.pause,
            time: frozen.time,
        };
        let process = process_facts(&self.dir, &self.view, &self.status, &before);
        let threads = std::mem::take(&mut frozen.threads);
        let (mappings, memory) = self.assemble(frozen, &files)?;
        let (images, image_notes) = crate::find_images(&mappings, &files, &memory);
        notes.extend(image_notes);
        Ok(Target {
            kind: TargetKind::Process,
            memory: Arc::new(memory),
            mappings,
            images,
            threads,
            process,
            capture,
            page_size: PAGE,
            notes,
        })
    }

    /// Everything that has to happen while the process is stopped.
    fn freeze(
        &self,
        mut buffer: Buffer,
        before: &[Entry],
        files: &LiveFiles,
        limit: u64,
    ) -> Result<Frozen, AttachError> {
        let pid = self.dir.pid;
        let refused = |what| move |error| refusal(&self.dir, what, error);
        let maps = self.view.read("maps").map_err(refused("read /proc/PID/maps"))?;
        let mut entries = smaps::parse(&maps);
        if entries.is_empty() {
            // An address space without users, that of a process that ended, has no mappings.
            return Err(AttachError::Vanished { pid });
        }
        inherit(&mut entries, before);
        let unscanned = self.residency(&mut entries).map_err(refused("read /proc/PID/pagemap"))?;

        let mut extents = Extents::default();
        for entry in &entries {
            let has_file = files.get(&entry.mapping).is_some();
            for run in entry.mapping.residency.runs.iter().filter(|run| run.state.present && !run.state.zero)
            {
                let copied = match entry.mapping.backing {
                    Backing::Anonymous | Backing::Brk | Backing::Stack | Backing::Kernel => true,
                    Backing::File => !run.state.file || !has_file,
                    Backing::SharedMemory | Backing::Device => false,
                };
                if copied {
                    extents.push(run.start, run.end);
                }
            }
        }
        if extents.bytes > limit {
            return Err(AttachError::TooLarge { pid, needed: extents.bytes, limit });
        }
        if extents.bytes > buffer.capacity() {
            return Err(AttachError::Growing { pid });
        }
        let failed = buffer
            .fill(&self.mem, &extents)
            .map_err(|error| refusal(&self.dir, "read /proc/PID/mem", error))?;
        let time = SystemTime::now();
        Ok(Frozen { entries, extents, failed, unscanned, threads: Vec::new(), buffer, time })
    }

    /// Fills in the residency of all mappings. Returns the starts of those that were left out.
    fn residency(&self, entries: &mut [Entry]) -> io::Result<Vec<u64>> {
        // Last page of user space on x86-64 and arm64 with 4 levels; [vsyscall] lies above.
        let end = entries.iter().map(|e| e.mapping.end).filter(|&end| end <= 1 << 56).max().unwrap_or(0);
        let start = entries.first().map_or(0, |entry| entry.mapping.start);
        let mut all = Residency::default();
        let scanned = pagemap::scan(&self.pagemap, start..end, &mut all);
        match scanned {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return self.residency_by_entry(entries);
            }
            Err(error) => return Err(error),
        }
        for entry in entries.iter_mut().filter(|entry| entry.counted()) {
            let range = entry.mapping.start..entry.mapping.end;
            entry.mapping.residency.runs = pagemap::clip(&all.runs, range).collect();
        }
        Ok(Vec::new())
    }

    /// The same before Linux 6.7: every page of a mapping costs 8 bytes to read, touched or not, so
    /// mappings of many gigabytes with next to nothing in them are left out.
    fn residency_by_entry(&self, entries: &mut [Entry]) -> io::Result<Vec<u64>> {
        const SMALL: u64 = 16 << 30;
        let flags = File::open("/proc/kpageflags").ok();
        let mut unscanned = Vec::new();
        let mut pages = Entries::new(&self.pagemap);
        for entry in entries.iter_mut().filter(|entry| entry.counted()) {
            let mapping = &mut entry.mapping;
            let held = mapping.usage.rss.saturating_add(mapping.usage.swap);
            if mapping.end > 1 << 56 {
                continue;
            }
            if mapping.len() > held.saturating_mul(16).saturating_add(SMALL) {
                unscanned.push(mapping.start);
                continue;
            }
            pages.runs(mapping.start..mapping.end, flags.as_ref(), &mut mapping.residency)?;
        }
        Ok(unscanned)
    }

    /// Adds to the residency which pages are mapped by this process alone. After the stop: it is a
    /// label, not a figure anything is added up from, and takes as long as the scan.
    fn sharing(&self, frozen: &mut Frozen, notes: &mut Vec<String>) {
        let mut pages = Entries::new(&self.pagemap);
        for entry in &mut frozen.entries {
            match pages.exclusive(&entry.mapping.residency) {
                Ok(residency) => entry.mapping.residency = residency,
                Err(_) => {
                    notes.push("which pages are shared is not known: the process ended meanwhile".to_owned());
                    return;
                }
            }
        }
    }

    fn running_threads(&self) -> Vec<Thread> {
        let tids = self.dir.tids().unwrap_or_default();
        tids.into_iter().map(|tid| Thread { tid, ..Thread::default() }).collect()
    }

    fn assemble(&self, frozen: Frozen, files: &LiveFiles) -> Result<(Vec<Mapping>, LiveMemory), AttachError> {
        let mut holes: Vec<Hole> = Vec::new();
        let mut regions = Vec::with_capacity(frozen.entries.len());
        for Entry { mapping, flags } in &frozen.entries {
            for run in mapping.residency.runs.iter().filter(|run| run.state.swapped) {
                holes.push(Hole { start: run.start, end: run.end, why: Why::Swapped });
            }
            let rest = match mapping.backing {
                _ if flags.device || flags.userfault => Rest::Refused(Why::Unsafe),
                Backing::Device => Rest::Refused(Why::Unsafe),
                // The pages of [vdso] are there and copied; what is not, is not for reading.
                Backing::Kernel => Rest::Refused(Why::Unsafe),
                _ if frozen.unscanned.contains(&mapping.start) => Rest::Refused(Why::NotCaptured),
                Backing::SharedMemory => Rest::Shared,
                Backing::File => match files.get(mapping) {
                    Some(file) => Rest::File(file.clone(), mapping.offset),
                    None => Rest::Refused(Why::NotCaptured),
                },
                _ if !mapping.perms.read => Rest::Refused(Why::NotReadable),
                _ => Rest::Zeroes,
            };
            regions.push(Region { start: mapping.start, end: mapping.end, rest });
        }
        let why = |range: &Range<u64>| Hole { start: range.start, end: range.end, why: Why::NotCaptured };
        holes.extend(frozen.failed.iter().map(why));
        holes.sort_by_key(|hole| hole.start);
        let clone = |file: &File| {
            file.try_clone().map_err(|source| AttachError::System {
                pid: self.dir.pid,
                what: "duplicate a descriptor",
                source,
            })
        };
        let memory = LiveMemory {
            extents: frozen.extents.without(&frozen.failed),
            buffer: frozen.buffer,
            holes,
            regions,
            mem: clone(&self.mem)?,
            pagemap: clone(&self.pagemap)?,
        };
        Ok((frozen.entries.into_iter().map(|entry| entry.mapping).collect(), memory))
    }
}

impl Frozen {
    /// What could not be had, in words.
    fn losses(&self, files: &LiveFiles) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.failed.is_empty() {
            notes.push(format!("{} pages could not be read", self.failed.len()));
        }
        if !self.unscanned.is_empty() {
            let count = self.unscanned.len();
            notes.push(format!(
                "{count} mappings of many gigabytes with little in them were left out: this takes Linux 6.7"
            ));
        }
        for name in &files.missing {
            let name = String::from_utf8_lossy(name);
            notes.push(format!("{name}: the mapped file could not be opened; only pages in RAM are known"));
        }
        notes
    }
}

impl Entry {
    /// Can pages of this mapping be charged to the process? smaps leaves bare page frames and
    /// hugetlbfs out of Rss.
    fn counted(&self) -> bool {
        !self.flags.device && !self.flags.hugetlb && !self.mapping.name.starts_with(b"[vvar")
    }
}

/// maps has neither flags nor figures: they come from the smaps read before. A mapping that changed
/// meanwhile keeps its flags, and its figures too, as they are all there is to say.
fn inherit(entries: &mut [Entry], before: &[Entry]) {
    for entry in entries {
        let first = before.partition_point(|old| old.mapping.end <= entry.mapping.start);
        let Some(old) = before.get(first).filter(|old| old.same_object(entry)) else { continue };
        entry.flags = old.flags;
        entry.mapping.usage = old.mapping.usage;
        entry.classify();
    }
}

fn open_dir(pid: i32) -> Result<ProcDir, AttachError> {
    if pid <= 0 {
        return Err(AttachError::NoSuchProcess { pid });
    }
    ProcDir::open(pid).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => AttachError::NoSuchProcess { pid },
        _ => AttachError::System { pid, what: "open /proc/PID", source: error },
    })
}

/// Which error a failed open or read in /proc/PID is.
fn refusal(dir: &ProcDir, what: &'static str, source: io::Error) -> AttachError {
    let pid = dir.pid;
    let ended = || match dir.status() {
        Ok(status) if status.state == 'Z' => AttachError::Zombie { pid, ppid: status.ppid },
        _ => AttachError::Vanished { pid },
    };
    match source.kind() {
        io::ErrorKind::PermissionDenied => stop::refused(dir, what, source),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => ended(),
        _ if source.raw_os_error() == Some(libc::ESRCH) => ended(),
        _ => AttachError::System { pid, what, source },
    }
}

fn check_page_size() -> Result<(), AttachError> {
    // SAFETY: asks the C library for a constant.
    match unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64 {
        PAGE => Ok(()),
        size => Err(AttachError::PageSize { size }),
    }
}

/// What the system says of the process, its sizes from the smaps entries.
fn process_facts(dir: &ProcDir, view: &ProcDir, status: &Status, entries: &[Entry]) -> Process {
    let sum = |figure: fn(&Mapping) -> u64| Some(entries.iter().map(|entry| figure(&entry.mapping)).sum());
    Process {
        pid: dir.pid,
        ppid: Some(status.ppid),
        exe: list::executable(view),
        cmdline: list::command_line(view),
        rss: sum(|m| m.usage.rss),
        pss: sum(|m| m.usage.pss),
        uss: sum(|m| m.usage.private_clean + m.usage.private_dirty),
        swap: sum(|m| m.usage.swap),
        peak_rss: status.peak_rss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    /// Runs `test` on a `cat` that waits for input, its program and libraries loaded.
    fn with_cat(test: impl FnOnce(&Source)) {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        cat.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        test(&Source::open(cat.id() as i32).unwrap());
        cat.kill().unwrap();
        cat.wait().unwrap();
    }

    #[test]
    fn kernels_without_the_scan_give_the_same_charge() {
        with_cat(|source| {
            let mut entries = smaps::parse(&source.view.read("smaps").unwrap());
            assert!(source.residency_by_entry(&mut entries).unwrap().is_empty());
            for Entry { mapping, .. } in &entries {
                let charge = mapping.residency.charge(mapping.start..mapping.end);
                let name = String::from_utf8_lossy(&mapping.name);
                assert_eq!(charge.total(), mapping.usage.rss + mapping.usage.swap, "{name}");
            }
        });
    }

    #[test]
    fn mappings_too_vast_to_look_through_are_left_out() {
        with_cat(|source| {
            let mut entries = smaps::parse(&source.view.read("smaps").unwrap());
            let stack = entries.iter_mut().find(|e| e.mapping.backing == Backing::Stack).unwrap();
            let start = stack.mapping.start;
            stack.mapping.end = start + (1 << 45);
            assert_eq!(source.residency_by_entry(&mut entries).unwrap(), [start]);
        });
    }

    #[test]
    fn without_a_file_what_is_in_ram_is_copied() {
        with_cat(|source| {
            let entries = smaps::parse(&source.view.read("smaps").unwrap());
            let none = LiveFiles::default();
            let buffer = Buffer::new(0, 1 << 28).unwrap();
            let frozen = source.freeze(buffer, &entries, &none, u64::MAX).unwrap();
            let (mappings, memory) = source.assemble(frozen, &none).unwrap();
            let code = mappings.iter().find(|m| m.name.ends_with(b"/cat")).unwrap();
            let mut magic = [0; 4];
            crate::Memory::read(&memory, code.start, &mut magic).unwrap();
            assert_eq!(&magic, b"\x7fELF");
            let absent = mappings.iter().filter(|m| m.backing == Backing::File).find_map(|m| {
                let covered = |at| m.residency.runs.iter().any(|run| (run.start..run.end).contains(&at));
                (m.start..m.end).step_by(PAGE as usize).find(|&at| !covered(at))
            });
            // All of locale and library pages in RAM: there is none.
            if let Some(addr) = absent {
                let fault = crate::Memory::read(&memory, addr, &mut magic).unwrap_err();
                assert_eq!((fault.addr, fault.why), (addr, Why::NotCaptured));
            }
        });
    }
}
