//! Where the captured bytes go, and how they get there.

use super::pagemap::PAGE;
use memmap2::{Advice, MmapMut, MmapOptions, UncheckedAdvice};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Bytes `addr..addr + len` of the target, held from `at` on in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub addr: u64,
    pub len: u64,
    pub at: u64,
}

impl Extent {
    pub fn end(&self) -> u64 {
        self.addr + self.len
    }
}

/// What is to be copied: extents in address order, dense in the buffer.
#[derive(Debug, Default)]
pub(super) struct Extents {
    pub all: Vec<Extent>,
    pub bytes: u64,
}

impl Extents {
    /// Ranges in address order that lie one behind the other in a copy.
    pub fn of(ranges: &[Range<u64>]) -> Self {
        let mut extents = Extents::default();
        for range in ranges {
            extents.push(range.start, range.end);
        }
        extents
    }

    /// Appends a range that lies behind all others.
    pub fn push(&mut self, start: u64, end: u64) {
        let len = end - start;
        match self.all.last_mut() {
            Some(last) if last.end() == start => last.len += len,
            _ => self.all.push(Extent { addr: start, len, at: self.bytes }),
        }
        self.bytes += len;
    }

    /// Takes out pages that could not be copied. `failed` in address order.
    pub fn without(self, failed: &[Range<u64>]) -> Vec<Extent> {
        let mut failed = failed.iter().peekable();
        let mut kept = Vec::with_capacity(self.all.len());
        for extent in self.all {
            let mut rest = extent;
            while let Some(hole) = failed.next_if(|hole| hole.start < extent.end()) {
                let before = hole.start - rest.addr;
                if before > 0 {
                    kept.push(Extent { len: before, ..rest });
                }
                let cut = hole.end - rest.addr;
                rest = Extent { addr: hole.end, len: rest.len - cut, at: rest.at + cut };
            }
            if rest.len > 0 {
                kept.push(rest);
            }
        }
        kept
    }
}

/// Anonymous memory for the copy, made ready before the target is stopped: a fresh page costs more
/// than copying into it.
pub(super) struct Buffer {
    map: MmapMut,
}

/// One huge page of x86-64; also what a worker takes at a time.
const CHUNK: usize = 2 << 20;

impl Buffer {
    /// Reserves `capacity` bytes of addresses and makes the first `ready` bytes writable at once.
    pub fn new(ready: u64, capacity: u64) -> io::Result<Self> {
        let too_large = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let capacity = usize::try_from(capacity).map_err(too_large)?;
        let ready = usize::try_from(ready).map_err(too_large)?.min(capacity);
        let mut map = MmapOptions::new().len(capacity.max(CHUNK)).no_reserve_swap().map_anon()?;
        // A kernel without huge pages refuses: then it is merely slower.
        let _ = map.advise(Advice::HugePage);
        in_parallel(map[..ready].chunks_mut(CHUNK), |chunk| {
            for byte in chunk.iter_mut().step_by(PAGE as usize) {
                // A value the compiler cannot know, or it might leave out zeroing what is zero.
                *byte = std::hint::black_box(0);
            }
        });
        Ok(Buffer { map })
    }

    pub fn capacity(&self) -> u64 {
        self.map.len() as u64
    }

    pub fn into_map(self) -> MmapMut {
        self.map
    }

    /// Gives back what lies behind the first `used` bytes.
    pub fn shrink(&mut self, used: u64) {
        let used = (used.min(self.capacity()) as usize).next_multiple_of(PAGE as usize);
        if used < self.map.len() {
            // SAFETY: private anonymous memory, of which nobody holds a reference and nobody needs
            // the bytes behind `used`: they read as zeroes afterwards.
            let _ = unsafe {
                self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, used, self.map.len() - used)
            };
        }
    }

    /// Copies all extents from `/proc/PID/mem`. Pages that the system refuses are returned, in address
    /// order. An error when the process has gone.
    pub fn fill(&mut self, mem: &File, extents: &Extents) -> io::Result<Vec<Range<u64>>> {
        let Some(buffer) = self.map.get_mut(..extents.bytes as usize) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let failed = Mutex::new(Vec::new());
        let gone = AtomicBool::new(false);
        in_parallel(buffer.chunks_mut(CHUNK).enumerate(), |(index, chunk)| {
            let at = (index * CHUNK) as u64;
            let first = extents.all.partition_point(|extent| extent.at + extent.len <= at);
            let mut rest = chunk;
            let mut at = at;
            for extent in &extents.all[first..] {
                if rest.is_empty() || gone.load(Relaxed) {
                    break;
                }
                let addr = extent.addr + (at - extent.at);
                let len = ((extent.end() - addr) as usize).min(rest.len());
                let (piece, behind) = rest.split_at_mut(len);
                if !read_piece(mem, addr, piece, &failed) {
                    gone.store(true, Relaxed);
                }
                rest = behind;
                at += len as u64;
            }
        });
        if gone.into_inner() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut failed = failed.into_inner().unwrap_or_default();
        failed.sort_by_key(|range: &Range<u64>| range.start);
        Ok(failed)
    }
}

/// Reads one stretch, noting pages that cannot be read. False when the process has gone.
fn read_piece(mem: &File, addr: u64, piece: &mut [u8], failed: &Mutex<Vec<Range<u64>>>) -> bool {
    let mut done = 0;
    while done < piece.len() {
        match mem.read_at(&mut piece[done..], addr + done as u64) {
            // mem_rw in fs/proc/base.c: 0 when the address space has no users left.
            Ok(0) => return false,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                let page = (addr + done as u64) / PAGE * PAGE;
                let end = (page + PAGE).min(addr + piece.len() as u64);
                if let Ok(mut failed) = failed.lock() {
                    failed.push(page..end);
                }
                done = (end - addr) as usize;
            }
        }
    }
    true
}

/// Hands the items to a few threads, the calling one among them.
///
/// Threads of its own, as this also runs on the tracer thread while somebody's pool may be waiting
/// for that thread.
fn in_parallel<I: Iterator<Item: Send> + Send>(items: I, work: impl Fn(I::Item) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let queue = Mutex::new(items);
    let run = || {
        loop {
            // The lock is let go before the work begins.
            let Some(item) = queue.lock().ok().and_then(|mut items| items.next()) else { break };
            work(item);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // No thread to be had: this one does all the work.
            if std::thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_join_and_the_buffer_is_dense() {
        let mut extents = Extents::default();
        extents.push(0x1000, 0x3000);
        extents.push(0x3000, 0x4000);
        extents.push(0x9000, 0xa000);
        assert_eq!(
            extents.all,
            [Extent { addr: 0x1000, len: 0x3000, at: 0 }, Extent { addr: 0x9000, len: 0x1000, at: 0x3000 }]
        );
    }

    #[test]
    fn our_own_memory_comes_back() {
        let source: Vec<u8> = (0..3 * CHUNK + 100).map(|i| ((i * 7) >> 3) as u8).collect();
        let mut extents = Extents::default();
        let base = source.as_ptr() as u64;
        // Two stretches with a gap, neither aligned to a chunk; then a page nobody has.
        extents.push(base + 10, base + 5000);
        extents.push(base + 6000, base + source.len() as u64);
        let mem = File::open("/proc/self/mem").unwrap();
        let mut buffer = Buffer::new(1 << 20, extents.bytes + 4096).unwrap();
        assert_eq!(buffer.fill(&mem, &extents).unwrap(), []);
        let copied = &buffer.map[..extents.bytes as usize];
        assert!(copied[..4990] == source[10..5000] && copied[4990..] == source[6000..]);
        buffer.shrink(4096);
        let map = buffer.into_map();
        assert_eq!(map[..4096], source[10..4106]);
        assert!(map[4096..].iter().all(|&b| b == 0));
    }

    #[test]
    fn a_page_that_cannot_be_read_is_told() {
        let mut extents = Extents::default();
        extents.push(0x1000, 0x3000);
        let mem = File::open("/proc/self/mem").unwrap();
        let mut buffer = Buffer::new(0, 1 << 20).unwrap();
        let failed = buffer.fill(&mem, &extents).unwrap();
        assert_eq!(failed, [0x1000..0x2000, 0x2000..0x3000]);
        assert_eq!(extents.without(&failed), []);
    }

    proptest! {
        #[test]
        fn taking_pages_out_leaves_the_others_where_they_are(
            pages in proptest::collection::btree_set(0u64..40, 0..30),
            bad in proptest::collection::btree_set(0u64..40, 0..10),
        ) {
            let mut extents = Extents::default();
            let mut places = std::collections::BTreeMap::new();
            for page in &pages {
                places.insert(page * PAGE, extents.bytes);
                extents.push(page * PAGE, (page + 1) * PAGE);
            }
            let failed: Vec<_> =
                bad.intersection(&pages).map(|page| page * PAGE..(page + 1) * PAGE).collect();
            for hole in &failed {
                places.remove(&hole.start);
            }
            let mut found = std::collections::BTreeMap::new();
            for extent in extents.without(&failed) {
                for step in (0..extent.len).step_by(PAGE as usize) {
                    found.insert(extent.addr + step, extent.at + step);
                }
            }
            prop_assert_eq!(found, places);
        }
    }
}
