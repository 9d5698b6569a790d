//! SQLite: what connections and statements lead to.
//!
//! Its blocks begin with their size, and pointers lead behind that (`sqlite3MemMalloc`): where a pointer
//! leads 8 bytes into a block that states its own size, both agree by no chance.

use super::Native;
use crate::kinds::{Domain, Sure};
use crate::marks::Mark;
use wmr_alloc::Block;
use wmr_cpython::model::Model;
use wmr_memory::Reader;

/// The types of module `sqlite3`, whatever part of it a version names.
const OWNERS: &[(&str, &str)] = &[
    ("sqlite3.Connection", "sqlite connection"),
    ("sqlite3.Statement", "sqlite statement"),
    ("_sqlite3.Statement", "sqlite statement"),
];
const SIZE_WORD: u64 = 8;
/// malloc rounds up to 16, and gives 8 bytes of the next chunk.
const SLACK: u64 = 24;
/// A page's header comes behind the page, whose size is a power of two in this range.
const PAGE_BITS: std::ops::RangeInclusive<u32> = 9..=16;
/// Bytes of a block that are looked at: tables of the schema are small.
const MAX_SCAN: u64 = 1 << 20;

impl Native<'_> {
    pub(super) fn name_sqlite(&mut self, model: &Model) {
        let types = &self.census.types;
        let owner = |id: u32| {
            let mut bases = crate::census::bases(types, id as usize);
            bases.find_map(|ty| OWNERS.iter().find(|(name, _)| *name == ty.name))
        };
        let is_owner: Vec<Option<&str>> =
            (0..types.len() as u32).map(|id| owner(id).map(|(_, kind)| *kind)).collect();
        if is_owner.iter().all(Option::is_none) {
            return;
        }
        let owner_of = |mark: Mark| is_owner.get(mark.as_object()? as usize).copied().flatten();
        let objects = self.census.listed(|mark| owner_of(mark).is_some());
        let mut reader = self.target.reader();
        let mut level = Vec::new();
        for block in objects {
            let mark = self.census.mark(block);
            let (Some(id), Some(name)) = (mark.as_object(), owner_of(mark)) else { continue };
            let at = self.blocks.block(block);
            let shape = self.census.types[id as usize].shape;
            let object = model.unpad(&mut reader, at.start, at.usable).data + u64::from(shape.presize);
            let kind = self.intern(Domain::Native, name, Sure::Owner);
            for offset in (model.layout.object.size..u64::from(shape.basicsize).min(512)).step_by(8) {
                let Ok(word) = reader.u64(object.wrapping_add(offset)) else { break };
                if let Some(found) = self.sized_block(&mut reader, word) {
                    self.set(found, kind);
                    level.push(found);
                    break;
                }
            }
        }
        // The cache's table leads to the headers behind the pages, not to blocks.
        let pages = self.ask_unnamed(|reader, block| {
            self.sized_block(reader, block.start + SIZE_WORD)?;
            holds_page(reader, block).then_some(())
        });
        let page = self.intern(Domain::Native, "sqlite page cache", Sure::Signature);
        for (block, ()) in pages {
            self.set(block, page);
        }
        let data = self.intern(Domain::Native, "sqlite data", Sure::Owner);
        let mut other = self.target.reader();
        // Each round names what it goes on from: it ends when nothing is left to be named.
        while let Some(block) = level.pop() {
            let block = self.blocks.block(block);
            for at in (SIZE_WORD..block.usable.min(MAX_SCAN)).step_by(8) {
                let Ok(word) = reader.u64(block.start + at) else { break };
                if let Some(found) = self.sized_block(&mut other, word) {
                    self.set(found, data);
                    level.push(found);
                }
            }
        }
    }

    /// The unnamed block that states its size and that `word` points behind that.
    fn sized_block(&self, reader: &mut Reader, word: u64) -> Option<u32> {
        let start = word.checked_sub(SIZE_WORD).filter(|start| start.is_multiple_of(16))?;
        let id = self.blocks.at(start).filter(|id| self.census.mark(*id).is_none())?;
        let size = reader.u64(start).ok()?;
        let end = size.checked_add(SIZE_WORD)?;
        let usable = self.blocks.usable(id);
        (size > 0 && size.is_multiple_of(8) && end <= usable && usable - end < SLACK).then_some(id)
    }
}

/// Is it a page, with a header behind it that points to it?
fn holds_page(reader: &mut Reader, block: Block) -> bool {
    let page = block.start + SIZE_WORD;
    let end = block.start.saturating_add(block.usable);
    // `PgHdr1`: the page, then the other header, which is behind this one.
    let headers = PAGE_BITS.map(|bits| page.saturating_add(1 << bits));
    headers.take_while(|header| header.saturating_add(16) <= end).any(|header| {
        reader.u64(header) == Ok(page)
            && reader.u64(header.wrapping_add(8)).is_ok_and(|extra| {
                extra > header && extra - block.start < block.usable && extra - header <= 128
            })
    })
}
