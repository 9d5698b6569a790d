//! ELF images: the programs and libraries that are mapped into a target.

mod dynamic;
mod elf;
mod find;
mod parts;
mod symbols;

pub(crate) use elf::Headers as ElfHeaders;
pub use find::find_images;
pub(crate) use find::shown;
pub(crate) use parts::worth_keeping;

use crate::file::FileBytes;
use std::ops::Range;
use std::sync::OnceLock;
use symbols::{Index, SymbolTable};

/// An ELF file as it is mapped into the target.
#[derive(Default)]
pub struct Image {
    /// As the target names it.
    pub path: Vec<u8>,
    pub build_id: Option<Vec<u8>>,
    /// Run-time address minus address in the file.
    pub bias: u64,
    /// The loaded segments, run-time addresses, in address order.
    pub segments: Vec<Segment>,
    /// Named sections that have an address: run-time ranges. Empty without section headers.
    pub sections: Vec<(String, Range<u64>)>,
    /// `.dynsym`, then `.symtab`, undecoded: most images are never asked for a name.
    tables: Vec<SymbolTable>,
    index: OnceLock<Index>,
    /// The file, unless the image is known from the target's memory only.
    file: Option<FileBytes>,
    /// What of the file is loaded where: run-time range (`p_filesz` bytes) and offset in the file.
    loaded: Vec<(Range<u64>, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Run-time addresses, `.bss` tail included.
    pub range: Range<u64>,
    pub write: bool,
    pub exec: bool,
}

/// A function or an object of static storage. Thread-local and absolute symbols are left out: they
/// have no address in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    pub name: &'a str,
    /// Run-time address.
    pub addr: u64,
    /// Bytes; 0 when the file does not say.
    pub size: u64,
}

impl Image {
    /// An image made by hand, for tests: symbols are `(name, run-time address, size)`.
    pub fn synthetic(path: &str, segments: Vec<Segment>, symbols: &[(&str, u64, u64)]) -> Self {
        Image {
            path: path.into(),
            segments,
            tables: vec![SymbolTable::from_list(symbols)],
            ..Image::default()
        }
    }

    pub fn contains(&self, addr: u64) -> bool {
        self.segments.iter().any(|s| s.range.contains(&addr))
    }

    /// Address of the first symbol of that name, compiler suffixes such as `.lto_priv.0` ignored.
    pub fn symbol(&self, name: &str) -> Option<u64> {
        let exported = self.tables.iter().find_map(|t| t.lookup(name, self.bias));
        exported.or_else(|| self.symbols_named(name).next()).map(|s| s.addr)
    }

    /// Does the image export a symbol of that name, for others to link with?
    pub fn exports(&self, name: &str) -> bool {
        self.tables.iter().any(|table| table.lookup(name, self.bias).is_some())
    }

    /// All symbols of that name, compiler suffixes ignored: statics of several files may share one.
    /// Exact names first, each address once.
    pub fn symbols_named(&self, name: &str) -> impl Iterator<Item = Symbol<'_>> + use<'_> {
        let mut found: Vec<Symbol> = Vec::new();
        for table in &self.tables {
            for symbol in table.named(name, self.bias) {
                if !found.iter().any(|f| f.addr == symbol.addr) {
                    found.push(symbol);
                }
            }
        }
        found.sort_by_key(|s| s.name.len());
        found.into_iter()
    }

    /// All symbols, by address. The first call sorts them.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol<'_>> + use<'_> {
        self.index().iter(&self.tables, self.bias)
    }

    /// The symbol that `addr` lies in, and how far in.
    pub fn symbolize(&self, addr: u64) -> Option<(&str, u64)> {
        let segment = self.segments.iter().find(|s| s.range.contains(&addr))?;
        let symbol = self.index().covering(&self.tables, self.bias, addr)?;
        // A symbol without a size reaches to the next one, but not from another segment.
        segment.range.contains(&symbol.addr).then_some((symbol.name, addr - symbol.addr))
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| Index::new(&self.tables, self.bias))
    }

    /// The section's run-time range.
    pub fn section(&self, name: &str) -> Option<Range<u64>> {
        self.sections.iter().find(|(n, _)| n == name).map(|(_, r)| r.clone())
    }

    /// Writable segments: `.data`, `.bss`, relocated read-only data.
    pub fn writable(&self) -> impl Iterator<Item = Range<u64>> {
        self.segments.iter().filter(|s| s.write).map(|s| s.range.clone())
    }

    /// The whole file, where it could be had.
    pub(crate) fn file(&self) -> Option<&FileBytes> {
        self.file.as_ref()
    }

    /// What the file holds from run-time address `addr` on, to the end of the segment's `p_filesz`:
    /// the target's bytes only where it cannot have written. `None` outside, or without the file.
    pub fn file_bytes(&self, addr: u64) -> Option<&[u8]> {
        let (range, offset) = self.loaded.iter().find(|(range, _)| range.contains(&addr))?;
        let at = offset.checked_add(addr - range.start)?;
        let end = offset.checked_add(range.end - range.start)?;
        let bytes = self.file.as_ref()?.clipped(at..end);
        (!bytes.is_empty()).then_some(bytes)
    }

    /// What the program found at `addr` when it was loaded, where that is no address: the file's bytes, and zeroes
    /// behind them. `None` outside, or without the file.
    pub fn first_word(&self, addr: u64) -> Option<u64> {
        self.segments.iter().find(|segment| segment.range.contains(&addr))?;
        self.file.as_ref()?;
        if !self.loaded.iter().any(|(range, _)| range.contains(&addr)) {
            return Some(0);
        }
        Some(u64::from_le_bytes(*self.file_bytes(addr)?.first_chunk()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(range: Range<u64>, write: bool) -> Segment {
        Segment { range, write, exec: !write }
    }

    fn image() -> Image {
        let segments = vec![segment(0x1000..0x2000, false), segment(0x3000..0x4000, true)];
        Image::synthetic(
            "/lib/x.so",
            segments,
            &[
                ("main", 0x1100, 0x20),
                ("helper.part.0", 0x1120, 0x10),
                ("state.lto_priv.0", 0x3010, 8),
                ("state", 0x3000, 8),
                ("states", 0x3020, 8),
                ("label", 0x1200, 0),
            ],
        )
    }

    #[test]
    fn names_are_found_without_compiler_suffixes() {
        let image = image();
        assert_eq!(image.symbol("helper"), Some(0x1120));
        assert_eq!(image.symbol("state"), Some(0x3000));
        assert_eq!(image.symbol("stat"), None);
        let states: Vec<u64> = image.symbols_named("state").map(|s| s.addr).collect();
        assert_eq!(states, [0x3000, 0x3010]);
    }

    #[test]
    fn addresses_are_named() {
        let image = image();
        assert_eq!(image.symbolize(0x111f), Some(("main", 0x1f)));
        assert_eq!(image.symbolize(0x1120), Some(("helper.part.0", 0)));
        assert_eq!(image.symbolize(0x1130), None, "past the end of a sized symbol");
        assert_eq!(image.symbolize(0x1fff), Some(("label", 0xdff)), "unsized ones reach on");
        assert_eq!(image.symbolize(0x3018), None);
        assert_eq!(image.symbolize(0x2800), None);
        let by_address: Vec<u64> = image.symbols().map(|s| s.addr).collect();
        assert_eq!(by_address, [0x1100, 0x1120, 0x1200, 0x3000, 0x3010, 0x3020]);
    }
}
