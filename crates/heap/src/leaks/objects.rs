//! Objects in no cycle that nothing points at.

use super::EXAMPLES;
use super::cycles::Found;
use super::lost::{Lost, State};
use crate::Inspection;
use rustc_hash::FxHashMap;
use wmr_memory::Target;

/// Objects of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheld {
    /// Index of the type in the census.
    pub ty: u32,
    pub count: u64,
    pub bytes: u64,
    /// What only they point at.
    pub indirect: u64,
    /// Addresses of the objects.
    pub examples: Vec<u64>,
}

pub(super) fn find(target: &Target, inspection: &Inspection, lost: &Lost, cycles: &Found) -> Vec<Unheld> {
    let mut groups: FxHashMap<u32, Unheld> = FxHashMap::default();
    for (&block, &state) in lost.blocks.iter().zip(&lost.states) {
        let Some(ty) = inspection.census.mark(block).as_object() else { continue };
        if state != State::Definite || cycles.members.contains(&block) {
            continue;
        }
        let at = inspection.blocks.block(block);
        let group = groups.entry(ty).or_insert_with(|| Unheld {
            ty,
            count: 0,
            bytes: 0,
            indirect: 0,
            examples: Vec::new(),
        });
        group.count += 1;
        group.bytes += at.bytes;
        group.indirect += lost.indirect.get(&block).copied().unwrap_or(0);
        if group.examples.len() < EXAMPLES {
            group.examples.extend(inspection.object(target, block).map(|object| object.addr));
        }
    }
    let mut list: Vec<Unheld> = groups.into_values().collect();
    list.sort_by_key(|group| (std::cmp::Reverse(group.bytes + group.indirect), group.ty));
    list
}
