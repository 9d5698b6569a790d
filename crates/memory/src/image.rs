use std::ops::Range;

/// An ELF file as it is mapped into the target.
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
    /// From `.dynsym` and `.symtab`, run-time addresses, sorted by address.
    pub symbols: Vec<Symbol>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Run-time addresses, `.bss` tail included.
    pub range: Range<u64>,
    pub write: bool,
    pub exec: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    pub name: String,
    pub addr: u64,
    pub size: u64,
}

impl Image {
    pub fn contains(&self, addr: u64) -> bool {
        self.segments.iter().any(|s| s.range.contains(&addr))
    }

    /// Address of the first symbol of that name, compiler suffixes such as `.lto_priv.0` ignored.
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols_named(name).next().map(|s| s.addr)
    }

    /// All symbols of that name: statics of several files may share one.
    pub fn symbols_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Symbol> {
        self.symbols.iter().filter(move |s| plain_name(&s.name) == name)
    }

    /// The section's run-time range.
    pub fn section(&self, name: &str) -> Option<Range<u64>> {
        self.sections.iter().find(|(n, _)| n == name).map(|(_, r)| r.clone())
    }

    /// Writable segments: `.data`, `.bss`, relocated read-only data.
    pub fn writable(&self) -> impl Iterator<Item = Range<u64>> {
        self.segments.iter().filter(|s| s.write).map(|s| s.range.clone())
    }
}

/// `obmalloc_state_main.lto_priv.0` → `obmalloc_state_main`: link-time optimisation renames locals.
fn plain_name(name: &str) -> &str {
    // .lto_priv.N, .constprop.N, .isra.N, .part.N, .cold; a C name has no dot of its own.
    name.split_once('.').map_or(name, |(plain, _)| plain)
}
