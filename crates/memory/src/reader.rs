use crate::{Fault, Memory};

/// Pages kept for random reads from a source that holds no extents.
const CACHE_PAGES: usize = 512;
const CACHE_PAGE: usize = 4096;

/// A cursor over a [`Memory`]: remembers the extent it read last, so that neighbouring reads cost a
/// bounds check, and keeps a small page cache for sources that are streamed.
///
/// Little-endian, 64-bit targets.
pub struct Reader<'m> {
    memory: &'m dyn Memory,
    start: u64,
    bytes: &'m [u8],
    /// Direct-mapped; allocated on the first read that needs it.
    cache: Vec<(u64, Box<[u8]>)>,
}

impl Clone for Reader<'_> {
    fn clone(&self) -> Self {
        Reader::new(self.memory)
    }
}

impl<'m> Reader<'m> {
    pub fn new(memory: &'m dyn Memory) -> Self {
        Reader { memory, start: 0, bytes: &[], cache: Vec::new() }
    }

    pub fn memory(&self) -> &'m dyn Memory {
        self.memory
    }

    /// The bytes `addr..addr + len` where they are held contiguously.
    #[inline]
    fn held(&mut self, addr: u64, len: usize) -> Option<&'m [u8]> {
        let at = addr.wrapping_sub(self.start) as usize;
        if at < self.bytes.len() && len <= self.bytes.len() - at {
            return Some(&self.bytes[at..at + len]);
        }
        let (start, bytes) = self.memory.extent(addr)?;
        self.start = start;
        self.bytes = bytes;
        let at = (addr - start) as usize;
        bytes.get(at..at.checked_add(len)?)
    }

    /// Fills `buf` from `addr`, all or nothing.
    #[inline]
    pub fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        if let Some(bytes) = self.held(addr, buf.len()) {
            buf.copy_from_slice(bytes);
            return Ok(());
        }
        self.read_slow(addr, buf)
    }

    #[cold]
    fn read_slow(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        // Straddles extents, or is streamed. Short reads within one page go through the cache.
        let page = addr & !(CACHE_PAGE as u64 - 1);
        let at = (addr - page) as usize;
        if buf.len() > CACHE_PAGE - at || self.memory.extent(addr).is_some() {
            return self.memory.read(addr, buf);
        }
        if self.cache.is_empty() {
            self.cache.resize(CACHE_PAGES, (u64::MAX, Box::default()));
        }
        let slot = &mut self.cache[(page / CACHE_PAGE as u64) as usize % CACHE_PAGES];
        if slot.0 != page {
            let mut fresh = vec![0; CACHE_PAGE].into_boxed_slice();
            if self.memory.read(page, &mut fresh).is_err() {
                // The page is there only in part: ask for just these bytes.
                return self.memory.read(addr, buf);
            }
            *slot = (page, fresh);
        }
        buf.copy_from_slice(&slot.1[at..at + buf.len()]);
        Ok(())
    }

    /// A window of `len` bytes for a linear pass: borrowed where the source holds it, else read into
    /// `scratch`. The caller chooses `len`; nothing here is sized by the target.
    pub fn window<'s>(&mut self, addr: u64, len: usize, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Fault>
    where
        'm: 's,
    {
        if let Some(bytes) = self.held(addr, len) {
            return Ok(bytes);
        }
        scratch.resize(len, 0);
        self.memory.read(addr, scratch)?;
        Ok(scratch)
    }

    #[inline]
    pub fn u8(&mut self, addr: u64) -> Result<u8, Fault> {
        self.array::<1>(addr).map(|b| b[0])
    }

    #[inline]
    pub fn u16(&mut self, addr: u64) -> Result<u16, Fault> {
        self.array(addr).map(u16::from_le_bytes)
    }

    #[inline]
    pub fn u32(&mut self, addr: u64) -> Result<u32, Fault> {
        self.array(addr).map(u32::from_le_bytes)
    }

    #[inline]
    pub fn u64(&mut self, addr: u64) -> Result<u64, Fault> {
        self.array(addr).map(u64::from_le_bytes)
    }

    #[inline]
    pub fn i64(&mut self, addr: u64) -> Result<i64, Fault> {
        self.array(addr).map(i64::from_le_bytes)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self, addr: u64) -> Result<[u8; N], Fault> {
        let mut out = [0; N];
        self.read(addr, &mut out)?;
        Ok(out)
    }

    /// A NUL-terminated string, cut at `max` bytes; ends early where memory ends.
    pub fn cstr(&mut self, addr: u64, max: usize) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        while out.len() < max {
            match self.u8(addr.wrapping_add(out.len() as u64)) {
                Ok(0) => break,
                Ok(b) => out.push(b),
                Err(fault) if out.is_empty() => return Err(fault),
                Err(_) => break,
            }
        }
        Ok(out)
    }
}
