use crate::{Fault, Memory, Window};

/// Windows of a streamed source that a cursor remembers; direct-mapped, a power of two.
const SLOTS: usize = 256;
/// Neighbouring windows get neighbouring slots: the least a source lends out.
const SLOT_SHIFT: u32 = 14;

fn slot(addr: u64) -> usize {
    (addr >> SLOT_SHIFT) as usize % SLOTS
}

/// A cursor over a [`Memory`]: remembers the extent it read last, so that neighbouring reads cost a
/// bounds check, and keeps the windows it was lent last by sources that are streamed.
///
/// Little-endian, 64-bit targets.
pub struct Reader<'m> {
    memory: &'m dyn Memory,
    start: u64,
    bytes: &'m [u8],
    /// Allocated on the first read that needs it.
    windows: Vec<Option<Window>>,
}

impl Clone for Reader<'_> {
    fn clone(&self) -> Self {
        Reader::new(self.memory)
    }
}

impl<'m> Reader<'m> {
    pub fn new(memory: &'m dyn Memory) -> Self {
        Reader { memory, start: 0, bytes: &[], windows: Vec::new() }
    }

    pub fn memory(&self) -> &'m dyn Memory {
        self.memory
    }

    /// The bytes `addr..addr + len` of the extent read last.
    #[inline]
    fn at_hand(&self, addr: u64, len: usize) -> Option<&'m [u8]> {
        let at = addr.wrapping_sub(self.start) as usize;
        if at < self.bytes.len() && len <= self.bytes.len() - at {
            return Some(&self.bytes[at..at + len]);
        }
        None
    }

    /// The bytes `addr..addr + len` where they are held contiguously.
    fn held(&mut self, addr: u64, len: usize) -> Option<&'m [u8]> {
        if let Some(bytes) = self.at_hand(addr, len) {
            return Some(bytes);
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
        if let Some(bytes) = self.at_hand(addr, buf.len()) {
            buf.copy_from_slice(bytes);
            return Ok(());
        }
        if let Some(bytes) = self.window_at(addr).and_then(|window| window.get(addr, buf.len())) {
            buf.copy_from_slice(bytes);
            return Ok(());
        }
        self.read_slow(addr, buf)
    }

    #[cold]
    fn read_slow(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        if let Some(bytes) = self.held(addr, buf.len()) {
            buf.copy_from_slice(bytes);
            return Ok(());
        }
        // Straddles extents, or is streamed.
        if let Some(bytes) = self.lent(addr, buf.len()) {
            buf.copy_from_slice(bytes);
            return Ok(());
        }
        self.memory.read(addr, buf)
    }

    /// Bytes of a window that a streamed source lends.
    fn lent(&mut self, addr: u64, len: usize) -> Option<&[u8]> {
        if self.windows.is_empty() {
            self.windows.resize(SLOTS, None);
        }
        let slot = &mut self.windows[slot(addr)];
        if slot.as_ref().is_none_or(|window| window.get(addr, 1).is_none()) {
            *slot = Some(self.memory.window(addr)?);
        }
        slot.as_ref()?.get(addr, len)
    }

    /// The window that is remembered in the place of those around `addr`.
    #[inline]
    fn window_at(&self, addr: u64) -> Option<&Window> {
        self.windows.get(slot(addr))?.as_ref()
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
        match self.lent(addr, len) {
            Some(bytes) => scratch.copy_from_slice(bytes),
            None => self.memory.read(addr, scratch)?,
        }
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

    /// A few bytes whose neighbourhood is not asked for: a streamed source reads just them, not the window
    /// around them.
    pub fn peek<const N: usize>(&mut self, addr: u64) -> Result<[u8; N], Fault> {
        let mut out = [0; N];
        if let Some(bytes) = self.window_at(addr).and_then(|window| window.get(addr, N)) {
            out.copy_from_slice(bytes);
        } else if let Some(bytes) = self.held(addr, N) {
            out.copy_from_slice(bytes);
        } else {
            self.memory.read(addr, &mut out)?;
        }
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
