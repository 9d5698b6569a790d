//! Findings that were accepted before.

use crate::failure::{Failure, code};
use crate::text::shown;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Signatures of accepted findings: the first word of each line; what follows is a comment, as is `#`.
pub fn read(path: &Path) -> Result<HashSet<String>, Failure> {
    /// More is no list of findings.
    const MOST: u64 = 16 << 20;
    let shown = shown(&path.to_string_lossy());
    let failure = |why: String| Failure::new(code::FAILED, format!("cannot read {shown}: {why}"));
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| failure(error.to_string()))?;
    file.take(MOST + 1).read_to_end(&mut text).map_err(|error| failure(error.to_string()))?;
    if text.len() as u64 > MOST {
        return Err(failure("it is no list of signatures".to_owned()));
    }
    let text = String::from_utf8_lossy(&text);
    let words = text.lines().filter_map(|line| line.split_whitespace().next());
    Ok(words.filter(|word| !word.starts_with('#')).map(str::to_owned).collect())
}
