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

pub(crate) use mappings::pointed_at;

use crate::census::Census;
use crate::kinds::{Domain, KindId, Sure};
use crate::ledger::KnownRange;
use crate::marks::Mark;
use rayon::prelude::*;
use wmr_alloc::{Block, Blocks};
use wmr_cpython::model::Model;
use wmr_memory::{Image, Reader, Target};

/// What is named, and how.
struct Native<'a> {
    target: &'a Target,
    blocks: &'a Blocks,
    census: &'a mut Census,
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
    let mut native = Native { target, blocks, census, images: Images::new(target) };
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
    native.name_signatures();
    if let Some(model) = model {
        native.name_sqlite(model);
    }
    // Numbers and pixels are no pointers.
    sources.retain(|block| native.kind_of(*block).is_some_and(|kind| !fields::is_content(kind)));
    native.reach(sources);
    native.reach(objects.iter().map(|o| o.block).chain(instances).chain(structures).collect());
    // What these point to has room that was never written.
    native.reach_once(&libraries);
    native.reach_from_images(python);
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

    /// Is a block known by who holds it alone? It may learn what it is.
    fn held_alone(&self) -> impl Fn(Mark) -> bool + Sync + '_ {
        |mark| {
            mark.as_kind().is_some_and(|kind| {
                let kind = self.census.kinds.get(kind);
                kind.sure == Sure::Owner && kind.kind.starts_with("data of ")
            })
        }
    }

    /// Asks of each unnamed block, and of those `also` takes, what it is; in address order.
    fn ask<T: Send>(
        &self,
        also: impl Fn(Mark) -> bool + Sync,
        ask: impl Fn(&mut Reader, Block) -> Option<T> + Sync,
    ) -> Vec<(u32, T)> {
        // The column of marks alone is looked through: few blocks of many are asked.
        let marks = self.census.marks().par_iter().enumerate();
        marks
            .filter(|(_, mark)| mark.is_none() || also(**mark))
            .map_init(
                || self.target.reader(),
                |reader, (id, _)| Some((id as u32, ask(reader, self.blocks.block(id as u32))?)),
            )
            .flatten_iter()
            .collect()
    }
}

/// What part of an image an address lies in.
struct Images<'a>(Vec<(std::ops::Range<u64>, bool, &'a Image)>);

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
