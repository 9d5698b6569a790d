//! Objects in the data of images.

use crate::inspect::Inspection;
use rustc_hash::FxHashMap;
use wmr_cpython::locate::for_each_word;
use wmr_cpython::model::{Model, RefCount};
use wmr_cpython::types::Shape;
use wmr_memory::Target;

/// By address: where a known type's address lies in the place of a type and a plausible count before it. A
/// word that only looks so is referred to by nobody.
pub fn find(target: &Target, inspection: &Inspection, model: &Model) -> Vec<(u64, Shape)> {
    let types: FxHashMap<u64, Shape> = inspection.census.types.iter().map(|ty| (ty.addr, ty.shape)).collect();
    let type_at = model.layout.object.ob_type;
    let mut out = Vec::new();
    let (mut reader, mut counts) = (target.reader(), target.reader());
    for range in target.images.iter().flat_map(|image| image.writable()) {
        for_each_word(&mut reader, range, |at, word| {
            let Some(shape) = types.get(&word) else { return };
            let addr = at.wrapping_sub(type_at);
            if !matches!(model.refcount(&mut counts, addr), Ok(RefCount::Implausible) | Err(_)) {
                out.push((addr, *shape));
            }
        });
    }
    out.sort_unstable_by_key(|known| known.0);
    out.dedup_by_key(|known| known.0);
    out
}
