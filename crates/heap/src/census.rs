//! The census: a name for every block.
//!
//! 1. Every used block *proposes* the object it looks like, with the evidence for it.
//! 2. Every proposed object *claims* the blocks it owns.
//! 3. The words of objects whose insides are not known are looked at: they may *hold* a block.
//! 4. Claims and proposals are *settled* ([`claims`](crate::claims)); what is left goes to who holds it.
//!
//! Passes go over the spans in parallel and write to columns by block id, so the result does not
//! depend on the number of threads.

mod arenas;
mod far;
mod links;
mod looked;
mod spans;
mod tuples;
mod words;

use self::arenas::InArena;
pub use self::arenas::Seen;
use self::far::Far;
use self::links::Undecided;
pub(crate) use self::looked::Looked;
use crate::claims::{Claim, NOBODY};
use crate::kinds::{Domain, Kinds, Sure};
use crate::marks::Mark;
use rayon::prelude::*;
use rustc_hash::FxHashSet;
use wmr_alloc::{Blocks, SpanKind};
use wmr_cpython::family::Family;
use wmr_cpython::model::{Allocation, Model, flags};
use wmr_cpython::object::{Answer, Identifier, Object, Source};
use wmr_cpython::owns::{self, Owned, Part};
use wmr_cpython::statics;
use wmr_cpython::types::{Type, TypeCache, Types};
use wmr_memory::{Reader, Staged, Target, shared_out};

/// What every block is.
pub struct Census {
    /// All types met, by [`TypeId`](wmr_cpython::types::TypeId).
    pub types: Vec<Type>,
    pub kinds: Kinds,
    marks: Vec<Mark>,
    /// The claims that stand: who owns which block, in address order.
    claims: Vec<Claim>,
    /// By type: the C type, itself or a base, that laid out what is hidden in its instances.
    laid_out: Vec<usize>,
    /// Blocks that hang on an object in a field that is not known, or on such a block. In address order.
    holders: Vec<Claim>,
}

/// What is known of blocks before any object is looked for: free-listed objects, the interpreter's own.
pub struct Known {
    pub addr: u64,
    pub domain: Domain,
    pub kind: String,
    pub detail: String,
}

impl Known {
    /// Something the interpreter keeps.
    pub fn interpreters(addr: u64, kind: &str, detail: &str) -> Known {
        Known { addr, domain: Domain::CPython, kind: kind.to_owned(), detail: detail.to_owned() }
    }
}

impl Census {
    pub fn take(target: &Target, model: &Model, blocks: &Blocks, known: &[Known], seen: Seen) -> Census {
        Looked::at(target, model, blocks, known, seen).settle()
    }

    /// The census of a process without Python: all but the `known` blocks are unknown.
    pub fn without_python(blocks: &Blocks, known: &[Known]) -> Census {
        let mut kinds = Kinds::default();
        let mut marks = Mark::nones(blocks.len() as usize);
        for (id, mark) in known_marks(blocks, known, &mut kinds) {
            marks[id as usize] = mark;
        }
        Census {
            types: Vec::new(),
            kinds,
            marks,
            claims: Vec::new(),
            laid_out: Vec::new(),
            holders: Vec::new(),
        }
    }

    /// Takes the collector's permanent generation out of what is tracked, as `gc.get_objects()` does.
    pub fn untrack(&mut self, blocks: &Blocks, objects: &FxHashSet<u64>) {
        for addr in objects {
            if let Some(id) = blocks.find(*addr) {
                self.marks[id as usize].untrack();
            }
        }
    }

    /// Tells the tables of interned strings from other dicts' tables.
    pub fn name_interned(&mut self, blocks: &Blocks, dicts: &[u64]) {
        let owners: Vec<u32> = dicts.iter().filter_map(|dict| Some(blocks.containing(*dict)?.id)).collect();
        let kind = self.kinds.intern(Domain::CPython, Part::DictKeys.name(), "interned", Sure::Exact);
        for claim in self.claims.iter().filter(|c| c.part == Part::DictKeys && owners.contains(&c.owner)) {
            self.marks[claim.block as usize] = Mark::kind(kind);
        }
    }

    /// What is known of a block.
    pub fn mark(&self, block: u32) -> Mark {
        self.marks[block as usize]
    }

    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Blocks of such marks, in address order.
    pub(crate) fn listed(&self, of: impl Fn(Mark) -> bool + Sync) -> Vec<u32> {
        listed(&self.marks, of)
    }

    /// Was the type of that index laid out in C, not by a `class` statement?
    pub fn is_c_type(&self, index: usize) -> bool {
        self.laid_out.get(index) == Some(&index)
    }

    /// How many bytes of an instance were laid out in C; what follows, a `class` statement added.
    pub(crate) fn laid_out_in_c(&self, index: usize) -> u32 {
        let laid_out = self.laid_out.get(index).and_then(|&at| self.types.get(at));
        laid_out.map_or(u32::MAX, |ty| ty.shape.basicsize)
    }

    /// The block of the object that owns a block, if one alone does.
    pub fn owner(&self, block: u32) -> Option<u32> {
        let of = |list: &[Claim]| {
            let i = list.binary_search_by_key(&block, |claim| claim.block).ok()?;
            Some(list[i].owner).filter(|owner| *owner != NOBODY)
        };
        of(&self.claims).or_else(|| of(&self.holders))
    }

    /// Names a block that was not known, or less well.
    pub(crate) fn set_mark(&mut self, block: u32, mark: Mark) {
        self.marks[block as usize] = mark;
    }

    /// Blocks known only by who points to them, with the object that does.
    pub(crate) fn holders(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.holders.iter().map(|c| (c.block, c.owner))
    }

    /// Blocks that hang on an object by way of others: what a thing that it holds leads to.
    pub(crate) fn hold(&mut self, found: impl Iterator<Item = (u32, u32)>) {
        self.holders.extend(found.map(|(block, owner)| Claim { block, part: Part::Held, owner }));
        self.holders.par_sort_unstable();
        self.holders.dedup_by_key(|claim| claim.block);
    }

    /// Every owned block with its owner ([`NOBODY`] for static and shared ones), known fields first.
    pub fn owned(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.claims.iter().chain(&self.holders).map(|c| (c.block, c.owner))
    }
}

/// Ids of such marks, a small part of all. They lie anywhere between the others, so that no processor could tell
/// what comes next: each is written down, and counts only if it is one.
fn listed(marks: &[Mark], of: impl Fn(Mark) -> bool + Sync) -> Vec<u32> {
    const CHUNK: usize = 1 << 12;
    let chunks = marks.par_chunks(CHUNK).enumerate().map(|(chunk, marks)| {
        let mut ids = [0; CHUNK];
        let mut found = 0;
        for (id, mark) in (chunk * CHUNK..).zip(marks) {
            ids[found] = id as u32;
            found += usize::from(of(*mark));
        }
        ids[..found].to_vec()
    });
    chunks.collect::<Vec<_>>().concat()
}

/// What is known of blocks from elsewhere, in their order.
fn known_marks(blocks: &Blocks, known: &[Known], kinds: &mut Kinds) -> Vec<(u32, Mark)> {
    let mut mark_of = |known: &Known| {
        let id = blocks.find(known.addr)?;
        Some((id, Mark::kind(kinds.intern(known.domain, &known.kind, &known.detail, Sure::Exact))))
    };
    let mut marks: Vec<_> = known.iter().filter_map(&mut mark_of).collect();
    // Of two that tell of one block the last stands.
    marks.reverse();
    marks.sort_by_key(|(id, _)| *id);
    marks.dedup_by_key(|(id, _)| *id);
    marks
}

/// What was found of the objects of a span beside their types.
#[derive(Default)]
struct Proposed {
    /// Claims within the arena, of which the marks tell.
    within: Vec<Claim>,
    elsewhere: Vec<Claim>,
    /// Id of the span's first block.
    first: u32,
    /// Tuples' items.
    items: Vec<Far>,
    /// Dicts' tables.
    tables: Vec<Far>,
    undecided: Vec<Undecided>,
}

impl Proposed {
    fn elsewhere(claims: Vec<Claim>) -> Proposed {
        Proposed { elsewhere: claims, ..Proposed::default() }
    }
}

/// A block that an object says is its own, by address.
#[derive(Clone, Copy)]
struct Wanted {
    addr: u64,
    bytes: u64,
    part: Part,
    owner: u32,
}

impl Wanted {
    fn new(Owned { part, addr, bytes }: Owned, owner: u32) -> Wanted {
        Wanted { addr, bytes, part, owner }
    }
}

struct Pass<'a> {
    target: &'a Target,
    model: &'a Model,
    blocks: &'a Blocks,
    types: &'a Types<'a>,
}

/// How the allocator of a span rounds.
pub(crate) fn source(kind: SpanKind, block_bytes: u64) -> Source {
    match kind {
        SpanKind::Pymalloc { .. } => Source::Pymalloc { block: block_bytes },
        SpanKind::Slots { .. } => Source::Slot,
        SpanKind::Heap { .. } => Source::Malloc,
        SpanKind::Mmapped => Source::Mmapped,
    }
}

impl Pass<'_> {
    /// Splits the column of marks by span.
    fn by_span<'m>(&self, mut marks: &'m mut [Mark]) -> Vec<&'m mut [Mark]> {
        let mut out = Vec::with_capacity(self.blocks.spans().len());
        for span in 0..self.blocks.spans().len() {
            let (head, tail) = marks.split_at_mut(self.blocks.ids(span).len());
            out.push(head);
            marks = tail;
        }
        out
    }

    /// Marks all blocks: with the object that each looks like, or as they are known from elsewhere. `seen`: by span,
    /// what was seen already. Marks are written to and never read before: a page that was read first is mapped twice,
    /// and the other threads wait for that.
    fn propose(
        &self,
        marks: &mut [Mark],
        known: &[(u32, Mark)],
        seen: Vec<Option<InArena>>,
    ) -> Vec<Proposed> {
        let links = self.links();
        let known_in = |span| {
            let [start, end] = [self.blocks.ids(span).start, self.blocks.ids(span).end]
                .map(|id| known.partition_point(|(known, _)| *known < id));
            &known[start..end]
        };
        let spans = self.by_span(marks).into_iter().zip(seen).enumerate();
        let mut proposed = shared_out(
            spans,
            || (TypeCache::new(self.types, self.target.reader()), Vec::new()),
            |(types, room), (span, (marks, seen))| match seen {
                Some(seen) => self.number(span, marks, known_in(span), seen),
                None => {
                    let staged = Staged::read(&*self.target.memory, self.worth_reading(span), room);
                    self.propose_in(types, &staged, links.as_ref(), span, marks, known_in(span))
                }
            },
        );
        let tables = self.claims_of_tables(&mut proposed);
        proposed.extend(tables);
        if let Some(links) = links {
            self.decide(&links, &mut proposed, marks, known);
        }
        proposed
    }

    /// Of an arena that was looked at before its blocks had numbers. What is known from elsewhere stands, but against the
    /// collector's own lists.
    fn number(&self, span: usize, marks: &mut [Mark], known: &[(u32, Mark)], mut seen: InArena) -> Proposed {
        let first = self.blocks.ids(span).start;
        marks.copy_from_slice(&seen.marks);
        let mut is_known = false;
        for (id, known) in known {
            let mark = &mut marks[(id - first) as usize];
            if !mark.is_linked() {
                *mark = *known;
                is_known = true;
            }
        }
        if is_known {
            // What is known from elsewhere is no object, and claims nothing.
            let stands = |owner: u32| marks[owner as usize].as_object().is_some();
            seen.claims.retain(|claim| stands(claim.owner));
            seen.wanted.retain(|wanted| stands(wanted.owner));
            marks.iter_mut().for_each(Mark::disclaim);
            seen.mark_claims(marks);
        }
        for claim in &mut seen.claims {
            (claim.block, claim.owner) = (first + claim.block, first + claim.owner);
        }
        let wanted = seen.wanted.iter().map(|wanted| Wanted { owner: first + wanted.owner, ..*wanted });
        let mut cursor = self.target.reader();
        let elsewhere = wanted.filter_map(|wanted| self.claim(&mut cursor, wanted)).collect();
        Proposed { within: seen.claims, elsewhere, first, items: seen.items, ..Proposed::default() }
    }

    /// The object in a block, if it holds one.
    fn identify(
        &self,
        identifier: &mut Identifier,
        reader: &mut Reader,
        start: u64,
        bytes: u64,
        source: Source,
    ) -> Option<Object> {
        let allocation = self.model.unpad(reader, start, bytes);
        let object = identifier.identify(reader, allocation, source);
        if object.is_none() {
            self.meet_static_type(identifier, reader, allocation);
        }
        object
    }

    /// Is what was told quickly what is told by all questions?
    fn is_what_it_is(
        &self,
        answer: Answer,
        identifier: &mut Identifier,
        reader: &mut Reader,
        start: u64,
        bytes: u64,
        source: Source,
    ) -> bool {
        let mut asked = || self.identify(identifier, reader, start, bytes, source);
        match answer {
            Answer::Ask => true,
            Answer::Nothing => asked().is_none(),
            Answer::Object(found) => {
                let object = asked();
                let mut parts = 0;
                object.iter().for_each(|object| self.wanted_of(reader, object, |_| parts += 1));
                object == identifier.object(&found) && (found.owns || parts == 0)
            }
        }
    }

    /// What an object says is its own.
    #[inline]
    fn wanted_of(&self, reader: &mut Reader, object: &Object, mut f: impl FnMut(Owned)) {
        if !matches!(object.shape.family, Family::Int | Family::Float | Family::Bytes | Family::Tuple) {
            owns::owned(self.model, reader, object, &mut f);
        }
    }

    /// The claim to the block that is wanted, if there is one with room for it.
    fn claim(&self, reader: &mut Reader, wanted: Wanted) -> Option<Claim> {
        let block = self.blocks.containing(wanted.addr)?;
        let has_room = self.has_room(reader, block.start, block.usable, &wanted);
        has_room.then_some(Claim { block: block.id, part: wanted.part, owner: wanted.owner })
    }

    /// Does the data of the block begin where that is wanted, with room for it?
    #[inline]
    fn has_room(&self, reader: &mut Reader, start: u64, usable: u64, wanted: &Wanted) -> bool {
        /// 3.11 and 3.12 keep sizes before an instance's values: at most 30 names and two bytes.
        const VALUES_PREFIX: u64 = 32;
        let allocation = self.model.unpad(reader, start, usable);
        let slack = if wanted.part == Part::DictValues { VALUES_PREFIX } else { 0 };
        let before = wanted.addr.wrapping_sub(allocation.data);
        before <= slack && before.checked_add(wanted.bytes).is_some_and(|bytes| bytes <= allocation.size)
    }

    /// Static types own blocks too: a structseq's members, copied names and documentation.
    fn claims_of_static_types(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        let mut reader = self.target.reader();
        let mut cursor = self.target.reader();
        for ty in self.types.all() {
            if self.types.is_static(ty.addr) {
                let _ = owns::type_parts(self.model, &mut reader, ty.addr, &mut |part, addr, bytes| {
                    claims.extend(self.claim(&mut cursor, Wanted { addr, bytes, part, owner: NOBODY }));
                });
            }
        }
        claims
    }

    /// Such types that no object has are met here, for those in the data of images.
    fn meet_static_type(&self, identifier: &mut Identifier, reader: &mut Reader, allocation: Allocation) {
        if allocation.size < self.model.layout.type_object.size {
            return;
        }
        let Ok(meta) = self.model.type_of(reader, allocation.data) else { return };
        if identifier.types.get(meta).is_some_and(|meta| meta.flags & flags::TYPE_SUBCLASS != 0) {
            identifier.types.get(allocation.data);
        }
    }

    /// Objects in the data of images may be the only ones of their types: `Ellipsis` is.
    fn meet_static_objects(&self) {
        self.target.images.par_iter().for_each(|image| {
            let mut cache = TypeCache::new(self.types, self.target.reader());
            let is_type = |word| self.types.is_static(word);
            statics::for_each(self.target, self.model, image, is_type, |_, ty| {
                cache.get(ty);
            });
        });
    }

    /// Type objects that an extension has in memory of its own, as numpy its dtypes' classes: laid out as static
    /// ones are, without a GC head.
    fn name_static_types(&self, types: &[Type], marks: &mut [Mark], kinds: &mut Kinds) {
        let mut reader = self.target.reader();
        for ty in types {
            let Some(block) = self.blocks.containing(ty.addr) else { continue };
            let data = self.model.unpad(&mut reader, block.start, block.usable).data;
            let mark = &mut marks[block.id as usize];
            if data == ty.addr && mark.is_none() {
                *mark = Mark::kind(kinds.intern(Domain::CPython, "static type", &ty.name, Sure::Exact));
            }
        }
    }
}

/// A type and its bases.
pub(crate) fn bases(types: &[Type], first: usize) -> impl Iterator<Item = &Type> {
    let mut next = Some(first);
    std::iter::from_fn(move || {
        let ty = types.get(next?)?;
        next = ty.base.map(|b| b as usize);
        Some(ty)
    })
    .take(types.len())
}
