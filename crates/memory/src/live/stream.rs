//! Reading a cloned process while it is needed: nothing of it is held but a few windows.

use super::clone::{Holder, Lost};
use crate::stored::Windows;
use crate::{Fault, Why, Window};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Memory of a process that stands still.
pub(super) struct Stream {
    mem: File,
    /// What is in RAM, in address order. Other pages are not asked for: that would make them.
    ranges: Vec<Range<u64>>,
    windows: Windows,
    child: Holder,
    /// The child has ended and all of it reads as nothing: it is not asked again. A census of many gigabytes would
    /// ask millions of times before it is told.
    gone: AtomicBool,
}

impl Stream {
    pub fn new(mem: File, ranges: Vec<Range<u64>>, child: Holder) -> Self {
        Stream { mem, ranges, windows: Windows::new(), child, gone: AtomicBool::new(false) }
    }

    /// The range that contains `addr`, or the first one behind it.
    pub fn range_from(&self, addr: u64) -> Option<&Range<u64>> {
        self.ranges.get(self.ranges.partition_point(|range| range.end <= addr))
    }

    /// Fills `buf` from `addr`; the caller keeps within one range.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
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
        if self.gone.load(Relaxed) {
            return None;
        }
        let range = self.range_from(addr).filter(|range| range.start <= addr)?;
        self.windows.around(addr, range, &self.mem, range.start)
    }

    pub fn end(&self) -> Result<Duration, Lost> {
        self.child.end(self.gone.load(Relaxed))
    }
}
