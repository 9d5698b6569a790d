//! Why pages of a forked worker are not its parent's any more: what differs on them.
//!
//! Taking an object into the hand changes its reference count, and so has its page copied; a collection
//! writes to the heads of all objects that it looks at. The bytes of both processes are compared with
//! those words left out.

use crate::inspect::Inspection;
use std::collections::VecDeque;
use std::ops::Range;
use wmr_cpython::Python;
use wmr_cpython::model::Model;
use wmr_memory::{Reader, Target};

/// Where a page lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In an arena of pymalloc.
    Pymalloc,
    Malloc,
    /// Data of the interpreter and of libraries, stacks, mappings of others.
    Elsewhere,
}

impl Place {
    pub const ALL: [Place; 3] = [Place::Pymalloc, Place::Malloc, Place::Elsewhere];

    pub fn name(self) -> &'static str {
        match self {
            Place::Pymalloc => "pymalloc",
            Place::Malloc => "malloc",
            Place::Elsewhere => "elsewhere",
        }
    }
}

/// Bytes of pages by what differs on them. A page is in one of these alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Differences {
    /// At most reference counts of objects. They may have gone up and down again, so that nothing does.
    pub refcounts: u64,
    /// Words of the collector's heads, and at most reference counts besides.
    pub gc_heads: u64,
    /// Nothing, and there is no object on it: somebody wrote what was there, or it was copied in vain.
    pub nothing: u64,
    pub other: u64,
    /// One of both could not be read.
    pub unread: u64,
}

impl Differences {
    pub fn total(&self) -> u64 {
        self.refcounts + self.gc_heads + self.nothing + self.other + self.unread
    }
}

impl std::ops::AddAssign for Differences {
    fn add_assign(&mut self, other: Self) {
        self.refcounts += other.refcounts;
        self.gc_heads += other.gc_heads;
        self.nothing += other.nothing;
        self.other += other.other;
        self.unread += other.unread;
    }
}

/// Is the interpreter of `other` the very one of the inspection: the same version at the same place?
pub fn same_interpreter(inspection: &Inspection, other: &Target) -> bool {
    let (Ok(ours), Ok(theirs)) = (&inspection.python, &Python::find(other)) else { return false };
    ours.version == theirs.version && ours.type_type == theirs.type_type
}

const PAGE: u64 = 4096;

/// Compares `pages` of a worker, in address order, with those of its parent.
///
/// Where the objects are is what the worker's census says. `None` when there is no Python in it.
pub fn differences(
    inspection: &Inspection,
    worker: &Target,
    parent: &Target,
    pages: &[Range<u64>],
) -> Option<[(Place, Differences); 3]> {
    let model = inspection.model.as_ref()?;
    let mut found = Place::ALL.map(|place| (place, Differences::default()));
    let mut counted = Counted::new(inspection, model, worker, pages);
    let (mut ours, mut theirs) = (Page::of(worker), Page::of(parent));
    for page in pages.iter().flat_map(|range| range.clone().step_by(PAGE as usize)) {
        let objects = counted.on_page(page);
        let (_, sum) = &mut found[place(inspection, page) as usize];
        let kind = match (ours.read(page), theirs.read(page)) {
            (Some(ours), Some(theirs)) => match compare(page, ours, theirs, objects) {
                Differ::Refcounts => &mut sum.refcounts,
                Differ::GcHeads => &mut sum.gc_heads,
                Differ::Nothing => &mut sum.nothing,
                Differ::Other => &mut sum.other,
            },
            _ => &mut sum.unread,
        };
        *kind += PAGE;
    }
    Some(found)
}

/// Who has the page; where several have a part of it, the one with objects.
fn place(inspection: &Inspection, page: u64) -> Place {
    let spans = inspection.blocks.spans();
    let first = spans.partition_point(|span| span.end <= page);
    let here = spans[first..].iter().take_while(|span| span.start < page + PAGE);
    let kinds = here.map(|span| if span.kind.is_pymalloc() { Place::Pymalloc } else { Place::Malloc });
    kinds.min_by_key(|place| *place as usize).unwrap_or(Place::Elsewhere)
}

/// One page at a time of a target.
struct Page<'t> {
    reader: Reader<'t>,
    scratch: Vec<u8>,
}

impl<'t> Page<'t> {
    fn of(target: &'t Target) -> Self {
        Page { reader: target.reader(), scratch: Vec::new() }
    }

    fn read(&mut self, page: u64) -> Option<&[u8]> {
        self.reader.window(page, PAGE as usize, &mut self.scratch).ok()
    }
}

/// The words of an object that change without anything being done to it.
#[derive(Debug, Clone, Copy)]
struct Words {
    /// Address of the reference count.
    count: u64,
    /// Bytes of the collector's head just before the object; 0 for none.
    head: u64,
    object: u64,
}

impl Words {
    fn start(&self) -> u64 {
        self.count.min(self.object - self.head)
    }

    fn end(&self) -> u64 {
        self.count.saturating_add(8).max(self.object)
    }
}

/// The objects of the blocks on the pages that are asked for, in address order.
struct Counted<'a> {
    /// All that are ahead.
    rest: std::iter::Peekable<Box<dyn Iterator<Item = Words> + 'a>>,
    near: VecDeque<Words>,
    /// Types in the data of the interpreter and of extensions, which lie in no block.
    statics: Vec<Words>,
    here: Vec<Words>,
}

impl<'a> Counted<'a> {
    fn new(
        inspection: &'a Inspection,
        model: &'a Model,
        target: &'a Target,
        pages: &'a [Range<u64>],
    ) -> Counted<'a> {
        let blocks = &inspection.blocks;
        let count = model.layout.object.ob_refcnt;
        let mut statics: Vec<Words> = inspection
            .census
            .types
            .iter()
            .filter(|ty| blocks.span_at(ty.addr).is_none())
            .map(|ty| Words { count: ty.addr.saturating_add(count), head: 0, object: ty.addr })
            .collect();
        statics.sort_unstable_by_key(|words| words.count);
        let wanted = move |span: &Range<u64>| {
            let first = pages.partition_point(|range| range.end <= span.start);
            pages.get(first).is_some_and(|range| range.start < span.end)
        };
        let mut reader = target.reader();
        let spans = blocks.spans().iter().enumerate();
        let rest = spans
            .filter(move |(_, span)| wanted(&(span.start..span.end)))
            .flat_map(|(i, _)| blocks.iter_span(i))
            .filter_map(move |block| {
                let (object, allocation) = inspection.object_in(model, &mut reader, block)?;
                // Within the block, whatever the type says of itself.
                let room = object.addr.saturating_sub(allocation.data);
                let head = if object.shape.has_gc() { model.gc_head.min(room) } else { 0 };
                Some(Words { count: object.addr.saturating_add(count), head, object: object.addr })
            });
        let rest: Box<dyn Iterator<Item = Words> + 'a> = Box::new(rest);
        Counted { rest: rest.peekable(), near: VecDeque::new(), statics, here: Vec::new() }
    }

    /// The objects some of whose words lie on the page. Pages are asked for in address order.
    fn on_page(&mut self, page: u64) -> &[Words] {
        let end = page + PAGE;
        while self.near.front().is_some_and(|words| words.end() <= page) {
            self.near.pop_front();
        }
        while let Some(words) = self.rest.next_if(|words| words.start() < end) {
            if words.end() > page {
                self.near.push_back(words);
            }
        }
        self.here.clear();
        self.here.extend(self.near.iter().filter(|words| words.start() < end));
        let first = self.statics.partition_point(|words| words.end() <= page);
        self.here.extend(self.statics[first..].iter().take_while(|words| words.start() < end));
        &self.here
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Differ {
    Nothing,
    Refcounts,
    GcHeads,
    Other,
}

fn compare(page: u64, ours: &[u8], theirs: &[u8], objects: &[Words]) -> Differ {
    if ours == theirs {
        return if objects.is_empty() { Differ::Nothing } else { Differ::Refcounts };
    }
    let mut masked = theirs.to_vec();
    let mask = |masked: &mut [u8], words: Range<u64>| {
        let part = part(page, words);
        masked[part.clone()].copy_from_slice(&ours[part]);
    };
    objects.iter().for_each(|words| mask(&mut masked, words.count..words.count.saturating_add(8)));
    if masked == ours {
        return Differ::Refcounts;
    }
    objects.iter().for_each(|words| mask(&mut masked, words.object - words.head..words.object));
    if masked == ours { Differ::GcHeads } else { Differ::Other }
}

/// What of a range lies on the page, as offsets in it.
fn part(page: u64, range: Range<u64>) -> Range<usize> {
    let offset = |addr: u64| addr.clamp(page, page + PAGE) - page;
    offset(range.start) as usize..offset(range.end) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x7000_0000_0000;

    /// An object without a head at 64, one with a head at 160, one whose count is on the next page.
    fn objects() -> [Words; 3] {
        let words = |object, head| Words { count: object, head, object };
        [words(AT + 64, 0), words(AT + 160, 16), words(AT + PAGE, 16)]
    }

    fn differ(changes: &[usize]) -> Differ {
        let theirs = [7; PAGE as usize];
        let mut ours = theirs;
        changes.iter().for_each(|&at| ours[at] ^= 0x10);
        compare(AT, &ours, &theirs, &objects())
    }

    #[test]
    fn a_page_is_told_by_its_gravest_difference() {
        assert_eq!(compare(AT, &[1; 4096], &[1; 4096], &[]), Differ::Nothing);
        assert_eq!(differ(&[]), Differ::Refcounts);
        assert_eq!(differ(&[64, 71, 160]), Differ::Refcounts);
        assert_eq!(differ(&[144]), Differ::GcHeads);
        assert_eq!(differ(&[64, 159]), Differ::GcHeads);
        // The head of what begins with the next page.
        assert_eq!(differ(&[4095]), Differ::GcHeads);
        for other in [0, 63, 72, 143, 168, 4079] {
            assert_eq!(differ(&[64, other]), Differ::Other, "{other}");
        }
    }
}
