//! Lost blocks that are no objects, in groups of like ones: by what the census calls them, by size, by
//! the library whose code or constants they point into, and by what they begin with.

use super::EXAMPLES;
use super::cycles::Found;
use super::lost::{Lost, State};
use super::nearby::{self, Content};
use super::references::{INTERIOR, References};
use crate::Inspection;
use crate::kinds::Domain;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_memory::{Reader, Target};

/// Native blocks that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Native {
    pub state: State,
    /// What the census says of them, empty for nothing.
    pub kind: String,
    /// Bytes their owner may use: the least and the most of each.
    pub usable: (u64, u64),
    pub count: u64,
    /// What they take of their allocator.
    pub bytes: u64,
    /// What only they point at.
    pub indirect: u64,
    /// File name of the program or library whose code or constants they mention.
    pub mentions: Option<String>,
    pub content: Content,
    /// What lies beside most of them.
    pub beside: Option<String>,
    pub examples: Vec<u64>,
}

/// One block that was lost and is no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostBlock {
    pub addr: u64,
    pub bytes: u64,
    pub state: State,
    /// Index of its group, of an indirect one of the group it hangs on.
    pub group: u32,
}

/// What blocks of one group have in common. The size is left out where they have too many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Alike {
    state: State,
    kind: Option<u32>,
    mentions: Option<usize>,
    /// Text or not, the fill: of text itself only whether it is.
    content: Content,
    usable: Option<u64>,
}

/// Blocks of that many sizes are told as one: texts, buffers.
const SIZES: usize = 4;
/// A chunk may be that much larger than was asked for: what is left of a free one would be none.
const SLACK: u64 = 16;
/// One of so many of the same size tells nothing of the others.
const RARE: usize = 8;
/// Blocks of a group that are looked at for their neighbours.
const LOOK_AT: usize = 64;

pub(super) fn find(
    target: &Target,
    inspection: &Inspection,
    references: &References,
    lost: &Lost,
    cycles: &Found,
) -> (Vec<Native>, Vec<LostBlock>) {
    let libraries = Libraries::new(target);
    let mut reader = target.reader();
    let mut groups: FxHashMap<Alike, Vec<u32>> = FxHashMap::default();
    for (&block, &state) in lost.blocks.iter().zip(&lost.states) {
        let mark = inspection.census.mark(block);
        if mark.as_object().is_some() || state == State::Indirect || cycles.members.contains(&block) {
            continue;
        }
        let at = inspection.blocks.block(block);
        let mentions = libraries.mentioned(&mut reader, at.start, at.usable).or_else(|| {
            // The first that hangs on it may say more.
            let next = references.of(block).iter().map(|edge| edge & !INTERIOR);
            let next = next.map(|id| inspection.blocks.block(id)).find(|next| next.id != block)?;
            libraries.mentioned(&mut reader, next.start, next.usable)
        });
        let content = nearby::content(target, at.start, at.usable).sort();
        let kind = mark.as_kind().filter(|&kind| inspection.census.kinds.get(kind).domain != Domain::Unknown);
        let alike = Alike { state, kind, mentions, content, usable: Some(at.usable) };
        groups.entry(alike).or_default().push(block);
    }
    let mut groups: Vec<(Alike, Vec<u32>)> = joined(as_most(groups)).into_iter().collect();
    let weight = |blocks: &[u32]| -> u64 {
        let each = |&id: &u32| inspection.blocks.bytes(id) + lost.indirect.get(&id).copied().unwrap_or(0);
        blocks.iter().map(each).sum()
    };
    for (_, blocks) in &mut groups {
        blocks.sort_unstable();
    }
    groups.sort_by_cached_key(|(_, blocks)| (std::cmp::Reverse(weight(blocks)), blocks.first().copied()));
    let (mut list, mut out) = (Vec::with_capacity(groups.len()), Vec::new());
    for (alike, blocks) in groups {
        for &id in &blocks {
            let at = inspection.blocks.block(id);
            out.push(LostBlock {
                addr: at.start,
                bytes: at.bytes,
                state: alike.state,
                group: list.len() as u32,
            });
        }
        list.push(group(target, inspection, lost, &libraries, &alike, &blocks));
    }
    hanging(inspection, references, lost, cycles, &mut out);
    out.sort_unstable_by_key(|block| block.addr);
    (list, out)
}

/// What few blocks of a size have and most of that size have not was left there by who had the memory before:
/// each goes with most.
fn as_most(groups: FxHashMap<Alike, Vec<u32>>) -> FxHashMap<Alike, Vec<u32>> {
    type Size = (State, Option<u32>, Option<u64>);
    let mut most: FxHashMap<Size, (usize, Alike)> = FxHashMap::default();
    for (alike, blocks) in &groups {
        let known = most.entry((alike.state, alike.kind, alike.usable)).or_insert((0, alike.clone()));
        if blocks.len() > known.0 {
            *known = (blocks.len(), alike.clone());
        }
    }
    let mut out: FxHashMap<Alike, Vec<u32>> = FxHashMap::default();
    for (alike, blocks) in groups {
        let less = alike.usable.and_then(|usable| usable.checked_sub(SLACK));
        let sizes = [alike.usable, less].into_iter();
        let known = sizes.filter_map(|usable| most.get(&(alike.state, alike.kind, usable)));
        let mut known =
            known.filter(|known| known.0 >= blocks.len().saturating_mul(RARE)).map(|known| &known.1);
        let alike = known.next_back().cloned().unwrap_or(alike);
        out.entry(alike).or_default().extend(blocks);
    }
    out
}

/// Groups that differ in their sizes alone, and in many, become one.
fn joined(groups: FxHashMap<Alike, Vec<u32>>) -> FxHashMap<Alike, Vec<u32>> {
    let without_size = |alike: &Alike| Alike { usable: None, ..alike.clone() };
    // By what is left without the size: how many sizes, blocks, and most blocks of one size.
    let mut sizes: FxHashMap<Alike, (usize, usize, usize)> = FxHashMap::default();
    for (alike, blocks) in &groups {
        let (sizes, all, most) = sizes.entry(without_size(alike)).or_default();
        *sizes += 1;
        *all += blocks.len();
        *most = (*most).max(blocks.len());
    }
    let counts: FxHashMap<Alike, usize> =
        groups.iter().map(|(alike, blocks)| (alike.clone(), blocks.len())).collect();
    let mut out: FxHashMap<Alike, Vec<u32>> = FxHashMap::default();
    for (alike, blocks) in groups {
        let common = without_size(&alike);
        // What is too little for a chunk of its own goes with one.
        let less =
            Alike { usable: alike.usable.and_then(|usable| usable.checked_sub(SLACK)), ..alike.clone() };
        let alike = if counts.get(&less).is_some_and(|&count| count >= blocks.len()) { less } else { alike };
        let many = sizes.get(&common).is_some_and(|&(sizes, all, most)| sizes > SIZES && most * 2 < all);
        out.entry(if many { common } else { alike }).or_default().extend(blocks);
    }
    out
}

fn group(
    target: &Target,
    inspection: &Inspection,
    lost: &Lost,
    libraries: &Libraries,
    alike: &Alike,
    blocks: &[u32],
) -> Native {
    let of = |id: &u32| inspection.blocks.block(*id);
    let sizes = blocks.iter().map(|id| of(id).usable);
    let mut contents =
        blocks.iter().take(LOOK_AT).map(of).map(|at| nearby::content(target, at.start, at.usable));
    let content = contents.find(|content| content.sort() == alike.content);
    Native {
        state: alike.state,
        kind: alike.kind.map(|kind| inspection.census.kinds.get(kind).kind.clone()).unwrap_or_default(),
        usable: match alike.usable {
            Some(usable) => (usable, usable),
            None => (sizes.clone().min().unwrap_or(0), sizes.max().unwrap_or(0)),
        },
        count: blocks.len() as u64,
        bytes: blocks.iter().map(|id| inspection.blocks.bytes(*id)).sum(),
        indirect: blocks.iter().filter_map(|id| lost.indirect.get(id)).sum(),
        mentions: alike.mentions.map(|image| libraries.name(image)),
        content: content.unwrap_or(Content::Other),
        beside: nearby::around(inspection, &blocks[..blocks.len().min(LOOK_AT)]),
        examples: blocks.iter().take(EXAMPLES).map(|id| of(id).start).collect(),
    }
}

/// Adds what is lost because of the blocks that are: each counts with the first that leads to it.
fn hanging(
    inspection: &Inspection,
    references: &References,
    lost: &Lost,
    cycles: &Found,
    blocks: &mut Vec<LostBlock>,
) {
    let is_indirect = |id: u32| {
        let native = inspection.census.mark(id).as_object().is_none() && !cycles.members.contains(&id);
        native && lost.blocks.binary_search(&id).is_ok_and(|at| lost.states[at] == State::Indirect)
    };
    let mut seen: FxHashSet<u32> = FxHashSet::default();
    for i in 0..blocks.len() {
        let LostBlock { addr, state, group, .. } = blocks[i];
        let Some(leader) = inspection.blocks.find(addr).filter(|_| state == State::Definite) else {
            continue;
        };
        let mut todo = vec![leader];
        while let Some(from) = todo.pop() {
            for edge in references.of(from) {
                let id = edge & !INTERIOR;
                if is_indirect(id) && seen.insert(id) {
                    let at = inspection.blocks.block(id);
                    blocks.push(LostBlock { addr: at.start, bytes: at.bytes, state: State::Indirect, group });
                    todo.push(id);
                }
            }
        }
    }
}

/// Programs and libraries.
struct Libraries<'a> {
    target: &'a Target,
    /// In address order, with the image's index; without what libc writes to, the lists of free chunks.
    ranges: Vec<(std::ops::Range<u64>, usize)>,
    /// By image: how little it says that a block points there. What everybody uses says least.
    common: Vec<u8>,
}

/// Bytes of a block that are looked at.
const LOOK_FOR: u64 = 4096;

impl<'a> Libraries<'a> {
    fn new(target: &'a Target) -> Self {
        let common = |image: &wmr_memory::Image| match image {
            image if image.symbol("__libc_start_main").is_some() => 2,
            image if image.symbol("PyType_Type").is_some() => 1,
            _ => 0,
        };
        let common: Vec<u8> = target.images.iter().map(common).collect();
        let of = |(i, image): (usize, &'a wmr_memory::Image)| {
            let is_libc = common[i] == 2;
            let segments = image.segments.iter().filter(move |segment| !(segment.write && is_libc));
            segments.map(move |segment| (segment.range.clone(), i))
        };
        let mut ranges: Vec<_> = target.images.iter().enumerate().flat_map(of).collect();
        ranges.sort_by_key(|(range, _)| range.start);
        Libraries { target, ranges, common }
    }

    fn at(&self, addr: u64) -> Option<usize> {
        let after = self.ranges.partition_point(|(range, _)| range.start <= addr);
        let (range, image) = self.ranges.get(after.checked_sub(1)?)?;
        range.contains(&addr).then_some(*image)
    }

    /// The image that most words of a block point into, of those that say most.
    fn mentioned(&self, reader: &mut Reader, start: u64, usable: u64) -> Option<usize> {
        let mut counts: FxHashMap<usize, u32> = FxHashMap::default();
        for at in (0..usable.min(LOOK_FOR) & !7).step_by(8) {
            let Ok(word) = reader.u64(start + at) else { break };
            if let Some(image) = self.at(word) {
                *counts.entry(image).or_default() += 1;
            }
        }
        let rank = |&(i, n): &(usize, u32)| (std::cmp::Reverse(self.common[i]), n, std::cmp::Reverse(i));
        counts.into_iter().max_by_key(rank).map(|(i, _)| i)
    }

    fn name(&self, image: usize) -> String {
        let path = String::from_utf8_lossy(&self.target.images[image].path).into_owned();
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_go_with_most_of_their_size() {
        let alike = |mentions, usable| Alike {
            state: State::Definite,
            kind: None,
            mentions,
            content: Content::Other,
            usable: Some(usable),
        };
        let groups = [
            (alike(None, 104), (0..80).collect()),
            (alike(Some(3), 104), vec![100, 101]),
            (alike(Some(4), 104 + SLACK), vec![102]),
            (alike(Some(5), 104), (200..250).collect()),
            (alike(Some(3), 64), vec![300]),
        ];
        let joined = as_most(groups.into_iter().collect());
        let count = |mentions, usable| joined.get(&alike(mentions, usable)).map(Vec::len);
        assert_eq!(joined.len(), 3);
        assert_eq!(count(None, 104), Some(83));
        assert_eq!(count(Some(5), 104), Some(50));
        assert_eq!(count(Some(3), 64), Some(1));
    }
}
