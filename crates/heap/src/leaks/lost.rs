//! Which blocks are not reached, and which of them lead the others.

use super::references::{INTERIOR, References, is_part};
use crate::Inspection;
use crate::kinds::Domain;
use rustc_hash::FxHashMap;
use wmr_alloc::SpanKind;

/// How lost a block is, in valgrind's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Nothing points at it, or nothing but what itself is lost and hangs on it.
    Definite,
    /// Reached from a definite one alone.
    Indirect,
    /// What lives points into it, but not at its beginning.
    Possible,
}

/// The blocks that are not reached, by id.
pub struct Lost {
    pub blocks: Vec<u32>,
    pub states: Vec<State>,
    /// Bytes that hang on each definite block; what several reach counts at the first.
    pub indirect: FxHashMap<u32, u64>,
}

/// One bit a block.
pub(super) struct Set(Vec<u64>);

impl Set {
    pub fn new(len: u32) -> Set {
        Set(vec![0; (len as usize).div_ceil(64)])
    }

    pub fn contains(&self, id: u32) -> bool {
        self.0[id as usize / 64] >> (id % 64) & 1 == 1
    }

    /// Was it new?
    pub fn insert(&mut self, id: u32) -> bool {
        let word = &mut self.0[id as usize / 64];
        let new = *word >> (id % 64) & 1 == 0;
        *word |= 1 << (id % 64);
        new
    }
}

impl Lost {
    pub(super) fn find(inspection: &Inspection, references: &References, roots: &[u32]) -> Lost {
        let count = inspection.blocks.len();
        let mut reached = Set::new(count);
        let mut todo: Vec<u32> = roots.iter().copied().filter(|edge| edge & INTERIOR == 0).collect();
        for at in 0..inspection.blocks.spans().len() {
            let kept = inspection.blocks.ids(at).filter(|&id| is_kept(inspection, at, id));
            todo.extend(kept);
        }
        todo.retain(|&id| reached.insert(id));
        spread(references, &mut reached, todo, false);
        // Once more, by pointers into the middle as well.
        let mut loosely = Set(reached.0.clone());
        let mut todo: Vec<u32> = roots.iter().map(|edge| edge & !INTERIOR).collect();
        todo.extend((0..count).filter(|&id| reached.contains(id)));
        let inside: Vec<u32> =
            todo.iter().flat_map(|&id| references.of(id)).map(|edge| edge & !INTERIOR).collect();
        todo.extend(inside);
        todo.retain(|&id| loosely.insert(id));
        spread(references, &mut loosely, todo, true);
        // Who has the middle of a block that has its own beginning can free it: an aligned allocation.
        let knows_itself = |id: u32| references.of(id).contains(&id);
        let mut todo: Vec<u32> = (0..count)
            .filter(|&id| !reached.contains(id) && loosely.contains(id) && knows_itself(id))
            .collect();
        todo.retain(|&id| inspection.census.mark(id).as_object().is_none() && reached.insert(id));
        spread(references, &mut reached, todo, false);

        let blocks: Vec<u32> = (0..count).filter(|&id| !reached.contains(id)).collect();
        let mut lost =
            Lost { states: vec![State::Indirect; blocks.len()], blocks, indirect: FxHashMap::default() };
        lost.lead(inspection, references, &loosely);
        lost
    }

    /// Chooses who leads: first what nothing that is lost points at, then of what is left the lowest.
    fn lead(&mut self, inspection: &Inspection, references: &References, loosely: &Set) {
        let count = inspection.blocks.len();
        let mut pointed_at = Set::new(count);
        for (&block, state) in self.blocks.iter().zip(&mut self.states) {
            if loosely.contains(block) {
                *state = State::Possible;
            } else {
                for edge in references.of(block).iter().filter(|edge| hangs(inspection, block, **edge)) {
                    pointed_at.insert(edge & !INTERIOR);
                }
            }
        }
        let mut taken = Set::new(count);
        for among_pointed_at in [false, true] {
            for i in 0..self.blocks.len() {
                let block = self.blocks[i];
                if self.states[i] == State::Possible
                    || pointed_at.contains(block) != among_pointed_at
                    || !taken.insert(block)
                {
                    continue;
                }
                self.states[i] = State::Definite;
                let (mut todo, mut bytes) = (vec![block], 0);
                while let Some(block) = todo.pop() {
                    for edge in references.of(block).iter().filter(|edge| hangs(inspection, block, **edge)) {
                        let id = edge & !INTERIOR;
                        if !loosely.contains(id) && taken.insert(id) {
                            bytes += inspection.blocks.bytes(id);
                            todo.push(id);
                        }
                    }
                }
                if bytes > 0 {
                    self.indirect.insert(block, bytes);
                }
            }
        }
    }
}

/// Is what a lost block points at lost because of it? Not an object at which a native block points: that
/// one may have been written over in part only, and the object has a count of its own.
fn hangs(inspection: &Inspection, from: u32, edge: u32) -> bool {
    let to = inspection.census.mark(edge & !INTERIOR);
    !(to.as_object().is_some() && is_native(inspection, from))
}

/// Is it neither an object nor a part of one?
pub(super) fn is_native(inspection: &Inspection, block: u32) -> bool {
    let mark = inspection.census.mark(block);
    mark.as_object().is_none()
        && mark.as_kind().is_none_or(|kind| !is_part(inspection.census.kinds.get(kind)))
}

/// Follows edges from what is in `todo`.
fn spread(references: &References, reached: &mut Set, mut todo: Vec<u32>, interior: bool) {
    while let Some(block) = todo.pop() {
        for edge in references.of(block) {
            if (interior || edge & INTERIOR == 0) && reached.insert(edge & !INTERIOR) {
                todo.push(edge & !INTERIOR);
            }
        }
    }
}

/// Alive whatever points at it: the allocators' and the interpreter's own, and what others nest in.
fn is_kept(inspection: &Inspection, span: usize, id: u32) -> bool {
    if inspection.blocks.holder_in(span) == Some(id) {
        return true;
    }
    match inspection.census.mark(id).as_kind() {
        Some(kind) => {
            let kind = inspection.census.kinds.get(kind);
            kind.domain == Domain::Malloc || kind.domain == Domain::CPython && !is_part(kind)
        }
        // Python 2's numbers: a lost one cannot be told from one in a C variable that was.
        None => matches!(inspection.blocks.spans()[span].kind, SpanKind::Slots { .. }),
    }
}
