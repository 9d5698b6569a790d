//! Writing a snapshot: chunks are read and packed by several threads and written by one.

use super::facts::{Facts, KeptFile, Untouched};
use super::format::{self, Chunk, Codec, HEADER, Head, Kind};
use crate::file::FileBytes;
use crate::image::worth_keeping;
use crate::{Backing, Fault, Image, Mapping, Target, Why};
use rustc_hash::FxHashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use zstd::bulk::Compressor;

/// Bytes of memory in a chunk: reading one object unpacks one.
const MEMORY: u64 = 32 << 10;
/// Bytes of a file in a chunk: its tables are read as a whole.
const FILE: u64 = 256 << 10;
/// More chunks than this and they are made larger.
const MANY: u64 = 1 << 21;
/// Of a mapping, bytes that come ahead of the rest of all others: a large one is data, or has grown.
const FIRST: u64 = 16 << 20;

/// What to leave out of the bytes of a target, so that its file can be given to others.
pub trait Redact: Sync {
    /// Replaces, in the bytes of the target from `addr` on, what is not structure.
    fn bytes(&self, addr: u64, bytes: &mut [u8]);

    /// A word of which nothing is known: itself or 0.
    fn word(&self, word: u64) -> u64;
}

#[derive(Clone, Copy)]
pub struct SnapshotOptions<'a> {
    /// Of zstd, 1 to 19.
    pub level: i32,
    pub redact: Option<&'a dyn Redact>,
}

/// What was written.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Size of the file.
    pub bytes: u64,
    /// Of the memory that is in it.
    pub memory: u64,
    /// Of the files.
    pub files: u64,
    /// What could not be read, in words.
    pub notes: Vec<String>,
}

/// Writes what the analyses need of a target to an empty file. `progress` is told, again and again, how
/// many bytes are done and how many there are.
///
/// # Errors
/// What the system says of the writing, a full disk above all.
pub fn write_snapshot(
    target: &Target,
    file: &File,
    options: SnapshotOptions,
    progress: &dyn Fn(u64, u64),
) -> io::Result<Kept> {
    let mut facts = Facts::of(target);
    let files = Files::of(target);
    facts.untouched = target.mappings.iter().map(|mapping| files.untouched(target, mapping)).collect();
    facts.files.clone_from(&files.facts);
    if let Some(redact) = options.redact {
        facts.redact(redact);
    }
    let parts = files.parts();
    let (pieces, step) = memory_pieces(target, &facts.untouched);
    let len = |range: &Range<u64>| range.end - range.start;
    let total = parts.iter().map(|(_, _, part)| len(part)).sum::<u64>() + pieces.iter().map(len).sum::<u64>();

    let mut out = Out { file: BufWriter::with_capacity(1 << 20, file), at: 0, chunks: Vec::new() };
    out.raw(&format::header())?;
    debug_assert_eq!(out.at, HEADER as u64);
    let told = pack(&serde_json::to_vec(&facts)?, Kind::Facts, 0, &mut Compressor::new(options.level)?)?;
    out.chunk(&told)?;

    let mut kept = Kept::default();
    let mut lost: Vec<Fault> = Vec::new();
    std::thread::scope(|scope| -> io::Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        let (ahead, raw) = sync_channel((read_ahead(target) / step) as usize);
        // Owned by those who take from it, so that the reading ends when they do.
        let raw = Arc::new(Mutex::new(raw));
        let (sender, packed) = sync_channel(4 * threads);
        scope.spawn(move || read(target, parts, pieces, &ahead));
        for _ in 0..threads {
            let (raw, sender) = (raw.clone(), sender.clone());
            scope.spawn(move || pack_all(options, &raw, &sender));
        }
        drop((raw, sender));
        let mut done = 0;
        // Returning early drops the receiver, and with it ends the threads.
        for packed in packed {
            let (len, chunk) = match packed? {
                Packed::Chunk(chunk) => (u64::from(chunk.0.raw), Some(chunk)),
                Packed::Lost(fault, len) => {
                    lost.push(fault);
                    (len, None)
                }
            };
            if let Some(chunk) = chunk {
                match chunk.0.kind {
                    Kind::Memory => kept.memory += len,
                    _ => kept.files += len,
                }
                out.chunk(&chunk)?;
            }
            done += len;
            progress(done, total);
        }
        Ok(())
    })?;
    if let Some(first) = lost.iter().min_by_key(|fault| fault.addr) {
        kept.notes.push(format!("{} pages could not be kept, the first at {first}", lost.len()));
        facts.notes.extend_from_slice(&kept.notes);
    }
    // Once more, as the first ones may be damaged, and now it is known what could not be read.
    let told = pack(&serde_json::to_vec(&facts)?, Kind::Facts, 0, &mut Compressor::new(options.level)?)?;
    out.chunk(&told)?;
    kept.bytes = out.end(options.level)?;
    Ok(kept)
}

impl Facts {
    /// The arguments are values, and registers may hold eight bytes of one. Programs also write what they
    /// are about into their threads' names, and over the first argument: what is not the program's name, and
    /// what stands before that.
    fn redact(&mut self, redact: &dyn Redact) {
        const STRIPPED: &[u8] = b"[stripped]";
        self.stripped = true;
        let program = last_part(&self.process.exe).to_vec();
        for (i, argument) in self.process.cmdline.iter_mut().enumerate() {
            let name = program_name(argument, &program).filter(|_| i == 0);
            *argument = name.unwrap_or(STRIPPED).to_vec();
        }
        for thread in &mut self.threads {
            if !program.starts_with(&thread.name) {
                thread.name = STRIPPED.to_vec();
            }
            for register in &mut thread.regs {
                *register = redact.word(*register);
            }
        }
    }
}

/// Of a path, what is behind its last slash.
fn last_part(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

/// What of a first argument is the program's name, or begins it: `python` of `/usr/bin/python`.
fn program_name<'a>(argument: &'a [u8], program: &[u8]) -> Option<&'a [u8]> {
    Some(last_part(argument)).filter(|name| !name.is_empty() && program.starts_with(name))
}

/// Programs and libraries with a file.
struct Files {
    facts: Vec<KeptFile>,
    bytes: Vec<FileBytes>,
    by_key: FxHashMap<Key, u32>,
    /// Known by their pages in memory only.
    without: Vec<Range<u64>>,
}

type Key = ((u32, u32), u64, Vec<u8>);

fn key(mapping: &Mapping) -> Key {
    (mapping.dev, mapping.inode, mapping.name.clone())
}

impl Files {
    fn of(target: &Target) -> Files {
        let mut files =
            Files { facts: Vec::new(), bytes: Vec::new(), by_key: FxHashMap::default(), without: Vec::new() };
        for image in &target.images {
            files.add(target, image);
        }
        files
    }

    fn add(&mut self, target: &Target, image: &Image) {
        let Some(bytes) = image.file() else {
            self.without.extend(image.segments.iter().map(|segment| segment.range.clone()));
            return;
        };
        let mut mappings = image.segments.iter().filter_map(|segment| target.mapping(segment.range.start));
        let Some(mapping) = mappings.find(|mapping| mapping.name == image.path) else { return };
        let key = key(mapping);
        if self.by_key.contains_key(&key) {
            return;
        }
        self.by_key.insert(key, self.facts.len() as u32);
        self.bytes.push(bytes.clone());
        self.facts.push(KeptFile {
            path: image.path.clone(),
            build_id: image.build_id.clone().unwrap_or_default(),
            len: bytes.len() as u64,
            dev: mapping.dev,
            inode: mapping.inode,
        });
    }

    /// What a page of this mapping is that was never touched.
    fn untouched(&self, target: &Target, mapping: &Mapping) -> Untouched {
        match mapping.backing {
            Backing::File => match self.by_key.get(&key(mapping)) {
                Some(&file) => Untouched::File(file),
                None => Untouched::Fault(Why::NotCaptured),
            },
            Backing::SharedMemory => Untouched::Fault(Why::NotCaptured),
            Backing::Device | Backing::Kernel => Untouched::Fault(Why::Unsafe),
            Backing::Anonymous | Backing::Brk | Backing::Stack => {
                // Only the target knows: private memory is zero unless its source left something out.
                let mut at = mapping.start;
                for run in mapping.residency.runs.iter().take_while(|run| run.start <= mapping.end) {
                    if at < run.start {
                        break;
                    }
                    at = run.end;
                }
                match target.memory.read(at.min(mapping.end - 1), &mut [0]) {
                    Err(fault) if at < mapping.end => Untouched::Fault(fault.why),
                    _ => Untouched::Zeroes,
                }
            }
        }
    }

    /// What is kept of each, in pieces: number of the file, its bytes, the range.
    fn parts(&self) -> Vec<(u32, FileBytes, Range<u64>)> {
        let mut parts = Vec::new();
        for (number, bytes) in self.bytes.iter().enumerate() {
            for part in worth_keeping(bytes) {
                parts.extend(cut(&part, FILE).map(|part| (number as u32, bytes.clone(), part)));
            }
        }
        parts
    }
}

/// Every page that is in RAM and the process's own. Pages of files that are mapped as they are come from
/// the files; other people's shared memory is left out. In pieces, and of how many bytes the largest may be.
///
/// Of a file that is cut off the first ones tell what the rest is: what programs and libraries keep, then the
/// heap of `brk`, where CPython up to 3.11 has its interpreter's state near the beginning, then what was mapped
/// first: `mmap` goes downwards. What lies beneath the upper `FIRST` bytes of a mapping comes at the end.
fn memory_pieces(target: &Target, untouched: &[Untouched]) -> (Vec<Range<u64>>, u64) {
    struct Group {
        rank: u8,
        downwards: bool,
        start: u64,
        ranges: Vec<Range<u64>>,
    }
    let mut groups: Vec<Group> = Vec::new();
    for (mapping, untouched) in target.mappings.iter().zip(untouched) {
        let of_image = target.image(mapping.start).is_some();
        // Nothing else tells the names of an image whose file is not to be had.
        let needed = mapping.backing == Backing::File && !matches!(untouched, Untouched::File(_)) && of_image;
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for run in &mapping.residency.runs {
            let private = !matches!(mapping.backing, Backing::SharedMemory | Backing::Device);
            let stored = run.state.present && !run.state.zero && private && (!run.state.file || needed);
            match ranges.last_mut() {
                _ if !stored => {}
                Some(last) if last.end == run.start => last.end = run.end,
                _ => ranges.push(run.start..run.end),
            }
        }
        // Of this what was never touched is no zeroes, and in no file.
        if mapping.is_vdso() && mapping.len() <= MEMORY {
            let mut bytes = vec![0; mapping.len() as usize];
            if target.memory.read(mapping.start, &mut bytes).is_ok() {
                ranges.clear();
                ranges.push(mapping.start..mapping.end);
            }
        }
        let downwards = mapping.backing == Backing::Anonymous && !of_image;
        let rank = if of_image { 0 } else { 1 + u8::from(mapping.backing != Backing::Brk) };
        groups.push(Group { rank, downwards, start: mapping.start, ranges });
    }
    let total: u64 = groups.iter().flat_map(|group| &group.ranges).map(|range| range.end - range.start).sum();
    let mut step = MEMORY;
    while total / step > MANY && step < format::MAX_PART.into() {
        step *= 2;
    }
    groups.sort_by_key(|group| (group.rank, std::cmp::Reverse(group.start)));
    let (mut pieces, mut beneath) = (Vec::new(), Vec::new());
    for group in groups {
        let first = pieces.len();
        pieces.extend(group.ranges.iter().flat_map(|range| cut(range, step)));
        if group.downwards {
            pieces[first..].reverse();
            let mut bytes = 0;
            let upper = pieces[first..].iter().take_while(|piece| {
                bytes += piece.end - piece.start;
                bytes <= FIRST
            });
            let upper = upper.count();
            beneath.extend(pieces.drain(first + upper..));
        }
    }
    pieces.append(&mut beneath);
    (pieces, step)
}

/// Pieces that end at multiples of `step`.
fn cut(range: &Range<u64>, step: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let (mut at, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        let start = at;
        at = (start - start % step).saturating_add(step).min(end);
        (start < end).then_some(start..at)
    })
}

/// Bytes that may have been read and not yet been packed. A clone goes when all is read, and reading is
/// faster than packing; what a census may take bounds it.
fn read_ahead(target: &Target) -> u64 {
    (24 << 20) + target.process.rss.unwrap_or(0) / 5
}

/// On the way from the target to the packing.
enum Raw {
    Part(u32, FileBytes, Range<u64>),
    Memory(u64, Vec<u8>),
    Lost(Fault, u64),
}

/// On the way from the packing to the file.
enum Packed {
    Chunk((Head, Vec<u8>)),
    /// A page that could not be read, and its length.
    Lost(Fault, u64),
}

/// Reads everything, and lets go of what the target holds outside of this program. Ends early when nobody
/// takes it.
fn read(
    target: &Target,
    parts: Vec<(u32, FileBytes, Range<u64>)>,
    pieces: Vec<Range<u64>>,
    ahead: &SyncSender<Raw>,
) {
    let memory = |range: &Range<u64>| {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        target.memory.read(range.start, &mut bytes).map(|()| Raw::Memory(range.start, bytes))
    };
    for (number, bytes, part) in parts {
        if ahead.send(Raw::Part(number, bytes, part)).is_err() {
            return;
        }
    }
    for piece in pieces {
        let sent = match memory(&piece) {
            Ok(raw) => ahead.send(raw),
            // Page by page: all others are there.
            Err(_) => cut(&piece, target.page_size).try_for_each(|page| {
                let lost = |fault| Raw::Lost(fault, page.end - page.start);
                ahead.send(memory(&page).unwrap_or_else(lost))
            }),
        };
        if sent.is_err() {
            return;
        }
    }
    // Whether it was there to the end is asked where the file is finished.
    let _ = target.memory.finish();
}

fn pack_all(options: SnapshotOptions, raw: &Mutex<Receiver<Raw>>, sender: &SyncSender<io::Result<Packed>>) {
    let mut packer = match Compressor::new(options.level) {
        Ok(packer) => packer,
        Err(error) => return drop(sender.send(Err(error))),
    };
    loop {
        // The lock is let go before the work begins.
        let next = raw.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
        let Ok(next) = next else { return };
        let packed = match next {
            Raw::Part(number, bytes, part) => {
                let packed = pack(bytes.clipped(part.clone()), Kind::File(number), part.start, &mut packer);
                bytes.forget(part);
                packed.map(Packed::Chunk)
            }
            Raw::Memory(addr, mut bytes) => {
                if let Some(redact) = options.redact {
                    redact.bytes(addr, &mut bytes);
                }
                pack(&bytes, Kind::Memory, addr, &mut packer).map(Packed::Chunk)
            }
            Raw::Lost(fault, len) => Ok(Packed::Lost(fault, len)),
        };
        // Nobody listens any more when the writing has failed.
        if sender.send(packed).is_err() {
            return;
        }
    }
}

fn pack(bytes: &[u8], kind: Kind, at: u64, packer: &mut Compressor) -> io::Result<(Head, Vec<u8>)> {
    if bytes.len() as u64 > u64::from(kind.limit()) {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the process has too many mappings"));
    }
    let packed = packer.compress(bytes)?;
    let (codec, stored) =
        if packed.len() < bytes.len() { (Codec::Zstd, packed) } else { (Codec::Plain, bytes.to_vec()) };
    let checksum = format::checksum(&stored);
    Ok((Head { kind, codec, at, raw: bytes.len() as u32, stored: stored.len() as u32, checksum }, stored))
}

struct Out<'f> {
    file: BufWriter<&'f File>,
    at: u64,
    chunks: Vec<Chunk>,
}

impl Out<'_> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn chunk(&mut self, (head, bytes): &(Head, Vec<u8>)) -> io::Result<()> {
        self.chunks.push(Chunk { offset: self.at, head: *head });
        self.raw(&head.encode())?;
        self.raw(bytes)
    }

    /// Writes index and trailer. How long the file is.
    fn end(mut self, level: i32) -> io::Result<u64> {
        let index: Vec<u8> = self.chunks.iter().flat_map(Chunk::encode).collect();
        let at = self.at;
        self.chunk(&pack(&index, Kind::Index, 0, &mut Compressor::new(level)?)?)?;
        self.raw(&format::trailer(at))?;
        self.file.flush()?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_no_name_of_a_program() {
        let name = |title: &'static str| program_name(title.as_bytes(), b"python3.11");
        assert_eq!(name("/usr/bin/python3"), Some(&b"python3"[..]));
        assert_eq!(name("hunter2/python3.11"), Some(&b"python3.11"[..]));
        for title in ["worker: GET /reset/hunter2/", "hunter2", "python3.11: hunter2", "", "/"] {
            assert_eq!(name(title), None, "{title}");
        }
    }

    #[test]
    fn pieces_end_at_round_addresses() {
        let pieces: Vec<_> = cut(&(0x1000..0x1_9000), 0x8000).collect();
        assert_eq!(pieces, [0x1000..0x8000, 0x8000..0x1_0000, 0x1_0000..0x1_8000, 0x1_8000..0x1_9000]);
        assert_eq!(cut(&(5..5), 8).count(), 0);
        assert_eq!(cut(&(u64::MAX - 3..u64::MAX), 8).count(), 1);
    }
}
