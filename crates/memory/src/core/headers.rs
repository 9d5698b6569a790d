//! The file header and program headers of a core.

use super::CoreError;
use super::pages::{Mark, Marked};
use crate::stored::Stored;
use crate::{Perms, Why};
use object::elf;

/// `sizeof(Elf64_Ehdr)` and `sizeof(Elf64_Phdr)`.
pub(super) const HEADER: usize = 64;
pub(super) const ENTRY: u64 = 56;
/// `vm.max_map_count` is 65530 unless raised; programs that raise it go to some millions.
const MAX_ENTRIES: u64 = 1 << 23;
/// Entries read at a time.
const AT_ONCE: u64 = 4096;
/// Enough to tell a core, or what else the file is.
const START: u64 = 4096;

/// What differs between architectures in a core.
pub(super) struct Machine {
    pub id: elf::Machine,
    pub name: &'static str,
    /// Words of `pr_reg` in `NT_PRSTATUS` (the kernel's `user_regs_struct`), and which of them are
    /// the instruction, stack and thread pointer.
    pub registers: usize,
    pub ip: usize,
    pub sp: usize,
    /// `None`: in a note of its own, `NT_ARM_TLS`.
    pub tls: Option<usize>,
}

/// The architectures whose cores can be read and written, by a program of the same one.
pub(super) const MACHINES: [Machine; 2] = [
    // arch/x86/include/asm/user_64.h
    Machine { id: elf::EM_X86_64, name: "x86_64", registers: 27, ip: 16, sp: 19, tls: Some(21) },
    // arch/arm64/include/uapi/asm/ptrace.h
    Machine { id: elf::EM_AARCH64, name: "aarch64", registers: 34, ip: 32, sp: 31, tls: None },
];

/// A `PT_LOAD`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub start: u64,
    pub end: u64,
    pub perms: Perms,
    /// Where in the file, how much was written there, and how much of that is still there.
    pub offset: u64,
    pub filesz: u64,
    pub stored: u64,
    /// Why nothing of it is there, and why the file behind it is not to be asked.
    pub lost: Option<Why>,
}

pub(super) struct Headers {
    pub machine: &'static Machine,
    /// By address, not overlapping.
    pub loads: Vec<Load>,
    /// Offset and size of each `PT_NOTE`.
    pub notes: Vec<(u64, u64)>,
    /// For the user.
    pub problems: Vec<String>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_le_bytes(*b))
}

impl Headers {
    pub fn parse(core: &Stored) -> Result<Self, CoreError> {
        let start = core.part(0..START);
        let machine = accept(&start)?;
        let mut headers = Headers { machine, loads: Vec::new(), notes: Vec::new(), problems: Vec::new() };
        headers.entries(core, &start)?;
        headers.order();
        headers.tell_truncation(core.len());
        if headers.loads.is_empty() {
            return Err(CoreError::NoSegments("it has no loadable segment"));
        }
        Ok(headers)
    }

    fn entries(&mut self, core: &Stored, start: &[u8]) -> Result<(), CoreError> {
        let file_len = core.len();
        let table = u64_at(start, 32);
        if u16_at(start, 54) != ENTRY as u16 {
            return Err(CoreError::NoSegments("its program headers have an unknown size"));
        }
        let wanted = self.count(core, start, table);
        let there = wanted.min(MAX_ENTRIES).min(file_len.saturating_sub(table) / ENTRY);
        if there == 0 {
            return Err(CoreError::NoSegments("it ends before its first program header"));
        }
        if there < wanted {
            self.problems.push(format!("truncated core: {there} of {wanted} program headers are readable"));
        }
        for from in (0..there).step_by(AT_ONCE as usize) {
            let to = (from + AT_ONCE).min(there);
            self.take(&core.part(table + from * ENTRY..table + to * ENTRY), file_len);
        }
        Ok(())
    }

    /// Some entries of the table.
    fn take(&mut self, entries: &[u8], file_len: u64) {
        for entry in entries.as_chunks::<{ ENTRY as usize }>().0 {
            let flags = u32_at(entry, 4);
            let (offset, vaddr) = (u64_at(entry, 8), u64_at(entry, 16));
            let (filesz, memsz) = (u64_at(entry, 32), u64_at(entry, 40));
            match elf::ProgramType(u32_at(entry, 0)) {
                elf::PT_LOAD if memsz > 0 => {
                    let filesz = filesz.min(memsz);
                    self.loads.push(Load {
                        start: vaddr,
                        // The last page of the address space is never mapped.
                        end: vaddr.saturating_add(memsz),
                        perms: Perms {
                            read: flags & elf::PF_R.0 != 0,
                            write: flags & elf::PF_W.0 != 0,
                            exec: flags & elf::PF_X.0 != 0,
                            shared: false,
                        },
                        offset,
                        filesz,
                        stored: filesz.min(file_len.saturating_sub(offset)),
                        lost: None,
                    });
                }
                elf::PT_NOTE => self.notes.push((offset, filesz)),
                _ => {}
            }
        }
    }

    /// `e_phnum`, or what stands in for it from 65535 on.
    fn count(&mut self, core: &Stored, start: &[u8], table: u64) -> u64 {
        let phnum = u16_at(start, 56);
        if phnum != u16::MAX {
            return phnum.into();
        }
        // PN_XNUM: the count is in sh_info of section 0, which the kernel writes at the very end
        // (fs/binfmt_elf.c, fill_extnum_info): the first thing that a truncated core loses.
        let section = u64_at(start, 40);
        let section_0 = core.part(section..section.saturating_add(64));
        if section >= HEADER as u64 && section_0.len() == 64 {
            return u32_at(&section_0, 44).into();
        }
        // The first segment is the notes; the kernel puts them right after the program headers.
        let first = core.part(table..table.saturating_add(ENTRY));
        self.problems.push("truncated core: the number of segments is lost, and was estimated".into());
        u64_at(&first, 8).saturating_sub(table) / ENTRY
    }

    /// Adds what is mapped and in no segment, by our own note.
    pub fn add_absent(&mut self, marked: &[Marked]) {
        for &Marked { start, end, mark, perms, .. } in marked {
            let lost = match mark {
                Mark::Untouched => continue,
                Mark::LeftOut => None,
                Mark::Swapped => Some(Why::Swapped),
                Mark::Unread => Some(Why::NotCaptured),
            };
            self.loads.push(Load { start, end, perms, offset: 0, filesz: 0, stored: 0, lost });
        }
        if !marked.is_empty() {
            self.order();
        }
    }

    /// Sorts the segments and takes from each what an earlier one covers already.
    fn order(&mut self) {
        self.loads.sort_by_key(|l| l.start);
        let (mut reached, mut overlaps) = (0, 0);
        for load in &mut self.loads {
            if load.start < reached {
                overlaps += 1;
                let cut = reached.min(load.end) - load.start;
                load.start += cut;
                load.offset = load.offset.saturating_add(cut);
                load.filesz = load.filesz.saturating_sub(cut);
                load.stored = load.stored.saturating_sub(cut);
            }
            load.filesz = load.filesz.min(load.end - load.start);
            load.stored = load.stored.min(load.filesz);
            reached = reached.max(load.end);
        }
        self.loads.retain(|l| l.start < l.end);
        if overlaps > 0 {
            self.problems.push(format!("malformed core: {overlaps} segments overlap others"));
        }
    }

    fn tell_truncation(&mut self, file_len: u64) {
        let cut = || self.loads.iter().filter(|l| l.stored < l.filesz);
        let lost: u128 = cut().map(|l| u128::from(l.filesz - l.stored)).sum();
        let notes = self.notes.iter().any(|&(at, size)| at.saturating_add(size) > file_len);
        if lost > 0 {
            let (segments, all) = (cut().count(), self.loads.len());
            self.problems
                .push(format!("truncated core: {lost} bytes of {segments} of its {all} segments are lost"));
        }
        if notes {
            self.problems.push("truncated core: notes on threads and mapped files are lost".into());
        }
    }
}

/// Is this a core that can be read here?
fn accept(bytes: &[u8]) -> Result<&'static Machine, CoreError> {
    if bytes.is_empty() {
        return Err(CoreError::Empty);
    }
    if bytes.len() < 4 || !bytes.starts_with(&elf::ELFMAG) {
        return Err(CoreError::NotElf(looks_like(bytes)));
    }
    if bytes.len() < HEADER {
        return Err(CoreError::NoHeader(bytes.len() as u64));
    }
    let (class, data) = (bytes[4], bytes[5]);
    let big_endian = data == elf::ELFDATA2MSB.0;
    let half = |at| if big_endian { u16_at(bytes, at).swap_bytes() } else { u16_at(bytes, at) };
    match elf::FileType(half(16)) {
        elf::ET_CORE => {}
        elf::ET_EXEC => return Err(CoreError::NotCore("a program")),
        elf::ET_DYN => return Err(CoreError::NotCore("a program or shared library")),
        elf::ET_REL => return Err(CoreError::NotCore("an object file")),
        _ => return Err(CoreError::NotCore("of an unknown type")),
    }
    let id = elf::Machine(half(18));
    let found = machine_name(id);
    if big_endian {
        return Err(CoreError::BigEndian(found));
    }
    if class != elf::ELFCLASS64.0 {
        return Err(CoreError::Bits32(found));
    }
    let machine = MACHINES.iter().find(|m| m.id == id && m.name == std::env::consts::ARCH);
    machine.ok_or(CoreError::Architecture { found, expected: std::env::consts::ARCH })
}

fn machine_name(id: elf::Machine) -> String {
    let known = match id {
        elf::EM_X86_64 => "x86_64",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_386 => "i386",
        elf::EM_ARM => "arm",
        elf::EM_RISCV => "riscv",
        elf::EM_PPC64 => "powerpc64",
        elf::EM_S390 => "s390x",
        elf::EM_LOONGARCH => "loongarch",
        elf::EM_MIPS => "mips",
        other => return format!("ELF machine {}", other.0),
    };
    known.into()
}

/// What to tell of a file that is no ELF file.
fn looks_like(bytes: &[u8]) -> &'static str {
    const KINDS: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "it is compressed with gzip (`gunzip` it first)"),
        (b"\xfd7zXZ", "it is compressed with xz (`unxz` it first)"),
        (b"BZh", "it is compressed with bzip2 (`bunzip2` it first)"),
        (b"PK\x03\x04", "it is a zip archive"),
        (b"KDUMP", "it is a kernel crash dump"),
    ];
    let text = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace();
    match KINDS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, kind)) => kind,
        None if bytes.iter().take(512).all(text) => "it is a text file",
        None => "it does not begin as one",
    }
}
