//! Reading a cloned process while it is needed: nothing of it is held but a few windows.

use super::clone::{Holder, Lost};
use super::pagemap::PAGE;
use super::room::Room;
use crate::stored::{self, Windows};
use crate::{Fault, Why, Window};
use rayon::prelude::*;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// Memory of a process that stands still.
pub(super) struct Stream {
    mem: File,
    /// What is in RAM, in address order. Other pages are not asked for: that would make them.
    ranges: Vec<Range<u64>>,
    windows: Windows,
    child: Holder,
    /// For what is written until the child has ended.
    room: Mutex<Option<Room>>,
    /// The child has ended and all of it reads as nothing: it is not asked again. A census of many gigabytes would
    /// ask millions of times before it is told.
    gone: AtomicBool,
    /// What was copied before the child was let go.
    kept: OnceLock<Kept>,
    /// The first address that was asked for and was not kept; 0 when there is none.
    missed: AtomicU64,
}

/// Parts of the memory, in address order, and where each is in `bytes`.
struct Kept {
    parts: Vec<(Range<u64>, usize)>,
    bytes: Vec<u8>,
}

impl Kept {
    fn around(&self, addr: u64) -> Option<(u64, &[u8])> {
        let at = self.parts.partition_point(|(range, _)| range.end <= addr);
        let (range, at) = self.parts.get(at).filter(|(range, _)| range.start <= addr)?;
        Some((range.start, self.bytes.get(*at..*at + (range.end - range.start) as usize)?))
    }
}

impl Stream {
    pub fn new(mem: File, ranges: Vec<Range<u64>>, child: Holder, room: Option<Room>) -> Self {
        Stream {
            mem,
            ranges,
            windows: Windows::new(),
            child,
            room: Mutex::new(room),
            gone: AtomicBool::new(false),
            kept: OnceLock::new(),
            missed: AtomicU64::new(0),
        }
    }

    /// The range that contains `addr`, or the first one behind it.
    pub fn range_from(&self, addr: u64) -> Option<&Range<u64>> {
        self.ranges.get(self.ranges.partition_point(|range| range.end <= addr))
    }

    /// Fills `buf` from `addr`; the caller keeps within one range.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        if let Some(kept) = self.kept.get() {
            let (start, bytes) = kept.around(addr).ok_or_else(|| self.miss(addr))?;
            let bytes = &bytes[(addr - start) as usize..];
            buf.copy_from_slice(bytes.get(..buf.len()).ok_or_else(|| self.miss(addr + bytes.len() as u64))?);
            return Ok(());
        }
        let mut done = 0;
        while done < buf.len() {
            let at = addr + done as u64;
            if self.gone.load(Relaxed) {
                return Err(Fault::new(at, Why::Gone));
            }
            match self.mem.read_at(&mut buf[done..], at) {
                Ok(0) => self.gone.store(true, Relaxed),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Fault::new(at, Why::Io)),
            }
        }
        Ok(())
    }

    pub fn window(&self, addr: u64) -> Option<Window> {
        let range = self.range_around(addr)?;
        self.windows.around(addr, range, &self.mem, range.start)
    }

    /// Up to `len` bytes from the page of `addr` on, which are not kept for others.
    pub fn stretch(&self, addr: u64, len: u64) -> Option<Window> {
        let start = addr & !(PAGE - 1);
        let end = start.checked_add(len)?.min(self.range_around(addr)?.end);
        let bytes = stored::fetch(&self.mem, start, end.checked_sub(start)? as usize)?;
        Some(Window { start, bytes })
    }

    /// The range that contains `addr`, as long as it is read from the clone.
    fn range_around(&self, addr: u64) -> Option<&Range<u64>> {
        if self.gone.load(Relaxed) || self.kept.get().is_some() {
            return None;
        }
        self.range_from(addr).filter(|range| range.start <= addr)
    }

    /// Copies what is in RAM of these ranges and ends the child, if they take no more than `room` bytes.
    pub fn keep(&self, mut wanted: Vec<Range<u64>>, room: u64) -> bool {
        wanted.sort_unstable_by_key(|range| range.start);
        let (mut parts, mut len) = (Vec::new(), 0);
        for range in common(&wanted, &self.ranges) {
            let bytes = range.end - range.start;
            if len + bytes > room {
                return false;
            }
            parts.push((range, len as usize));
            len += bytes;
        }
        let mut bytes = vec![0; len as usize];
        let mut rest = &mut bytes[..];
        let rooms = parts.iter().filter_map(|(range, _)| {
            let room = rest.split_off_mut(..(range.end - range.start) as usize)?;
            Some((range, room))
        });
        let rooms: Vec<_> = rooms.collect();
        if !rooms.into_par_iter().all(|(range, room)| self.copy(range.clone(), room).is_some()) {
            return false;
        }
        let is_new = self.kept.set(Kept { parts, bytes }).is_ok();
        let _ = self.child.end(false);
        self.windows.clear();
        self.give_back_room();
        is_new
    }

    /// Fills `room` with a range that is in RAM: with what was read before, as far as that is kept.
    fn copy(&self, range: Range<u64>, room: &mut [u8]) -> Option<()> {
        let mut at = range.start;
        while at < range.end {
            let whole = self.range_from(at)?;
            let (window, end) = self.windows.kept(at, whole);
            let end = end.min(range.end);
            let room = &mut room[(at - range.start) as usize..(end - range.start) as usize];
            match window.as_ref().and_then(|window| window.get(at, room.len())) {
                Some(bytes) => room.copy_from_slice(bytes),
                None => self.read(at, room).ok()?,
            }
            at = end;
        }
        Some(())
    }

    /// What was copied around `addr`.
    pub fn kept(&self, addr: u64) -> Option<(u64, &[u8])> {
        self.kept.get()?.around(addr)
    }

    fn miss(&self, addr: u64) -> Fault {
        let _ = self.missed.compare_exchange(0, addr, Relaxed, Relaxed);
        Fault::new(addr, Why::Gone)
    }

    /// Was more asked for than was kept?
    pub fn trouble(&self) -> Option<String> {
        match self.missed.load(Relaxed) {
            0 => None,
            addr => Some(format!(
                "memory at {addr:#x} was asked for after the clone had been let go: names of native memory may be missing"
            )),
        }
    }

    pub fn end(&self) -> Result<Duration, Lost> {
        let life = self.child.end(self.gone.load(Relaxed));
        self.give_back_room();
        life
    }

    fn give_back_room(&self) {
        self.room.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    }
}

/// Whole pages of the first list's ranges as far as the second has them; both are in order, the first may overlap.
fn common(wanted: &[Range<u64>], ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    let mut first = 0;
    for wanted in wanted.iter().filter(|wanted| !wanted.is_empty()) {
        let (start, end) =
            (wanted.start & !(PAGE - 1), wanted.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX));
        first += ranges[first..].partition_point(|range| range.end <= start);
        for range in ranges[first..].iter().take_while(|range| range.start < end) {
            let part = range.start.max(start)..range.end.min(end);
            match out.last_mut() {
                Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
                _ => out.push(part),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_wanted_and_there() {
        const P: u64 = PAGE;
        let there = [2 * P..5 * P, 5 * P..6 * P, 9 * P..10 * P];
        let wanted = [0..P, P + 1..2 * P + 1, 2 * P + 8..2 * P + 9, 4 * P..9 * P, 4 * P + 1..4 * P + 2];
        assert_eq!(common(&wanted, &there), [2 * P..3 * P, 4 * P..6 * P]);
        assert_eq!(common(std::slice::from_ref(&(0..u64::MAX)), &there), [2 * P..6 * P, 9 * P..10 * P]);
        assert!(common(&[7 * P..8 * P, 11 * P..12 * P], &there).is_empty());
    }
}
