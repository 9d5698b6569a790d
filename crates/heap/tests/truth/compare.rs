//! Reads what `everything.py` printed and compares it with an inspection.

use std::collections::{BTreeMap, HashMap};
use wmr_cpython::object::{Evidence, Object};
use wmr_cpython::sizes::sizeof;
use wmr_cpython::types::{TypeCache, Types};
use wmr_heap::{Inspection, inspect};
use wmr_memory::Target;

/// Types whose size from outside is known to differ, with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("StgDict", "counts format text and libffi elements that hang on it"),
    ("_ctypes.", "ctypes' metatypes count format text and libffi elements, and from 3.13 on not the type"),
    ("ctypes._endian._swapped_", "as ctypes' metatypes, whose subclasses they are"),
];

/// What the target said of itself.
#[derive(Default)]
pub struct Truth {
    /// address → (bytes, type)
    sizes: HashMap<u64, (u64, String)>,
    tracked: BTreeMap<String, u64>,
    /// Where the target had `mallinfo2()` write its ten numbers.
    mallinfo: Option<u64>,
    /// size → (pools, used, free)
    classes: BTreeMap<u64, [u64; 3]>,
}

impl Truth {
    pub fn parse(lines: &[String]) -> Truth {
        let mut truth = Truth::default();
        for line in lines {
            let mut words = line.splitn(4, ' ');
            match words.next() {
                Some("size") => {
                    let addr = u64::from_str_radix(words.next().unwrap(), 16).unwrap();
                    let bytes = words.next().unwrap().parse().unwrap();
                    truth.sizes.insert(addr, (bytes, words.next().unwrap().to_owned()));
                }
                Some("type") => {
                    let count: u64 = words.next().unwrap().parse().unwrap();
                    let name = line.splitn(3, ' ').nth(2).unwrap();
                    *truth.tracked.entry(name.to_owned()).or_default() += count;
                }
                Some("mallinfo") => {
                    truth.mallinfo = u64::from_str_radix(words.next().unwrap(), 16).ok();
                }
                _ => truth.stats_row(line),
            }
        }
        truth
    }

    /// `class   size   num pools   blocks in use  avail blocks`, five numbers a line.
    fn stats_row(&mut self, line: &str) {
        let numbers: Vec<u64> = line.split_whitespace().map_while(|w| w.parse().ok()).collect();
        if let [class, size, pools, used, free] = numbers[..]
            && line.split_whitespace().count() == 5
            && size > class
        {
            self.classes.insert(size, [pools, used, free]);
        }
    }

    /// Every difference, in words.
    pub fn compare(&self, target: &Target) -> Vec<String> {
        let inspection = match inspect(target) {
            Ok(inspection) => inspection,
            Err(e) => return vec![e.to_string()],
        };
        if let Err(e) = &inspection.python {
            return vec![e.to_string()];
        }
        let mut wrong = Vec::new();
        self.compare_classes(&inspection, &mut wrong);
        self.compare_mallinfo(&inspection, target, &mut wrong);
        self.compare_tracked(&inspection, target, &mut wrong);
        self.compare_sizes(&inspection, target, &mut wrong);
        let ledger = &inspection.tally.ledger;
        let sum: u64 = ledger.rows.iter().map(|r| r.bytes).sum();
        if sum != ledger.total {
            wrong.push(format!("ledger rows {sum}, total {}", ledger.total));
        }
        if !wrong.is_empty() {
            // First: what could not be read may be why.
            wrong.splice(0..0, inspection.notes.iter().map(|note| format!("note: {note}")));
        }
        wrong
    }

    fn compare_classes(&self, inspection: &Inspection, wrong: &mut Vec<String>) {
        let ours: BTreeMap<u64, [u64; 3]> = inspection
            .pymalloc
            .classes
            .iter()
            .filter(|c| c.pools > 0)
            .map(|c| (u64::from(c.size), [c.pools, c.used_blocks, c.free_blocks]))
            .collect();
        for (size, theirs) in &self.classes {
            let ours = ours.get(size).copied().unwrap_or_default();
            if ours != *theirs {
                wrong.push(format!(
                    "pymalloc class {size}: [pools, used, free] {ours:?}, the target says {theirs:?}"
                ));
            }
        }
        if inspection.python.as_ref().is_ok_and(|p| p.version.at_least(3, 6))
            && self.classes.is_empty()
            && !ours.is_empty()
        {
            wrong.push("no statistics of pymalloc from the target".to_owned());
        }
    }

    fn compare_mallinfo(&self, inspection: &Inspection, target: &Target, wrong: &mut Vec<String>) {
        let Some(at) = self.mallinfo else { return };
        let mut reader = target.reader();
        let theirs: [u64; 10] = std::array::from_fn(|i| reader.u64(at + 8 * i as u64).unwrap());
        match &inspection.glibc {
            Ok(glibc) => {
                let m = glibc.mallinfo();
                let names = [
                    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
                    "fordblks", "keepcost",
                ];
                let ours = [
                    m.arena, m.ordblks, m.smblks, m.hblks, m.hblkhd, m.usmblks, m.fsmblks, m.uordblks,
                    m.fordblks, m.keepcost,
                ];
                for ((name, ours), theirs) in names.iter().zip(ours).zip(theirs) {
                    if ours != theirs {
                        wrong.push(format!("mallinfo2().{name}: {ours}, the target says {theirs}"));
                    }
                }
            }
            Err(e) => wrong.push(e.to_string()),
        }
    }

    fn compare_tracked(&self, inspection: &Inspection, target: &Target, wrong: &mut Vec<String>) {
        let calls_without_tuple =
            inspection.python.as_ref().is_ok_and(|p| p.version.at_least(3, 8) && !p.debug);
        let mut ours: BTreeMap<String, u64> = BTreeMap::new();
        let mut objects: BTreeMap<String, u64> = BTreeMap::new();
        for row in inspection.by_type(target) {
            *objects.entry(row.name.clone()).or_default() += row.count;
            *ours.entry(row.name).or_default() += row.gc_tracked;
        }
        ours.retain(|_, n| *n > 0);
        for name in ours.keys().chain(self.tracked.keys()).collect::<std::collections::BTreeSet<_>>() {
            let (a, b) = (ours.get(name).copied().unwrap_or(0), self.tracked.get(name).copied().unwrap_or(0));
            // The script's own running frames, the list and dict that did the counting, and the bound
            // method and argument tuple of a call: up to 3.7 and in debug builds.
            let aside = match name.as_str() {
                "frame" | "list" | "dict" => a.abs_diff(b) <= 3,
                "builtin_function_or_method" | "tuple" => !calls_without_tuple && a.abs_diff(b) <= 1,
                _ => false,
            };
            if a != b && !aside {
                let all = objects.get(name).copied().unwrap_or(0);
                wrong.push(format!("{a} tracked of {all} {name}, the target says {b}"));
            }
        }
    }

    fn compare_sizes(&self, inspection: &Inspection, target: &Target, wrong: &mut Vec<String>) {
        let Some(model) = &inspection.model else { return };
        let types = Types::new(target, model, &inspection.blocks);
        let mut cache = TypeCache::new(&types, target.reader());
        let mut reader = target.reader();
        let mut by_type: BTreeMap<&str, (u64, u64, String)> = BTreeMap::new();
        let mut all = types.all();
        let mut missed: BTreeMap<&str, (u64, String)> = BTreeMap::new();
        let (mut equal, mut names) = (0, std::collections::BTreeSet::new());
        for (addr, (theirs, name)) in &self.sizes {
            let Some(shape) = cache.type_of(&mut reader, *addr) else { continue };
            if all.len() <= shape.id as usize {
                all = types.all();
            }
            if all[shape.id as usize].name != *name {
                // Gone since, and its memory used again.
                continue;
            }
            let object = Object { addr: *addr, shape: *shape, evidence: Evidence::Plausible, tracked: false };
            // Of static objects there is no block.
            if let Some(block) = inspection.blocks.find(*addr)
                && inspection
                    .census
                    .mark(block)
                    .as_object()
                    .map(|id| &inspection.census.types[id as usize].name)
                    != Some(name)
            {
                let row = missed.entry(name).or_default();
                row.0 += 1;
                row.1 = format!("{addr:#x}, {theirs} bytes");
            }
            let ours = sizeof(model, &mut reader, &object);
            if ours == Some(*theirs) {
                equal += 1;
                names.insert(name.as_str());
            } else if !EXCEPTIONS.iter().any(|(n, _)| name.starts_with(n)) {
                let row = by_type.entry(name).or_default();
                row.0 += 1;
                row.2 = format!("{addr:#x} {ours:?}, the target says {theirs}");
            }
        }
        for (name, (count, example)) in missed {
            wrong.push(format!("{count} {name} not taken for such: {example}"));
        }
        for (name, (count, _, example)) in by_type {
            wrong.push(format!("getsizeof of {count} {name}: {example}"));
        }
        eprintln!("    {equal} sizes of {} types equal, {} said", names.len(), self.sizes.len());
        if inspection.python.as_ref().is_ok_and(|p| p.version.at_least(3, 8))
            && (equal < 20_000 || names.len() < 100)
        {
            wrong.push(format!("only {equal} sizes of {} types compared", names.len()));
        }
    }
}
