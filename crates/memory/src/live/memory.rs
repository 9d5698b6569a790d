//! The captured bytes, and what stands for those that were not copied.

use super::clone::Lost;
use super::copy::Extent;
use super::pagemap::{Entries, PAGE};
use super::stream::Stream;
use crate::{Fault, Memory, Why, Window};
use memmap2::MmapMut;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// What an address holds that was not copied.
pub(super) enum Rest {
    /// Untouched private memory.
    Zeroes,
    /// Clean pages of a file; the file offset of the region's start.
    File(Arc<File>, u64),
    /// Pages of the kernel; the bytes of the whole region.
    Kernel(Vec<u8>),
    /// Shared memory: read from the process when asked for, if the page is there then.
    Shared,
    Refused(Why),
}

/// One mapping.
pub(super) struct Region {
    pub start: u64,
    pub end: u64,
    pub rest: Rest,
}

/// Pages of which a read must not be answered from [`Region::rest`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Hole {
    pub start: u64,
    pub end: u64,
    pub why: Why,
}

/// The private memory of a process as it was when it was stopped; file pages come from their files.
pub(super) struct LiveMemory {
    /// What was copied.
    pub copied: Option<MmapMut>,
    /// These three in address order.
    pub extents: Vec<Extent>,
    pub holes: Vec<Hole>,
    pub regions: Vec<Region>,
    /// A clone that has the rest of private memory.
    pub stream: Option<Stream>,
    pub mem: File,
    pub pagemap: File,
}

impl LiveMemory {
    fn held(&self, addr: u64) -> Option<(u64, &[u8])> {
        let i = self.extents.partition_point(|extent| extent.addr <= addr).checked_sub(1)?;
        let extent = self.extents.get(i).filter(|extent| addr < extent.end())?;
        let at = extent.at as usize;
        Some((extent.addr, self.copied.as_ref()?.get(at..at.checked_add(extent.len as usize)?)?))
    }

    /// Bytes at `addr` that are not held: how many of `buf` it filled, at least one.
    fn read_rest(&self, addr: u64, buf: &mut [u8]) -> Result<usize, Fault> {
        let i = self.regions.partition_point(|region| region.end <= addr);
        let region = self.regions.get(i).filter(|region| region.start <= addr);
        let region = region.ok_or(Fault::new(addr, Why::NotMapped))?;
        let mut end = region.end;

        let i = self.holes.partition_point(|hole| hole.end <= addr);
        if let Some(hole) = self.holes.get(i) {
            if hole.start <= addr {
                return Err(Fault::new(addr, hole.why));
            }
            end = end.min(hole.start);
        }
        let i = self.extents.partition_point(|extent| extent.addr <= addr);
        if let Some(next) = self.extents.get(i) {
            end = end.min(next.addr);
        }
        let streamed = self.stream.as_ref().and_then(|stream| Some((stream, stream.range_from(addr)?)));
        let streamed = streamed.and_then(|(stream, range)| {
            let inside = range.start <= addr;
            end = end.min(if inside { range.end } else { range.start });
            inside.then_some(stream)
        });
        let len = buf.len().min(usize::try_from(end - addr).unwrap_or(usize::MAX));
        let buf = &mut buf[..len];
        if let Some(stream) = streamed {
            return stream.read(addr, buf).map(|()| len);
        }
        match &region.rest {
            Rest::Zeroes => buf.fill(0),
            Rest::File(file, offset) => {
                let offset = offset.wrapping_add(addr - region.start);
                read_file(file, offset, buf).map_err(|done| Fault::new(addr + done, Why::Io))?;
            }
            Rest::Kernel(bytes) => {
                let from = (addr - region.start) as usize;
                let bytes = bytes.get(from..from + len).ok_or(Fault::new(addr, Why::Unsafe))?;
                buf.copy_from_slice(bytes);
            }
            Rest::Shared => return self.read_shared(addr, buf),
            Rest::Refused(why) => return Err(Fault::new(addr, *why)),
        }
        Ok(len)
    }

    /// Up to the end of one page, and only a page that is in RAM: anything else would bring it there.
    fn read_shared(&self, addr: u64, buf: &mut [u8]) -> Result<usize, Fault> {
        if !Entries::present(&self.pagemap, addr) {
            return Err(Fault::new(addr, Why::NotCaptured));
        }
        let len = buf.len().min((PAGE - addr % PAGE) as usize);
        match self.mem.read_at(&mut buf[..len], addr) {
            Ok(0) => Err(Fault::new(addr, Why::Gone)),
            Ok(n) => Ok(n),
            Err(_) => Err(Fault::new(addr, Why::Io)),
        }
    }
}

/// Fills `buf` as a mapping of the file would show it: zeroes behind its end to the end of that page,
/// nothing behind that. The number of bytes done otherwise.
fn read_file(file: &File, offset: u64, buf: &mut [u8]) -> Result<(), u64> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset.checked_add(done as u64).ok_or(done as u64)?;
        match file.read_at(&mut buf[done..], at) {
            Ok(0) => {
                let mapped = file.metadata().map_or(0, |m| m.len().next_multiple_of(PAGE));
                let zeroes = mapped.saturating_sub(at).min((buf.len() - done) as u64) as usize;
                if zeroes == 0 {
                    return Err(done as u64);
                }
                buf[done..done + zeroes].fill(0);
                done += zeroes;
            }
            Ok(n) => done += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err(done as u64),
        }
    }
    Ok(())
}

impl Memory for LiveMemory {
    fn extent(&self, addr: u64) -> Option<(u64, &[u8])> {
        self.held(addr).or_else(|| self.stream.as_ref()?.kept(addr))
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < buf.len() {
            let at = addr.checked_add(done as u64).ok_or(Fault::new(addr, Why::NotMapped))?;
            let rest = &mut buf[done..];
            done += match self.held(at) {
                Some((start, bytes)) => {
                    let bytes = &bytes[(at - start) as usize..];
                    let n = bytes.len().min(rest.len());
                    rest[..n].copy_from_slice(&bytes[..n]);
                    n
                }
                None => self.read_rest(at, rest)?,
            };
        }
        Ok(())
    }

    fn window(&self, addr: u64) -> Option<Window> {
        self.stream.as_ref()?.window(addr)
    }

    fn stretch(&self, addr: u64, len: u64) -> Option<Window> {
        self.stream.as_ref()?.stretch(addr, len)
    }

    fn keep(&self, ranges: Vec<Range<u64>>, room: u64) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.keep(ranges, room))
    }

    fn troubles(&self) -> Vec<String> {
        self.stream.as_ref().and_then(Stream::trouble).into_iter().collect()
    }

    fn finish(&self) -> Result<Option<Duration>, Lost> {
        self.stream.as_ref().map(Stream::end).transpose()
    }
}
