//! What is needed of an ELF file's headers. 64-bit little-endian files only: those of the targets.

use super::symbols::{Slice, SymbolTable};
use crate::Memory;
use crate::file::FileBytes;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, NoteIterator, ProgramHeader as _, SectionHeader as _};
use object::{LittleEndian, ReadRef as _};
use std::ops::Range;

type Header = FileHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// Real files have up to twenty; a hostile one must not cost much.
const MAX_SEGMENTS: usize = 64;
const MAX_SECTIONS: usize = 4096;

/// A `PT_LOAD`, addresses as in the file.
pub(crate) struct Load {
    pub offset: u64,
    pub vaddr: u64,
    pub filesz: u64,
    pub memsz: u64,
    pub write: bool,
    pub exec: bool,
}

/// The program headers of a program or shared library.
pub(crate) struct Headers {
    pub loads: Vec<Load>,
    /// Address and size of `PT_DYNAMIC`.
    pub dynamic: Option<(u64, u64)>,
    /// Offset, address and size of each `PT_NOTE`.
    pub notes: Vec<(u64, u64, u64)>,
}

impl Headers {
    /// From a file, or from its first bytes when they hold the program headers. `None` for anything
    /// that is not a 64-bit little-endian program or shared library.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = Header::parse(bytes).ok()?;
        if !header.is_little_endian() || !matches!(header.e_type.get(LE), elf::ET_EXEC | elf::ET_DYN) {
            return None;
        }
        let mut headers = Headers { loads: Vec::new(), dynamic: None, notes: Vec::new() };
        for segment in header.program_headers(LE, bytes).ok()?.iter().take(MAX_SEGMENTS) {
            let (vaddr, memsz) = (segment.p_vaddr(LE), segment.p_memsz(LE));
            let (offset, filesz) = (segment.p_offset(LE), segment.p_filesz(LE));
            match segment.p_type(LE) {
                elf::PT_LOAD if memsz > 0 => headers.loads.push(Load {
                    offset,
                    vaddr,
                    filesz: filesz.min(memsz),
                    memsz,
                    write: segment.p_flags(LE).0 & elf::PF_W.0 != 0,
                    exec: segment.p_flags(LE).0 & elf::PF_X.0 != 0,
                }),
                elf::PT_DYNAMIC => headers.dynamic = Some((vaddr, memsz)),
                elf::PT_NOTE => headers.notes.push((offset, vaddr, filesz)),
                _ => {}
            }
        }
        (!headers.loads.is_empty()).then_some(headers)
    }

    pub fn build_id(&self, file: &FileBytes) -> Option<Vec<u8>> {
        let notes = self.notes.iter();
        notes.map(|&(offset, _, size)| file.clipped(offset..offset.saturating_add(size))).find_map(build_id)
    }

    /// From the file's first page where it is mapped: the program headers follow the file header.
    pub fn in_memory(memory: &dyn Memory, range: Range<u64>) -> Option<Self> {
        let mut page = vec![0; range.end.checked_sub(range.start)?.min(4096) as usize];
        memory.read(range.start, &mut page).ok()?;
        Headers::parse(&page)
    }

    /// Run-time minus file address, for a file whose first byte is mapped at `start`.
    pub fn bias(&self, start: u64) -> Option<u64> {
        let head = self.loads.iter().filter(|l| l.filesz > 0).min_by_key(|l| l.offset)?;
        Some(start.wrapping_sub(head.vaddr.wrapping_sub(head.offset)))
    }

    pub fn build_id_in_memory(&self, memory: &dyn Memory, bias: u64) -> Option<Vec<u8>> {
        self.notes.iter().find_map(|&(_, vaddr, size)| {
            let mut notes = vec![0; size.min(1 << 16) as usize];
            memory.read(bias.wrapping_add(vaddr), &mut notes).ok()?;
            build_id(&notes)
        })
    }

    /// Where in the file the bytes of `vaddr` are, to the end of its segment.
    pub fn offset_of(&self, vaddr: u64) -> Option<Range<u64>> {
        let load = self.loads.iter().find(|l| vaddr.wrapping_sub(l.vaddr) < l.filesz)?;
        Some(load.offset.checked_add(vaddr - load.vaddr)?..load.offset.checked_add(load.filesz)?)
    }
}

/// The build-id in the contents of a note segment.
fn build_id(notes: &[u8]) -> Option<Vec<u8>> {
    // GNU notes are 4-aligned whatever p_align says, except .note.gnu.property, whose size is a
    // multiple of eight anyway and which linkers put into a segment of its own.
    let mut notes = NoteIterator::<Header>::new(LE, 4, notes).ok()?;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
            // SHA-1 has 20 bytes; --build-id=0x… may give any number.
            return Some(note.desc()[..note.desc().len().min(64)].to_vec());
        }
    }
    None
}

/// What the section headers add: names of sections, and the symbol tables.
#[derive(Default)]
pub(super) struct Sections {
    /// Addresses as in the file.
    pub named: Vec<(String, Range<u64>)>,
    pub tables: Vec<SymbolTable>,
}

impl Sections {
    /// Empty when the file has no usable section headers.
    pub fn parse(file: &FileBytes) -> Self {
        let mut out = Sections::default();
        let data: &[u8] = file;
        let Ok(header) = Header::parse(data) else { return out };
        let Ok(sections) = header.sections(LE, data) else { return out };
        let slice = |offset: u64, size: u64| Slice::File(file.clone(), offset..offset.saturating_add(size));
        let (mut dynsym, mut symtab, mut gnu_hash) = (None, None, None);
        for section in sections.iter().take(MAX_SECTIONS) {
            let (addr, size) = (section.sh_addr(LE), section.sh_size(LE));
            let end = addr.checked_add(size).filter(|_| addr != 0);
            // .tdata and .tbss describe a template: their addresses overlap other sections.
            if let Some(end) = end.filter(|_| section.sh_flags(LE).0 & elf::SHF_TLS.0 == 0)
                && let Some(name) = sections.section_name(LE, section).ok().filter(|n| n.len() <= 256)
            {
                out.named.push((String::from_utf8_lossy(name).into_owned(), addr..end));
            }
            let table = || {
                let names = sections.section(object::SectionIndex(section.sh_link(LE) as usize)).ok()?;
                Some(SymbolTable {
                    entries: slice(section.sh_offset(LE), size),
                    names: slice(names.sh_offset(LE), names.sh_size(LE)),
                    gnu_hash: None,
                })
            };
            match section.sh_type(LE) {
                elf::SHT_DYNSYM => dynsym = table(),
                elf::SHT_SYMTAB => symtab = table(),
                elf::SHT_GNU_HASH => gnu_hash = Some(slice(section.sh_offset(LE), size)),
                _ => {}
            }
        }
        if let Some(dynsym) = &mut dynsym {
            dynsym.gnu_hash = gnu_hash;
        }
        out.tables.extend(dynsym.into_iter().chain(symtab));
        out
    }
}

/// Does it begin like an ELF file?
pub(super) fn has_magic(bytes: &[u8]) -> bool {
    bytes.read_bytes_at(0, 4) == Ok(&elf::ELFMAG)
}
