//! Objects in the spans of malloc, where all blocks have numbers.

use super::far::{BYTES_PER_FAR, Far};
use super::links::{Links, SpanLinks};
use super::tuples::Tuples;
use super::{Pass, Proposed, Wanted, source};
use crate::marks::Mark;
use std::ops::Range;
use wmr_cpython::object::{Answer, Identifier, Object};
use wmr_cpython::owns;
use wmr_cpython::types::TypeCache;
use wmr_memory::{Memory, Reader};

impl Pass<'_> {
    /// What is read at once before the blocks of the span are looked at: all of it if they are small and many.
    pub(super) fn worth_reading(&self, span: usize) -> Range<u64> {
        /// Of larger blocks little more than the heads is looked at.
        const BYTES_PER_BLOCK: u64 = 8 << 10;
        /// A heap is cut into pieces of a MiB and what remains of the last chunk.
        const MOST: u64 = 2 << 20;
        let (count, span) = (self.blocks.ids(span).len() as u64, &self.blocks.spans()[span]);
        let is_worth = span.bytes() <= MOST.min(count.saturating_mul(BYTES_PER_BLOCK));
        if is_worth { span.start..span.end } else { 0..0 }
    }

    /// Marks the blocks of one span, and says what its objects claim. What is known from elsewhere stands, but against the
    /// collector's own lists.
    pub(super) fn propose_in(
        &self,
        types: &mut TypeCache,
        memory: &dyn Memory,
        links: Option<&Links>,
        span: usize,
        marks: &mut [Mark],
        known: &[(u32, Mark)],
    ) -> Proposed {
        types.look_in_span(span);
        let (first, kind) = (self.blocks.ids(span).start, self.blocks.spans()[span].kind);
        let range = self.blocks.spans()[span].start..self.blocks.spans()[span].end;
        let [mut local, mut cursor] = [(); 2].map(|()| Reader::new(memory));
        let mut identifier = Identifier::new(types, Reader::new(memory)).trusting_items();
        let mut tuples = Tuples::new(memory, range.clone());
        let mut links = SpanLinks::new(links, range.clone(), self.model.gc_head);
        let most_tables = ((range.end - range.start) / BYTES_PER_FAR) as usize;
        let (mut claims, mut tables) = (Vec::new(), Vec::new());
        let (mut marks, mut known) = (marks.iter_mut(), known.iter().peekable());
        self.blocks.iter_span(span).for_each(|block| {
            let Some(mark) = marks.next() else { return };
            let (place, start, bytes) = (block.id - first, block.start, block.usable);
            let source = source(kind, block.bytes);
            identifier.trust_links_beyond(links.trusted_beyond());
            let held = local.around(start, bytes as usize).unwrap_or_default();
            let answer = identifier.quickly(held.into(), start, bytes, source);
            let mut is_undecided = false;
            if let Answer::Object(found) = answer
                && found.linked
            {
                is_undecided = links.note(&mut local, found.addr, place);
            }
            debug_assert!(
                is_undecided || self.is_what_it_is(answer, &mut identifier, &mut local, start, bytes, source)
            );
            let known = known.next_if(|(id, _)| *id == block.id).map(|(_, mark)| *mark);
            let stands = |mark: Mark| known.is_none() || mark.is_linked();
            // By reference, and what is iterated over from within: a copy would wait for what was just written.
            let mut claim = |local: &mut Reader, object: &Object| {
                if tables.len() < most_tables
                    && let Some(keys) = owns::sole_table(self.model, local, object)
                    && !range.contains(&keys)
                    && let Some(table) = Far::new(place, keys)
                {
                    tables.push(table);
                    return;
                }
                self.wanted_of(local, object, |owned| {
                    claims.extend(self.claim(&mut cursor, Wanted::new(owned, block.id)));
                });
            };
            *mark = known.unwrap_or(Mark::NONE);
            match answer {
                Answer::Nothing => {}
                Answer::Object(found) => {
                    let seen = Mark::object(found.id, found.linked, found.linked);
                    if stands(seen)
                        && (!found.is_lone_tuple || tuples.stands(self, identifier.types, found.addr, place))
                    {
                        *mark = seen;
                        if found.owns
                            && let Some(object) = identifier.object(&found)
                        {
                            claim(&mut local, &object);
                        }
                    }
                }
                Answer::Ask => {
                    let object = self.identify(&mut identifier, &mut local, start, bytes, source);
                    if let Some(object) = object.as_ref().filter(|object| stands(Mark::of(object)))
                        && (!object.is_lone_tuple()
                            || tuples.stands(self, identifier.types, object.addr, place))
                    {
                        *mark = Mark::of(object);
                        claim(&mut local, object);
                        if mark.is_linked() {
                            links.note(&mut local, object.addr, place);
                        }
                    }
                }
            }
        });
        Proposed {
            elsewhere: claims,
            first,
            items: tuples.items,
            tables,
            undecided: links.undecided,
            ..Proposed::default()
        }
    }
}
