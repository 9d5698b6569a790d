//! What is known of each block, four bytes a block.

use crate::kinds::KindId;
use wmr_cpython::object::{Evidence, Object};
use wmr_cpython::types::TypeId;

/// A block's name so far. 24 bits of number, what the number means, and the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, bytemuck::Zeroable)]
pub struct Mark(u32);

const NUMBER: u32 = (1 << 24) - 1;
const OBJECT: u32 = 1 << 24;
const KIND: u32 = 1 << 25;
const LINKED: u32 = 1 << 26;
const TRACKED: u32 = 1 << 27;
const CLAIMED: u32 = 1 << 28;

impl Mark {
    pub const NONE: Mark = Mark(0);
    /// More types or kinds than this are not told apart.
    pub const LIMIT: u32 = NUMBER;

    /// So many, in memory that is not touched before they are written to.
    pub fn nones(count: usize) -> Vec<Mark> {
        bytemuck::zeroed_vec(count)
    }

    pub fn object(id: TypeId, linked: bool, tracked: bool) -> Mark {
        let mut bits = OBJECT | id.min(NUMBER);
        if linked {
            bits |= LINKED;
        }
        if tracked {
            bits |= TRACKED;
        }
        Mark(bits)
    }

    pub(crate) fn of(object: &Object) -> Mark {
        Mark::object(object.shape.id, object.evidence == Evidence::Linked, object.tracked)
    }

    pub fn kind(id: KindId) -> Mark {
        Mark(KIND | id.min(NUMBER))
    }

    pub fn is_none(self) -> bool {
        self.0 & (OBJECT | KIND) == 0
    }

    /// The type of the object in the block.
    #[inline]
    pub fn as_object(self) -> Option<TypeId> {
        (self.0 & OBJECT != 0).then_some(self.0 & NUMBER)
    }

    #[inline]
    pub fn as_kind(self) -> Option<KindId> {
        (self.0 & KIND != 0).then_some(self.0 & NUMBER)
    }

    /// The collector's lists vouch for the object.
    pub fn is_linked(self) -> bool {
        self.0 & LINKED != 0
    }

    pub fn is_tracked(self) -> bool {
        self.0 & TRACKED != 0
    }

    /// Says that another object claims the block.
    pub(crate) fn claim(&mut self) {
        self.0 |= CLAIMED;
    }

    /// The block is no object after all.
    pub(crate) fn clear(&mut self) {
        self.0 &= CLAIMED;
    }

    pub(crate) fn disclaim(&mut self) {
        self.0 &= !CLAIMED;
    }

    #[inline]
    pub(crate) fn is_claimed(self) -> bool {
        self.0 & CLAIMED != 0
    }

    /// In the permanent generation: tracked, but not among `gc.get_objects()`.
    pub fn untrack(&mut self) {
        self.0 &= !TRACKED;
    }
}
