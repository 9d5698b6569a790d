//! The committed layout tables and which CPython each describes.

use crate::layout::{Layout, LayoutError};
use crate::version::Version;
use std::sync::OnceLock;

/// One committed table. Py_DEBUG builds have interpreter and thread states of their own.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub major: u8,
    pub minor: u8,
    pub debug: bool,
    text: &'static str,
}

macro_rules! tables {
    ($($major:literal . $minor:literal $debug:literal $file:literal),* $(,)?) => {
        /// Every table, oldest first.
        pub const KNOWN: &[Known] = &[$(Known {
            major: $major,
            minor: $minor,
            debug: $debug,
            text: include_str!(concat!("../layouts/", $file)),
        }),*];
    };
}

tables! {
    2 . 7 false "2.7.txt",
    3 . 6 false "3.6.txt",
    3 . 7 false "3.7.txt",
    3 . 8 false "3.8.txt",
    3 . 9 false "3.9.txt",
    3 . 10 false "3.10.txt",
    3 . 11 false "3.11.txt",
    3 . 11 true "3.11d.txt",
    3 . 12 false "3.12.txt",
    3 . 13 false "3.13.txt",
    3 . 13 true "3.13d.txt",
    3 . 14 false "3.14.txt",
    3 . 14 true "3.14d.txt",
    3 . 15 false "3.15.txt",
}

/// Every table, parsed once a process. A damaged one would be left out; a test rules that out.
pub fn loaded() -> &'static [(&'static Known, Layout)] {
    static LOADED: OnceLock<Vec<(&'static Known, Layout)>> = OnceLock::new();
    LOADED.get_or_init(|| KNOWN.iter().filter_map(|known| Some((known, known.layout().ok()?))).collect())
}

impl Known {
    /// # Errors
    /// A damaged table, which a test of this crate rules out.
    pub fn layout(&self) -> Result<Layout, LayoutError> {
        Layout::new(self.text)
    }

    pub fn describes(&self, version: Version) -> bool {
        (self.major, self.minor) == (version.major(), version.minor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_embedded() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("layouts");
        let mut on_disk: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut embedded: Vec<_> = KNOWN
            .iter()
            .map(|k| format!("{}.{}{}.txt", k.major, k.minor, if k.debug { "d" } else { "" }))
            .collect();
        on_disk.sort();
        embedded.sort();
        assert_eq!(on_disk, embedded);
        for known in KNOWN {
            known.layout().unwrap();
        }
    }
}
