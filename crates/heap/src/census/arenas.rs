//! Objects in pymalloc's arenas, looked at while the pools are walked and the arena is at hand. Blocks have no numbers
//! yet: what an object claims is kept by address.

use super::{Pass, Wanted};
use crate::marks::Mark;
use wmr_alloc::glibc::Glibc;
use wmr_alloc::pymalloc::{Arena, Arenas, PyMalloc};
use wmr_alloc::{Blocks, Span, TooManyBlocks};
use wmr_cpython::model::Model;
use wmr_cpython::object::{Identifier, Source};
use wmr_cpython::types::{self, TypeCache, Types};
use wmr_memory::{Memory, Reader, Target};

/// What was seen in the arenas.
#[derive(Default)]
pub struct Seen {
    pub(super) types: types::Known,
    arenas: Vec<InArena>,
}

/// What was seen in one arena.
pub(super) struct InArena {
    start: u64,
    end: u64,
    /// Per used block, in order.
    pub marks: Vec<Mark>,
    /// With the owners' places in `marks`.
    pub wanted: Vec<Wanted>,
}

impl Seen {
    /// Walks the arenas and looks at their blocks. Types are in blocks of malloc, so those have to be known.
    ///
    /// # Errors
    /// More blocks than can be numbered.
    pub fn in_arenas(
        target: &Target,
        model: &Model,
        arenas: Arenas,
        glibc: Option<&Glibc>,
    ) -> Result<(PyMalloc, Seen), TooManyBlocks> {
        let unwalked = arenas.unwalked();
        if unwalked.arenas.is_empty() {
            return Ok((arenas.walk(&*target.memory), Seen::default()));
        }
        let mut builder = Blocks::builder().pymalloc(&unwalked);
        if let Some(glibc) = glibc {
            builder = builder.glibc(glibc);
        }
        let blocks = builder.build()?;
        let types = Types::new(target, model, &blocks);
        let pass = Pass { target, model, blocks: &blocks, types: &types };
        let begin = || TypeCache::new(&types, target.reader());
        let look =
            |types: &mut TypeCache, memory: &dyn Memory, arena: &Arena| pass.look_at(types, memory, arena);
        let (pymalloc, arenas) = arenas.walk_and_look(&*target.memory, begin, look);
        Ok((pymalloc, Seen { types: types.into_known(), arenas }))
    }

    /// By span what was seen there; nothing where another allocator's memory cut the arena into pieces.
    pub(super) fn by_span(self, blocks: &Blocks) -> (types::Known, Vec<Option<InArena>>) {
        let mut arenas = self.arenas.into_iter().peekable();
        let of_span = |(at, span): (usize, &Span)| {
            while arenas.next_if(|arena| arena.end <= span.start).is_some() {}
            let is_it = |arena: &InArena| {
                let whole = (arena.start, arena.end) == (span.start, span.end);
                whole && span.kind.is_pymalloc() && arena.marks.len() == blocks.ids(at).len()
            };
            arenas.next_if(is_it)
        };
        (self.types, blocks.spans().iter().enumerate().map(of_span).collect())
    }
}

impl Pass<'_> {
    fn look_at(&self, types: &mut TypeCache, memory: &dyn Memory, arena: &Arena) -> InArena {
        let [mut local, mut remote] = [(); 2].map(|()| Reader::new(memory));
        let mut identifier = Identifier::new(types, Reader::new(memory));
        let mut marks = Vec::with_capacity(arena.used_blocks as usize);
        let mut wanted = Vec::new();
        arena.for_each_block(|start, bytes| {
            let allocation = self.model.unpad(&mut local, start, bytes);
            let object =
                self.identify(&mut identifier, &mut local, allocation, Source::Pymalloc { block: bytes });
            let owner = marks.len() as u32;
            marks.push(object.map_or(Mark::NONE, |object| {
                self.wanted_of(&mut remote, &object, |owned| wanted.push(Wanted::new(owned, owner)));
                Mark::of(&object)
            }));
        });
        InArena { start: arena.addr, end: arena.addr + arena.bytes, marks, wanted }
    }
}
