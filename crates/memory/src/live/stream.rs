//! Reading a cloned process while it is needed: nothing of it is held but a few windows.

use super::clone::{Holder, Lost};
use crate::{Fault, Why, Window};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is read at a time: large enough that a linear pass costs little more than copying, small
/// enough for a read that jumps.
const WINDOW: u64 = 16 << 10;
/// Windows kept for all cursors together: 16 MiB.
const KEPT: usize = 1024;

/// Memory of a process that stands still.
pub(super) struct Stream {
    mem: File,
    /// What is in RAM, in address order. Other pages are not asked for: that would make them.
    ranges: Vec<Range<u64>>,
    /// Direct-mapped by address.
    kept: Vec<Mutex<Option<Window>>>,
    child: Holder,
}

impl Stream {
    pub fn new(mem: File, ranges: Vec<Range<u64>>, child: Holder) -> Self {
        let kept = (0..KEPT).map(|_| Mutex::new(None)).collect();
        Stream { mem, ranges, kept, child }
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
            match self.mem.read_at(&mut buf[done..], at) {
                Ok(0) => return Err(Fault::new(at, Why::Gone)),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Fault::new(at, Why::Io)),
            }
        }
        Ok(())
    }

    pub fn window(&self, addr: u64) -> Option<Window> {
        let range = self.range_from(addr).filter(|range| range.start <= addr)?;
        let block = addr & !(WINDOW - 1);
        let (start, end) = (block.max(range.start), (block + WINDOW).min(range.end));
        let slot = &self.kept[(block / WINDOW) as usize % KEPT];
        let kept = |slot: &Mutex<Option<Window>>| {
            let slot = slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            slot.as_ref().filter(|window| window.start == start).cloned()
        };
        if let Some(window) = kept(slot) {
            return Some(window);
        }
        let window = Window { start, bytes: self.fetch(start, (end - start) as usize)? };
        *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(window.clone());
        Some(window)
    }

    /// Reads into memory that was not filled with zeroes first: that would take as long as the reading.
    fn fetch(&self, start: u64, len: usize) -> Option<Arc<[u8]>> {
        let mut bytes = Arc::<[u8]>::new_uninit_slice(len);
        let room = Arc::get_mut(&mut bytes)?;
        let mut done = 0;
        while let Some(rest) = room.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = start + done as u64;
            // SAFETY: writes at most as many bytes as there are behind the pointer.
            let got = unsafe {
                libc::pread(self.mem.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len(), at as libc::off_t)
            };
            match got {
                1.. => done += got as usize,
                _ if got < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => return None,
            }
        }
        // SAFETY: the loop ends here when all of it has been written.
        Some(unsafe { bytes.assume_init() })
    }

    pub fn end(&self) -> Result<Duration, Lost> {
        self.child.end()
    }
}
