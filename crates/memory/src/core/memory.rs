//! Reading a core: every address range with its source, found by binary search.

use super::layout::Area;
use super::modules::Modules;
use crate::file::FileBytes;
use crate::{Backing, Fault, Memory, Why};

enum Source {
    /// Offset in the file of that number; 0 is the core.
    Held(usize, u64),
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
    pub fn new(core: FileBytes, areas: &[Area], modules: &Modules) -> Self {
        let mut memory = CoreMemory { extents: Vec::new(), files: vec![core] };
        let first = memory.files.len();
        memory.files.extend_from_slice(modules.files());
        for area in areas {
            memory.push(area.start, area.stored, Source::Held(0, area.core_offset));
            if area.stored == area.end {
                continue;
            }
            // What the target may have written is not what the file has.
            let module = modules.of(area).filter(|_| !area.perms.write && area.backing == Backing::File);
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
            let why = if unreadable { Why::NotReadable } else { Why::NotCaptured };
            memory.push(at.max(area.dumped), area.end, Source::Absent(why));
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

    /// The bytes from `addr` to the end of its extent.
    fn at(&self, addr: u64) -> Result<&[u8], Fault> {
        let i = self.extents.partition_point(|e| e.end <= addr);
        let extent = self.extents.get(i).filter(|e| e.start <= addr);
        match extent.ok_or(Fault::new(addr, Why::NotMapped))? {
            Extent { source: Source::Absent(why), .. } => Err(Fault::new(addr, *why)),
            Extent { start, end, source: Source::Held(file, offset) } => {
                let offset = offset + (addr - start);
                let bytes = self.files[*file].clipped(offset..offset + (end - addr));
                if bytes.is_empty() { Err(Fault::new(addr, Why::Io)) } else { Ok(bytes) }
            }
        }
    }
}

impl Memory for CoreMemory {
    fn extent(&self, addr: u64) -> Option<(u64, &[u8])> {
        let i = self.extents.partition_point(|e| e.end <= addr);
        let start = self.extents.get(i)?.start;
        if start > addr {
            return None;
        }
        Some((start, self.at(start).ok()?))
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < buf.len() {
            let at = addr.checked_add(done as u64).ok_or(Fault::new(addr, Why::NotMapped))?;
            let bytes = self.at(at)?;
            let n = bytes.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&bytes[..n]);
            done += n;
        }
        Ok(())
    }
}
