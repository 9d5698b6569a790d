//! Symbol tables, looked up in the file's own bytes: a process with NumPy maps a hundred libraries,
//! and most of them are never asked for a name.

use super::Symbol;
use crate::file::FileBytes;
use std::ops::Range;

/// `sizeof(Elf64_Sym)`.
pub(super) const ENTRY: usize = 24;
/// More than the largest browser has. Entries past it are not looked at.
pub(super) const MAX_SYMBOLS: usize = 1 << 22;
/// Longer names are left out; C++ templates reach some thousands of bytes.
const MAX_NAME: usize = 1 << 14;

/// Bytes of a file, or of the target's memory.
pub(super) enum Slice {
    File(FileBytes, Range<u64>),
    Owned(Vec<u8>),
}

impl Slice {
    fn bytes(&self) -> &[u8] {
        match self {
            Slice::File(file, range) => file.clipped(range.clone()),
            Slice::Owned(bytes) => bytes,
        }
    }
}

/// One `SHT_DYNSYM` or `SHT_SYMTAB` with its names.
pub(super) struct SymbolTable {
    pub entries: Slice,
    pub names: Slice,
    /// `DT_GNU_HASH` over `entries`.
    pub gnu_hash: Option<Slice>,
}

/// How a symbol's name relates to the one asked for.
#[derive(PartialEq, Eq)]
enum Match {
    Exact,
    /// `obmalloc_state_main.lto_priv.0` for `obmalloc_state_main`: link-time optimisation renames
    /// locals (.lto_priv.N, .constprop.N, .isra.N, .part.N, .cold); a C name has no dot of its own.
    Suffixed,
    No,
}

impl SymbolTable {
    /// A table of `(name, address, size)`, in the file format.
    pub fn from_list(symbols: &[(&str, u64, u64)]) -> Self {
        let (mut entries, mut names) = (Vec::new(), vec![0]);
        for (name, addr, size) in symbols {
            entries.extend_from_slice(&(names.len() as u32).to_le_bytes());
            // STT_OBJECT, in section 1.
            entries.extend_from_slice(&[1, 0, 1, 0]);
            entries.extend_from_slice(&addr.to_le_bytes());
            entries.extend_from_slice(&size.to_le_bytes());
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        SymbolTable { entries: Slice::Owned(entries), names: Slice::Owned(names), gnu_hash: None }
    }

    fn raw(&self) -> impl Iterator<Item = Raw> {
        self.entries.bytes().as_chunks::<ENTRY>().0.iter().take(MAX_SYMBOLS).map(Raw::decode)
    }

    fn entry(&self, i: usize) -> Option<Raw> {
        self.entries.bytes().as_chunks::<ENTRY>().0.get(i).map(Raw::decode)
    }

    /// The symbol, when it is one with an address and a readable name.
    fn symbol(&self, raw: Raw, bias: u64) -> Option<Symbol<'_>> {
        if !raw.has_address() {
            return None;
        }
        let tail = self.names.bytes().get(raw.name as usize..)?;
        let tail = &tail[..tail.len().min(MAX_NAME)];
        let name = std::str::from_utf8(&tail[..tail.iter().position(|&b| b == 0)?]).ok()?;
        let symbol = Symbol { name, addr: bias.wrapping_add(raw.value), size: raw.size };
        (!name.is_empty()).then_some(symbol)
    }

    /// By the hash table; `None` without one.
    pub fn lookup(&self, name: &str, bias: u64) -> Option<Symbol<'_>> {
        let table = self.gnu_hash.as_ref()?.bytes();
        let names = self.names.bytes();
        let hash = gnu_hash(name.as_bytes());
        let word = |i: usize| Some(u32::from_le_bytes(*table.get(i.checked_mul(4)?..)?.first_chunk()?));
        let (buckets, first, bloom) = (word(0)?, word(1)?, word(2)?);
        let buckets_at = 4 + 2 * bloom as usize;
        let chains_at = buckets_at + buckets as usize;
        let mut i = word(buckets_at + hash.checked_rem(buckets)? as usize)?;
        // A chain ends by its low bit; the table's end bounds one that does not.
        loop {
            let chain = word(chains_at + i.checked_sub(first)? as usize)?;
            if chain | 1 == hash | 1 {
                let raw = self.entry(i as usize)?;
                if matches(names, raw.name, name.as_bytes()) == Match::Exact && raw.has_address() {
                    return self.symbol(raw, bias);
                }
            }
            if chain & 1 == 1 {
                return None;
            }
            i = i.checked_add(1)?;
        }
    }

    /// By a pass over the table.
    pub fn named(&self, name: &str, bias: u64) -> impl Iterator<Item = Symbol<'_>> {
        let names = self.names.bytes();
        // Most images have no such name: that is found out much faster from the text of all names.
        let is_there = memchr::memmem::find(names, name.as_bytes()).is_some();
        let entries = is_there.then(|| self.raw()).into_iter().flatten();
        entries
            .filter(move |raw| matches(names, raw.name, name.as_bytes()) != Match::No)
            .filter_map(move |raw| self.symbol(raw, bias))
    }
}

fn matches(names: &[u8], at: u32, name: &[u8]) -> Match {
    match names.get(at as usize..).and_then(|tail| tail.strip_prefix(name)) {
        Some([0, ..]) => Match::Exact,
        Some([b'.', ..]) => Match::Suffixed,
        _ => Match::No,
    }
}

/// The hash of `DT_GNU_HASH` (glibc 2.36, sysdeps/generic/dl-new-hash.h).
fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381, |hash: u32, &b| hash.wrapping_mul(33).wrapping_add(u32::from(b)))
}

/// An `Elf64_Sym`.
#[derive(Clone, Copy)]
struct Raw {
    name: u32,
    kind: u8,
    section: u16,
    value: u64,
    size: u64,
}

impl Raw {
    fn decode(entry: &[u8; ENTRY]) -> Self {
        let quad = |at: usize| entry[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        let head = quad(0);
        Raw {
            name: head as u32,
            kind: (head >> 32) as u8 & 0xf,
            section: (head >> 48) as u16,
            value: quad(8),
            size: quad(16),
        }
    }

    fn has_address(self) -> bool {
        // NOTYPE, OBJECT, FUNC, GNU_IFUNC, in a section of the file: neither undefined (0) nor
        // absolute or common (from SHN_LORESERVE on).
        matches!(self.kind, 0 | 1 | 2 | 10) && self.section != 0 && self.section < 0xff00
    }
}

/// The symbols of an image in address order.
pub(super) struct Index {
    /// Sorted by address; several names of one address stay.
    entries: Vec<Indexed>,
}

struct Indexed {
    addr: u64,
    table: u32,
    entry: u32,
}

impl Index {
    pub fn new(tables: &[SymbolTable], bias: u64) -> Self {
        let mut entries = Vec::new();
        for (t, table) in tables.iter().enumerate() {
            for (i, raw) in table.raw().enumerate() {
                if raw.has_address() {
                    let addr = bias.wrapping_add(raw.value);
                    entries.push(Indexed { addr, table: t as u32, entry: i as u32 });
                }
            }
        }
        entries.sort_unstable_by_key(|e| (e.addr, e.table, e.entry));
        // .symtab repeats .dynsym.
        entries.dedup_by(|b, a| {
            a.addr == b.addr && a.table != b.table && name_of(tables, a) == name_of(tables, b)
        });
        Index { entries }
    }

    pub fn iter<'a>(&'a self, tables: &'a [SymbolTable], bias: u64) -> impl Iterator<Item = Symbol<'a>> {
        self.entries.iter().filter_map(move |e| symbol_of(tables, e, bias))
    }

    /// The nearest symbol at or below `addr` that reaches it.
    pub fn covering<'a>(&'a self, tables: &'a [SymbolTable], bias: u64, addr: u64) -> Option<Symbol<'a>> {
        let end = self.entries.partition_point(|e| e.addr <= addr);
        // A function's local label or a nested symbol may stand between `addr` and the one it is in.
        let near = self.entries[..end].iter().rev().take(16).filter_map(|e| symbol_of(tables, e, bias));
        let mut unsized_one = None;
        for symbol in near {
            if addr - symbol.addr < symbol.size {
                return Some(symbol);
            }
            // Only the nearest one may claim what it gives no size for.
            if unsized_one.is_none() {
                unsized_one = Some(symbol);
            }
        }
        unsized_one.filter(|s| s.size == 0)
    }
}

fn symbol_of<'a>(tables: &'a [SymbolTable], e: &Indexed, bias: u64) -> Option<Symbol<'a>> {
    let table = tables.get(e.table as usize)?;
    table.symbol(table.entry(e.entry as usize)?, bias)
}

fn name_of<'a>(tables: &'a [SymbolTable], e: &Indexed) -> Option<&'a str> {
    symbol_of(tables, e, 0).map(|s| s.name)
}
