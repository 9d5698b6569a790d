//! What nobody has: it stays unknown, grouped by what can be seen in it.

use super::{Native, file_name};
use crate::kinds::{Domain, Sure};
use rustc_hash::FxHashMap;
use wmr_alloc::Block;
use wmr_memory::Reader;

/// Shortest text that is taken for some: shorter runs of printable bytes are numbers at times.
const MIN_TEXT: usize = 8;
const MAX_TEXT: usize = 64 << 10;
/// malloc and pymalloc round up to 16; a chunk has at least 24 bytes.
const SLACK: u64 = 24;
/// Words that are looked at for an image's address.
const MAX_WORDS: u64 = 32;

/// Blocks of one size that are many are told by that size: so much of one kind is one thing.
const MANY: u32 = 16;

enum Seen {
    Text,
    Wide,
    Image(u64),
    Nothing,
}

impl Native<'_> {
    pub(super) fn describe_the_rest(&mut self) {
        let found = self.ask_unnamed(|reader, block| {
            if let Some(text) = text_in(reader, block) {
                return Some(text);
            }
            let words = (block.usable / 8).min(MAX_WORDS);
            let address = (0..words).find_map(|i| {
                let word = reader.u64(block.start + 8 * i).ok()?;
                self.images.at(word).map(|(image, _)| image.segments.first())?.map(|_| word)
            });
            Some(address.map_or(Seen::Nothing, Seen::Image))
        });
        let mut sizes: FxHashMap<u64, u32> = FxHashMap::default();
        for (block, seen) in &found {
            if matches!(seen, Seen::Image(_) | Seen::Nothing) {
                *sizes.entry(self.blocks.bytes(*block)).or_default() += 1;
            }
        }
        for (block, seen) in found {
            let bytes = self.blocks.bytes(block);
            let size = size_group(bytes, sizes.get(&bytes).is_some_and(|count| *count >= MANY));
            let (kind, detail, sure) = match seen {
                Seen::Text => ("string data", String::new(), Sure::Guess),
                Seen::Wide => ("wide string data", String::new(), Sure::Guess),
                Seen::Nothing => ("unknown", size, Sure::Exact),
                Seen::Image(at) => match self.images.at(at) {
                    Some((image, _)) => {
                        let detail = format!("{size}, with addresses of {}", file_name(image));
                        ("unknown", detail, Sure::Exact)
                    }
                    None => ("unknown", size, Sure::Exact),
                },
            };
            let kind = self.census.kinds.intern(Domain::Unknown, kind, &detail, sure);
            self.set(block, kind);
        }
    }
}

/// `of 1008 B`, `of 1 to 2 KiB`.
fn size_group(bytes: u64, many: bool) -> String {
    if many {
        return format!("of {bytes} B");
    }
    match bytes.max(1).ilog2() {
        0..6 => "below 64 B".to_owned(),
        n @ 6..10 => format!("of {} to {} B", 1u64 << n, 1u64 << (n + 1)),
        n @ 10..20 => format!("of {} to {} KiB", 1u64 << (n - 10), 1u64 << (n - 9)),
        n => format!("of {} to {} MiB", 1u64 << (n - 20), 1u64 << (n - 19)),
    }
}

/// Text that ends with a zero and fills the block.
fn text_in(reader: &mut Reader, block: Block) -> Option<Seen> {
    let size = usize::try_from(block.usable).ok().filter(|n| *n <= MAX_TEXT)?;
    let mut scratch = Vec::new();
    let bytes = reader.window(block.start, size, &mut scratch).ok()?;
    let fills = |used: usize| size.saturating_sub(used) < SLACK as usize;
    if let Some(end) = bytes.iter().position(|b| *b == 0)
        && end >= MIN_TEXT
    {
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        return (fills(end + 1) && !text.chars().any(is_control)).then_some(Seen::Text);
    }
    // wchar_t: four bytes each.
    let wide = bytes.as_chunks::<4>().0;
    let end = wide.iter().position(|c| *c == [0; 4])?;
    let text =
        wide[..end].iter().all(|c| char::from_u32(u32::from_le_bytes(*c)).is_some_and(|c| !is_control(c)));
    (end >= MIN_TEXT && fills(4 * end + 4) && text).then_some(Seen::Wide)
}

fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\r')
}
