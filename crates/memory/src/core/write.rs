//! Core files of captured targets, as gdb, pystack and this program read them.
//!
//! One segment a mapping, as the kernel writes them, with holes in the file for pages of zeroes. Clean
//! pages of files that are here under their name are left to the file, as gcore does. What could not be
//! read is in no segment, so that nobody takes it for zeroes; untouched stretches of more than
//! [`plan::VAST`] are in `p_memsz` alone, which gdb reads as zeroes, as no file system has files of
//! terabytes. Which zeroes took no RAM is in a [note of our own](super::pages).
//!
//! In the file: header, program headers, notes, memory, our own note, and section 0 where there are too
//! many segments for the header's 16 bits. The header is written last: half a core is none.

mod notes;
mod plan;
mod store;

use super::headers::{ENTRY, HEADER, MACHINES, Machine};
use super::pages::{self, Mark, Marked};
use crate::{Fault, Perms, Target};
use object::elf;
use plan::{Plan, Segment};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use store::Store;

/// What was written.
#[derive(Debug, Clone, Default)]
pub struct CoreWritten {
    /// Bytes of memory stored; pages of zeroes take no room and are not counted.
    pub bytes: u64,
    /// Loadable segments.
    pub segments: u64,
    /// What is lacking in the core, for the user.
    pub notes: Vec<String>,
}

/// Why no core was written. The file is then to be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("cannot write the core: {0}")]
    Write(#[from] io::Error),
    #[error("a core needs a regular file, and an empty one")]
    NotAnEmptyFile,
    #[error("what was captured went away while it was written ({0})")]
    Gone(Fault),
    #[error("cores of this architecture ({0}) cannot be written")]
    Architecture(&'static str),
    #[error("no memory is mapped")]
    NothingMapped,
}

/// Writes a target as an ELF core. `file` is empty and can be written; a hole at its end counts.
///
/// `progress` is told again and again how many bytes of memory were dealt with since it was told last,
/// zeroes included: all together what is in RAM, and little more.
///
/// # Errors
/// The file cannot be written, or the target went away; see [`WriteError`]. What merely cannot be read
/// is left out, and a note says so.
pub fn write_core(
    target: &Target,
    file: &File,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CoreWritten, WriteError> {
    let here = std::env::consts::ARCH;
    let machine = MACHINES.iter().find(|m| m.name == here).ok_or(WriteError::Architecture(here))?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > 0 {
        return Err(WriteError::NotAnEmptyFile);
    }
    let mut plan = Plan::of(target);
    if plan.segments.is_empty() {
        return Err(WriteError::NothingMapped);
    }
    // As if all could be read: the two segments more are the notes.
    let room = plan.segments.len() as u64 + 2;
    let notes_at = HEADER as u64 + room * ENTRY;
    let kernel_notes = notes::of(target, machine);
    let memory_at = notes_at + kernel_notes.len() as u64;
    // A core that this is read from may claim any.
    let page = target.page_size.clamp(1 << 12, 1 << 16);
    let end = plan.place(memory_at, page);

    let store = Store::of(target, &plan, file, progress)?;
    let mut segments = plan.segments;
    let mut marked = plan.marked;
    if !store.unread.is_empty() {
        segments = without(segments, &store.unread);
        marked.extend(store.unread.iter().flat_map(|range| unread(target, range)));
        marked.sort_by_key(|m| m.start);
    }

    // Where segments had to be cut the table has outgrown its place.
    let count = segments.len() as u64 + 2;
    let mut out = BufWriter::new(file);
    out.seek(SeekFrom::Start(end))?;
    pages::write(&marked, &mut out)?;
    let own_end = out.stream_position()?;
    let table_at = if count > room { own_end.next_multiple_of(8) } else { HEADER as u64 };
    let after = if count > room { table_at + count * ENTRY } else { own_end };

    out.seek(SeekFrom::Start(table_at))?;
    let note = |range: Range<u64>| [range.start, 0, range.end - range.start, 0];
    program_header(&mut out, elf::PT_NOTE, 0, note(notes_at..memory_at), 4)?;
    for segment in &segments {
        let Segment { start, filled, end, offset, perms, .. } = *segment;
        let numbers = [offset, start, filled - start, end - start];
        program_header(&mut out, elf::PT_LOAD, flags(perms), numbers, page)?;
    }
    // Last: elfutils takes the first for the kernel's.
    program_header(&mut out, elf::PT_NOTE, 0, note(end..own_end), 4)?;
    out.seek(SeekFrom::Start(notes_at))?;
    out.write_all(&kernel_notes)?;
    let extended = count >= PN_XNUM;
    let section_at = after.next_multiple_of(8);
    if extended {
        out.seek(SeekFrom::Start(section_at))?;
        section_0(&mut out, count)?;
    }
    out.rewind()?;
    file_header(&mut out, machine, table_at, count, extended.then_some(section_at))?;
    out.flush()?;
    drop(out);
    file.set_len(if extended { section_at + SECTION } else { after })?;

    let mut notes = plan.notes;
    notes.extend(store.told());
    Ok(CoreWritten { bytes: store.bytes, segments: segments.len() as u64, notes })
}

/// From this number of segments on it is in section 0.
const PN_XNUM: u64 = 0xffff;
const SECTION: u64 = 64;

/// Takes out what could not be read, so that it is in no segment. Both in address order.
fn without(segments: Vec<Segment>, unread: &[Range<u64>]) -> Vec<Segment> {
    let mut out = Vec::with_capacity(segments.len() + unread.len());
    let mut unread = unread.iter().peekable();
    for mut rest in segments {
        while let Some(hole) = unread.next_if(|hole| hole.start < rest.filled) {
            if rest.start < hole.start {
                out.push(Segment { end: hole.start, filled: hole.start, ..rest });
            }
            rest.offset += hole.end - rest.start;
            rest.start = hole.end;
        }
        if rest.start < rest.end {
            out.push(rest);
        }
    }
    out
}

fn unread(target: &Target, range: &Range<u64>) -> Option<Marked> {
    let mapping = target.mapping(range.start)?;
    Some(Marked {
        start: range.start,
        end: range.end,
        mark: Mark::Unread,
        perms: mapping.perms,
        from_inside: mapping.start < range.start,
        to_inside: range.end < mapping.end,
    })
}

fn flags(perms: Perms) -> u32 {
    [(perms.read, elf::PF_R), (perms.write, elf::PF_W), (perms.exec, elf::PF_X)]
        .iter()
        .filter(|(set, _)| *set)
        .fold(0, |flags, (_, flag)| flags | flag.0)
}

/// `Elf64_Phdr`. `numbers`: offset, address, size in the file, size in memory.
fn program_header(
    out: &mut impl Write,
    kind: elf::ProgramType,
    flags: u32,
    numbers: [u64; 4],
    align: u64,
) -> io::Result<()> {
    let [offset, addr, filesz, memsz] = numbers;
    out.write_all(&kind.0.to_le_bytes())?;
    out.write_all(&flags.to_le_bytes())?;
    // The physical address has no meaning here.
    [offset, addr, 0, filesz, memsz, align].iter().try_for_each(|word| out.write_all(&word.to_le_bytes()))
}

/// `Elf64_Ehdr`.
fn file_header(
    out: &mut impl Write,
    machine: &Machine,
    table: u64,
    count: u64,
    section_0: Option<u64>,
) -> io::Result<()> {
    out.write_all(&elf::ELFMAG)?;
    out.write_all(&[elf::ELFCLASS64.0, elf::ELFDATA2LSB.0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
    out.write_all(&elf::ET_CORE.0.to_le_bytes())?;
    out.write_all(&machine.id.0.to_le_bytes())?;
    out.write_all(&1_u32.to_le_bytes())?;
    let sections = section_0.unwrap_or(0);
    [0, table, sections].iter().try_for_each(|word| out.write_all(&word.to_le_bytes()))?;
    out.write_all(&0_u32.to_le_bytes())?;
    let some = |size: u64| if section_0.is_some() { size as u16 } else { 0 };
    let halves = [HEADER as u16, ENTRY as u16, count.min(PN_XNUM) as u16, some(SECTION), some(1), 0];
    halves.iter().try_for_each(|half| out.write_all(&half.to_le_bytes()))
}

/// As the kernel's fill_extnum_info: `sh_size` is the number of sections, `sh_info` that of segments.
fn section_0(out: &mut impl Write, count: u64) -> io::Result<()> {
    let mut section = [0; SECTION as usize];
    section[32..40].copy_from_slice(&1_u64.to_le_bytes());
    let count = u32::try_from(count).map_err(|_| io::Error::other("more segments than a core can have"))?;
    section[44..48].copy_from_slice(&count.to_le_bytes());
    out.write_all(&section)
}

/// `Elf64_Nhdr` and the owner's name; `size` bytes are to follow.
pub(super) fn note_header(
    out: &mut impl Write,
    owner: &[u8],
    kind: elf::NoteType,
    size: usize,
) -> io::Result<()> {
    let size = u32::try_from(size).map_err(|_| io::Error::other("a note of more than 4 GiB"))?;
    for word in [owner.len() as u32 + 1, size, kind.0] {
        out.write_all(&word.to_le_bytes())?;
    }
    out.write_all(owner)?;
    // The NUL that ends it, and up to a multiple of four.
    out.write_all(&[0; 4][..4 - owner.len() % 4])
}
