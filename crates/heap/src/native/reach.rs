//! What named native blocks and static data of images point to.
//!
//! A block belongs to what points at its very start. The search goes level by level, and in each level
//! the first to point wins, in address order: the result depends on nothing else.

use super::{Native, file_name, for_each_word};
use crate::claims::NOBODY;
use crate::kinds::{Domain, KindId, Sure};
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use std::ops::Range;
use wmr_alloc::Block;
use wmr_cpython::object::SMALL_REQUEST;
use wmr_memory::{Image, Reader};

/// Bytes of a block that are looked at for pointers.
const MAX_SCAN: u64 = 16 << 20;
/// Blocks of so many bytes wait when fewer words than one in [`SPARSE`] are pointers.
const LARGE: u64 = 4096;
const SPARSE: u64 = 16;
/// Among so many words at a block's beginning an object has its type, whatever heads it has.
const OBJECT_WORDS: u64 = 8;

impl Native<'_> {
    /// Names what the blocks lead to. Large ones with few pointers have to wait.
    pub(super) fn reach(&mut self, sources: Vec<u32>) {
        let mut level = sources;
        while !level.is_empty() {
            let (sparse, dense): (Vec<u32>, Vec<u32>) =
                level.into_par_iter().partition(|block| self.is_sparse(*block));
            self.waiting.extend(sparse);
            level = self.reach_once(&dense);
        }
    }

    /// Names what those lead to that had to wait, as far as nobody else has it.
    pub(super) fn reach_at_last(&mut self) {
        let mut level = std::mem::take(&mut self.waiting);
        while !level.is_empty() {
            level = self.reach_once(&level);
        }
    }

    /// Parts of a large block may never have been written, and have pointers of what was there before.
    fn is_sparse(&self, block: u32) -> bool {
        let Block { start, usable, .. } = self.blocks.block(block);
        let (mut words, mut pointers) = (0u64, 0u64);
        if usable >= LARGE {
            for_each_word(
                &mut self.target.reader(),
                start..start.saturating_add(usable.min(MAX_SCAN)),
                |word| {
                    words += u64::from(word != 0);
                    pointers += u64::from(word.is_multiple_of(16) && self.blocks.at(word).is_some());
                },
            );
        }
        pointers * SPARSE < words
    }

    /// Names what the blocks point to, and returns that.
    pub(super) fn reach_once(&mut self, sources: &[u32]) -> Vec<u32> {
        let types: FxHashSet<u64> = self.census.types.iter().map(|ty| ty.addr).collect();
        let found: Vec<Vec<(u32, u32)>> = sources
            .par_iter()
            .map_init(
                || self.target.reader(),
                |reader, &source| {
                    let block = self.blocks.block(source);
                    let mut out = Vec::new();
                    let end = block.start.saturating_add(block.usable.min(MAX_SCAN));
                    self.starts_in(reader, block.start..end, |to| out.push((to, source)));
                    out
                },
            )
            .collect();
        let mut found = found.concat();
        self.leave_objects(&types, &mut found);
        self.settle(found)
    }

    /// Names what images' writable data leads to. `python`: an address in the interpreter's image, whose
    /// data are its own. `pymalloc`: there is one, or no Python.
    pub(super) fn reach_from_images(&mut self, python: Option<u64>, pymalloc: bool) {
        let mut roots = Vec::new();
        let types: FxHashSet<u64> = self.census.types.iter().map(|ty| ty.addr).collect();
        // libc and its loader are left out: behind their static data blocks were found that are nobody's.
        // Streams are known by their shape.
        let is_libc =
            |image: &Image| ["_IO_2_1_stdout_", "_rtld_global"].iter().any(|name| image.exports(name));
        for image in self.target.images.iter().filter(|image| !is_libc(image)) {
            let is_python = python.is_some_and(|at| image.contains(at));
            // Static pointers go stale. Those into pymalloc are Python's, and objects had their say; without it that is
            // what it would have served.
            let may_be_stale = |to: u32| match pymalloc || !is_python {
                true => self.blocks.spans()[self.blocks.span_of(to)].kind.is_pymalloc(),
                false => self.blocks.usable(to) <= SMALL_REQUEST + 8,
            };
            let found: Vec<u32> = image
                .writable()
                .collect::<Vec<_>>()
                .into_par_iter()
                .map_init(
                    || self.target.reader(),
                    |reader, range| {
                        let mut out = Vec::new();
                        self.starts_in(reader, range, |to| out.push(to));
                        out.retain(|to| !may_be_stale(*to));
                        out
                    },
                )
                .collect::<Vec<_>>()
                .concat();
            let kind = if is_python {
                self.intern(Domain::CPython, "runtime data", Sure::Owner)
            } else {
                self.intern(Domain::Native, &format!("data of {}", file_name(image)), Sure::Owner)
            };
            let mut found: Vec<(u32, u32)> = found.into_iter().map(|block| (block, NOBODY)).collect();
            self.leave_objects(&types, &mut found);
            for (block, _) in found {
                if self.census.mark(block).is_none() {
                    self.set(block, kind);
                    roots.push(block);
                }
            }
        }
        self.reach(roots);
    }

    /// Leaves out what looks like an object, though the census did not believe it: what points there may
    /// do so from memory that was another's before.
    fn leave_objects(&self, types: &FxHashSet<u64>, found: &mut Vec<(u32, u32)>) {
        let mut reader = self.target.reader();
        found.retain(|(to, _)| {
            let block = self.blocks.block(*to);
            let words = (block.usable / 8).min(OBJECT_WORDS);
            !(0..words).any(|i| reader.u64(block.start + 8 * i).is_ok_and(|word| types.contains(&word)))
        });
    }

    /// Whose the named blocks are: the object's that holds what led to them.
    pub(super) fn give_to_owners(&mut self) {
        let mut owners: FxHashMap<u32, u32> = FxHashMap::default();
        for (to, from) in std::mem::take(&mut self.led) {
            let owner = owners.get(&from).copied().or_else(|| self.census.owner(from));
            owners.extend(owner.map(|owner| (to, owner)));
        }
        self.census.hold(owners.into_iter());
    }

    /// Gives each found block the name of the first that points to it; returns them.
    fn settle(&mut self, mut found: Vec<(u32, u32)>) -> Vec<u32> {
        let mut names: FxHashMap<KindId, KindId> = FxHashMap::default();
        found.par_sort_unstable();
        found.dedup_by_key(|(to, _)| *to);
        for (to, from) in &found {
            let Some(kind) = self.census.mark(*from).as_kind() else { continue };
            let name = match names.get(&kind) {
                Some(name) => *name,
                None => {
                    let source = self.census.kinds.get(kind).clone();
                    // What an object's data leads to is the object's data; what a thing leads to, its own.
                    let (name, detail) = match (source.kind.starts_with("data of "), source.sure) {
                        (false, Sure::Signature | Sure::Owner) if source.domain == Domain::Native => {
                            (format!("data of {}", source.kind), source.detail)
                        }
                        _ => (source.kind, source.detail),
                    };
                    let name = self.census.kinds.intern(source.domain, &name, &detail, Sure::Owner);
                    names.insert(kind, name);
                    name
                }
            };
            self.set(*to, name);
        }
        self.led.extend_from_slice(&found);
        found.into_iter().map(|(to, _)| to).collect()
    }

    /// The unnamed blocks at whose start a word of the range points.
    fn starts_in(&self, reader: &mut Reader, range: Range<u64>, mut f: impl FnMut(u32)) {
        for_each_word(reader, range, |word| {
            if word != 0
                && word.is_multiple_of(16)
                && let Some(id) = self.blocks.at(word)
                && self.census.mark(id).is_none()
            {
                f(id);
            }
        });
    }
}
