//! Extension types whose `sys.getsizeof` cannot be right, told by the blocks their objects sit in.
//!
//! A C type that inherits `object.__sizeof__` says `tp_basicsize` + |`ob_size`| × `tp_itemsize`. That is
//! too much when it has an item size and no `ob_size`, and too little when it allocates more than its
//! basic size or keeps memory elsewhere. A type with a `__sizeof__` of its own is believed: to ask it
//! would be to run it.

use crate::claims::NOBODY;
use crate::inspect::Inspection;
use crate::kinds::Domain;
use rayon::prelude::*;
use wmr_cpython::dicts;
use wmr_cpython::family::Family;
use wmr_cpython::model::{Model, flags};
use wmr_cpython::object::{Room, room};
use wmr_cpython::sizes::sizeof;
use wmr_cpython::strings::read_text;
use wmr_cpython::types::Type;
use wmr_memory::{Reader, Target};

/// Entries of a type's namespace that are looked through for `__sizeof__`.
const MAX_NAMESPACE: u64 = 1 << 16;

/// A type whose claim cannot be right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Misstated {
    pub name: String,
    pub addr: u64,
    /// Objects of the type.
    pub count: u64,
    /// What `sys.getsizeof` says of all of them; saturates.
    pub sizeof: u64,
    /// Bytes of the blocks they sit in.
    pub bytes: u64,
    /// Bytes of further blocks they alone point at.
    pub held: u64,
    /// Objects that claim more than their block has.
    pub too_much: u64,
    /// Objects in a block that was made for more than they claim.
    pub too_little: u64,
}

impl Inspection {
    /// Every extension type whose `getsizeof` cannot be right, those with most memory first.
    pub fn misstated(&self, target: &Target) -> Vec<Misstated> {
        let Some(model) = &self.model else { return Vec::new() };
        let types = &self.census.types;
        let mut reader = target.reader();
        let judged: Vec<bool> = (0..types.len()).map(|i| self.is_judged(model, &mut reader, i)).collect();
        let mut rows = self.compare_with_blocks(target, model, &judged);
        for (block, owner) in self.census.owned() {
            let kind = self.census.mark(block).as_kind();
            if kind.is_some_and(|kind| self.census.kinds.get(kind).domain == Domain::Native)
                && owner != NOBODY
                && let Some(ty) = self.census.mark(owner).as_object()
                && judged[ty as usize]
            {
                rows[ty as usize].held += self.blocks.bytes(block);
            }
        }
        for (row, ty) in rows.iter_mut().zip(types) {
            row.name.clone_from(&ty.name);
            row.addr = ty.addr;
        }
        rows.retain(|row| row.held > 0 || row.too_much > 0 || row.too_little > 0);
        rows.sort_by(|a, b| (b.bytes + b.held).cmp(&(a.bytes + a.held)).then_with(|| a.name.cmp(&b.name)));
        rows
    }

    /// By type: claims against blocks.
    fn compare_with_blocks(&self, target: &Target, model: &Model, judged: &[bool]) -> Vec<Misstated> {
        let none = || vec![Misstated::default(); judged.len()];
        (0..self.blocks.spans().len())
            .into_par_iter()
            .fold(none, |mut rows, span| {
                let mut reader = target.reader();
                for block in self.blocks.iter_span(span) {
                    let Some(ty) = self.census.mark(block.id).as_object() else { continue };
                    if !judged[ty as usize] {
                        continue;
                    }
                    let Some((object, allocation)) = self.object_in(model, &mut reader, block) else {
                        continue;
                    };
                    let claim = sizeof(model, &mut reader, &object).unwrap_or(u64::MAX);
                    let row = &mut rows[ty as usize];
                    row.count += 1;
                    row.sizeof = row.sizeof.saturating_add(claim);
                    row.bytes += block.bytes;
                    match room(claim, u64::from(object.shape.itemsize), allocation, self.source(span, block))
                    {
                        Room::Enough => {}
                        Room::TooLittle => row.too_much += 1,
                        Room::TooMuch => row.too_little += 1,
                    }
                }
                rows
            })
            .reduce(none, |mut a, b| {
                a.iter_mut().zip(b).for_each(|(a, b)| a.add(&b));
                a
            })
    }

    /// Is it a type laid out in C, not one of the interpreter's own, that inherits `__sizeof__`? The
    /// interpreter's point at what is not theirs to count: a capsule's content.
    fn is_judged(&self, model: &Model, reader: &mut Reader, index: usize) -> bool {
        let ty = &self.census.types[index];
        ty.shape.family == Family::Plain
            && !matches!(ty.module.as_str(), "builtins" | "__builtin__")
            // Values inside the instance (3.13+) are the interpreter's, which does not count them.
            && ty.shape.flags & flags::INLINE_VALUES == 0
            && self.census.is_c_type(index)
            && !has_sizeof(model, reader, &self.census.types, index)
    }
}

impl Misstated {
    fn add(&mut self, other: &Misstated) {
        self.count += other.count;
        self.sizeof = self.sizeof.saturating_add(other.sizeof);
        self.bytes += other.bytes;
        self.too_much += other.too_much;
        self.too_little += other.too_little;
    }
}

/// Does a type or one of its bases, `object` aside, define `__sizeof__`?
fn has_sizeof(model: &Model, reader: &mut Reader, types: &[Type], first: usize) -> bool {
    for ty in crate::census::bases(types, first) {
        if ty.base.is_none() && ty.name == "object" {
            break;
        }
        let dict = reader.u64(ty.addr.wrapping_add(model.layout.type_object.tp_dict)).unwrap_or(0);
        let mut found = false;
        let read = dicts::for_each_entry(model, reader, dict, MAX_NAMESPACE, &mut |reader, key, _| {
            // One character more than needed tells it from what begins with it.
            found = read_text(model, reader, key, 11).as_deref() == Some("__sizeof__");
            !found
        });
        // What cannot be read is not accused.
        if found || read.is_none() {
            return true;
        }
    }
    false
}
