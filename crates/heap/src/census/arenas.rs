//! Objects in pymalloc's arenas, looked at while the pools are walked and the arena is at hand. Blocks have no numbers
//! yet: what an object claims is kept by address.

use super::far::Far;
use super::tuples::Tuples;
use super::{Pass, Wanted};
use crate::claims::Claim;
use crate::marks::Mark;
use wmr_alloc::glibc::Glibc;
use wmr_alloc::pymalloc::{Arena, Arenas, PyMalloc, Within};
use wmr_alloc::{Blocks, Span, TooManyBlocks};
use wmr_cpython::model::Model;
use wmr_cpython::object::{Answer, Identifier, Object, Source};
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
    /// Per used block, in order; whether it is claimed within the arena.
    pub marks: Vec<Mark>,
    /// Claims within the arena, by place in `marks`.
    pub claims: Vec<Claim>,
    /// What is claimed elsewhere, with the owners' places in `marks`.
    pub wanted: Vec<Wanted>,
    pub items: Vec<Far>,
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

impl InArena {
    /// Marks what is claimed within the arena.
    pub fn mark_claims(&self, marks: &mut [Mark]) {
        for claim in self.claims.iter().filter(|claim| claim.owner != claim.block) {
            marks[claim.block as usize].claim();
        }
    }
}

impl Pass<'_> {
    fn look_at(&self, types: &mut TypeCache, memory: &dyn Memory, arena: &Arena) -> InArena {
        let [mut remote, mut cursor] = [(); 2].map(|()| Reader::new(memory));
        let range = arena.addr..arena.addr + arena.bytes;
        types.look_in(range.clone());
        let held = memory.extent(arena.addr).unwrap_or_default();
        let mut identifier = Identifier::new(types, Reader::new(memory)).trusting_items();
        let mut marks: Vec<Mark> = Vec::with_capacity(arena.used_blocks as usize);
        let (mut claims, mut wanted) = (Vec::new(), Vec::new());
        let mut tuples = Tuples::new(memory, range.clone());
        let within = Within::new(arena);
        let mut claim = |object: &Object, owner| {
            self.wanted_of(&mut remote, object, |owned| {
                let want = Wanted::new(owned, owner);
                if !range.contains(&want.addr) {
                    wanted.push(want);
                } else if let Some((block, start, usable)) = within.containing(want.addr)
                    && self.has_room(&mut cursor, start, usable, &want)
                {
                    claims.push(Claim { block, part: want.part, owner });
                }
            });
        };
        let mut reader = Reader::new(memory);
        arena.for_each_block(|start, bytes| {
            let owner = marks.len() as u32;
            let source = Source::Pymalloc { block: bytes };
            let answer = identifier.quickly(held.into(), start, bytes, source);
            debug_assert!(self.is_what_it_is(answer, &mut identifier, &mut reader, start, bytes, source));
            match answer {
                Answer::Nothing => marks.push(Mark::NONE),
                Answer::Object(found) => {
                    if found.is_lone_tuple && !tuples.stands(self, identifier.types, found.addr, owner) {
                        marks.push(Mark::NONE);
                        return;
                    }
                    marks.push(Mark::object(found.id, found.linked, found.linked));
                    if found.owns
                        && let Some(object) = identifier.object(&found)
                    {
                        claim(&object, owner);
                    }
                }
                Answer::Ask => {
                    let object = self.identify(&mut identifier, &mut reader, start, bytes, source);
                    // By reference: a copy would wait for what was just written.
                    let Some(object) = object.as_ref().filter(|object| {
                        !object.is_lone_tuple() || tuples.stands(self, identifier.types, object.addr, owner)
                    }) else {
                        marks.push(Mark::NONE);
                        return;
                    };
                    marks.push(Mark::of(object));
                    claim(object, owner);
                }
            }
        });
        let mut seen = InArena {
            start: arena.addr,
            end: range.end,
            marks: Vec::new(),
            claims,
            wanted,
            items: tuples.items,
        };
        seen.mark_claims(&mut marks);
        seen.marks = marks;
        seen
    }
}
