//! Which malloc a process uses, by the images that are mapped.

use wmr_memory::Image;

/// The malloc of a process, as its images name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allocator {
    Glibc,
    Musl,
    Jemalloc,
    Tcmalloc,
    Mimalloc,
    /// AddressSanitizer's.
    Asan,
    /// Another that defines `malloc`: the image's file name.
    Other(String),
    /// No image defines `malloc`.
    Unknown,
}

impl std::fmt::Display for Allocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Allocator::Glibc => "glibc",
            Allocator::Musl => "musl",
            Allocator::Jemalloc => "jemalloc",
            Allocator::Tcmalloc => "tcmalloc",
            Allocator::Mimalloc => "mimalloc",
            Allocator::Asan => "AddressSanitizer",
            Allocator::Other(name) => name,
            Allocator::Unknown => "unknown",
        })
    }
}

/// Symbols only one malloc has. Looked for in images that define `malloc` and are no libc: CPython
/// carries mimalloc's functions, pyarrow a prefixed jemalloc, and neither replaces malloc by that.
const SIGNS: [(&str, Allocator); 5] = [
    ("mallctl", Allocator::Jemalloc),
    ("tc_malloc", Allocator::Tcmalloc),
    ("TCMallocInternalMalloc", Allocator::Tcmalloc),
    ("mi_malloc", Allocator::Mimalloc),
    ("__asan_init", Allocator::Asan),
];

/// Is this glibc, in a library or linked into the program?
pub(crate) fn is_glibc(image: &Image) -> bool {
    image.symbol("gnu_get_libc_version").is_some_and(|addr| image.contains(addr)) || {
        let name = file_name(image);
        name.starts_with(b"libc.so.6") || name.starts_with(b"libc-2.")
    }
}

fn file_name(image: &Image) -> &[u8] {
    image.path.rsplit(|&b| b == b'/').next().unwrap_or_default()
}

/// The malloc a process uses. A replacement that defines `malloc` comes before the libc's own.
pub fn allocator(images: &[Image]) -> Allocator {
    let mut libc = Allocator::Unknown;
    for image in images {
        let name = file_name(image);
        if is_glibc(image) {
            libc = Allocator::Glibc;
            continue;
        }
        if name.starts_with(b"ld-musl") || name.starts_with(b"libc.musl") {
            libc = Allocator::Musl;
            continue;
        }
        // The loader's own, used until libc's is there.
        let loader = name.starts_with(b"ld-") || name.starts_with(b"ld.so");
        if loader || !image.symbol("malloc").is_some_and(|addr| image.contains(addr)) {
            continue;
        }
        return SIGNS
            .into_iter()
            .find(|(sign, _)| image.symbol(sign).is_some())
            .map(|(_, allocator)| allocator)
            .unwrap_or_else(|| Allocator::Other(String::from_utf8_lossy(name).into_owned()));
    }
    libc
}
