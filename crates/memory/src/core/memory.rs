//! Reading a core: every address range with its source, found by binary search.

use super::layout::Area;
use super::modules::Modules;
use super::notes::Notes;
use crate::file::FileBytes;
use crate::{Backing, Fault, Memory, Why};

enum Source {
    /// Offset in the file of that number; 0 is the core.
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
    /// By address, not overlapping. Held extents lie in their file completely.
    extents: Vec<Extent>,
    files: Vec<FileBytes>,
}

impl CoreMemory {
    pub fn new(core: FileBytes, areas: &[Area], notes: &Notes, modules: &Modules) -> Self {
        let mut memory = CoreMemory { extents: Vec::new(), files: vec![core] };
        let first = memory.files.len();
        memory.files.extend_from_slice(modules.files());
        for area in areas {
            memory.push(area.start, area.stored, Source::Held(0, area.core_offset));
            if area.stored == area.end {
                continue;
            }
            // What the target may have written is not what the file has.
            let clean = !area.perms.write && area.backing == Backing::File && area.lost.is_none();
            let module = modules.of(area).filter(|_| clean);
            let mut at = area.stored;
            if let Some(module) = module {
                let offset = area.file_offset.saturating_add(at - area.start);
                let file_len = memory.files[first + module].len() as u64;
                let end = at.saturating_add(file_len.saturating_sub(offset)).min(area.end);
                memory.push(at, end, Source::Held(first + module, offset));
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
        if let (Some(last), &Source::Held(file, offset)) = (self.extents.last_mut(), &source)
            && let Source::Held(last_file, last_offset) = last.source
            && last.end == start
            && last_file == file
            && last_offset + (last.end - last.start) == offset
        {
            last.end = end;
            return;
        }
        self.extents.push(Extent { start, end, source });
    }

    fn extent_of(&self, addr: u64) -> Option<&Extent> {
        let i = self.extents.partition_point(|e| e.end <= addr);
        self.extents.get(i).filter(|e| e.start <= addr)
    }

    /// The bytes of an extent from `addr` on; `None` for zeroes, which are held nowhere.
    fn held(&self, extent: &Extent, addr: u64) -> Result<Option<&[u8]>, Fault> {
        match extent.source {
            Source::Absent(why) => Err(Fault::new(addr, why)),
            Source::Zeroes => Ok(None),
            Source::Held(file, offset) => {
                let offset = offset + (addr - extent.start);
                let bytes = self.files[file].clipped(offset..offset + (extent.end - addr));
                if bytes.is_empty() { Err(Fault::new(addr, Why::Io)) } else { Ok(Some(bytes)) }
            }
        }
    }
}

impl Memory for CoreMemory {
    fn extent(&self, addr: u64) -> Option<(u64, &[u8])> {
        let extent = self.extent_of(addr)?;
        Some((extent.start, self.held(extent, extent.start).ok()??))
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < buf.len() {
            let at = addr.checked_add(done as u64).ok_or(Fault::new(addr, Why::NotMapped))?;
            let extent = self.extent_of(at).ok_or(Fault::new(at, Why::NotMapped))?;
            let left = buf.len() - done;
            let n = match self.held(extent, at)? {
                Some(bytes) => {
                    let n = bytes.len().min(left);
                    buf[done..done + n].copy_from_slice(&bytes[..n]);
                    n
                }
                None => {
                    let n = usize::try_from(extent.end - at).unwrap_or(usize::MAX).min(left);
                    buf[done..done + n].fill(0);
                    n
                }
            };
            done += n;
        }
        Ok(())
    }
}
