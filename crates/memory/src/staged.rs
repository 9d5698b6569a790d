use crate::live::Lost;
use crate::{Fault, Memory, Window};
use std::ops::Range;
use std::time::Duration;

/// A memory of which one range is at hand, read at once: for a pass that goes through all of it and looks from
/// place to place in it.
pub struct Staged<'m> {
    memory: &'m dyn Memory,
    start: u64,
    /// Nothing where the memory holds the range itself, or cannot read all of it: then it is asked each time.
    bytes: &'m [u8],
}

impl<'m> Staged<'m> {
    /// Reads the range into `room`, which the caller keeps for the next one. The caller bounds it.
    pub fn read(memory: &'m dyn Memory, range: Range<u64>, room: &'m mut Vec<u8>) -> Self {
        let len = range.end.saturating_sub(range.start) as usize;
        let is_held = memory.extent(range.start).is_some();
        if !is_held && room.len() < len {
            room.resize(len, 0);
        }
        let bytes = match is_held {
            false if memory.read(range.start, &mut room[..len]).is_ok() => &room[..len],
            _ => &[],
        };
        Staged { memory, start: range.start, bytes }
    }
}

impl Memory for Staged<'_> {
    fn extent(&self, addr: u64) -> Option<(u64, &[u8])> {
        match addr.wrapping_sub(self.start) < self.bytes.len() as u64 {
            true => Some((self.start, self.bytes)),
            false => self.memory.extent(addr),
        }
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        self.memory.read(addr, buf)
    }

    fn window(&self, addr: u64) -> Option<Window> {
        self.memory.window(addr)
    }

    fn stretch(&self, addr: u64, len: u64) -> Option<Window> {
        self.memory.stretch(addr, len)
    }

    fn troubles(&self) -> Vec<String> {
        self.memory.troubles()
    }

    fn finish(&self) -> Result<Option<Duration>, Lost> {
        self.memory.finish()
    }
}
