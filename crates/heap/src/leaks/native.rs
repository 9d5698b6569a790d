//! Lost blocks that are no objects, in groups of like ones.

use super::EXAMPLES;
use super::cycles::Found;
use super::lost::{Lost, State};
use super::references::{INTERIOR, References};
use crate::Inspection;
use crate::kinds::Domain;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_memory::Target;

/// Native blocks of one size and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Native {
    pub state: State,
    /// What the census says of them, empty for nothing.
    pub kind: String,
    /// Bytes their owner may use, of each.
    pub usable: u64,
    pub count: u64,
    /// What they take of their allocator.
    pub bytes: u64,
    /// What only they point at.
    pub indirect: u64,
    /// File name of the program or library whose addresses most of the examples contain.
    pub mentions: Option<String>,
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

pub(super) fn find(
    target: &Target,
    inspection: &Inspection,
    references: &References,
    lost: &Lost,
    cycles: &Found,
) -> (Vec<Native>, Vec<LostBlock>) {
    let mut groups: FxHashMap<(State, Option<u32>, u64), usize> = FxHashMap::default();
    let (mut list, mut blocks): (Vec<Native>, Vec<LostBlock>) = (Vec::new(), Vec::new());
    for (&block, &state) in lost.blocks.iter().zip(&lost.states) {
        let mark = inspection.census.mark(block);
        if mark.as_object().is_some() || state == State::Indirect || cycles.members.contains(&block) {
            continue;
        }
        let at = inspection.blocks.block(block);
        let index = *groups.entry((state, mark.as_kind(), at.usable)).or_insert_with(|| {
            list.push(Native {
                state,
                kind: mark.as_kind().map(|kind| kind_name(inspection, kind)).unwrap_or_default(),
                usable: at.usable,
                count: 0,
                bytes: 0,
                indirect: 0,
                mentions: None,
                examples: Vec::new(),
            });
            list.len() - 1
        });
        let group = &mut list[index];
        group.count += 1;
        group.bytes += at.bytes;
        group.indirect += lost.indirect.get(&block).copied().unwrap_or(0);
        if group.examples.len() < EXAMPLES {
            group.examples.push(at.start);
        }
        blocks.push(LostBlock { addr: at.start, bytes: at.bytes, state, group: index as u32 });
    }
    hanging(inspection, references, lost, cycles, &mut blocks);
    for group in &mut list {
        group.mentions = mentioned(target, &group.examples, group.usable);
    }
    let mut order: Vec<usize> = (0..list.len()).collect();
    order.sort_by_key(|&i| {
        let group = &list[i];
        (std::cmp::Reverse((group.bytes + group.indirect, group.usable)), group.kind.clone())
    });
    let mut place = vec![0; list.len()];
    for (at, &i) in order.iter().enumerate() {
        place[i] = at as u32;
    }
    for block in &mut blocks {
        block.group = place[block.group as usize];
    }
    blocks.sort_by_key(|block| block.addr);
    (order.into_iter().map(|i| list[i].clone()).collect(), blocks)
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
        let at = lost.blocks.binary_search(&id).ok()?;
        let native = inspection.census.mark(id).as_object().is_none() && !cycles.members.contains(&id);
        (lost.states[at] == State::Indirect && native).then_some(())
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
                if is_indirect(id).is_some() && seen.insert(id) {
                    let at = inspection.blocks.block(id);
                    blocks.push(LostBlock { addr: at.start, bytes: at.bytes, state: State::Indirect, group });
                    todo.push(id);
                }
            }
        }
    }
}

fn kind_name(inspection: &Inspection, kind: u32) -> String {
    let kind = inspection.census.kinds.get(kind);
    if kind.domain == Domain::Unknown { String::new() } else { kind.kind.clone() }
}

/// The image that most words of the blocks point into.
fn mentioned(target: &Target, blocks: &[u64], usable: u64) -> Option<String> {
    const LOOK_AT: u64 = 4096;
    let mut counts: FxHashMap<usize, u32> = FxHashMap::default();
    let mut reader = target.reader();
    for start in blocks {
        for at in (0..usable.min(LOOK_AT)).step_by(8) {
            let Ok(word) = reader.u64(start + at) else { break };
            if word >= 0x1000
                && let Some(i) = target.images.iter().position(|image| image.contains(word))
            {
                *counts.entry(i).or_default() += 1;
            }
        }
    }
    let (best, _) = counts.into_iter().max_by_key(|&(i, n)| (n, std::cmp::Reverse(i)))?;
    let path = String::from_utf8_lossy(&target.images[best].path).into_owned();
    path.rsplit('/').next().map(str::to_owned)
}
