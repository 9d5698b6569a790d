//! Bytes of cores and snapshots, read as they are asked for.
//!
//! Not mapped: what was looked at would count as this program's memory, and a file that is cut short
//! meanwhile would end it.

use crate::Window;
use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

/// A file that is read, or bytes that are held.
#[derive(Clone)]
pub(crate) enum Stored {
    /// With the length it had when it was opened.
    File(Arc<File>, u64),
    Owned(Arc<Vec<u8>>),
}

impl Stored {
    /// `None` for anything but a regular file.
    pub fn of(file: File) -> Option<Self> {
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(Stored::File(Arc::new(file), metadata.len()))
    }

    pub fn owned(bytes: Vec<u8>) -> Self {
        Stored::Owned(Arc::new(bytes))
    }

    pub fn len(&self) -> u64 {
        match self {
            Stored::File(_, len) => *len,
            Stored::Owned(bytes) => bytes.len() as u64,
        }
    }

    /// Bytes that are held, as far as they go.
    pub fn held(&self, range: Range<u64>) -> Option<&[u8]> {
        let Stored::Owned(bytes) = self else { return None };
        let len = bytes.len() as u64;
        bytes.get(range.start.min(len) as usize..range.end.min(len) as usize)
    }

    /// The part of `range` that lies in the file, nothing where it cannot be read. The caller bounds it.
    pub fn part(&self, range: Range<u64>) -> Cow<'_, [u8]> {
        if let Some(bytes) = self.held(range.clone()) {
            return Cow::Borrowed(bytes);
        }
        let mut bytes = vec![0; range.end.min(self.len()).saturating_sub(range.start) as usize];
        match self.read(range.start, &mut bytes) {
            Ok(()) => Cow::Owned(bytes),
            Err(_) => Cow::Borrowed(&[]),
        }
    }

    /// Fills `buf` from offset `at`.
    pub fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_some(at + done as u64, &mut buf[done..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }

    /// As much of `buf` as there is at once, nothing only behind the end.
    pub fn read_some(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stored::File(file, _) => loop {
                match file.read_at(buf, at) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => return result,
                }
            },
            Stored::Owned(bytes) => {
                let rest = bytes.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
                let n = rest.len().min(buf.len());
                buf[..n].copy_from_slice(&rest[..n]);
                Ok(n)
            }
        }
    }
}

/// What is read at a time: large enough that a linear pass costs little more than copying, small
/// enough for a read that jumps.
const WINDOW: u64 = 8 << 10;
/// Windows kept for all cursors together: 16 MiB.
const KEPT: usize = 2048;
/// Places in which one window may be kept.
const WAYS: usize = 4;

/// Windows of one file, lent to all cursors; nothing else of it is held.
pub(crate) struct Windows {
    /// By address: neighbours are in neighbouring sets.
    sets: Vec<Mutex<Set>>,
    /// Room of whole windows that had to go: memory touched for the first time takes as long as reading what is to be
    /// in it.
    rooms: Mutex<Vec<Arc<[u8]>>>,
}

/// Where windows of the same few addresses are kept. A linear pass asks for a window once and never again; types
/// and what they name are asked for all the time: what was asked for twice outlasts what was not ("second chance").
#[derive(Default)]
struct Set {
    kept: [Option<Window>; WAYS],
    asked_again: [bool; WAYS],
    hand: usize,
}

impl Set {
    fn find(&mut self, start: u64) -> Option<Window> {
        let is_it = |window: &Option<Window>| window.as_ref().is_some_and(|w| w.start == start);
        let way = self.kept.iter().position(is_it)?;
        self.asked_again[way] = true;
        self.kept[way].clone()
    }

    /// What had to go: for the caller to free when the set is free for others.
    fn keep(&mut self, window: Window) -> Option<Window> {
        while std::mem::take(&mut self.asked_again[self.hand]) {
            self.hand = (self.hand + 1) % WAYS;
        }
        let gone = self.kept[self.hand].replace(window);
        self.hand = (self.hand + 1) % WAYS;
        gone
    }
}

impl Windows {
    pub fn new() -> Self {
        Windows { sets: (0..KEPT / WAYS).map(|_| Mutex::default()).collect(), rooms: Mutex::default() }
    }

    /// The window around `addr`, which lies in `range`; of that the first byte is at `offset` in the file.
    /// `None` where it cannot be read.
    pub fn around(&self, addr: u64, range: &Range<u64>, file: &File, offset: u64) -> Option<Window> {
        let bounds = bounds(addr, range);
        if let Some(window) = self.set(bounds.start).find(bounds.start) {
            return Some(window);
        }
        let at = offset.checked_add(bounds.start - range.start)?;
        let len = bounds.end - bounds.start;
        let room = if len == WINDOW { self.rooms().pop() } else { None };
        let bytes = match room {
            Some(room) => refill(room, file, at)?,
            None => fetch(file, at, len as usize)?,
        };
        let window = Window { start: bounds.start, bytes };
        let gone = self.set(bounds.start).keep(window.clone());
        // Cursors may still have it.
        if let Some(Window { mut bytes, .. }) = gone
            && bytes.len() as u64 == WINDOW
            && Arc::get_mut(&mut bytes).is_some()
        {
            self.rooms().push(bytes);
        }
        Some(window)
    }

    /// The window around `addr` if it is kept, and where it ends or would end.
    pub fn kept(&self, addr: u64, range: &Range<u64>) -> (Option<Window>, u64) {
        let bounds = bounds(addr, range);
        (self.set(bounds.start).find(bounds.start), bounds.end)
    }

    /// Lets go of all windows.
    pub fn clear(&self) {
        for set in &self.sets {
            *set.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Set::default();
        }
        self.rooms().clear();
    }

    fn rooms(&self) -> MutexGuard<'_, Vec<Arc<[u8]>>> {
        self.rooms.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn set(&self, addr: u64) -> MutexGuard<'_, Set> {
        let set = &self.sets[(addr / WINDOW) as usize % self.sets.len()];
        set.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The window around `addr`, as far as it lies in `range`.
fn bounds(addr: u64, range: &Range<u64>) -> Range<u64> {
    let block = addr & !(WINDOW - 1);
    block.max(range.start)..block.saturating_add(WINDOW).min(range.end)
}

/// Reads into room that nobody else has.
fn refill(mut room: Arc<[u8]>, file: &File, at: u64) -> Option<Arc<[u8]>> {
    file.read_exact_at(Arc::get_mut(&mut room)?, at).ok()?;
    Some(room)
}

/// Reads into memory that was not filled with zeroes first: that would take as long as the reading.
pub(crate) fn fetch(file: &File, at: u64, len: usize) -> Option<Arc<[u8]>> {
    let mut bytes = Arc::<[u8]>::new_uninit_slice(len);
    let room = Arc::get_mut(&mut bytes)?;
    let mut done = 0;
    while let Some(rest) = room.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = libc::off_t::try_from(at + done as u64).ok()?;
        // SAFETY: writes at most as many bytes as there are behind the pointer.
        let got = unsafe { libc::pread(file.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len(), at) };
        match got {
            1.. => done += got as usize,
            _ if got < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
    // SAFETY: the loop ends here when all of it has been written.
    Some(unsafe { bytes.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn windows_that_go_make_room_and_leave_what_is_lent_as_it_was() {
        let mut file = tempfile::tempfile().unwrap();
        let count = KEPT as u64 * 3;
        let bytes: Vec<u8> = (0..count).flat_map(|n| [(n % 251) as u8; WINDOW as usize]).collect();
        file.write_all(&bytes).unwrap();
        let windows = Windows::new();
        let range = 0..count * WINDOW;
        let window = |n: u64| windows.around(n * WINDOW + 7, &range, &file, 0).unwrap();
        let is_right = |window: &Window, n: u64| window.bytes.iter().all(|byte| u64::from(*byte) == n % 251);
        // Lent all the while, though there is no place for it any more.
        let lent: Vec<Window> = (0..4).map(window).collect();
        for n in 0..count {
            assert!(is_right(&window(n), n), "{n}");
        }
        assert!(lent.iter().zip(0..).all(|(window, n)| window.start == n * WINDOW && is_right(window, n)));
        // What went was used again: two thirds were read into room of the first.
        let kept: usize =
            windows.sets.iter().map(|set| set.lock().unwrap().kept.iter().flatten().count()).sum();
        assert_eq!(kept, KEPT);
        assert!(windows.rooms().len() <= 1, "{}", windows.rooms().len());
        windows.clear();
        assert_eq!(windows.rooms().len(), 0);
    }

    #[test]
    fn a_file_that_shrinks_has_less() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..40_000u32).map(|n| n as u8).collect();
        file.write_all(&bytes).unwrap();
        let stored = Stored::of(file.try_clone().unwrap()).unwrap();
        assert_eq!(stored.len(), 40_000);
        assert_eq!(*stored.part(39_990..50_000), bytes[39_990..]);
        assert_eq!(stored.part(50_000..60_000).len(), 0);
        let (windows, range) = (Windows::new(), 0x10_0100..0x10_9000);
        let window = |addr| windows.around(addr, &range, &file, 100);
        let first = window(0x10_0200).unwrap();
        let in_first = WINDOW as usize - 0x100;
        assert_eq!((first.start, &*first.bytes), (0x10_0100, &bytes[100..100 + in_first]));
        let second = window(0x10_0000 + WINDOW).unwrap();
        assert_eq!(*second.bytes, bytes[100 + in_first..100 + in_first + WINDOW as usize]);
        file.set_len(0x4100).unwrap();
        assert!(window(0x10_8000).is_none());
        assert_eq!(stored.part(0x4000..0x5000).len(), 0);
        assert!(Stored::of(File::open("/dev/null").unwrap()).is_none());
    }
}
