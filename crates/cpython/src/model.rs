//! How this interpreter's objects are made: its layout table, and the few rules no table holds.

use crate::layout::Layout;
use wmr_memory::{Fault, Reader};

/// `tp_flags` bits (CPython `Include/object.h`).
pub mod flags {
    pub const MANAGED_WEAKREF: u64 = 1 << 3;
    pub const MANAGED_DICT: u64 = 1 << 4;
    pub const INLINE_VALUES: u64 = 1 << 2;
    pub const HEAPTYPE: u64 = 1 << 9;
    pub const READY: u64 = 1 << 12;
    pub const HAVE_GC: u64 = 1 << 14;
    pub const LONG_SUBCLASS: u64 = 1 << 24;
    pub const LIST_SUBCLASS: u64 = 1 << 25;
    pub const TUPLE_SUBCLASS: u64 = 1 << 26;
    pub const BYTES_SUBCLASS: u64 = 1 << 27;
    pub const UNICODE_SUBCLASS: u64 = 1 << 28;
    pub const DICT_SUBCLASS: u64 = 1 << 29;
    pub const BASE_EXC_SUBCLASS: u64 = 1 << 30;
    pub const TYPE_SUBCLASS: u64 = 1 << 31;
}

/// Where an instance keeps its attributes when the type asks for a managed dict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Managed {
    /// Up to 3.10: `tp_dictoffset` only.
    None,
    /// 3.11: values at object − 32, dict at object − 24.
    TwoWords,
    /// 3.12: one word at object − 24, either a dict or values stored as pointer − 1.
    Tagged,
    /// 3.13+: dict at object − 24, values inside the object.
    Inline,
}

/// What PYTHONMALLOC=debug and debug builds put around each block (`Objects/obmalloc.c`, `_PyMem_Debug*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DebugPadding {
    /// Bytes before the data: size (big-endian), API letter, forbidden bytes.
    pub before: u64,
    /// All bytes around the data: 24, and 32 up to 3.7 (a serial number follows the data).
    pub overhead: u64,
    /// 0xFD, and 0xFB up to 3.6.
    pub forbidden: u8,
}

/// Everything the object walks need to know of one interpreter.
#[derive(Debug, Clone)]
pub struct Model {
    pub layout: Layout,
    /// `PY_VERSION_HEX`.
    pub hex: u32,
    /// Address of `PyType_Type`.
    pub type_type: u64,
    /// Bytes of the GC head before an object.
    pub gc_head: u64,
    /// `tp_flags` that put two words (weak references, dict) before the GC head.
    pub preheader_flags: u64,
    pub managed: Managed,
    /// Small objects come from pymalloc: an object of up to 512 bytes in a malloc chunk was resized there.
    pub pymalloc: bool,
    pub debug: Option<DebugPadding>,
    /// A collection was running: `gc_prev` holds reference counts, links cannot be checked.
    pub collecting: bool,
    /// Where each interpreter keeps its state of static types (3.12+).
    pub static_types: Vec<u64>,
}

/// Bytes of the pre-header where a type has one.
pub const PREHEADER: u64 = 16;

/// `_PyObject_IMMORTAL_REFCNT` of 3.11 (`pycore_object.h`).
const FROZEN: u64 = 999_999_999;

/// A reference count as the version encodes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefCount {
    Count(u64),
    Immortal,
    /// Zero, negative, or too large to be one: the word is something else.
    Implausible,
}

impl Model {
    pub fn minor(&self) -> (u32, u32) {
        (self.hex >> 24, self.hex >> 16 & 0xff)
    }

    /// The rules that follow from the version alone.
    pub fn rules(hex: u32) -> (u64, Managed) {
        match hex >> 16 {
            v if v >= 0x030d => (flags::MANAGED_DICT | flags::MANAGED_WEAKREF, Managed::Inline),
            0x030c => (flags::MANAGED_DICT | flags::MANAGED_WEAKREF, Managed::Tagged),
            0x030b => (flags::MANAGED_DICT, Managed::TwoWords),
            _ => (0, Managed::None),
        }
    }

    /// Arrays of `managed_static_type_state` in an interpreter's own structure: built-ins, extensions.
    pub fn static_types(layout: &Layout, interpreter: u64) -> impl Iterator<Item = u64> {
        let fields = ["types.builtins.initialized", "types.for_extensions.initialized"];
        let array = layout.table.offset("_is", fields[0]);
        // 3.12 has the array itself there, and none for extensions.
        let first = array.or_else(|| {
            layout.static_type_state?;
            layout.table.offset("_is", "types.builtins")
        });
        let second = layout.table.offset("_is", fields[1]);
        [first, second].into_iter().flatten().map(move |at| interpreter.wrapping_add(at))
    }

    /// Python 2: `str` is bytes, `unicode` is text, small ints and floats live in blocks of their own.
    #[inline]
    pub fn is_two(&self) -> bool {
        self.hex >> 24 == 2
    }

    /// 3.12+: objects that are never freed, and references to which are not counted (PEP 683).
    pub fn has_immortals(&self) -> bool {
        self.hex >> 16 >= 0x030c
    }

    #[inline]
    pub fn type_of(&self, reader: &mut Reader, object: u64) -> Result<u64, Fault> {
        reader.u64(object.wrapping_add(self.layout.object.ob_type))
    }

    /// `ob_size` of a variable-sized object.
    #[inline]
    pub fn size_field(&self, reader: &mut Reader, object: u64) -> Result<i64, Fault> {
        reader.i64(object.wrapping_add(self.layout.object.size))
    }

    #[inline]
    pub fn refcount(&self, reader: &mut Reader, object: u64) -> Result<RefCount, Fault> {
        let word = reader.u64(object.wrapping_add(self.layout.object.ob_refcnt))?;
        Ok(self.decode_refcount(word))
    }

    /// 3.14 split the word into a 32-bit count, an overflow half-word and flags; 3.12 and 3.13 use its
    /// low 32 bits and mark immortal objects with all of them set, the upper ones clear (PEP 683).
    #[inline]
    pub fn decode_refcount(&self, word: u64) -> RefCount {
        // What most objects have, whatever the version.
        if (1..1 << 16).contains(&word) {
            return RefCount::Count(word);
        }
        let minor = self.hex >> 16;
        let low = word & 0xffff_ffff;
        if minor >= 0x030e {
            return match word >> 32 & 0xffff {
                0 if low >= 1 << 31 => RefCount::Immortal,
                0 if low > 0 => RefCount::Count(low),
                _ => RefCount::Implausible,
            };
        }
        if minor >= 0x030c && word == 0xffff_ffff {
            return RefCount::Immortal;
        }
        match word {
            0 => RefCount::Implausible,
            // What 3.11 froze into the interpreter; references to it are counted from there.
            n if minor == 0x030b && n.abs_diff(FROZEN) < 1 << 24 => RefCount::Immortal,
            n if n < 1 << 33 => RefCount::Count(n),
            _ => RefCount::Implausible,
        }
    }

    /// Bytes between the start of the allocation and the object, debug padding aside.
    #[inline]
    pub fn presize(&self, tp_flags: u64) -> u64 {
        let gc = if tp_flags & flags::HAVE_GC != 0 { self.gc_head } else { 0 };
        let pre = if tp_flags & self.preheader_flags != 0 { PREHEADER } else { 0 };
        gc + pre
    }

    /// Where the data of an allocation begins and how much of it was asked for, if debug padding says so.
    #[inline]
    pub fn unpad(&self, reader: &mut Reader, start: u64, usable: u64) -> Allocation {
        let whole = Allocation { data: start, size: usable, api: Api::Untold };
        match self.debug {
            None => whole,
            Some(pad) => pad.unpad(reader, whole),
        }
    }
}

impl DebugPadding {
    fn unpad(&self, reader: &mut Reader, whole: Allocation) -> Allocation {
        let outer = self.unwrap(reader, whole).unwrap_or(whole);
        if outer.api == Api::Raw {
            // What is too large for pymalloc is asked of the raw domain, which pads it once more.
            return self.unwrap(reader, outer).unwrap_or(outer);
        }
        outer
    }

    fn unwrap(&self, reader: &mut Reader, outer: Allocation) -> Option<Allocation> {
        let room = outer.size.checked_sub(self.overhead)?;
        let head = reader.array::<16>(outer.data).ok()?;
        let requested = u64::from_be_bytes(head[..8].try_into().ok()?);
        let api = match head[8] {
            b'r' => Api::Raw,
            b'm' => Api::Mem,
            b'o' => Api::Object,
            _ => return None,
        };
        let padded = head[9..].iter().all(|b| *b == self.forbidden) && requested <= room;
        padded.then_some(Allocation { data: outer.data + self.before, size: requested, api })
    }
}

/// The bytes an allocation offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    pub data: u64,
    /// Usable bytes at `data`; the requested ones where debug padding tells.
    pub size: u64,
    pub api: Api,
}

/// Which API of allocators was asked; only debug padding tells.
///
/// A whole word: passes over all blocks copy it by words, and a processor waits when it reads a word of which it has
/// just written a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Api {
    Untold,
    Raw,
    Mem,
    Object,
}

impl Allocation {
    /// Is its size what was asked for, to the byte?
    #[inline]
    pub fn is_exact(&self) -> bool {
        self.api != Api::Untold
    }
}
