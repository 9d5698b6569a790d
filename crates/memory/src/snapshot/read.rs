//! Finding a snapshot's chunks, and unpacking them.

use super::SnapshotError;
use super::format::{self, Chunk, Codec, HEAD, HEADER, Head, INDEX_ENTRY, Kind, MAJOR, TRAILER};
use crate::file::FileBytes;
use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use zstd::bulk::Decompressor;

/// Damage is told this many times.
const MAX_TOLD: usize = 20;

/// A snapshot file and where its chunks are.
pub(super) struct Chunks {
    /// For heads, index and facts.
    pub file: FileBytes,
    /// The same file, for the bytes of memory and files: mapped they would count as this program's memory, and
    /// one that is cut short meanwhile would end it.
    pub reader: Option<File>,
    /// As they lie in the file. Each lies in it wholly.
    pub all: Vec<Chunk>,
    /// The file has lost some: an address without a chunk may have had one.
    pub incomplete: bool,
    /// What is wrong, in words.
    pub damage: Vec<String>,
}

impl Chunks {
    pub fn find(file: FileBytes, reader: Option<File>) -> Result<Chunks, SnapshotError> {
        match format::version(&file) {
            None if format::has_magic(&file) => return Err(SnapshotError::Short(file.len())),
            None => return Err(SnapshotError::NotASnapshot),
            Some((major, minor, true)) if major != MAJOR => {
                return Err(SnapshotError::Version { major, minor, known: MAJOR });
            }
            Some(_) => {}
        }
        let mut chunks = Chunks { file, reader, all: Vec::new(), incomplete: false, damage: Vec::new() };
        if let Some((_, _, false)) = format::version(&chunks.file) {
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
        let at = format::index_offset(&self.file)
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
        let end = self.file.len() as u64;
        let mut lost = 0;
        while at < end {
            if let Some(chunk) = self.chunk_at(at).filter(|chunk| self.holds(chunk)) {
                at = chunk.end();
                self.all.push(chunk);
                continue;
            }
            let rest = self.file.clipped(at + 1..end);
            let next = (0..rest.len().saturating_sub(HEAD - 1)).find(|&i| {
                rest[i..].starts_with(b"wmrC")
                    && self.chunk_at(at + 1 + i as u64).is_some_and(|c| self.holds(&c))
            });
            if end - at != TRAILER as u64 || next.is_some() {
                lost += 1;
                if lost <= MAX_TOLD {
                    let number = self.all.len();
                    self.damage.push(match format::index_offset(&self.file) {
                        None if next.is_none() => {
                            format!("chunk {number} at byte {at} is cut off, with all behind it")
                        }
                        _ => format!("chunk {number} at byte {at} is damaged"),
                    });
                }
            }
            self.incomplete = true;
            match next {
                Some(i) => at += 1 + i as u64,
                None => break,
            }
        }
        // Cut off right between two chunks: all that are left are whole.
        self.incomplete |= !self.all.iter().any(|chunk| chunk.head.kind == Kind::Index);
        if lost > MAX_TOLD {
            self.damage.push(format!("{} more places are damaged", lost - MAX_TOLD));
        }
    }

    fn chunk_at(&self, offset: u64) -> Option<Chunk> {
        let head = format::Head::decode(self.file.clipped(offset..offset.saturating_add(HEAD as u64)))?;
        Some(Chunk { offset, head })
    }

    fn holds(&self, chunk: &Chunk) -> bool {
        chunk.end() <= self.file.len() as u64 && chunk.head.raw <= chunk.head.kind.limit()
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
        let range = chunk.offset.saturating_add(HEAD as u64)..chunk.end();
        match &self.reader {
            // What is stored of a part is hardly more than what it unpacks to.
            Some(reader) if head.stored <= 2 * format::MAX_PART => SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(head.stored as usize, 0);
                reader.read_exact_at(scratch, range.start).map_err(|_| "it cannot be read")?;
                unpack(head, scratch)
            }),
            _ => unpack(head, self.file.clipped(range)),
        }
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
