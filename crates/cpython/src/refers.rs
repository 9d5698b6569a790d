//! What an object refers to: its own fields and the blocks it owns, exact by type.
//!
//! Structures whose fields are all known are data (`refers/records.rs`); containers, frames and types
//! have rules of their own, and classes say in `tp_members` where their slots are. The words of a C type
//! that nothing declares are looked at one by one: what points at an object there may be a reference.

mod containers;
mod elements;
mod fields;
pub(crate) mod frames;
mod hidden;
mod instances;
mod keys;
mod label;
mod ndarray;
mod parts;
mod records;
mod types;

pub use fields::{Described, Fields};
pub use label::{Label, Name, Via, closure_label, closure_name, label};
pub use ndarray::unaligned_items;
pub use parts::{may_have_parts, parts};
pub use records::{Held, Many, resolve};

use crate::family::Family;
use crate::model::Model;
use crate::object::Object;
use crate::types::Shape;
use wmr_memory::Reader;

/// Does the reference keep its object alive?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    Strong,
    /// It leads there and is not counted: another reference is relied upon meanwhile.
    Borrowed,
    Weak,
    /// A word that nothing declares points at an object.
    Maybe,
}

/// One reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// The object referred to.
    pub addr: u64,
    pub strength: Strength,
    pub at: At,
}

/// Where in its object a reference is: enough to name it when somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// `ob_type`, which instances of heap types keep alive.
    Type,
    Field(&'static str),
    /// Offset of a word that `tp_members` declares: `__slots__`, and members of C types.
    Slot(u32),
    Item(u64),
    /// Entry of a dict's table; of a type, of the table its instances share.
    Key(u64),
    Value(u64),
    /// Offset of a value with its key in the word before it.
    Paired(u32),
    /// Position in the table of a set.
    Element(u64),
    /// Position in the order an OrderedDict keeps beside its table.
    Order(u64),
    /// Position among the names that instances of a class share.
    Attribute(u32),
    /// Local variable, cell or free variable of a frame.
    Local(u32),
    /// Position on a frame's stack of values.
    Stack(u32),
    /// Offset of a word that nothing declares.
    Hidden(u32),
    /// Offset in the state of a module.
    State(u32),
}

/// Takes the references of one object.
type Give<'g> = &'g mut dyn FnMut(u64, Strength, At);

/// Calls `f` for each reference the object holds, always in the same order. What cannot be read ends
/// the part it is in; nothing is guessed.
pub fn references(model: &Model, reader: &mut Reader, object: &Object, f: &mut dyn FnMut(Reference)) {
    let mut give = |addr, strength, at| {
        if addr != 0 {
            f(Reference { addr, strength, at });
        }
    };
    let give: Give = &mut give;
    let shape = &object.shape;
    if shape.is_heap_type()
        && let Ok(ty) = model.type_of(reader, object.addr)
    {
        give(ty, Strength::Strong, At::Type);
    }
    // Each part ends where it cannot be read; the others stand.
    let _ = by_family(model, reader, object, give);
    let _ = by_record(model, reader, object, give);
    let _ = instances::dict(model, reader, object, give);
    let _ = instances::slots(model, reader, object, give);
    let _ = ndarray::references(model, reader, object, give);
    let _ = hidden::words(model, reader, object, give);
}

fn by_family(model: &Model, reader: &mut Reader, object: &Object, give: Give) -> Option<()> {
    let addr = object.addr;
    match object.shape.family {
        Family::List => containers::list(model, reader, addr, give),
        Family::Tuple => containers::tuple(model, reader, addr, give),
        Family::Dict => containers::dict(model, reader, addr, give),
        Family::OrderedDict => {
            containers::dict(model, reader, addr, give);
            containers::order(model, reader, addr, give)
        }
        Family::Set => containers::set(model, reader, addr, give),
        Family::Deque => containers::deque(model, reader, addr, give),
        Family::Type => types::type_object(model, reader, addr, give),
        Family::Module => hidden::module_state(model, reader, addr, give),
        Family::Code => frames::cached_by_code(model, reader, addr, give),
        Family::Frame => frames::frame(model, reader, addr, give),
        Family::Generator => frames::generator(model, reader, addr, give),
        Family::Element => elements::children(model, reader, addr, give),
        Family::Unicode => {
            let cache = reader.u64(addr.wrapping_add(model.layout.unicode.defenc?)).ok()?;
            give(cache, Strength::Strong, At::Field("defenc"));
            Some(())
        }
        Family::ByteArray => {
            let bytes = reader.u64(addr.wrapping_add(model.layout.bytearray.ob_bytes_object?)).ok()?;
            give(bytes, Strength::Strong, At::Field("bytes"));
            Some(())
        }
        _ => Some(()),
    }
}

fn by_record(model: &Model, reader: &mut Reader, object: &Object, give: Give) -> Option<()> {
    for held in known_fields(model, &object.shape) {
        if let Some(at) = held.when
            && reader.u8(object.addr.wrapping_add(u64::from(at))).ok()? == 0
        {
            continue;
        }
        let first = object.addr.wrapping_add(u64::from(held.offset));
        let count = match held.many {
            Many::One => {
                give(reader.u64(first).ok()?, held.strength, At::Field(held.label));
                continue;
            }
            Many::Ring(at) => {
                elements::ring(reader, object.addr, first, at, give)?;
                continue;
            }
            Many::Links => {
                elements::links(reader, object.addr, first, give)?;
                continue;
            }
            Many::Fixed(n) => u64::from(n),
            Many::Pairs => {
                pairs(model, reader, object.addr, held, give)?;
                continue;
            }
            Many::Sized => model.size_field(reader, object.addr).ok()?.unsigned_abs(),
            Many::CountAt(at) => u64::from(reader.u32(object.addr.wrapping_add(u64::from(at))).ok()?),
        };
        for i in 0..count.min(MAX_ARRAY) {
            give(reader.u64(first.wrapping_add(8 * i)).ok()?, held.strength, At::Item(i));
        }
    }
    Some(())
}

/// Keys and values by turns.
fn pairs(model: &Model, reader: &mut Reader, addr: u64, held: &Held, give: Give) -> Option<()> {
    let count = model.size_field(reader, addr).ok()?.unsigned_abs().min(MAX_ARRAY);
    let mut last = 0;
    for i in 0..count as u32 {
        let offset = held.offset + 8 * i;
        let word = reader.u64(addr.wrapping_add(u64::from(offset))).ok()?;
        let at = match i % 2 {
            0 => At::Key(u64::from(i) / 2),
            _ if last == 0 => At::Item(u64::from(i) / 2),
            _ => At::Paired(offset),
        };
        give(word, held.strength, at);
        last = word;
    }
    Some(())
}

/// May objects of that shape refer to others without keeping them alive?
pub fn may_be_weak(model: &Model, shape: &Shape) -> bool {
    known_fields(model, shape).iter().any(|held| held.strength == Strength::Weak)
}

/// Fields that hold objects, of the known structure that instances begin with.
pub fn known_fields<'m>(model: &'m Model, shape: &Shape) -> &'m [Held] {
    let record = usize::from(shape.fields.record).checked_sub(1).and_then(|at| model.layout.records.get(at));
    record.map_or(&[], Vec::as_slice)
}

/// Arrays inside of known structures are short: the longest has 57 items.
const MAX_ARRAY: u64 = 64;
