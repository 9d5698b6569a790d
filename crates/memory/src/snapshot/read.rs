//! Finding a snapshot's chunks, and unpacking them.

use super::SnapshotError;
use super::format::{self, Chunk, Codec, HEAD, HEADER, Head, INDEX_ENTRY, Kind, MAJOR, TRAILER};
use crate::stored::Stored;
use std::cell::RefCell;
use std::io::Read;
use std::ops::Range;
use zstd::bulk::Decompressor;

/// Damage is told this many times.
const MAX_TOLD: usize = 20;

/// A snapshot file and where its chunks are.
pub(super) struct Chunks {
    pub file: Stored,
    /// As they lie in the file. Each lies in it wholly.
    pub all: Vec<Chunk>,
    /// The file has lost some: an address without a chunk may have had one.
    pub incomplete: bool,
    /// What is wrong, in words.
    pub damage: Vec<String>,
}

impl Chunks {
    pub fn find(file: Stored) -> Result<Chunks, SnapshotError> {
        let header = file.part(0..HEADER as u64).into_owned();
        let version = format::version(&header);
        match version {
            None if format::has_magic(&header) => return Err(SnapshotError::Short(header.len())),
            None => return Err(SnapshotError::NotASnapshot),
            Some((major, minor, true)) if major != MAJOR => {
                return Err(SnapshotError::Version { major, minor, known: MAJOR });
            }
            Some(_) => {}
        }
        let mut chunks = Chunks { file, all: Vec::new(), incomplete: false, damage: Vec::new() };
        if let Some((_, _, false)) = version {
            chunks.damage.push("the header is damaged; the version is taken for this program's".to_owned());
        }
        match chunks.by_index() {
            Ok(all) => chunks.all = all,
            Err(why) => {
                chunks.damage.push(format!("{why}; the chunks were looked for one by one"));
                chunks.one_by_one();
            }
        }
        Ok(chunks)
    }

    fn by_index(&self) -> Result<Vec<Chunk>, String> {
        let at = self
            .index_offset()
            .ok_or("the end is missing or damaged: the file was cut off, or not written to its end")?;
        let damaged = || format!("the index at byte {at} is damaged");
        let index = self.chunk_at(at).filter(|index| index.head.kind == Kind::Index).ok_or_else(damaged)?;
        let entries = self.unpack(&index).map_err(|why| format!("{}: {why}", damaged()))?;
        let (entries, rest) = entries.as_chunks::<INDEX_ENTRY>();
        let chunk = |entry| Chunk::decode(entry).filter(|chunk| self.holds(chunk));
        let all: Option<Vec<Chunk>> = entries.iter().map(chunk).collect();
        all.filter(|_| rest.is_empty()).ok_or_else(damaged)
    }

    /// By their heads, from the front; where one is damaged, the next that is not.
    fn one_by_one(&mut self) {
        let mut at = HEADER as u64;
        let end = self.file.len();
        let mut lost = 0;
        while at < end {
            if let Some(chunk) = self.chunk_at(at).filter(|chunk| self.holds(chunk)) {
                at = chunk.end();
                self.all.push(chunk);
                continue;
            }
            let next = self.next_head(at + 1..end);
            if end - at != TRAILER as u64 || next.is_some() {
                lost += 1;
                if lost <= MAX_TOLD {
                    let number = self.all.len();
                    self.damage.push(match self.index_offset() {
                        None if next.is_none() => {
                            format!("chunk {number} at byte {at} is cut off, with all behind it")
                        }
                        _ => format!("chunk {number} at byte {at} is damaged"),
                    });
                }
            }
            self.incomplete = true;
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        // Cut off right between two chunks: all that are left are whole.
        self.incomplete |= !self.all.iter().any(|chunk| chunk.head.kind == Kind::Index);
        if lost > MAX_TOLD {
            self.damage.push(format!("{} more places are damaged", lost - MAX_TOLD));
        }
    }

    /// Where the first chunk begins that has its head in the range.
    fn next_head(&self, range: Range<u64>) -> Option<u64> {
        const PIECE: u64 = 1 << 20;
        const MARK: &[u8] = b"wmrC";
        let mut from = range.start;
        while from < range.end {
            // The next piece begins with what may be the start of a mark here.
            let to = from.saturating_add(PIECE + MARK.len() as u64 - 1).min(range.end);
            let piece = self.file.part(from..to);
            let marks = piece.windows(MARK.len()).enumerate().filter(|(_, bytes)| *bytes == MARK);
            let mut starts = marks.map(|(i, _)| from + i as u64);
            let found = starts.find(|&at| self.chunk_at(at).is_some_and(|chunk| self.holds(&chunk)));
            if found.is_some() || piece.is_empty() {
                return found;
            }
            from = from.saturating_add(PIECE);
        }
        None
    }

    /// By the trailer.
    fn index_offset(&self) -> Option<u64> {
        let len = self.file.len();
        format::index_offset(&self.file.part(len.saturating_sub(TRAILER as u64)..len))
    }

    fn chunk_at(&self, offset: u64) -> Option<Chunk> {
        let head = format::Head::decode(&self.file.part(offset..offset.saturating_add(HEAD as u64)))?;
        Some(Chunk { offset, head })
    }

    /// Does it lie in the file, and is it no longer than its kind may be? Nothing is stored in more bytes
    /// than it has.
    fn holds(&self, chunk: &Chunk) -> bool {
        let limit = chunk.head.kind.limit();
        chunk.end() <= self.file.len() && chunk.head.raw <= limit && chunk.head.stored <= limit
    }

    /// A chunk's bytes, or why they are not to be had.
    pub fn unpack(&self, chunk: &Chunk) -> Result<Vec<u8>, &'static str> {
        thread_local! {
            static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let head = &chunk.head;
        if !self.holds(chunk) {
            return Err("it does not lie in the file");
        }
        let at = chunk.offset.saturating_add(HEAD as u64);
        let range = at..at.saturating_add(head.stored.into());
        if let Some(bytes) = self.file.held(range.clone()) {
            return unpack(head, bytes);
        }
        if head.stored > format::MAX_PART {
            return unpack(head, &self.file.part(range));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(head.stored as usize, 0);
            self.file.read(at, scratch).map_err(|_| "it cannot be read")?;
            unpack(head, scratch)
        })
    }

    /// How a chunk is called in messages.
    pub fn name(&self, number: usize) -> String {
        let Some(chunk) = self.all.get(number) else { return format!("chunk {number}") };
        let at = chunk.head.at;
        let end = at.saturating_add(chunk.head.raw.into());
        let what = match chunk.head.kind {
            Kind::Facts => "facts".to_owned(),
            Kind::Memory => format!("memory {at:#x}-{end:#x}"),
            Kind::File(file) => format!("file {file}, bytes {at}-{end}"),
            Kind::Index => "index".to_owned(),
            Kind::Unknown(kind) => format!("kind {kind}"),
        };
        format!("chunk {number} at byte {} ({what})", chunk.offset)
    }
}

fn unpack(head: &Head, stored: &[u8]) -> Result<Vec<u8>, &'static str> {
    if format::checksum(stored) != head.checksum {
        return Err("its checksum does not fit");
    }
    match head.codec {
        Codec::Plain if head.stored == head.raw => Ok(stored.to_vec()),
        Codec::Zstd if head.raw <= format::MAX_PART => unpack_part(stored, head.raw as usize),
        Codec::Zstd => unpack_table(stored, head.raw),
        Codec::Plain => Err("its lengths contradict each other"),
        Codec::Unknown(_) => Err("it is packed in a way this version does not know"),
    }
}

fn unpack_part(stored: &[u8], raw: usize) -> Result<Vec<u8>, &'static str> {
    thread_local! {
        static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    UNPACKER.with_borrow_mut(|unpacker| {
        if unpacker.is_none() {
            *unpacker = Decompressor::new().ok();
        }
        let unpacker = unpacker.as_mut().ok_or("there is no memory to unpack it")?;
        let bytes = unpacker.decompress(stored, raw).map_err(|_| "it cannot be unpacked")?;
        if bytes.len() == raw { Ok(bytes) } else { Err("it unpacks to another length than it says") }
    })
}

/// Grows with what is there, not with what is promised.
fn unpack_table(stored: &[u8], raw: u32) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::new();
    let unpacker = zstd::Decoder::with_buffer(stored).map_err(|_| "it cannot be unpacked")?;
    unpacker.take(u64::from(raw) + 1).read_to_end(&mut bytes).map_err(|_| "it cannot be unpacked")?;
    if bytes.len() == raw as usize { Ok(bytes) } else { Err("it unpacks to another length than it says") }
}
