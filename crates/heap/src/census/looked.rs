//! A census after the first two passes: every block's object is proposed, its claims are made. What follows reads
//! little of the memory, and tells what.

use super::words::{HiddenWords, held, laid_out_by};
use super::{Census, Pass, Proposed, known_marks, listed};
use crate::census::{Known, Seen};
use crate::claims::settle;
use crate::kinds::{Domain, Kinds, Sure};
use crate::marks::Mark;
use std::ops::Range;
use wmr_alloc::Blocks;
use wmr_cpython::model::Model;
use wmr_cpython::owns::Part;
use wmr_cpython::types::{Type, Types};
use wmr_memory::Target;

pub struct Looked<'a> {
    target: &'a Target,
    model: &'a Model,
    blocks: &'a Blocks,
    types: Types<'a>,
    list: Vec<Type>,
    kinds: Kinds,
    marks: Vec<Mark>,
    proposed: Vec<Proposed>,
    laid_out: Vec<usize>,
    hidden: Vec<HiddenWords>,
}

impl<'a> Looked<'a> {
    pub fn at(target: &'a Target, model: &'a Model, blocks: &'a Blocks, known: &[Known], seen: Seen) -> Self {
        let (types, seen) = seen.by_span(blocks);
        let types = Types::knowing(types, target, model, blocks);
        let mut kinds = Kinds::default();
        let known = known_marks(blocks, known, &mut kinds);
        let mut marks = Mark::nones(blocks.len() as usize);
        let pass = Pass { target, model, blocks, types: &types };
        let mut proposed = pass.propose(&mut marks, &known, seen);
        for tuple in pass.mistaken_tuples(&proposed, &marks) {
            marks[tuple as usize].clear();
        }
        pass.meet_static_objects();
        proposed.push(Proposed::elsewhere(pass.claims_of_static_types()));
        let list = types.all();
        let laid_out = laid_out_by(&list);
        let hidden = pass.hidden_words(&list, &laid_out);
        Looked { target, model, blocks, types, list, kinds, marks, proposed, laid_out, hidden }
    }

    /// The memory that is looked at from here on: outside of the allocators', of C objects with words that nothing
    /// declares, and of blocks that may be left without a name.
    pub fn unread(&mut self) -> Vec<Range<u64>> {
        let elsewhere = self.proposed.iter().flat_map(|proposed| &proposed.elsewhere);
        for claim in elsewhere.filter(|claim| claim.owner != claim.block) {
            self.marks[claim.block as usize].claim();
        }
        let hides: Vec<bool> = self.hidden.iter().map(|hidden| !hidden.is_empty()).collect();
        // A proposal that a claim contradicts may lose.
        let may_lose = |mark: Mark| mark.as_object().is_some() & mark.is_claimed() & !mark.is_linked();
        // All is asked of each, for a processor that could not tell which comes next.
        let may_be_read = |mark: Mark| {
            let hides = mark.as_object().and_then(|ty| hides.get(ty as usize)).is_some_and(|hides| *hides);
            hides | may_lose(mark) | (mark.is_none() & !mark.is_claimed())
        };
        let blocks = listed(&self.marks, may_be_read);
        // What only a loser claims is nobody's.
        let losers = blocks.iter().any(|block| may_lose(self.marks[*block as usize]));
        let claims =
            self.proposed.iter().filter(|_| losers).flat_map(|p| p.within.iter().chain(&p.elsewhere));
        let is_loser = |owner: u32| self.marks.get(owner as usize).is_some_and(|mark| may_lose(*mark));
        let losers_own = claims.filter(|claim| is_loser(claim.owner)).map(|claim| claim.block);
        let spans = self.blocks.spans();
        let starts = spans.iter().map(|span| span.start).chain([u64::MAX]);
        let between = [0].into_iter().chain(spans.iter().map(|span| span.end)).zip(starts);
        let theirs = blocks.iter().copied().chain(losers_own).map(|block| {
            let block = self.blocks.block(block);
            (block.start, block.start.saturating_add(block.usable))
        });
        between.chain(theirs).map(|(start, end)| start..end).collect()
    }

    /// Decides between what was proposed and claimed.
    pub fn settle(self) -> Census {
        let Looked { target, model, blocks, types, list, mut kinds, mut marks, proposed, laid_out, hidden } =
            self;
        let pass = Pass { target, model, blocks, types: &types };
        let words = pass.words(&list, &hidden, &marks);
        let claims = settle(proposed.into_iter().flat_map(|p| [p.within, p.elsewhere]).collect(), &mut marks);
        let parts: Vec<_> =
            Part::ALL.iter().map(|p| kinds.intern(Domain::CPython, p.name(), "", Sure::Exact)).collect();
        for claim in &claims {
            marks[claim.block as usize] = Mark::kind(parts[claim.part as usize]);
        }
        pass.name_static_types(&list, &mut marks, &mut kinds);
        let holders = held(words, &list, &mut marks, &mut kinds);
        Census { types: list, kinds, marks, claims, laid_out, holders }
    }
}
