//! Findings that were accepted before.

use crate::failure::{Failure, code};
use crate::text::shown;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The signatures in a file of accepted findings.
#[derive(Debug, Default)]
pub struct Known {
    signatures: HashSet<String>,
    /// Lines that begin with no signature.
    odd: usize,
    file: String,
}

/// Hexadecimal digits of a signature.
const DIGITS: usize = 16;

/// The first word of each line is a signature; what follows is a comment, as is `#`.
pub fn read(path: &Path) -> Result<Known, Failure> {
    /// More is no list of findings.
    const MOST: u64 = 16 << 20;
    let file = shown(&path.to_string_lossy());
    let failure = |why: &str| {
        Failure::new(code::FAILED, format!("cannot read {file}: {why}")).advise(
            "it has a signature on each line, as wmr leaks TARGET prints them; what follows is a comment",
        )
    };
    let mut text = Vec::new();
    let input = File::open(path).map_err(|error| failure(&error.to_string()))?;
    input.take(MOST + 1).read_to_end(&mut text).map_err(|error| failure(&error.to_string()))?;
    if text.len() as u64 > MOST {
        return Err(failure("it is too large for a list of signatures"));
    }
    let mut known = Known::of(&String::from_utf8_lossy(&text));
    if known.signatures.is_empty() && known.odd > 0 {
        return Err(failure("it is no list of signatures"));
    }
    known.file = file;
    Ok(known)
}

impl Known {
    fn of(text: &str) -> Known {
        let mut known = Known::default();
        let words = text.lines().filter_map(|line| line.split_whitespace().next());
        for word in words.filter(|word| !word.starts_with('#')) {
            if word.len() == DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                known.signatures.insert(word.to_ascii_lowercase());
            } else {
                known.odd += 1;
            }
        }
        known
    }

    pub fn contains(&self, signature: &str) -> bool {
        self.signatures.contains(signature)
    }

    /// What is to be said of the file: lines that are no signatures, and signatures that were not met.
    pub fn notes(&self, met: usize) -> Vec<String> {
        let mut notes = Vec::new();
        if self.odd > 0 {
            notes.push(format!("{}: {} begin with no signature and were left out", self.file, self.odd));
        }
        let unmet = self.signatures.len().saturating_sub(met);
        if unmet > 0 {
            notes.push(format!(
                "{}: {unmet} of {} signatures are not among the findings",
                self.file,
                self.signatures.len()
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_signatures_are_counted() {
        let known =
            Known::of("# all\n0123456789abcdef from the cache\n\n\u{1}\u{fffd}\n0123456789ABCDEE\nshort\n");
        assert!(known.contains("0123456789abcdef") && known.contains("0123456789abcdee"));
        assert_eq!((known.signatures.len(), known.odd), (2, 2));
        assert_eq!(known.notes(2).len(), 1);
        assert_eq!(known.notes(1).len(), 2);
    }
}
