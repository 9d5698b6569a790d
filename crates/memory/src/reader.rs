use crate::{Fault, Memory, Window};

/// Windows of a streamed source that a cursor remembers; direct-mapped, a power of two.
const SLOTS: usize = 64;
/// Neighbouring windows get neighbouring slots: the least a source lends out.
const SLOT_SHIFT: u32 = 13;

/// Bytes of a streamed source that a linear pass reads at once where it goes on. Twice as many each time: what jumps
/// from one large block to the next reads little between them.
const LEAST_STRETCH: u64 = 16 << 10;
const MOST_STRETCH: u64 = 32 << 10;
/// What begins so little before the end of what was read, or behind it, is where the pass goes on.
const NEXT: u64 = 4096;

fn slot(addr: u64) -> usize {
    (addr >> SLOT_SHIFT) as usize % SLOTS
}

fn contains(kept: &Option<Window>, addr: u64) -> bool {
    kept.as_ref().is_some_and(|window| window.get(addr, 1).is_some())
}

/// A cursor over a [`Memory`]: remembers the bytes it read from last, so that neighbouring reads cost a
/// bounds check, and keeps the windows it was lent last by sources that are streamed.
///
/// Little-endian, 64-bit targets.
pub struct Reader<'m> {
    memory: &'m dyn Memory,
    start: u64,
    /// What was read from last: an extent of the memory, or one of the `windows`. In the second case it
    /// lives no longer than that window stays in its slot, and is never handed out as `'m`.
    near: &'m [u8],
    is_extent: bool,
    /// Allocated on the first read that needs it.
    windows: Vec<Option<Window>>,
    is_linear: bool,
    /// Of a linear pass: what was read last of where it goes on.
    stretch: Option<Window>,
}

impl Clone for Reader<'_> {
    fn clone(&self) -> Self {
        Reader { is_linear: self.is_linear, ..Reader::new(self.memory) }
    }
}

impl<'m> Reader<'m> {
    pub fn new(memory: &'m dyn Memory) -> Self {
        Reader {
            memory,
            start: 0,
            near: &[],
            is_extent: false,
            windows: Vec::new(),
            is_linear: false,
            stretch: None,
        }
    }

    /// The same for a linear pass. Of a streamed source more is read at once where the pass goes on, and not kept for
    /// others; what it looks up elsewhere is.
    pub fn linear(self) -> Self {
        Reader { is_linear: true, ..self }
    }

    pub fn memory(&self) -> &'m dyn Memory {
        self.memory
    }

    /// From `addr` to the end of what was read from last.
    #[inline]
    fn at_hand(&self, addr: u64) -> Option<&[u8]> {
        self.near.get(addr.wrapping_sub(self.start) as usize..)
    }

    /// The bytes `addr..addr + len` where they are held contiguously.
    fn held(&mut self, addr: u64, len: usize) -> Option<&'m [u8]> {
        let inside = |start: u64, bytes: &'m [u8]| {
            let at = addr.wrapping_sub(start) as usize;
            bytes.get(at..at.checked_add(len)?)
        };
        if self.is_extent
            && let Some(bytes) = inside(self.start, self.near)
        {
            return Some(bytes);
        }
        let (start, bytes) = self.memory.extent(addr)?;
        (self.start, self.near, self.is_extent) = (start, bytes, true);
        inside(start, bytes)
    }

    /// Can a word at `addr` be read at once?
    #[inline]
    pub fn is_at_hand(&self, addr: u64) -> bool {
        self.at_hand(addr).is_some_and(|bytes| bytes.len() >= 8)
    }

    /// What is held or lent around `addr..addr + len`, and where it begins. `None` where that is not in one piece.
    #[inline]
    pub fn around(&mut self, addr: u64, len: usize) -> Option<(u64, &[u8])> {
        let is_at_hand = |reader: &Self| reader.at_hand(addr).is_some_and(|bytes| bytes.len() >= len);
        (is_at_hand(self) || self.held(addr, len).is_some() || self.lent(addr, len).is_some())
            .then_some((self.start, self.near))
    }

    /// Fills `buf` from `addr`, all or nothing.
    #[inline]
    pub fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        match self.at_hand(addr).and_then(|bytes| bytes.get(..buf.len())) {
            Some(bytes) => buf.copy_from_slice(bytes),
            None => self.read_further(addr, buf)?,
        }
        Ok(())
    }

    /// Reads what is not at hand.
    #[inline(never)]
    fn read_further(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let known = contains(&self.stretch, addr)
            || self.windows.get(slot(addr)).is_some_and(|kept| contains(kept, addr));
        if !known && let Some(bytes) = self.held(addr, buf.len()) {
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
        if self.is_linear && self.goes_on(addr, len) {
            return self.at_hand(addr)?.get(..len);
        }
        if self.windows.is_empty() {
            self.windows.resize(SLOTS, None);
        }
        let slot = &mut self.windows[slot(addr)];
        if !contains(slot, addr) {
            let window = self.memory.window(addr)?;
            // What was in the slot may be what was read from last.
            (self.near, self.is_extent) = (&[], false);
            *slot = Some(window);
        }
        let window = slot.as_ref()?;
        // SAFETY: the bytes are behind an `Arc` that stays in the slot until the lines above replace it,
        // and they forget `near` first. No function returns `near` for longer than `self` is borrowed
        // unless `is_extent`.
        self.near = unsafe { &*std::ptr::from_ref::<[u8]>(&window.bytes) };
        (self.start, self.is_extent) = (window.start, false);
        self.at_hand(addr)?.get(..len)
    }

    /// Has the bytes at hand if they are in the stretch that was read last, or where a pass goes on.
    fn goes_on(&mut self, addr: u64, len: usize) -> bool {
        let has = |stretch: &Option<Window>| stretch.as_ref().is_some_and(|w| w.get(addr, len).is_some());
        if !has(&self.stretch) {
            let last = self.stretch.as_ref().map_or((0, 0), |w| (w.start, w.bytes.len() as u64));
            let is_next = |(start, len): (u64, u64)| {
                addr.wrapping_sub(start.wrapping_add(len).wrapping_sub(NEXT)) < 2 * NEXT
            };
            let len = match is_next(last) {
                true => last.1.saturating_mul(2).clamp(LEAST_STRETCH, MOST_STRETCH),
                false if is_next((self.start, self.near.len() as u64)) => LEAST_STRETCH,
                false => return false,
            };
            let Some(window) = self.memory.stretch(addr, len) else { return false };
            // It may be what was read from last.
            (self.near, self.is_extent) = (&[], false);
            self.stretch = Some(window);
        }
        let Some(window) = &self.stretch else { return false };
        // SAFETY: as for the windows. `near` is forgotten where the stretch is replaced.
        self.near = unsafe { &*std::ptr::from_ref::<[u8]>(&window.bytes) };
        (self.start, self.is_extent) = (window.start, false);
        true
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
        if let Some(bytes) = self.at_hand(addr).and_then(|bytes| bytes.first_chunk()) {
            return Ok(*bytes);
        }
        let mut out = [0; N];
        self.read_further(addr, &mut out)?;
        Ok(out)
    }

    /// A few bytes whose neighbourhood is not asked for: a streamed source reads just them, not the window
    /// around them.
    pub fn peek<const N: usize>(&mut self, addr: u64) -> Result<[u8; N], Fault> {
        if let Some(bytes) = self.at_hand(addr).and_then(|bytes| bytes.first_chunk()) {
            return Ok(*bytes);
        }
        let mut out = [0; N];
        let kept = self.windows.get(slot(addr)).and_then(Option::as_ref);
        if let Some(bytes) = kept.and_then(|window| window.get(addr, N)) {
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
        /// Read at a time: no memory begins or ends within so many aligned bytes but where a test or a core says so.
        const PIECE: u64 = 64;
        let mut out = Vec::new();
        while out.len() < max {
            let at = addr.wrapping_add(out.len() as u64);
            let mut piece = [0; PIECE as usize];
            let mut piece = &mut piece[..((PIECE - at % PIECE) as usize).min(max - out.len())];
            if self.read(at, piece).is_err() {
                piece = &mut piece[..1];
                match self.read(at, piece) {
                    Err(fault) if out.is_empty() => return Err(fault),
                    Err(_) => break,
                    Ok(()) => {}
                }
            }
            let end = piece.iter().position(|byte| *byte == 0);
            out.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            if end.is_some() {
                break;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Why;
    use crate::synthetic::SyntheticMemory;
    use proptest::prelude::*;
    use std::sync::Mutex;

    /// Pieces of 8 KiB that are held, streamed or missing by turns, and whose windows take the same few
    /// slots of a cursor. The byte at an address is told by the address.
    struct Mixed(Vec<(u64, Vec<u8>)>);

    const PIECE: u64 = 1 << SLOT_SHIFT;

    fn byte(addr: u64) -> u8 {
        (addr.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8
    }

    impl Mixed {
        fn new() -> Mixed {
            let starts = (0..12u64).map(|n| (1 << 30) + (n % 3 + n / 3 * SLOTS as u64) * PIECE);
            let piece = |start: u64| (start, (start..start + PIECE).map(byte).collect());
            Mixed(starts.map(piece).collect())
        }

        /// Which piece, of which every third is held and another one missing.
        fn piece(&self, addr: u64) -> Option<(usize, &(u64, Vec<u8>))> {
            let found = self.0.iter().enumerate().find(|(_, piece)| addr & !(PIECE - 1) == piece.0);
            found.filter(|(at, _)| at % 7 != 5)
        }
    }

    impl Memory for Mixed {
        fn extent(&self, addr: u64) -> Option<(u64, &[u8])> {
            self.piece(addr).filter(|(at, _)| at % 3 == 1).map(|(_, piece)| (piece.0, &piece.1[..]))
        }

        fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
            for (at, out) in (addr..).zip(buf) {
                let (_, piece) = self.piece(at).ok_or(Fault::new(at, Why::NotMapped))?;
                *out = piece.1[(at % PIECE) as usize];
            }
            Ok(())
        }

        fn window(&self, addr: u64) -> Option<Window> {
            let (at, piece) = self.piece(addr)?;
            (at % 3 != 1).then(|| Window { start: piece.0, bytes: piece.1.as_slice().into() })
        }

        fn stretch(&self, addr: u64, len: u64) -> Option<Window> {
            let start = addr & !4095;
            let is_streamed = |at| self.piece(at).is_some_and(|(at, _)| at % 3 != 1);
            let count = (start..start + len).step_by(4096).take_while(|at| is_streamed(*at)).count() as u64;
            (count > 0).then(|| Window { start, bytes: (start..start + count * 4096).map(byte).collect() })
        }
    }

    /// All that is asked for of a streamed source.
    struct Counted(SyntheticMemory, Mutex<Vec<(u64, u64)>>);

    impl Memory for Counted {
        fn extent(&self, _addr: u64) -> Option<(u64, &[u8])> {
            None
        }

        fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
            self.0.read(addr, buf)
        }

        fn window(&self, addr: u64) -> Option<Window> {
            self.stretch(addr & !(PIECE - 1), PIECE)
        }

        fn stretch(&self, addr: u64, len: u64) -> Option<Window> {
            self.1.lock().unwrap().push((addr, len));
            let mut bytes = vec![0; len as usize];
            self.0.read(addr & !4095, &mut bytes).ok()?;
            Some(Window { start: addr & !4095, bytes: bytes.into() })
        }
    }

    #[test]
    fn a_linear_pass_reads_more_at_once_and_keeps_what_it_looks_up() {
        const START: u64 = 0x10_0000;
        let mut memory = SyntheticMemory::new();
        memory.map(START, vec![7; 1 << 20]);
        let memory = Counted(memory, Mutex::default());
        let asked = |f: &dyn Fn(&mut Reader)| {
            memory.1.lock().unwrap().clear();
            f(&mut Reader::new(&memory).linear());
            std::mem::take(&mut *memory.1.lock().unwrap())
        };
        // Word by word: one window, then stretches of 16 and of 32 KiB.
        let word_by_word =
            asked(&|reader| (0..1 << 17).for_each(|n| assert!(reader.u64(START + 8 * n).is_ok())));
        assert_eq!(word_by_word[..3], [(START, PIECE), (START + 0x2000, 0x4000), (START + 0x6000, 0x8000)]);
        assert!(word_by_word.len() <= 35, "{word_by_word:x?}");
        // From one large block to the next: windows.
        let heads = asked(&|reader| (0..10).for_each(|n| assert!(reader.u64(START + 0x18000 * n).is_ok())));
        assert!(heads.iter().all(|(_, len)| *len == PIECE), "{heads:x?}");
        // What is looked up elsewhere is a window that stays, and the stretch goes on behind it.
        let elsewhere = asked(&|reader| {
            for n in 0..0x4000 {
                assert!(reader.u64(START + 8 * n).is_ok());
                assert!(n % 7 != 3 || reader.u64(START + 0xf_0000).is_ok());
            }
        });
        assert_eq!(elsewhere.iter().filter(|(addr, _)| *addr == START + 0xf_0000).count(), 1);
        assert_eq!(elsewhere.last(), Some(&(START + 0x1e000, 0x8000)), "{elsewhere:x?}");
        // A block across the end of a stretch is had in one piece.
        asked(&|reader| {
            for n in 0..2000 {
                let addr = START + 200 * n;
                let (start, bytes) = reader.around(addr, 200).unwrap();
                assert!(start <= addr && addr + 200 <= start + bytes.len() as u64);
            }
        });
    }

    #[test]
    fn strings_end_where_they_say_where_they_are_cut_and_where_memory_ends() {
        let mut memory = crate::synthetic::SyntheticMemory::new();
        // 100 letters, a NUL, and three more up to the end, none of it aligned.
        let mut bytes = vec![b'x'; 104];
        bytes[100] = 0;
        memory.map(0x1007, bytes);
        let target = memory.into_target(Vec::new(), Vec::new());
        let mut reader = Reader::new(&*target.memory);
        let mut length = |addr, max| reader.cstr(addr, max).map(|text| text.len()).ok();
        assert_eq!([0x1007, 0x1020, 0x106a, 0x106b].map(|addr| length(addr, 512)), [100, 75, 1, 0].map(Some));
        assert_eq!([1, 64, 99, 100, 101].map(|max| length(0x1007, max)), [1, 64, 99, 100, 100].map(Some));
        assert_eq!(
            [0x106c, 0x106e, 0x106f, 0x1006].map(|addr| length(addr, 512)),
            [Some(3), Some(1), None, None]
        );
    }

    proptest! {
        #[test]
        fn whatever_was_read_before_the_bytes_are_those_of_the_address(
            reads in prop::collection::vec((0usize..12, -9i64..9, 0u8..7), 1..200),
            is_linear: bool,
        ) {
            let memory = Mixed::new();
            let reader = Reader::new(&memory);
            let mut reader = if is_linear { reader.linear() } else { reader };
            for (piece, offset, how) in reads {
                let base = memory.0[piece].0;
                // Around the borders of pieces, and in their middle.
                let addr = if offset % 2 == 0 { base + 5000 } else { base }.wrapping_add_signed(offset);
                let len = [8, 4, 1, 8, 9, 16, 24][how as usize];
                let got = match how {
                    0 => reader.u64(addr).map(|word| word.to_le_bytes().to_vec()),
                    1 => reader.u32(addr).map(|word| word.to_le_bytes().to_vec()),
                    2 => reader.u8(addr).map(|byte| vec![byte]),
                    3 => reader.peek::<8>(addr).map(|bytes| bytes.to_vec()),
                    4 => {
                        let mut scratch = Vec::new();
                        reader.window(addr, len, &mut scratch).map(<[u8]>::to_vec)
                    }
                    6 => match reader.around(addr, len) {
                        Some((start, bytes)) => Ok(bytes[(addr - start) as usize..][..len].to_vec()),
                        // In two pieces, or nowhere.
                        None => Err(Fault::new(addr, Why::NotMapped)),
                    },
                    _ => {
                        let mut out = vec![0; len];
                        reader.read(addr, &mut out).map(|()| out)
                    }
                };
                let there = (0..len as u64).all(|at| memory.piece(addr.wrapping_add(at)).is_some());
                let expected = (0..len as u64).map(|at| byte(addr.wrapping_add(at))).collect::<Vec<_>>();
                if how != 6 || got.is_ok() {
                    prop_assert_eq!(got.ok(), there.then_some(expected), "{:#x} by {}", addr, how);
                }
            }
        }
    }
}
