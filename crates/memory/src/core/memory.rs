//! Reading a core: every address range with its source, found by binary search.

use super::layout::Area;
use super::modules::Modules;
use super::notes::Notes;
use crate::file::FileBytes;
use crate::stored::{Stored, Windows};
use crate::{Backing, Fault, Memory, Why, Window};

#[derive(Clone, Copy)]
enum Source {
    /// Offset in the core.
    Stored(u64),
    /// Offset in the module's file of that number.
    Held(usize, u64),
    /// Never touched.
    Zeroes,
    Absent(Why),
}

struct Extent {
    start: u64,
    end: u64,
    source: Source,
}

pub(super) struct CoreMemory {
    /// By address, not overlapping. Each lies in its file completely.
    extents: Vec<Extent>,
    core: Stored,
    windows: Windows,
    files: Vec<FileBytes>,
}

/// Where the bytes of an address are.
enum Place<'m> {
    Held(&'m [u8]),
    /// In the core from this offset on, up to the end of the extent.
    Stored(u64),
    Zeroes,
}

impl CoreMemory {
    pub fn new(core: Stored, areas: &[Area], notes: &Notes, modules: &Modules) -> Self {
        let files = modules.files().to_vec();
        let mut memory = CoreMemory { extents: Vec::new(), core, windows: Windows::new(), files };
        for area in areas {
            memory.push(area.start, area.stored, Source::Stored(area.core_offset));
            if area.stored == area.end {
                continue;
            }
            // What the target may have written is not what the file has.
            let clean = !area.perms.write && area.backing == Backing::File && area.lost.is_none();
            let module = modules.of(area).filter(|_| clean);
            let mut at = area.stored;
            if let Some(module) = module {
                let offset = area.file_offset.saturating_add(at - area.start);
                let file_len = memory.files[module].len() as u64;
                let end = at.saturating_add(file_len.saturating_sub(offset)).min(area.end);
                memory.push(at, end, Source::Held(module, offset));
                at = end;
            }
            memory.push(at, area.dumped, Source::Absent(Why::Truncated));
            let unreadable = !area.perms.read && area.name.is_empty();
            let why = if unreadable { Why::NotReadable } else { area.lost.unwrap_or(Why::NotCaptured) };
            let mut at = at.max(area.dumped);
            let anonymous = matches!(area.backing, Backing::Anonymous | Backing::Brk | Backing::Stack);
            if anonymous && area.perms.read && area.lost.is_none() {
                for zeroes in notes.untouched_in(at..area.end) {
                    memory.push(at, zeroes.start, Source::Absent(why));
                    memory.push(zeroes.start, zeroes.end, Source::Zeroes);
                    at = zeroes.end;
                }
            }
            memory.push(at, area.end, Source::Absent(why));
        }
        memory
    }

    /// Appends, joining neighbours that continue each other in the same file.
    fn push(&mut self, start: u64, end: u64, source: Source) {
        if start >= end {
            return;
        }
        if let Some(last) = self.extents.last_mut().filter(|last| last.end == start) {
            let before = last.end - last.start;
            let goes_on = match (last.source, source) {
                (Source::Stored(last), Source::Stored(offset)) => last + before == offset,
                (Source::Held(last, at), Source::Held(file, offset)) => last == file && at + before == offset,
                _ => false,
            };
            if goes_on {
                last.end = end;
                return;
            }
        }
        self.extents.push(Extent { start, end, source });
    }

    fn extent_of(&self, addr: u64) -> Option<&Extent> {
        let i = self.extents.partition_point(|e| e.end <= addr);
        self.extents.get(i).filter(|e| e.start <= addr)
    }

    /// Up to `most` bytes right below `top`, as far as they lie in the file as they do in memory; from a
    /// multiple of eight on.
    pub fn below(&self, top: u64, most: u64) -> Option<Vec<u8>> {
        let extent = self.extent_of(top)?;
        let start = top.saturating_sub(most).max(extent.start).next_multiple_of(8);
        let mut bytes = vec![0; top.checked_sub(start)? as usize];
        self.read(start, &mut bytes).ok()?;
        Some(bytes)
    }

    /// Where the bytes of an extent are from `addr` on.
    fn place(&self, extent: &Extent, addr: u64) -> Result<Place<'_>, Fault> {
        let range = |offset: u64| offset + (addr - extent.start)..offset + (extent.end - extent.start);
        let bytes = match extent.source {
            Source::Absent(why) => return Err(Fault::new(addr, why)),
            Source::Zeroes => return Ok(Place::Zeroes),
            Source::Stored(offset) => match self.core.held(range(offset)) {
                Some(bytes) => bytes,
                None => return Ok(Place::Stored(range(offset).start)),
            },
            Source::Held(file, offset) => self.files[file].clipped(range(offset)),
        };
        if bytes.is_empty() { Err(Fault::new(addr, Why::Io)) } else { Ok(Place::Held(bytes)) }
    }
}

impl Memory for CoreMemory {
    fn extent(&self, addr: u64) -> Option<(u64, &[u8])> {
        let extent = self.extent_of(addr)?;
        match self.place(extent, extent.start) {
            Ok(Place::Held(bytes)) => Some((extent.start, bytes)),
            _ => None,
        }
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < buf.len() {
            let at = addr.checked_add(done as u64).ok_or(Fault::new(addr, Why::NotMapped))?;
            let extent = self.extent_of(at).ok_or(Fault::new(at, Why::NotMapped))?;
            let here = usize::try_from(extent.end - at).unwrap_or(usize::MAX).min(buf.len() - done);
            let rest = &mut buf[done..done + here];
            done += match self.place(extent, at)? {
                Place::Held(bytes) => {
                    let n = bytes.len().min(here);
                    rest[..n].copy_from_slice(&bytes[..n]);
                    n
                }
                Place::Stored(offset) => match self.core.read_some(offset, rest) {
                    Ok(0) => return Err(Fault::new(at, Why::Truncated)),
                    Ok(n) => n,
                    Err(_) => return Err(Fault::new(at, Why::Io)),
                },
                Place::Zeroes => {
                    rest.fill(0);
                    here
                }
            };
        }
        Ok(())
    }

    fn window(&self, addr: u64) -> Option<Window> {
        let extent = self.extent_of(addr)?;
        let (Source::Stored(offset), Stored::File(file, _)) = (extent.source, &self.core) else {
            return None;
        };
        self.windows.around(addr, &(extent.start..extent.end), file, offset)
    }
}
