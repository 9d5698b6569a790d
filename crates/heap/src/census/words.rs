//! Words of C objects that nothing declares: what they point at and nobody claims hangs on the object.

use super::{Pass, Wanted, bases, listed};
use crate::claims::Claim;
use crate::kinds::{Domain, KindId, Kinds, Sure};
use crate::marks::Mark;
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use wmr_cpython::family::Family;
use wmr_cpython::owns::Part;
use wmr_cpython::refers::{Many, known_fields};
use wmr_cpython::types::Type;

/// Most bytes of an object that are looked at for pointers to blocks nobody else claims.
const MAX_HELD_SCAN: u32 = 1 << 16;

/// Types of which there are many, whose other words are code, numbers and links between objects. What a numpy scalar
/// holds are numbers, which may be addresses by chance or on purpose.
const HIDES_NOTHING: [&str; 6] =
    ["function", "method", "property", "weakref", "weakref.ReferenceType", "numpy.generic"];

impl Pass<'_> {
    /// Blocks at whose start a word of an object of a C type points, among all that may be objects.
    pub(super) fn words(&self, types: &[Type], hidden: &[HiddenWords], marks: &[Mark]) -> Vec<Claim> {
        let hides = |id| hidden.get(id as usize).is_some_and(|hidden| !hidden.is_empty());
        listed(marks, |mark| mark.as_object().is_some_and(hides))
            .par_iter()
            .map_init(
                || (self.target.reader(), self.target.reader()),
                |(reader, cursor), &owner| {
                    let Some(id) = marks[owner as usize].as_object() else { return Vec::new() };
                    let block = self.blocks.block(owner);
                    let presize = u64::from(types[id as usize].shape.presize);
                    let object = self.model.unpad(reader, block.start, block.usable).data + presize;
                    let mut found = Vec::new();
                    for at in hidden[id as usize].offsets() {
                        let Ok(word) = reader.u64(object + at) else { break };
                        found.extend(
                            self.claim(cursor, Wanted { addr: word, bytes: 0, part: Part::Held, owner }),
                        );
                    }
                    found
                },
            )
            .flatten_iter()
            .collect()
    }

    /// Per type: where in an instance there may be pointers that no table names.
    pub(super) fn hidden_words(&self, types: &[Type], laid_out: &[usize]) -> Vec<HiddenWords> {
        let header = self.model.layout.object.size;
        let hidden = |at: &usize| {
            let ty = &types[*at];
            if ty.shape.family != Family::Plain
                || bases(types, *at).any(|t| HIDES_NOTHING.contains(&&*t.name))
            {
                return HiddenWords::default();
            }
            let fields = known_fields(self.model, &ty.shape).iter();
            let fields = fields.filter(|held| held.many == Many::One && held.when.is_none());
            let objects = fields.fold(0, |mask, held| mask | 1u64.checked_shl(held.offset / 8).unwrap_or(0));
            let words = ty.shape.basicsize.min(MAX_HELD_SCAN).div_ceil(8);
            let hidden = HiddenWords { first: (header / 8) as u32, end: words, objects };
            if hidden.offsets().next().is_some() { hidden } else { HiddenWords::default() }
        };
        laid_out.iter().map(hidden).collect()
    }
}

/// Words of instances that are not declared as objects, of the part that a C type laid out: what a Python class adds
/// are references.
#[derive(Clone, Copy, Default)]
pub(super) struct HiddenWords {
    first: u32,
    end: u32,
    /// Those among the first 64 that are known to be objects, which have a name already.
    objects: u64,
}

impl HiddenWords {
    pub(super) fn is_empty(&self) -> bool {
        self.first >= self.end
    }

    /// In bytes.
    fn offsets(&self) -> impl Iterator<Item = u64> + '_ {
        let is_object = |word: u32| self.objects.checked_shr(word).is_some_and(|mask| mask & 1 != 0);
        (self.first..self.end).filter(move |word| !is_object(*word)).map(|word| u64::from(word) * 8)
    }
}

/// Of the blocks that objects point at, those that nobody claims.
pub(super) fn held(
    mut found: Vec<Claim>,
    types: &[Type],
    marks: &mut [Mark],
    kinds: &mut Kinds,
) -> Vec<Claim> {
    let mut held: FxHashMap<u32, KindId> = FxHashMap::default();
    found.retain(|c| marks[c.block as usize].is_none() && marks[c.owner as usize].as_object().is_some());
    found.par_sort_unstable();
    found.dedup_by_key(|c| c.block);
    for claim in &found {
        let Some(id) = marks[claim.owner as usize].as_object() else { continue };
        let kind = *held.entry(id).or_insert_with(|| {
            let name = format!("data of {}", types[id as usize].name);
            kinds.intern(Domain::Native, &name, "", Sure::Owner)
        });
        marks[claim.block as usize] = Mark::kind(kind);
    }
    found
}

/// Per type: itself when it was laid out in C, else the nearest base that was.
pub(super) fn laid_out_by(types: &[Type]) -> Vec<usize> {
    // `subtype_dealloc`, what all Python classes have, by far the most frequent among heap types.
    let mut counts: FxHashMap<u64, u32> = FxHashMap::default();
    for ty in types.iter().filter(|ty| ty.shape.is_heap_type()) {
        *counts.entry(ty.dealloc).or_default() += 1;
    }
    let python_class = counts.into_iter().max_by_key(|(dealloc, n)| (*n, *dealloc)).map_or(0, |c| c.0);
    (0..types.len())
        .map(|first| {
            let mut at = first;
            // Bounded: damage may have made the bases a circle.
            for _ in 0..types.len() {
                match types[at].base {
                    Some(base) if types[at].dealloc == python_class => at = base as usize,
                    _ => break,
                }
            }
            at
        })
        .collect()
}
