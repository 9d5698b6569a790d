//! Names for native memory: blocks that the census left unknown, or knows only by who holds them.
//!
//! Owner first, signature second, content last: fields of C types that are known ([`fields`]), C++
//! objects by their class ([`cpp`]), GObjects by their type ([`gobject`]), structures by their shape
//! ([`signature`], [`media`]), SQLite's by its owner ([`sqlite`]), then what those point to and what static
//! data of images points to ([`reach`]). What is left stays unknown, and says what can be
//! seen in it ([`left`]).

mod arrow;
mod cpp;
mod fields;
mod gobject;
mod left;
mod loader;
mod mappings;
mod media;
mod reach;
mod signature;
mod sqlite;
mod swig;

pub(crate) use mappings::{parked, pointed_at};

use crate::census::Census;
use crate::kinds::{Domain, KindId, Sure};
use crate::ledger::KnownRange;
use crate::marks::Mark;
use rayon::prelude::*;
use std::ops::Range;
use wmr_alloc::{Block, Blocks};
use wmr_cpython::model::Model;
use wmr_memory::{Image, Reader, Target};

/// What is named, and how.
struct Native<'a> {
    target: &'a Target,
    blocks: &'a Blocks,
    census: &'a mut Census,
    /// The blocks that were unnamed, or known by who holds them alone, before: few of all.
    open: Vec<u32>,
    /// Large blocks with few pointers: what those lead to is asked last.
    waiting: Vec<u32>,
    /// Blocks that were named by what points to them, and that, in this order.
    led: Vec<(u32, u32)>,
    /// Images in address order: looked up once or more a word.
    images: Images<'a>,
}

/// Names what can be named. Returns ranges outside of all blocks that native objects own.
pub(crate) fn name(
    target: &Target,
    model: Option<&Model>,
    python: Option<u64>,
    blocks: &Blocks,
    census: &mut Census,
) -> Vec<KnownRange> {
    let open = open(census);
    let mut native = Native {
        target,
        blocks,
        census,
        open,
        waiting: Vec::new(),
        led: Vec::new(),
        images: Images::new(target),
    };
    let mut sources = native.held();
    if let Some(model) = model {
        native.name_fields(model);
        native.name_swig(model);
    }
    let objects = native.name_cpp();
    let instances = native.name_gobjects();
    let structures = native.name_media();
    let libraries = native.name_libraries();
    let ranges = native.name_arrow(&objects);
    native.name_signatures(model);
    if let Some(model) = model {
        native.name_sqlite(model);
    }
    // Numbers and pixels are no pointers.
    sources.retain(|block| native.kind_of(*block).is_some_and(|kind| !fields::is_content(kind)));
    native.reach(sources);
    native.reach(objects.iter().map(|o| o.block).chain(instances).chain(structures).collect());
    // What these point to has room that was never written.
    native.reach_once(&libraries);
    native.reach_from_images(python, model.is_none_or(|model| model.pymalloc));
    native.reach_at_last();
    native.give_to_owners();
    native.describe_the_rest();
    ranges
}

impl Native<'_> {
    fn kind_of(&self, block: u32) -> Option<&str> {
        let kind = self.census.mark(block).as_kind()?;
        Some(&self.census.kinds.get(kind).kind)
    }

    fn intern(&mut self, domain: Domain, kind: &str, sure: Sure) -> KindId {
        self.census.kinds.intern(domain, kind, "", sure)
    }

    fn set(&mut self, block: u32, kind: KindId) {
        self.census.set_mark(block, Mark::kind(kind));
    }

    /// Blocks known only by the object that points to them.
    fn held(&self) -> Vec<u32> {
        self.census.holders().map(|(block, _)| block).collect()
    }

    /// Asks of each unnamed block what it is; in address order.
    fn ask_unnamed<T: Send>(&self, ask: impl Fn(&mut Reader, Block) -> Option<T> + Sync) -> Vec<(u32, T)> {
        self.ask(|mark| mark.is_none(), ask)
    }

    /// The same, of those too that are known by who holds them alone: they may learn what they are.
    fn ask_open<T: Send>(&self, ask: impl Fn(&mut Reader, Block) -> Option<T> + Sync) -> Vec<(u32, T)> {
        self.ask(|mark| mark.is_none() || is_held_alone(self.census, mark), ask)
    }

    fn ask<T: Send>(
        &self,
        of: impl Fn(Mark) -> bool + Sync,
        ask: impl Fn(&mut Reader, Block) -> Option<T> + Sync,
    ) -> Vec<(u32, T)> {
        self.open
            .par_iter()
            .filter(|&&id| of(self.census.mark(id)))
            .map_init(|| self.target.reader(), |reader, &id| Some((id, ask(reader, self.blocks.block(id))?)))
            .flatten_iter()
            .collect()
    }
}

/// Is a block known by who holds it alone?
fn is_held_alone(census: &Census, mark: Mark) -> bool {
    mark.as_kind().is_some_and(|kind| {
        let kind = census.kinds.get(kind);
        kind.sure == Sure::Owner && kind.kind.starts_with("data of ")
    })
}

fn open(census: &Census) -> Vec<u32> {
    let held: Vec<bool> =
        (0..census.kinds.len() as KindId).map(|id| is_held_alone(census, Mark::kind(id))).collect();
    census.listed(|mark| match mark.as_kind() {
        Some(kind) => held[kind as usize],
        None => mark.is_none(),
    })
}

/// What part of an image an address lies in.
struct Images<'a>(Vec<(Range<u64>, bool, &'a Image)>);

impl<'a> Images<'a> {
    fn new(target: &'a Target) -> Self {
        let segments = target.images.iter().flat_map(|image| {
            image.segments.iter().map(move |segment| (segment.range.clone(), segment.exec, image))
        });
        let mut list: Vec<_> = segments.collect();
        list.sort_by_key(|(range, ..)| range.start);
        Images(list)
    }

    /// The image at an address, and whether it is code there.
    fn at(&self, addr: u64) -> Option<(&'a Image, bool)> {
        let after = self.0.partition_point(|(range, ..)| range.start <= addr);
        let (range, exec, image) = self.0.get(after.checked_sub(1)?)?;
        range.contains(&addr).then_some((*image, *exec))
    }
}

/// The last part of an image's path.
fn file_name(image: &Image) -> String {
    let path = String::from_utf8_lossy(&image.path);
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The words of a range, as far as they can be read.
fn for_each_word(reader: &mut Reader, range: Range<u64>, mut f: impl FnMut(u64)) {
    const PAGE: u64 = 4096;
    let mut at = range.start.next_multiple_of(8);
    let mut scratch = Vec::new();
    while at < range.end {
        // Up to a page's end: the next one may not be there.
        let end = (at / PAGE + 1).saturating_mul(PAGE).min(range.end);
        if let Ok(bytes) = reader.window(at, (end - at) as usize, &mut scratch) {
            for word in bytes.as_chunks::<8>().0 {
                f(u64::from_le_bytes(*word));
            }
        }
        at = end;
    }
}
