//! From what was found during the stop to a [`Target`].

use super::copy::Extent;
use super::files::LiveFiles;
use super::headroom::Groups;
use super::memory::{Hole, LiveMemory, Region, Rest};
use super::pagemap::{self, Entries, PAGE};
use super::procdir::{ProcDir, Status};
use super::smaps::Entry;
use super::stream::Stream;
use super::{AttachError, Source, list, vdso};
use crate::{Backing, Capture, Mapping, Process, Residency, Target, TargetKind, Thread, Why};
use memmap2::MmapMut;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

/// The process at one moment.
pub(super) struct Frozen {
    pub entries: Vec<Entry>,
    /// What was copied, and where it is in `copied`.
    pub extents: Vec<Extent>,
    pub copied: Option<MmapMut>,
    /// A clone that has the rest.
    pub stream: Option<Stream>,
    /// Pages that could not be copied.
    pub failed: Vec<Range<u64>>,
    /// Mappings whose pages were not looked for.
    pub unscanned: Vec<u64>,
    pub threads: Vec<Thread>,
    pub time: SystemTime,
}

impl Source {
    pub(super) fn target(
        &self,
        mut frozen: Frozen,
        process: Process,
        files: &LiveFiles,
        capture: Capture,
        mut notes: Vec<String>,
    ) -> Result<Target, AttachError> {
        for thread in &mut frozen.threads {
            thread.name = self.dir.thread_name(thread.tid);
        }
        notes.extend(frozen.losses(files));
        let threads = std::mem::take(&mut frozen.threads);
        let (mappings, memory) = self.assemble(frozen, files)?;
        let (images, image_notes) = crate::find_images(&mappings, files, &memory);
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

    /// Adds to the residency which pages are mapped by this process alone. Outside the stop: it is a
    /// label, not a figure anything is added up from, and takes as long as the scan.
    pub(super) fn sharing(&self, entries: &mut [Entry], notes: &mut Vec<String>) {
        let mut pages = Entries::new(&self.pagemap);
        for entry in entries {
            match pages.exclusive(&entry.mapping.residency) {
                Ok(residency) => entry.mapping.residency = residency,
                Err(_) => {
                    notes.push("which pages are shared is not known: the process ended meanwhile".to_owned());
                    return;
                }
            }
        }
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
                // [vvar] is not for reading; of [vdso] more below.
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
        let mut memory = LiveMemory {
            extents: frozen.extents,
            copied: frozen.copied,
            stream: frozen.stream,
            holes,
            regions,
            mem: clone(&self.mem)?,
            pagemap: clone(&self.pagemap)?,
        };
        if let Some(i) = frozen.entries.iter().position(|entry| entry.mapping.is_vdso())
            && let Some(vdso) = vdso::of(&frozen.entries[i].mapping, &memory)
        {
            memory.regions[i].rest = Rest::Kernel(vdso);
        }
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
    pub(super) fn counted(&self) -> bool {
        !self.flags.device && !self.flags.hugetlb && !self.mapping.name.starts_with(b"[vvar")
    }
}

/// Fills in the residency of all mappings. Returns the starts of those that were left out.
pub(super) fn residency(pagemap: &File, entries: &mut [Entry]) -> io::Result<Vec<u64>> {
    // Last page of user space on x86-64 and arm64 with 4 levels; [vsyscall] lies above.
    let end = entries.iter().map(|e| e.mapping.end).filter(|&end| end <= 1 << 56).max().unwrap_or(0);
    let start = entries.first().map_or(0, |entry| entry.mapping.start);
    let mut all = Residency::default();
    let mut pieces = pieces(start..end, entries).into_iter();
    match pieces.try_for_each(|(range, may_be_file)| pagemap::scan(pagemap, range, may_be_file, &mut all)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            return residency_by_entry(pagemap, entries);
        }
        Err(error) => return Err(error),
    }
    for entry in entries.iter_mut().filter(|entry| entry.counted()) {
        let range = entry.mapping.start..entry.mapping.end;
        entry.mapping.residency.runs = pagemap::clip(&all.runs, range).collect();
    }
    Ok(Vec::new())
}

/// Cuts addresses so that what is private and no file's is apart, where there is enough of it to pay; whether there may
/// be pages of files.
fn pieces(all: Range<u64>, entries: &[Entry]) -> Vec<(Range<u64>, bool)> {
    const ENOUGH: u64 = 1 << 20;
    let is_apart = |mapping: &Mapping| {
        let is_anonymous = matches!(mapping.backing, Backing::Anonymous | Backing::Brk | Backing::Stack);
        is_anonymous && !mapping.perms.shared && mapping.usage.rss >= ENOUGH
    };
    let inside = entries.iter().map(|entry| &entry.mapping).filter(|mapping| mapping.end <= all.end);
    let mut pieces = vec![(all.clone(), true)];
    for mapping in inside {
        let may_be_file = !is_apart(mapping);
        if let Some((piece, last)) = pieces.last_mut()
            && *last != may_be_file
            && piece.start < mapping.start
        {
            let end = std::mem::replace(&mut piece.end, mapping.start);
            pieces.push((mapping.start..end, may_be_file));
        }
    }
    pieces
}

/// The same before Linux 6.7: every page of a mapping costs 8 bytes to read, touched or not, so
/// mappings of many gigabytes with next to nothing in them are left out.
fn residency_by_entry(pagemap: &File, entries: &mut [Entry]) -> io::Result<Vec<u64>> {
    const SMALL: u64 = 16 << 30;
    let flags = File::open("/proc/kpageflags").ok();
    let mut unscanned = Vec::new();
    let mut pages = Entries::new(pagemap);
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

/// maps has neither flags nor figures: they come from the smaps read before. A mapping that changed
/// meanwhile keeps its flags, and its figures too, as they are all there is to say.
pub(super) fn inherit(entries: &mut [Entry], before: &[Entry]) {
    for entry in entries {
        let first = before.partition_point(|old| old.mapping.end <= entry.mapping.start);
        let Some(old) = before.get(first).filter(|old| old.same_object(entry)) else { continue };
        entry.flags = old.flags;
        entry.mapping.usage = old.mapping.usage;
        entry.classify();
    }
}

/// What the system says of the process, its sizes from the smaps entries.
pub(super) fn process_facts(dir: &ProcDir, view: &ProcDir, status: &Status, entries: &[Entry]) -> Process {
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
        memory_limit: Groups::of(view.path("cgroup")).limit(),
        auxv: view.read("auxv").unwrap_or_default(),
        siginfo: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::copy::Buffer;
    use crate::live::smaps;
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
            assert!(residency_by_entry(&source.pagemap, &mut entries).unwrap().is_empty());
            for Entry { mapping, .. } in &entries {
                let charge = mapping.residency.charge(mapping.start..mapping.end);
                let name = String::from_utf8_lossy(&mapping.name);
                assert_eq!(charge.total(), mapping.usage.rss + mapping.usage.swap, "{name}");
            }
        });
    }

    #[test]
    fn pages_of_files_are_told_from_large_private_memory() {
        let mut ours = MmapMut::map_anon(8 << 20).unwrap();
        ours.fill(1);
        let range = ours.as_ptr() as u64..ours.as_ptr() as u64 + ours.len() as u64;
        let mut entries = smaps::parse(&std::fs::read("/proc/self/smaps").unwrap());
        let apart = pieces(0..1 << 47, &entries);
        let is_apart = |addr| apart.iter().any(|(piece, may_be_file)| piece.contains(&addr) && !may_be_file);
        assert!(is_apart(range.start) && is_apart(range.end - 1));
        assert!(apart.windows(2).all(|pair| pair[0].0.end == pair[1].0.start && pair[0].1 != pair[1].1));
        assert_eq!((apart[0].0.start, apart[apart.len() - 1].0.end), (0, 1 << 47));

        let pagemap = File::open("/proc/self/pagemap").unwrap();
        residency(&pagemap, &mut entries).unwrap();
        let state_at = |addr: u64| {
            let mut runs = entries.iter().flat_map(|entry| &entry.mapping.residency.runs);
            runs.find(|run| (run.start..run.end).contains(&addr))
                .map(|run| (run.state.present, run.state.file))
        };
        assert!(range.step_by(PAGE as usize).all(|addr| state_at(addr) == Some((true, false))));
        assert_eq!(state_at(pieces as *const () as u64), Some((true, true)));
        let relocated = &raw const RELOCATED as u64;
        assert_eq!(state_at(relocated), Some((true, false)));
    }

    /// Written to when the program is loaded.
    static RELOCATED: &&str = &"";

    #[test]
    fn mappings_too_vast_to_look_through_are_left_out() {
        with_cat(|source| {
            let mut entries = smaps::parse(&source.view.read("smaps").unwrap());
            let stack = entries.iter_mut().find(|e| e.mapping.backing == Backing::Stack).unwrap();
            let start = stack.mapping.start;
            stack.mapping.end = start + (1 << 45);
            assert_eq!(residency_by_entry(&source.pagemap, &mut entries).unwrap(), [start]);
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
