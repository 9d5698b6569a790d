//! What stands out: a few facts worth a sentence, each with the command that tells more.

use super::heap::TypeRow;
use crate::numbers::{counted, grouped, scaled, share};
use crate::open::Subject;
use crate::text::shown;
use rustc_hash::FxHashMap;
use serde::Serialize;
use wmr_heap::suspects::glance;
use wmr_heap::{Domain, KindRow};

/// Modules of types that every program has.
const OWN: [&str; 3] = ["builtins", "__builtin__", "types"];
/// Sentences on the screen.
const MOST: usize = 5;
const FEWEST: usize = 2;
/// Entries of a container that is worth a sentence.
const LARGE_CONTAINER: u64 = 10_000;

#[derive(Serialize)]
pub struct Finding {
    /// Which fact it is.
    pub what: &'static str,
    /// How much memory it is about.
    pub bytes: u64,
    /// The fact, in a sentence.
    pub why: String,
    /// What to ask next.
    pub next: String,
}

struct Facts<'a> {
    subject: &'a Subject,
    kinds: &'a [KindRow],
    types: &'a [TypeRow],
    total: u64,
}

/// The facts that stand out, the largest first; `kinds` and `types` are all of the target's.
pub fn find(subject: &Subject, kinds: &[KindRow], types: &[TypeRow]) -> Vec<Finding> {
    let facts = Facts { subject, kinds, types, total: subject.inspection.tally.ledger.total };
    let mut found: Vec<Finding> = [
        facts.large_type(),
        facts.large_container(),
        facts.pymalloc_free(),
        facts.malloc_free(),
        facts.unknown(),
        facts.swapped(),
        facts.untouched(),
        facts.shared(),
        facts.peak(),
    ]
    .into_iter()
    .flatten()
    .collect();
    // An ordinary process: where most of it is, rather than nothing.
    for usual in [facts.module(), facts.images(), facts.largest_type()] {
        let told = |f: &Finding| found.iter().any(|other| other.what == f.what);
        if found.len() < FEWEST {
            found.extend(usual.filter(|f| !told(f)));
        }
    }
    found.sort_by_key(|f| std::cmp::Reverse(f.bytes));
    found.truncate(MOST);
    found
}

impl Facts<'_> {
    fn matters(&self, bytes: u64) -> bool {
        bytes >= 1 << 20 && share(bytes, self.total) >= 5.0
    }

    /// Charged bytes of some kinds of a domain.
    fn charged(&self, domain: Domain, kinds: &[&str]) -> u64 {
        let rows =
            self.kinds.iter().filter(|r| r.kind.domain == domain && kinds.contains(&r.kind.kind.as_str()));
        rows.map(|r| r.amount.charge.total()).sum()
    }

    fn domain(&self, domain: Domain) -> u64 {
        let rows = &self.subject.inspection.tally.ledger.rows;
        rows.iter().filter(|r| r.domain == domain).map(|r| r.bytes).sum()
    }

    fn finding(&self, what: &'static str, bytes: u64, why: String, next: &str) -> Option<Finding> {
        let next = match next.split_once(' ') {
            Some((verb, rest)) => format!("wmr {verb} {} {rest}", self.subject.typed),
            None => format!("wmr {next} {}", self.subject.typed),
        };
        Some(Finding { what, bytes, why, next })
    }

    fn part(&self, bytes: u64) -> String {
        format!("{} ({:.0} %)", scaled(bytes), share(bytes, self.total))
    }

    fn type_sentence(&self, row: &TypeRow) -> Option<Finding> {
        let why = format!(
            "{} {} objects take {} with what they own, {} bytes each",
            grouped(row.count),
            shown(&row.name),
            self.part(row.bytes),
            grouped(row.bytes / row.count.max(1))
        );
        self.finding("large type", row.bytes, why, "heap --by type")
    }

    fn large_type(&self) -> Option<Finding> {
        let row = self.types.first().filter(|row| row.bytes > self.total / 3)?;
        self.type_sentence(row)
    }

    /// The container of a module or class with most entries: names and lengths alone, no graph.
    fn large_container(&self) -> Option<Finding> {
        let subject = self.subject;
        let least = LARGE_CONTAINER;
        let containers = glance::containers(&subject.target, &subject.inspection, least);
        let largest = containers.first()?;
        let why = format!(
            "{}: {} entries in a {}; does anything ever remove one?",
            shown(&largest.name),
            grouped(largest.entries),
            shown(&largest.type_name)
        );
        // Its table alone: what the entries take is known when they are followed.
        self.finding("large container", largest.entries.saturating_mul(8), why, "leaks")
    }

    fn largest_type(&self) -> Option<Finding> {
        self.type_sentence(self.types.first()?)
    }

    /// Classes of one module, the interpreter's own aside.
    fn module(&self) -> Option<Finding> {
        let mut modules: FxHashMap<&str, (u64, u64, u64)> = FxHashMap::default();
        for row in self.types.iter().filter(|row| !OWN.contains(&row.module.as_str())) {
            let (types, count, bytes) = modules.entry(&row.module).or_default();
            *types += 1;
            *count += row.count;
            *bytes += row.bytes;
        }
        let (module, (types, count, bytes)) =
            modules.into_iter().max_by_key(|(name, (_, _, bytes))| (*bytes, std::cmp::Reverse(*name)))?;
        if share(bytes, self.total) < 1.0 {
            return None;
        }
        let why = format!(
            "{} of {} in module {} take {} with what they own",
            counted(count, "object"),
            counted(types, "type"),
            shown(module),
            self.part(bytes)
        );
        self.finding("module", bytes, why, "heap --by module")
    }

    /// pymalloc gives an arena back when its last block is freed, not before (`PyObject_Free`).
    fn pymalloc_free(&self) -> Option<Finding> {
        let bytes = self.charged(Domain::Pymalloc, &["free block", "free pool", "never carved"]);
        if !self.matters(bytes) {
            return None;
        }
        let arenas = &self.subject.inspection.pymalloc.arenas;
        let sparse = arenas.iter().filter(|a| a.used_bytes < a.bytes / 4).count() as u64;
        let pinned = match sparse {
            0 => "each is kept by objects in use".to_owned(),
            1 => "1 of them is less than a quarter full, kept by the objects left in it".to_owned(),
            n => format!(
                "{} of them are less than a quarter full, each kept by the objects left in it",
                grouped(n)
            ),
        };
        let why = format!(
            "{} is free in {} and cannot be given back: {pinned}",
            self.part(bytes),
            counted(arenas.len() as u64, "pymalloc arena")
        );
        self.finding("free in pymalloc", bytes, why, "arenas")
    }

    /// `free` returns the top chunk beyond a threshold and nothing else; `malloc_trim` every whole page.
    fn malloc_free(&self) -> Option<Finding> {
        let top = self.charged(Domain::Malloc, &["top"]);
        let bytes = top + self.charged(Domain::Malloc, &["free chunk", "tcache", "fastbin"]);
        if !self.matters(bytes) {
            return None;
        }
        let arenas = self.subject.inspection.glibc.as_ref().map_or(0, |g| g.arenas.len()) as u64;
        let why = format!(
            "{} is free in {} ({} of it at the top, where it can be given back); malloc_trim(0) in the process \
             would give back the whole pages of it",
            self.part(bytes),
            counted(arenas, "malloc arena"),
            scaled(top)
        );
        self.finding("free in malloc", bytes, why, "arenas")
    }

    fn unknown(&self) -> Option<Finding> {
        let bytes = self.domain(Domain::Unknown);
        if !self.matters(bytes) {
            return None;
        }
        let rows = self.kinds.iter().filter(|r| r.kind.domain == Domain::Unknown);
        let largest = rows.max_by_key(|r| r.amount.charge.total())?;
        let what =
            if largest.kind.kind == "unknown" { "malloc and pymalloc blocks" } else { &largest.kind.kind };
        let why = format!(
            "{} is in use and nobody is known to hold it, most of it {} ({})",
            self.part(bytes),
            shown(what),
            grouped(largest.amount.count)
        );
        self.finding(
            "unknown",
            bytes,
            why,
            if largest.kind.kind == "unknown" { "heap --by size" } else { "map" },
        )
    }

    fn swapped(&self) -> Option<Finding> {
        let bytes = self.subject.inspection.tally.ledger.swap;
        if !self.matters(bytes) {
            return None;
        }
        let why = format!(
            "{} is swapped out: objects there are not read, and not counted by type",
            self.part(bytes)
        );
        self.finding("swapped", bytes, why, "map")
    }

    fn untouched(&self) -> Option<Finding> {
        let bytes = self.subject.inspection.tally.ledger.untouched;
        if bytes < 1 << 20 || bytes < self.total / 10 {
            return None;
        }
        let why =
            format!("{} more is allocated and was never touched, so it takes no RAM (yet)", scaled(bytes));
        self.finding("untouched", bytes, why, "map")
    }

    /// Private memory that a forked relative still shares: written to, it becomes this process's own.
    fn shared(&self) -> Option<Finding> {
        if !self.subject.target.knows_residency() {
            return None;
        }
        let runs = self.subject.target.mappings.iter().flat_map(|m| &m.residency.runs);
        let shared = runs.filter(|r| r.state.present && !r.state.file && !r.state.zero && !r.state.exclusive);
        let bytes = shared.map(|r| r.end - r.start).sum();
        if !self.matters(bytes) {
            return None;
        }
        let why = format!(
            "{} is shared with forked relatives (copy-on-write) and is counted in the RSS of each of them",
            self.part(bytes)
        );
        self.finding("shared", bytes, why, "map")
    }

    fn peak(&self) -> Option<Finding> {
        let process = &self.subject.target.process;
        let bytes = process.peak_rss?.saturating_sub(process.rss?);
        if !self.matters(bytes) {
            return None;
        }
        let why = format!("{} more than now was in RAM at the peak, and has been given back", scaled(bytes));
        self.finding("peak", bytes, why, "arenas")
    }

    fn images(&self) -> Option<Finding> {
        let bytes = self.domain(Domain::Image) + self.domain(Domain::File);
        if share(bytes, self.total) < 15.0 {
            return None;
        }
        let images = self.subject.target.images.len() as u64;
        let why = format!(
            "{} is code and data of {} and other mapped files; what is not written to is shared by all who map it",
            self.part(bytes),
            counted(images, "ELF file")
        );
        self.finding("code", bytes, why, "map")
    }
}
