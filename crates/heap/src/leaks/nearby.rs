//! Who allocated it? What was allocated at the same time lies close by.

use crate::Inspection;
use crate::kinds::Domain;
use rustc_hash::FxHashMap;
use wmr_memory::Target;

/// Blocks that are looked at on each side of one.
const NEIGHBOURS: u32 = 3;

/// What lies around most of the blocks, if it is the same around most: a type or kind that is not theirs.
pub(super) fn around(inspection: &Inspection, blocks: &[u32]) -> Option<String> {
    let count = inspection.blocks.len();
    let mut seen: FxHashMap<String, u32> = FxHashMap::default();
    for &block in blocks {
        let own = inspection.census.mark(block);
        let near = block.saturating_sub(NEIGHBOURS)..count.min(block.saturating_add(NEIGHBOURS + 1));
        let mut names: Vec<String> = near
            .filter(|&id| id != block && inspection.census.mark(id) != own)
            .filter_map(|id| name(inspection, id))
            .collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            *seen.entry(name).or_default() += 1;
        }
    }
    let (name, times) = seen.into_iter().max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(&a.0)))?;
    (blocks.len() > 1 && times as usize * 3 >= blocks.len() * 2).then_some(name)
}

fn name(inspection: &Inspection, block: u32) -> Option<String> {
    let mark = inspection.census.mark(block);
    if let Some(ty) = mark.as_object() {
        return Some(inspection.census.types.get(ty as usize)?.name.clone());
    }
    let kind = inspection.census.kinds.get(mark.as_kind()?);
    (kind.domain == Domain::Native).then(|| kind.kind.clone())
}

/// What a block looks like, in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    /// Begins with text: so much of it.
    Text(String),
    Zeroes,
    /// One byte again and again.
    Fill(u8),
    Other,
}

impl Content {
    /// Without the text itself.
    pub(super) fn sort(&self) -> Content {
        match self {
            Content::Text(_) => Content::Text(String::new()),
            other => other.clone(),
        }
    }
}

/// Bytes that are looked at.
const LOOK_AT: u64 = 64;
const LEAST_TEXT: usize = 6;

/// What the block at `start` begins with.
pub(super) fn content(target: &Target, start: u64, usable: u64) -> Content {
    let mut bytes = vec![0; usable.min(LOOK_AT) as usize];
    if target.reader().read(start, &mut bytes).is_err() {
        return Content::Other;
    }
    let Some(&first) = bytes.first() else { return Content::Other };
    if bytes.iter().all(|&byte| byte == first) {
        return if first == 0 { Content::Zeroes } else { Content::Fill(first) };
    }
    // Pointers may pass for text, and end one.
    let is_address = |word: &[u8; 8]| target.mapping(u64::from_le_bytes(*word)).is_some();
    for run in bytes.as_chunks::<8>().0.split(is_address) {
        let run = run.as_flattened();
        // Text may stand behind a length or two.
        for at in (0..run.len()).step_by(8) {
            let end = run[at..].iter().position(|&byte| byte == 0).unwrap_or(run.len() - at);
            let Ok(text) = std::str::from_utf8(&run[at..at + end]) else { continue };
            if end >= LEAST_TEXT && !text.chars().any(char::is_control) {
                return Content::Text(text.to_owned());
            }
        }
    }
    Content::Other
}

#[cfg(test)]
mod tests {
    use super::*;
    use wmr_memory::synthetic::SyntheticMemory;
    use wmr_memory::{Mapping, Perms};

    #[test]
    fn addresses_are_no_text_and_end_one() {
        let heap = 0x557c_85ce_4000;
        let perms = Perms { read: true, write: true, ..Perms::default() };
        let mapping = Mapping { start: heap, end: heap + 4096, perms, ..Mapping::default() };
        let seen = |words: [u64; 4]| {
            let mut memory = SyntheticMemory::new();
            memory.map(heap, words.iter().flat_map(|word| word.to_le_bytes()).collect());
            content(&memory.into_target(vec![mapping.clone()], Vec::new()), heap, 32)
        };
        let address = heap + 0x850;
        assert!(std::str::from_utf8(&address.to_le_bytes()[..6]).is_ok(), "it passes for text");
        assert_eq!(seen([address, 0, address, 1]), Content::Other);
        let text = u64::from_le_bytes(*b"sessions");
        assert_eq!(seen([3, text, address, 0]), Content::Text("sessions".to_owned()));
    }
}
