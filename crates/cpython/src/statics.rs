//! Objects that no allocator gave: in the data of the interpreter and of its extensions.

use crate::locate::for_each_word;
use crate::model::{Model, RefCount};
use wmr_memory::{Image, Target};

/// Calls `f(address, type)` for what may be an object in the data of an image: a plausible count, and behind it a
/// word that `is_type` has for the address of a type.
pub fn for_each(
    target: &Target,
    model: &Model,
    image: &Image,
    is_type: impl Fn(u64) -> bool,
    mut f: impl FnMut(u64, u64),
) {
    /// Nothing is mapped below.
    const FIRST_ADDRESS: u64 = 0x1000;
    let object = &model.layout.object;
    let between = object.ob_type.wrapping_sub(object.ob_refcnt);
    // The interpreter's own are immortal where there are such: what else looks like one there are its tables of
    // types, each entry behind a number.
    let immortal = model.has_immortals() && image.writable().any(|data| data.contains(&model.type_type));
    let plausible = |count| match count {
        // In a program that is not position-independent a pair of pointers may look like count and type: no
        // count is the address of something.
        RefCount::Count(count) => !immortal && (count < FIRST_ADDRESS || target.mapping(count).is_none()),
        RefCount::Immortal => true,
        RefCount::Implausible => false,
    };
    for data in image.writable() {
        let mut before = (0, 0);
        for_each_word(&mut target.reader(), data, |at, word| {
            let (count_at, count) = std::mem::replace(&mut before, (at, word));
            // Most words are told by what precedes them.
            let count = model.decode_refcount(count);
            let is_head = count != RefCount::Implausible && at.wrapping_sub(count_at) == between;
            if is_head && is_type(word) && plausible(count) {
                f(at.wrapping_sub(object.ob_type), word);
            }
        });
    }
}
