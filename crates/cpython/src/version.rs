//! CPython's version, patch level kept: object layouts drift within a minor version.

use std::fmt;

/// `PY_VERSION_HEX`: major, minor, micro, release level and serial (Include/patchlevel.h).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl Version {
    pub fn new(major: u8, minor: u8, micro: u8) -> Version {
        Version(u32::from_be_bytes([major, minor, micro, 0xf0]))
    }

    pub fn major(self) -> u8 {
        (self.0 >> 24) as u8
    }

    pub fn minor(self) -> u8 {
        (self.0 >> 16) as u8
    }

    pub fn micro(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Is `self` of the series `major.minor` or a later one? Patch level and release level aside.
    pub fn at_least(self, major: u8, minor: u8) -> bool {
        (self.major(), self.minor()) >= (major, minor)
    }

    /// Same major and minor version.
    pub fn same_series(self, other: Version) -> bool {
        self.0 >> 16 == other.0 >> 16
    }

    /// Could a CPython have said this? Guards words read out of foreign memory.
    pub fn plausible(self) -> bool {
        let level = (self.0 >> 4) & 0xf;
        matches!((self.major(), self.minor()), (2, 0..=7) | (3, 0..=63)) && matches!(level, 0xa..=0xc | 0xf)
    }

    /// Reads a version the way CPython spells it: `3.8.18`, `3.14.0rc1`, `2.7.18+`. `None` for
    /// anything else, longer texts that merely begin with a version included.
    pub fn parse(text: &str) -> Option<Version> {
        let text = text.trim_end_matches('+');
        let (numbers, level) = match text.find(['a', 'b', 'r', 'c']) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let mut parts = numbers.split('.').map(|p| p.parse::<u8>().ok());
        let (major, minor, micro) = (parts.next()??, parts.next()??, parts.next()??);
        if parts.next().is_some() {
            return None;
        }
        let digits = level.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let level = match &level[..level.len() - digits.len()] {
            "" => 0xf0,
            name => {
                let serial = digits.parse::<u8>().ok().filter(|s| *s < 16)?;
                serial
                    | match name {
                        "a" => 0xa0,
                        "b" => 0xb0,
                        "rc" | "c" => 0xc0,
                        _ => return None,
                    }
            }
        };
        Some(Version(u32::from_be_bytes([major, minor, micro, level]))).filter(|v| v.plausible())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major(), self.minor(), self.micro())?;
        let serial = self.0 & 0xf;
        match (self.0 >> 4) & 0xf {
            0xa => write!(f, "a{serial}"),
            0xb => write!(f, "b{serial}"),
            0xc => write!(f, "rc{serial}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_cpythons_spelling() {
        for (text, hex) in [
            ("3.8.18", 0x030812f0),
            ("3.14.0rc2", 0x030e00c2),
            ("3.15.0a1", 0x030f00a1),
            ("3.6.0b4", 0x030600b4),
            ("2.7.18", 0x020712f0),
        ] {
            let version = Version::parse(text).unwrap();
            assert_eq!(version.0, hex, "{text}");
            assert_eq!(version.to_string(), text);
            assert!(version.plausible());
        }
        assert_eq!(Version::parse("3.11.2+"), Some(Version::new(3, 11, 2)));
    }

    #[test]
    fn rejects_what_no_cpython_says() {
        for text in ["", "3", "3.8", "1.2.11", "3.8.18.1", "3.8.x", "3.8.1foo", "8.0.0", "3.8.1rc", "3.300.1"]
        {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        for hex in [0, 0x030b0710, 0x04000000, 0x636465] {
            assert!(!Version(hex).plausible(), "{hex:#x}");
        }
    }

    #[test]
    fn orders_by_series() {
        let v = Version::new(3, 9, 18);
        assert!(v.at_least(3, 9) && v.at_least(2, 7) && !v.at_least(3, 10));
        assert!(v.same_series(Version::new(3, 9, 0)) && !v.same_series(Version::new(3, 10, 18)));
    }
}
