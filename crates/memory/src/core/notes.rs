//! What a core's notes say: threads, process, auxiliary vector, mapped files.

use super::headers::Headers;
use super::pages::{self, Mark, Marked};
use crate::Thread;
use crate::stored::Stored;
use object::elf;
use rustc_hash::FxHashSet;
use std::borrow::Cow;
use std::ops::Range;

// Keys of the auxiliary vector: include/uapi/linux/auxvec.h.
pub(super) const AT_PHDR: u64 = 3;
pub(super) const AT_PAGESZ: u64 = 6;
pub(super) const AT_ENTRY: u64 = 9;
pub(super) const AT_RANDOM: u64 = 25;
pub(super) const AT_EXECFN: u64 = 31;
pub(super) const AT_SYSINFO_EHDR: u64 = 33;

/// `offsetof(struct elf_prstatus, pr_pid)` and `pr_reg`, on every 64-bit architecture.
pub(super) const PR_PID: usize = 32;
pub(super) const PR_REG: usize = 112;
/// `sizeof(siginfo_t)`.
pub(super) const SIGINFO: usize = 128;

/// A file mapping by `NT_FILE`.
#[derive(Debug)]
pub(super) struct MappedFile {
    pub range: Range<u64>,
    /// Bytes.
    pub offset: u64,
    /// Without " (deleted)".
    pub name: Vec<u8>,
    pub deleted: bool,
}

/// `sizeof(Elf64_Nhdr)`.
const HEAD: u64 = 12;
/// Owners' names that matter are shorter.
const MAX_OWNER: u64 = 64;
const AHEAD: u64 = 16 << 10;
/// Each thread has some seven; `kernel.pid_max` is 4 Mi at most.
const MAX_NOTES: usize = 1 << 25;
/// Of one note; that on mapped files of a process with half a million mappings.
const MAX_DESC: u64 = 64 << 20;

#[derive(Default)]
pub(super) struct Notes {
    pub threads: Vec<Thread>,
    pub pid: Option<i32>,
    /// In the kernel's cores the thread that forked, which may not be its process's first.
    pub ppid: Option<i32>,
    /// The main thread's name; its program's, if gdb wrote the core.
    name: Vec<u8>,
    /// Up to 80 bytes of the arguments, separated by blanks.
    pub arguments: Vec<u8>,
    pub auxv: Vec<u8>,
    /// Of the first thread; see [`Process::siginfo`](crate::Process::siginfo).
    pub siginfo: Vec<u8>,
    /// By address, not overlapping.
    pub files: Vec<MappedFile>,
    /// By our own note, if we wrote the core; by address, not overlapping.
    pub untouched: Vec<Range<u64>>,
    /// All that our own note says, by address.
    pub marked: Vec<Marked>,
    /// For the user.
    pub problems: Vec<String>,
}

impl Notes {
    pub fn parse(core: &Stored, headers: &Headers) -> Self {
        let mut out = Notes::default();
        for &(offset, size) in &headers.notes {
            each(core, offset..offset.saturating_add(size), |owner, kind, desc| {
                // gcore and the kernel agree on the owner's name; only architecture notes have another.
                match (owner, kind) {
                    (b"CORE", elf::NT_PRSTATUS) => out.threads.extend(thread(&desc(), headers)),
                    (b"CORE", elf::NT_PRPSINFO) => out.process(&desc()),
                    // gdb notes one for each thread, behind what it notes of it.
                    (b"CORE", elf::NT_SIGINFO) if out.threads.len() <= 1 => {
                        out.siginfo = desc().into_owned();
                        out.siginfo.truncate(SIGINFO);
                    }
                    (b"CORE", elf::NT_AUXV) => out.auxv = desc().into_owned(),
                    (b"CORE", elf::NT_FILE) => out.files = mapped_files(&desc()).unwrap_or_default(),
                    (b"LINUX", elf::NT_ARM_TLS) => {
                        if let (Some(thread), Some(tls)) = (out.threads.last_mut(), word(&desc(), 0)) {
                            thread.tls = tls;
                        }
                    }
                    (pages::OWNER, pages::NUMBER) => out.marked.extend(pages::parse(&desc())),
                    _ => {}
                }
            });
        }
        // The first thread noted is the one that crashed; the name is the main thread's.
        if let Some(main) = out.threads.iter_mut().find(|t| Some(t.tid) == out.pid) {
            main.name = std::mem::take(&mut out.name);
        }
        out.tidy();
        out
    }

    fn tidy(&mut self) {
        self.files.retain(|f| f.range.start < f.range.end);
        self.files.sort_by_key(|f| f.range.start);
        let mut reached = 0;
        self.files.retain(|f| {
            let apart = f.range.start >= reached;
            reached = reached.max(f.range.end);
            apart
        });
        self.marked.sort_by_key(|m| m.start);
        let mut reached = 0;
        for marked in self.marked.iter().filter(|m| m.mark == Mark::Untouched) {
            let start = marked.start.max(reached);
            if start < marked.end {
                self.untouched.push(start..marked.end);
                reached = marked.end;
            }
        }
        if self.threads.is_empty() {
            self.problems.push("the core has no note on threads: stacks and registers are unknown".into());
        }
        if self.files.is_empty() {
            // The kernel leaves the note out when it would exceed kernel.core_file_note_size_limit.
            self.problems.push(
                "the core has no note on mapped files: programs and libraries cannot be recognised".into(),
            );
        }
    }

    /// `struct elf_prpsinfo`, 64-bit: include/linux/elfcore.h.
    fn process(&mut self, desc: &[u8]) {
        self.pid = dword(desc, 24).map(|pid| pid as i32).filter(|&pid| pid > 0);
        self.ppid = dword(desc, 28).map(|pid| pid as i32);
        let string = |range: Range<usize>| {
            let bytes = desc.get(range).unwrap_or_default();
            bytes.split(|&b| b == 0).next().unwrap_or_default().to_vec()
        };
        self.name = string(40..56);
        self.arguments = string(56..136);
    }

    /// What of a range was not in RAM, by our own note.
    pub fn untouched_in(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.untouched.partition_point(|u| u.end <= range.start);
        let here = self.untouched[first..].iter().take_while(move |u| u.start < range.end);
        here.map(move |u| u.start.max(range.start)..u.end.min(range.end)).filter(|u| u.start < u.end)
    }

    /// Addresses at which one mapping goes on, though segments begin and end there.
    pub fn joints(&self) -> FxHashSet<u64> {
        let from = self.marked.iter().filter(|m| m.from_inside).map(|m| m.start);
        from.chain(self.marked.iter().filter(|m| m.to_inside).map(|m| m.end)).collect()
    }

    /// An entry of the auxiliary vector.
    pub fn auxv(&self, key: u64) -> Option<u64> {
        let entries = self.auxv.as_chunks::<16>().0;
        entries.iter().find(|e| word(&e[..], 0) == Some(key)).and_then(|e| word(&e[..], 8))
    }
}

/// Goes over the notes of a segment: owner, kind, and what reads the description.
fn each<'c>(
    core: &'c Stored,
    segment: Range<u64>,
    mut take: impl FnMut(&[u8], elf::NoteType, &dyn Fn() -> Cow<'c, [u8]>),
) {
    let end = segment.end.min(core.len());
    let mut at = segment.start;
    // A note's header and its owner's name, many at a time: of most notes that is all that is looked at.
    let mut ahead = (0..0, Cow::Borrowed(&[][..]));
    for _ in 0..MAX_NOTES {
        let head = at..at.saturating_add(HEAD + MAX_OWNER).min(end);
        if !(ahead.0.start <= head.start && head.end <= ahead.0.end) {
            let range = at..at.saturating_add(AHEAD).min(end);
            ahead = (range.clone(), core.part(range));
        }
        let head = ahead.1.get((at - ahead.0.start) as usize..).unwrap_or_default();
        let (Some(name), Some(size), Some(kind)) = (dword(head, 0), dword(head, 4), dword(head, 8)) else {
            return;
        };
        let owner = head.get(HEAD as usize..).and_then(|rest| rest.get(..name as usize)).unwrap_or_default();
        let owner = owner.strip_suffix(b"\0").unwrap_or(owner);
        let desc = at + HEAD + u64::from(name).next_multiple_of(4);
        let len = u64::from(size).min(MAX_DESC);
        take(owner, elf::NoteType(kind), &|| core.part(desc..desc.saturating_add(len).min(end)));
        at = desc.saturating_add(u64::from(size).next_multiple_of(4));
    }
}

fn thread(desc: &[u8], headers: &Headers) -> Option<Thread> {
    let machine = headers.machine;
    let tid = dword(desc, PR_PID)? as i32;
    let regs = desc.get(PR_REG..PR_REG + 8 * machine.registers).unwrap_or_default();
    let regs: Vec<u64> = regs.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
    let reg = |i: usize| regs.get(i).copied().unwrap_or(0);
    let (sp, ip, tls) = (reg(machine.sp), reg(machine.ip), machine.tls.map_or(0, reg));
    Some(Thread { tid, name: Vec::new(), sp, ip, tls, regs })
}

/// `NT_FILE`: count, unit of offsets, `(start, end, offset)` each, then the names (fs/binfmt_elf.c,
/// fill_files_note). The unit is the page size, or 1 when gdb wrote it.
fn mapped_files(desc: &[u8]) -> Option<Vec<MappedFile>> {
    let (count, unit) = (word(desc, 0)?, word(desc, 8)?);
    let table = desc.get(16..)?;
    let names_at = usize::try_from(count).ok()?.checked_mul(24)?;
    // A truncated note still has its first entries, but no names for them.
    let mut names = table.get(names_at..)?.split(|&b| b == 0);
    let mut files = Vec::new();
    for entry in table[..names_at].as_chunks::<24>().0 {
        let name = names.next().filter(|n| !n.is_empty())?;
        let deleted = name.strip_suffix(b" (deleted)");
        files.push(MappedFile {
            range: word(entry, 0)?..word(entry, 8)?,
            offset: word(entry, 16)?.saturating_mul(unit),
            name: deleted.unwrap_or(name).to_vec(),
            deleted: deleted.is_some(),
        });
    }
    Some(files)
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

fn dword(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}
