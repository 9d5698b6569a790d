//! References of XML elements, whose attributes and children are in a block of their own.

use super::Strength::Strong;
use super::{At, Give};
use crate::model::Model;
use wmr_memory::Reader;

pub fn children(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let (element, extra) = (model.layout.element?, model.layout.element_extra?);
    for (at, label) in [(element.text, "text"), (element.tail, "tail")] {
        // Marked in the low bit while it is a list that nobody joined yet (`JOIN_GET`, `_elementtree.c`).
        let word = reader.u64(addr.wrapping_add(at)).ok()?;
        give(word & !1, Strong, At::Field(label));
    }
    let block = reader.u64(addr.wrapping_add(element.extra)).ok()?;
    if block == 0 {
        return Some(());
    }
    give(reader.u64(block.wrapping_add(extra.attrib)).ok()?, Strong, At::Field("attrib"));
    // 2.7 counts in ints.
    let word = if extra.allocated - extra.length == 4 { u64::from(u32::MAX) } else { u64::MAX };
    let length = reader.u64(block.wrapping_add(extra.length)).ok()? & word;
    let room = reader.u64(block.wrapping_add(extra.allocated)).ok()? & word;
    let items = reader.u64(block.wrapping_add(extra.children)).ok()?;
    for i in 0..length.min(room) {
        give(reader.u64(items.wrapping_add(8 * i)).ok()?, Strong, At::Item(i));
    }
    Some(())
}
