//! References of numpy's arrays: their dtype, what they are views of, and items that are objects.
//!
//! numpy's types have no `tp_traverse`, so that `gc.get_referents()` tells none of this. The structures are those of
//! `ndarraytypes.h`; offsets count from behind the object's header.

use super::Strength::Strong;
use super::keys::int;
use super::{At, Give, Name};
use crate::dicts;
use crate::model::Model;
use crate::object::Object;
use wmr_memory::Reader;

/// `PyArrayObject_fields`, the same since 1.7.
mod array {
    pub const DATA: u64 = 0;
    pub const ND: u64 = 8;
    pub const DIMENSIONS: u64 = 16;
    pub const STRIDES: u64 = 24;
    pub const BASE: u64 = 32;
    pub const DESCR: u64 = 40;
    pub const FLAGS: u64 = 48;
    /// Of those who own their data: a capsule (1.22+).
    pub const MEM_HANDLER: u64 = 72;
}

/// Bytes from the header to the end of the fields that every numpy has.
pub const FIELDS: u64 = array::FLAGS + 8;

/// `NPY_ARRAY_OWNDATA`: items of other arrays are held by who owns the memory.
const OWNDATA: u32 = 0x4;
/// `NPY_OBJECT` and `NPY_VOID`.
const OBJECT: u32 = 17;
const VOID: u32 = 20;
/// `NPY_ITEM_REFCOUNT`: there are objects among the fields.
const ITEM_REFCOUNT: u8 = 1;
/// `NPY_MAXDIMS`, which was 32 before 2.0.
const MAX_DIMENSIONS: u64 = 64;
/// Objects in one item of a structured array, and dtypes that are looked at for them.
const MAX_PLACES: usize = 1 << 16;

pub fn references(model: &Model, reader: &mut Reader, object: &Object, give: Give) -> Option<()> {
    let header = model.layout.object.size;
    let own = u64::from(object.shape.fields.array).checked_sub(header).filter(|own| *own > 0)?;
    let at = object.addr.wrapping_add(header);
    give(reader.u64(at.wrapping_add(array::BASE)).ok()?, Strong, At::Field("base"));
    give(reader.u64(at.wrapping_add(array::DESCR)).ok()?, Strong, At::Field("dtype"));
    if own >= array::MEM_HANDLER + 8 {
        give(reader.u64(at.wrapping_add(array::MEM_HANDLER)).ok()?, Strong, At::Field("mem_handler"));
    }
    let items = items(model, reader, object.addr)?;
    items.each(reader, &mut |index, word| give(word, Strong, At::Item(index)))
}

/// Calls `f` for the objects in an array that do not all lie where words do: whoever looks at words misses some of
/// these. Structures are packed unless numpy is told to align them.
pub fn unaligned_items(model: &Model, reader: &mut Reader, object: &Object, f: &mut dyn FnMut(u64)) {
    if object.shape.fields.array == 0 {
        return;
    }
    let Some(items) = items(model, reader, object.addr) else { return };
    if !items.are_aligned() {
        items.each(reader, &mut |_, word| f(word));
    }
}

/// The index of an item by its position in memory, if there is more than one dimension to it: whoever owns the
/// data may have it in any order of dimensions.
pub fn index(model: &Model, reader: &mut Reader, addr: u64, position: u64) -> Option<String> {
    let at = addr.wrapping_add(model.layout.object.size);
    let [dimensions, strides] = [array::DIMENSIONS, array::STRIDES].map(|field| at.wrapping_add(field));
    let nd = dimensions_of(reader, at)?;
    let (dimensions, strides) = (reader.u64(dimensions).ok()?, reader.u64(strides).ok()?);
    let descr = reader.u64(at.wrapping_add(array::DESCR)).ok()?;
    let mut rest = position.checked_mul(Dtype::read(model, reader, descr)?.elsize)?;
    let mut order = Vec::new();
    for n in 0..nd {
        let length = reader.u64(dimensions.wrapping_add(8 * n)).ok()?;
        let stride = reader.i64(strides.wrapping_add(8 * n)).ok()?;
        // A dimension of one may have any stride.
        if length > 1 {
            order.push((u64::try_from(stride).ok().filter(|stride| *stride > 0)?, n));
        }
    }
    order.sort_unstable_by(|a, b| b.cmp(a));
    let mut index = vec![0; nd as usize];
    for (stride, n) in order {
        index[n as usize] = rest / stride;
        rest %= stride;
    }
    let index: Vec<String> = index.iter().map(u64::to_string).collect();
    (nd > 1).then(|| index.join(", "))
}

/// Where the objects in the data of an array are.
struct Items {
    data: u64,
    count: u64,
    elsize: u64,
    /// Offsets in each item.
    places: Vec<u64>,
}

impl Items {
    fn are_aligned(&self) -> bool {
        [self.data, self.elsize].iter().chain(&self.places).all(|n| n.is_multiple_of(8))
    }

    /// Calls `f(index, address)`, until there is nothing mapped.
    fn each(&self, reader: &mut Reader, f: &mut dyn FnMut(u64, u64)) -> Option<()> {
        for index in 0..self.count {
            let item = self.data.wrapping_add(index * self.elsize);
            for place in &self.places {
                f(index, reader.u64(item.wrapping_add(*place)).ok()?);
            }
        }
        Some(())
    }
}

/// Those of an array that owns its data, which lies in one piece without gaps.
fn items(model: &Model, reader: &mut Reader, addr: u64) -> Option<Items> {
    let at = addr.wrapping_add(model.layout.object.size);
    if reader.u32(at.wrapping_add(array::FLAGS)).ok()? & OWNDATA == 0 {
        return None;
    }
    let descr = reader.u64(at.wrapping_add(array::DESCR)).ok()?;
    let dtype = Dtype::read(model, reader, descr)?;
    let places = dtype.places(model, reader).filter(|places| !places.is_empty())?;
    let nd = dimensions_of(reader, at)?;
    let dimensions = reader.u64(at.wrapping_add(array::DIMENSIONS)).ok()?;
    let mut count = 1u64;
    for n in 0..nd {
        count = count.checked_mul(reader.u64(dimensions.wrapping_add(8 * n)).ok()?)?;
    }
    let data = reader.u64(at.wrapping_add(array::DATA)).ok()?;
    data.checked_add(count.checked_mul(dtype.elsize)?)?;
    Some(Items { data, count, elsize: dtype.elsize, places })
}

fn dimensions_of(reader: &mut Reader, fields: u64) -> Option<u64> {
    let nd = u64::from(reader.u32(fields.wrapping_add(array::ND)).ok()?);
    (nd <= MAX_DIMENSIONS).then_some(nd)
}

/// `PyArray_Descr`.
#[derive(Clone, Copy)]
struct Dtype {
    type_num: u32,
    elsize: u64,
    has_objects: bool,
    /// Addresses of these fields.
    subarray: u64,
    fields: u64,
}

impl Dtype {
    fn read(model: &Model, reader: &mut Reader, addr: u64) -> Option<Dtype> {
        let at = addr.wrapping_add(model.layout.object.size);
        let type_num = reader.u32(at.wrapping_add(12)).ok()?;
        let word = reader.u64(at.wrapping_add(16)).ok()?;
        // Up to 1.26 these are two ints, `elsize` and `alignment`, which is never 0. 2.0 has the flags there, none of
        // which is in the upper half, and the other fields further on.
        let old = word >> 32 != 0;
        let (flags, elsize, subarray) = match old {
            true => (reader.u8(at.wrapping_add(11)).ok()?, word & u64::from(u32::MAX), 24),
            false => (word as u8, reader.u64(at.wrapping_add(24)).ok()?, 72),
        };
        let has_objects = flags & ITEM_REFCOUNT != 0;
        let subarray = at.wrapping_add(subarray);
        let dtype = Dtype { type_num, elsize, has_objects, subarray, fields: subarray.wrapping_add(8) };
        (elsize > 0).then_some(dtype)
    }

    /// Offsets of the objects in an item, in order.
    fn places(self, model: &Model, reader: &mut Reader) -> Option<Vec<u64>> {
        let mut places = Vec::new();
        let mut todo = vec![(self, 0u64)];
        let mut room = MAX_PLACES;
        while let Some((dtype, at)) = todo.pop() {
            if dtype.type_num == OBJECT {
                places.push(at);
            }
            if dtype.type_num != VOID || !dtype.has_objects {
                continue;
            }
            dtype.parts(model, reader, room, &mut |part, offset| {
                todo.push((part, at.wrapping_add(offset)));
                room -= 1;
            })?;
        }
        // A field that has a title is in the dict of fields by that, too.
        places.sort_unstable();
        places.dedup();
        places.retain(|place| place.checked_add(8).is_some_and(|end| end <= self.elsize));
        Some(places)
    }

    /// Calls `f(dtype, offset)` for its fields, or the items of the array that it is. `None` if these are more than `most`.
    fn parts(
        self,
        model: &Model,
        reader: &mut Reader,
        most: usize,
        f: &mut dyn FnMut(Dtype, u64),
    ) -> Option<()> {
        let subarray = reader.u64(self.subarray).ok()?;
        if subarray != 0 {
            let base = reader.u64(subarray).ok()?;
            let base = Dtype::read(model, reader, base)?;
            let count = Some(self.elsize / base.elsize).filter(|count| *count <= most as u64)?;
            (0..count).for_each(|n| f(base, n * base.elsize));
            return Some(());
        }
        let fields = reader.u64(self.fields).ok()?;
        let mut found = Vec::new();
        dicts::for_each_entry(model, reader, fields, MAX_PLACES as u64, &mut |reader, _, value| {
            found.extend(field(model, reader, value).filter(|(dtype, _)| dtype.has_objects));
            found.len() <= most
        });
        (found.len() <= most).then(|| found.into_iter().for_each(|(dtype, offset)| f(dtype, offset)))
    }
}

/// A field is a tuple of its dtype, its offset and perhaps a title.
fn field(model: &Model, reader: &mut Reader, tuple: u64) -> Option<(Dtype, u64)> {
    let items = tuple.wrapping_add(model.layout.tuple.ob_item);
    let descr = reader.u64(items).ok()?;
    let offset = reader.u64(items.wrapping_add(8)).ok()?;
    let offset = match model.is_two() {
        true => reader.u64(offset.wrapping_add(model.layout.object.size)).ok()?,
        false => match int(model, reader, offset)? {
            Name::Number(n) => u64::try_from(n).ok()?,
            _ => return None,
        },
    };
    Some((Dtype::read(model, reader, descr)?, offset))
}
