//! Objects in no cycle that nothing points at.

use super::cycles::Found;
use super::lost::{Lost, State, is_native};
use super::references::References;
use super::{namesakes, nearby};
use crate::Inspection;
use crate::anatomy::Anatomy;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_cpython::family::Family;
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
    /// Values of some, each once, those of most objects first. Not escaped.
    pub values: Vec<String>,
    /// What lies beside most of them.
    pub beside: Option<String>,
    /// How many of them lost native blocks point at.
    pub by_blocks: u64,
}

/// Objects of a type that are looked at for values and neighbours.
const LOOK_AT: usize = 64;
const EXAMPLES: usize = 3;
/// Attributes or items of one object that are told.
const PARTS: usize = 3;

pub(super) fn find(
    target: &Target,
    inspection: &Inspection,
    references: &References,
    lost: &Lost,
    cycles: &Found,
) -> Vec<Unheld> {
    let by_blocks: FxHashSet<u32> = lost
        .blocks
        .iter()
        .filter(|&&block| is_native(inspection, block))
        .flat_map(|&block| references.of(block))
        .copied()
        .collect();
    let mut groups: FxHashMap<u32, (Unheld, Vec<u32>)> = FxHashMap::default();
    let namesakes = namesakes(&inspection.census.types);
    for (&block, &state) in lost.blocks.iter().zip(&lost.states) {
        let ty = inspection.census.mark(block).as_object();
        let Some(&ty) = ty.and_then(|ty| namesakes.get(ty as usize)) else { continue };
        if state != State::Definite || cycles.members.contains(&block) {
            continue;
        }
        let (group, some) = groups.entry(ty).or_insert_with(|| (Unheld::none(ty), Vec::new()));
        group.count += 1;
        group.by_blocks += u64::from(by_blocks.contains(&block));
        group.bytes += inspection.blocks.bytes(block);
        group.indirect += lost.indirect.get(&block).copied().unwrap_or(0);
        if some.len() < LOOK_AT {
            some.push(block);
        }
    }
    let mut anatomy = Anatomy::new(target, inspection);
    let finish = |(mut group, some): (Unheld, Vec<u32>)| {
        group.beside = nearby::around(inspection, &some);
        let objects: Vec<u64> =
            some.iter().filter_map(|&block| Some(inspection.object(target, block)?.addr)).collect();
        let mut values: FxHashMap<String, u32> = FxHashMap::default();
        for &addr in &objects {
            if let Some(value) = anatomy.as_mut().and_then(|anatomy| value(anatomy, addr)) {
                *values.entry(value).or_default() += 1;
            }
        }
        let mut values: Vec<(String, u32)> = values.into_iter().collect();
        values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        group.values = values.into_iter().take(EXAMPLES).map(|(value, _)| value).collect();
        group.examples = objects.into_iter().take(EXAMPLES).collect();
        group
    };
    let mut list: Vec<Unheld> = groups.into_values().map(finish).collect();
    list.sort_by_key(|group| {
        (std::cmp::Reverse(group.bytes + group.indirect), group.examples.first().copied())
    });
    list
}

/// A value as Python writes it, or the first few parts of what has no such value.
fn value(anatomy: &mut Anatomy, addr: u64) -> Option<String> {
    if let Some(value) = anatomy.value(addr) {
        return Some(value);
    }
    let ty = anatomy.type_of(addr)?;
    let parts = anatomy.parts(addr, ty, PARTS);
    let numbered = matches!(ty.shape.family, Family::List | Family::Tuple);
    let mut told = Vec::new();
    for part in parts.attributes.iter().chain(&parts.items).take(PARTS) {
        let value = anatomy.value(part.addr).unwrap_or("…".to_owned());
        told.push(if part.name.is_empty() || numbered { value } else { format!("{}: {value}", part.name) });
    }
    (!told.is_empty()).then(|| format!("{{{}}}", told.join(", ")))
}

impl Unheld {
    fn none(ty: u32) -> Unheld {
        Unheld {
            ty,
            count: 0,
            bytes: 0,
            indirect: 0,
            examples: Vec::new(),
            values: Vec::new(),
            beside: None,
            by_blocks: 0,
        }
    }
}
