//! References in blocks that extension types own: attributes and children of XML elements, rings.

use super::Strength::Strong;
use super::containers::Came;
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

/// Items of a ring from its first position on, through the end of its room.
pub fn ring(reader: &mut Reader, addr: u64, field: u64, at: [u32; 3], give: Give) -> Option<()> {
    let items = reader.u64(field).ok()?;
    let mut fact = |at: u32| reader.u64(addr.wrapping_add(u64::from(at))).ok();
    let (first, room, count) = (fact(at[0])?, fact(at[1])?, fact(at[2])?);
    if first >= room {
        return None;
    }
    for i in 0..count.min(room) {
        let slot = if i < room - first { first + i } else { i - (room - first) };
        give(reader.u64(items.wrapping_add(slot.wrapping_mul(8))).ok()?, Strong, At::Item(i));
    }
    Some(())
}

/// Links of a chain that begins and ends at the object itself, each beginning alike.
pub fn links(reader: &mut Reader, addr: u64, field: u64, give: Give) -> Option<()> {
    let at = field.wrapping_sub(addr);
    let mut link = reader.u64(field).ok()?;
    let mut came = Came::default();
    let mut i = 0;
    while link != 0 && link != addr && !came.round(link) {
        give(link, Strong, At::Item(i));
        link = reader.u64(link.wrapping_add(at)).ok()?;
        i += 1;
    }
    Some(())
}
