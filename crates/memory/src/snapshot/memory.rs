//! Reading a snapshot: chunks are unpacked when they are asked for, and a few are kept.

use super::facts::{Facts, Untouched};
use super::format::{Chunk, Kind};
use super::read::Chunks;
use crate::{Backing, Fault, Memory, Why, Window};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Unpacked chunks kept for all cursors together: 16 MiB where they are of 32 KiB.
const KEPT: usize = 512;

pub(super) struct SnapshotMemory {
    chunks: Arc<Chunks>,
    /// Numbers of the chunks of memory, by address, not overlapping.
    memory: Vec<u32>,
    /// For each file the numbers of its parts, by offset, not overlapping.
    files: Vec<Vec<u32>>,
    file_lengths: Vec<u64>,
    regions: Vec<Region>,
    /// Pages that are neither in a chunk nor untouched, by address.
    holes: Vec<(Range<u64>, Why)>,
    page_size: u64,
    /// Direct-mapped by the number of the chunk.
    kept: Vec<Slot>,
    damaged: Mutex<BTreeMap<u32, &'static str>>,
}

/// The number of a chunk and its bytes.
type Slot = Mutex<Option<(u32, Arc<[u8]>)>>;

/// One mapping.
struct Region {
    range: Range<u64>,
    offset: u64,
    untouched: Untouched,
}

/// Where the bytes of an address are.
enum Place {
    /// In the chunk of that number, which begins at that address.
    Chunk(u32, u64),
    /// Up to that address.
    Zeroes(u64),
}

impl SnapshotMemory {
    /// The facts have been checked: mappings in order, runs within them.
    pub fn new(chunks: Arc<Chunks>, facts: &Facts) -> Self {
        let mut memory: Vec<u32> = Vec::new();
        let mut files: Vec<Vec<u32>> = vec![Vec::new(); facts.files.len()];
        for (number, chunk) in chunks.all.iter().enumerate() {
            match chunk.head.kind {
                Kind::Memory => memory.push(number as u32),
                Kind::File(file) => {
                    if let Some(parts) = files.get_mut(file as usize) {
                        parts.push(number as u32);
                    }
                }
                _ => {}
            }
        }
        in_order(&chunks.all, &mut memory);
        files.iter_mut().for_each(|parts| in_order(&chunks.all, parts));

        let lost = if chunks.incomplete { Why::Truncated } else { Why::NotCaptured };
        let (mut regions, mut holes) = (Vec::new(), Vec::new());
        for (i, mapping) in facts.mappings.iter().enumerate() {
            let unknown = Untouched::Fault(Why::NotCaptured);
            let untouched = facts.untouched.get(i).copied().unwrap_or(unknown);
            regions.push(Region { range: mapping.start..mapping.end, offset: mapping.offset, untouched });
            for run in &mapping.residency.runs {
                let private = !matches!(mapping.backing, Backing::SharedMemory | Backing::Device);
                if run.state.swapped {
                    holes.push((run.start..run.end, Why::Swapped));
                } else if run.state.present && !run.state.zero && !run.state.file && private {
                    holes.push((run.start..run.end, lost));
                }
            }
        }
        SnapshotMemory {
            memory,
            files,
            file_lengths: facts.files.iter().map(|file| file.len).collect(),
            regions,
            holes,
            page_size: facts.page_size,
            kept: (0..KEPT).map(|_| Mutex::new(None)).collect(),
            damaged: Mutex::default(),
            chunks,
        }
    }

    /// The chunk among `numbers` that contains `at`, else where the next one begins.
    fn chunk(&self, numbers: &[u32], at: u64) -> Result<u32, u64> {
        let head = |number: u32| &self.chunks.all[number as usize].head;
        let i = numbers.partition_point(|&n| head(n).at + u64::from(head(n).raw) <= at);
        match numbers.get(i) {
            Some(&number) if head(number).at <= at => Ok(number),
            Some(&number) => Err(head(number).at),
            None => Err(u64::MAX),
        }
    }

    fn place(&self, addr: u64) -> Result<Place, Fault> {
        let fault = |why| Err(Fault::new(addr, why));
        let next = match self.chunk(&self.memory, addr) {
            Ok(number) => return Ok(Place::Chunk(number, self.chunks.all[number as usize].head.at)),
            Err(next) => next,
        };
        let i = self.regions.partition_point(|region| region.range.end <= addr);
        let Some(region) = self.regions.get(i).filter(|region| region.range.start <= addr) else {
            return fault(Why::NotMapped);
        };
        let mut end = next.min(region.range.end);
        let i = self.holes.partition_point(|(range, _)| range.end <= addr);
        if let Some((range, why)) = self.holes.get(i) {
            if range.start <= addr {
                return fault(*why);
            }
            end = end.min(range.start);
        }
        match region.untouched {
            Untouched::Zeroes => Ok(Place::Zeroes(end)),
            Untouched::Fault(why) => fault(why),
            Untouched::File(file) => {
                let file = file as usize;
                let (Some(parts), Some(len)) = (self.files.get(file), self.file_lengths.get(file)) else {
                    return fault(Why::NotCaptured);
                };
                let offset = region.offset.wrapping_add(addr - region.range.start);
                match self.chunk(parts, offset) {
                    Ok(number) => {
                        let at = self.chunks.all[number as usize].head.at;
                        Ok(Place::Chunk(number, addr.wrapping_sub(offset - at)))
                    }
                    // The rest of a file's last page is zero.
                    Err(_) if offset >= *len && offset - len < self.page_size - len % self.page_size => {
                        let left = self.page_size - offset % self.page_size;
                        Ok(Place::Zeroes(end.min(addr.saturating_add(left))))
                    }
                    Err(_) if self.chunks.incomplete => fault(Why::Truncated),
                    Err(_) => fault(Why::NotCaptured),
                }
            }
        }
    }

    /// Where the bytes of a chunk that begins at `start` are to be read up to: parts of a file may reach
    /// beyond the mapping, and memory lies over them.
    fn end(&self, number: u32, start: u64, addr: u64) -> u64 {
        let head = &self.chunks.all[number as usize].head;
        let mut end = start.wrapping_add(head.raw.into());
        if head.kind != Kind::Memory {
            let i = self.regions.partition_point(|region| region.range.end <= addr);
            end = end.min(self.regions.get(i).map_or(addr, |region| region.range.end));
            let i = self.holes.partition_point(|(range, _)| range.end <= addr);
            end = end.min(self.holes.get(i).map_or(u64::MAX, |(range, _)| range.start));
        }
        end
    }

    fn unpacked(&self, number: u32) -> Option<Arc<[u8]>> {
        let slot = &self.kept[number as usize % KEPT];
        let kept = |slot: &Slot| {
            let slot = slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            slot.as_ref().filter(|(kept, _)| *kept == number).map(|(_, bytes)| bytes.clone())
        };
        if let Some(bytes) = kept(slot) {
            return Some(bytes);
        }
        match self.chunks.unpack(&self.chunks.all[number as usize]) {
            Ok(bytes) => {
                let bytes: Arc<[u8]> = bytes.into();
                *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some((number, bytes.clone()));
                Some(bytes)
            }
            Err(why) => {
                let mut damaged = self.damaged.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                damaged.insert(number, why);
                None
            }
        }
    }
}

/// By address. What overlaps, or reaches beyond the end of all addresses, is left out.
fn in_order(all: &[Chunk], numbers: &mut Vec<u32>) {
    let range = |number: &u32| {
        let head = &all[*number as usize].head;
        Some(head.at..head.at.checked_add(head.raw.into())?)
    };
    numbers.retain(|number| range(number).is_some_and(|range| !range.is_empty()));
    numbers.sort_by_key(|&number| all[number as usize].head.at);
    let mut reached = 0;
    numbers.retain(|number| {
        let apart = range(number).filter(|range| range.start >= reached);
        reached = apart.as_ref().map_or(reached, |range| range.end);
        apart.is_some()
    });
}

impl Memory for SnapshotMemory {
    fn extent(&self, _addr: u64) -> Option<(u64, &[u8])> {
        None
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < buf.len() {
            let at = addr.checked_add(done as u64).ok_or(Fault::new(addr, Why::NotMapped))?;
            let rest = &mut buf[done..];
            done += match self.place(at)? {
                Place::Chunk(number, start) => {
                    let bytes = self.unpacked(number).ok_or(Fault::new(at, Why::Damaged))?;
                    let bytes = bytes.get(at.wrapping_sub(start) as usize..).unwrap_or_default();
                    let left = self.end(number, start, at).wrapping_sub(at);
                    let n = bytes.len().min(rest.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
                    if n == 0 {
                        return Err(Fault::new(at, Why::Damaged));
                    }
                    rest[..n].copy_from_slice(&bytes[..n]);
                    n
                }
                Place::Zeroes(end) => {
                    let n = rest.len().min(usize::try_from(end - at).unwrap_or(usize::MAX)).max(1);
                    rest[..n].fill(0);
                    n
                }
            };
        }
        Ok(())
    }

    fn window(&self, addr: u64) -> Option<Window> {
        let Ok(Place::Chunk(number, start)) = self.place(addr) else { return None };
        let head = &self.chunks.all[number as usize].head;
        // What of a file lies outside of the mapping, or under memory, must not be lent.
        if head.kind != Kind::Memory {
            let i = self.regions.partition_point(|region| region.range.end <= addr);
            let region = self.regions.get(i)?;
            let end = start.checked_add(head.raw.into())?;
            let i = self.holes.partition_point(|(range, _)| range.end <= start);
            let covered = self.holes.get(i).is_some_and(|(range, _)| range.start < end);
            if start < region.range.start || end > region.range.end || covered {
                return None;
            }
        }
        Some(Window { start, bytes: self.unpacked(number)? })
    }

    fn troubles(&self) -> Vec<String> {
        let damaged = self.damaged.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let told = damaged.iter().take(20).map(|(number, why)| {
            format!(
                "{} of the snapshot is damaged ({why}): what it holds is not known",
                self.chunks.name(*number as usize)
            )
        });
        let more = damaged.len().saturating_sub(20);
        told.chain((more > 0).then(|| format!("{more} more chunks of the snapshot are damaged"))).collect()
    }
}
