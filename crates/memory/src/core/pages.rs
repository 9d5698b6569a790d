//! A note of this program's own in the cores that it writes: what segments cannot say of pages.
//!
//! To others such a core is like the kernel's: what was never touched reads as zeroes, what could not
//! be read is in no segment. The note adds which zeroes took no RAM, and why something is not there.

use crate::Perms;
use object::elf;
use std::io::{self, Write};

// The marks as they are in the flags word: two bits.
const UNTOUCHED: u64 = 0;
const LEFT_OUT: u64 = 1;
const SWAPPED: u64 = 2;
const UNREAD: u64 = 3;

const READ: u64 = 1 << 2;
const WRITE: u64 = 1 << 3;
const EXEC: u64 = 1 << 4;
const FROM_INSIDE: u64 = 1 << 5;
const TO_INSIDE: u64 = 1 << 6;

/// The owner in the note, and its number: gdb reads notes of owners it does not know as the kernel's,
/// so that it must not be one of theirs.
pub(super) const OWNER: &[u8] = b"wheresmyram";
pub(super) const NUMBER: elf::NoteType = elf::NoteType(0x776d_7201);

const RECORD: usize = 24;
/// Records a note: the size of one is a 32-bit number.
const PER_NOTE: usize = 1 << 20;

/// Why a range is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Not in RAM, whether or not the core has bytes for it. Without a file these are zeroes.
    Untouched,
    /// In no segment: the file behind it has it.
    LeftOut,
    /// In no segment: it was swapped out.
    Swapped,
    /// In no segment: it could not be read, and what the file has may not be it.
    Unread,
}

/// A marked range, which lies in one mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marked {
    pub start: u64,
    pub end: u64,
    pub mark: Mark,
    /// Of the mapping.
    pub perms: Perms,
    /// Does the mapping begin before it, and go on behind it?
    pub from_inside: bool,
    pub to_inside: bool,
}

impl Marked {
    fn encode(&self) -> [u8; RECORD] {
        let mark = match self.mark {
            Mark::Untouched => UNTOUCHED,
            Mark::LeftOut => LEFT_OUT,
            Mark::Swapped => SWAPPED,
            Mark::Unread => UNREAD,
        };
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        let flags = mark
            | flag(self.perms.read, READ)
            | flag(self.perms.write, WRITE)
            | flag(self.perms.exec, EXEC)
            | flag(self.from_inside, FROM_INSIDE)
            | flag(self.to_inside, TO_INSIDE);
        let mut out = [0; RECORD];
        for (word, value) in out.as_chunks_mut::<8>().0.iter_mut().zip([self.start, self.end, flags]) {
            *word = value.to_le_bytes();
        }
        out
    }

    fn decode(record: &[u8; RECORD]) -> Option<Self> {
        let word = |i: usize| u64::from_le_bytes(record.as_chunks::<8>().0[i]);
        let (start, end, flags) = (word(0), word(1), word(2));
        let mark = match flags & 3 {
            UNTOUCHED => Mark::Untouched,
            LEFT_OUT => Mark::LeftOut,
            SWAPPED => Mark::Swapped,
            _ => Mark::Unread,
        };
        let perms = Perms {
            read: flags & READ != 0,
            write: flags & WRITE != 0,
            exec: flags & EXEC != 0,
            shared: false,
        };
        let (from_inside, to_inside) = (flags & FROM_INSIDE != 0, flags & TO_INSIDE != 0);
        (start < end).then_some(Marked { start, end, mark, perms, from_inside, to_inside })
    }
}

/// Writes the notes: one at least, as there is a segment for them.
pub(super) fn write(marked: &[Marked], out: &mut impl Write) -> io::Result<()> {
    let mut rest = marked;
    loop {
        let (now, later) = rest.split_at(rest.len().min(PER_NOTE));
        super::write::note_header(out, OWNER, NUMBER, now.len() * RECORD)?;
        now.iter().try_for_each(|record| out.write_all(&record.encode()))?;
        rest = later;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// What one note says.
pub(super) fn parse(desc: &[u8]) -> impl Iterator<Item = Marked> + '_ {
    desc.as_chunks::<RECORD>().0.iter().filter_map(Marked::decode)
}
