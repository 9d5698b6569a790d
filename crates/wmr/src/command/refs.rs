//! `wmr refs`: what an object refers to, and what refers to it.

use super::holders::{self, Ref, Via};
use super::{address, noting, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::hex;
use crate::failure::Failure;
use crate::numbers::{counted, grouped};
use crate::open::{Subject, open};
use crate::screen::{Look, Screen};
use crate::table::{Align, Table};
use crate::text::{cut, shown};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;
use std::ffi::OsStr;
use wmr_cpython::refers::{Label, Name, Strength, Via as Sort};
use wmr_heap::Held;
use wmr_heap::graph::{Bits, Csr};

#[derive(Serialize)]
struct Body {
    of: Ref,
    to: Vec<Reference>,
    from: Vec<Reference>,
    to_counts: Vec<Count>,
    from_counts: Vec<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_truncated: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_truncated: Option<u64>,
    /// Of both lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<u64>,
}

/// A reference, and with `--depth` those beyond it.
#[derive(Debug, Clone, Serialize)]
pub struct Reference {
    #[serde(flatten)]
    pub at: Ref,
    /// How often the one refers to the other, where that is more than once.
    #[serde(skip_serializing_if = "is_one")]
    pub times: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    to: Vec<Reference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    from: Vec<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<u64>,
    #[serde(skip)]
    node: u32,
    #[serde(skip)]
    label: String,
}

fn is_one(n: &u64) -> bool {
    *n == 1
}

/// References that are alike.
#[derive(Serialize)]
struct Count {
    count: u64,
    #[serde(rename = "type")]
    name: String,
    via: Kind,
    /// Of the objects, each as often as it is referred to.
    bytes: u64,
    /// One of the objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<String>,
    #[serde(skip)]
    label: String,
}

#[derive(Serialize)]
struct Kind {
    kind: &'static str,
    /// The name, where it is the same for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

/// One side: the first references, how many there are, and their counts.
pub struct Side<'t> {
    pub first: Vec<Reference>,
    pub all: u64,
    counts: Counts<'t>,
}

/// What is asked for.
pub struct Ask<'a> {
    pub addr: &'a str,
    pub depth: usize,
    pub limit: Option<usize>,
    pub no_fold: bool,
}

/// References of a side that machines are given.
const GIVEN: usize = 100_000;
/// Rows that people are shown of a side.
const SHOWN: usize = 25;
/// References beyond another one that are given of it, and of all together.
const BRANCHES: usize = 20;
const BEYOND: usize = 2_000;

pub fn run(word: &OsStr, ask: &Ask, options: &Options) -> Result<Answer, Failure> {
    let addr = address::parse(ask.addr)?;
    let subject = open(word, options)?;
    let held = holders::find(&subject, holders::fold(ask.no_fold))?;
    let node = holders::node_at(&subject, &held, addr)?;
    let limit = match ask.limit {
        Some(0) => usize::MAX,
        Some(limit) => limit,
        None if options.json => GIVEN,
        None => SHOWN,
    };
    let (mut to, mut from) = (referents(&held, node, limit), referrers(&held, node, limit));
    if ask.depth > 1 {
        let back = held.graph.csr.reversed();
        let mut budget = BEYOND;
        expand(&held, None, &mut to.first, &mut FxHashSet::from_iter([node]), ask.depth - 1, &mut budget);
        budget = BEYOND;
        expand(
            &held,
            Some(&back),
            &mut from.first,
            &mut FxHashSet::from_iter([node]),
            ask.depth - 1,
            &mut budget,
        );
    }
    let left = |side: &Side| Some(side.all - side.first.len() as u64).filter(|left| *left > 0);
    let (to_truncated, from_truncated) = (left(&to), left(&from));
    let mut reader = subject.target.reader();
    let body = Body {
        of: Ref::of(&held, &mut reader, node, None),
        to_counts: to.counts.rows(),
        from_counts: from.counts.rows(),
        to: to.first,
        from: from.first,
        truncated: Some(to_truncated.unwrap_or(0) + from_truncated.unwrap_or(0)).filter(|n| *n > 0),
        to_truncated,
        from_truncated,
    };
    let notes = holders::left_out(&held);
    Ok(noting("wmr/refs/1", &subject, notes, options, body, |screen, body| page(screen, &subject, body, ask)))
}

/// What a node refers to.
pub fn referents<'t>(held: &Held<'t>, node: u32, limit: usize) -> Side<'t> {
    let mut side = Side { first: Vec::new(), all: 0, counts: Counts::default() };
    let mut reader = held.target.reader();
    held.links(node, &mut |link| {
        // What leads to no object was counted when the graph was made.
        let Some(to) = link.node else { return true };
        side.add(held, &mut reader, to, Some(&link.label), link.strength == Strength::Weak, 1, limit);
        true
    });
    side
}

/// What refers to a node.
pub fn referrers<'t>(held: &Held<'t>, node: u32, limit: usize) -> Side<'t> {
    let edges = held.referrers(&Bits::of(held.graph.nodes(), [node]));
    let from: Vec<u32> = edges.into_iter().map(|(from, _)| from).collect();
    let mut side = Side { first: Vec::new(), all: 0, counts: Counts::default() };
    let mut reader = held.target.reader();
    for same in from.chunk_by(|a, b| a == b) {
        let label = held.label(&mut held.target.reader(), same[0], node);
        side.add(held, &mut reader, same[0], label.as_ref(), false, same.len() as u64, limit);
    }
    for (from, label) in held.weak_referrers(node) {
        side.add(held, &mut reader, from, Some(&label), true, 1, limit);
    }
    side
}

impl<'t> Side<'t> {
    #[allow(clippy::too_many_arguments, reason = "the parts of one reference")]
    fn add(
        &mut self,
        held: &Held<'t>,
        reader: &mut wmr_memory::Reader,
        node: u32,
        label: Option<&Label>,
        weak: bool,
        times: u64,
        limit: usize,
    ) {
        self.all += 1;
        self.counts.add(held, node, label, weak);
        if self.first.len() < limit {
            let at = Ref { weak, ..Ref::of(held, reader, node, label) };
            let label = label.map(ToString::to_string).unwrap_or_default();
            let none = Vec::new;
            self.first.push(Reference { at, times, to: none(), from: none(), truncated: None, node, label });
        }
    }
}

/// Adds what lies beyond: what is referred to, or with `back` what refers. What was met is not followed again.
fn expand(
    held: &Held,
    back: Option<&Csr>,
    list: &mut [Reference],
    seen: &mut FxHashSet<u32>,
    depth: usize,
    budget: &mut usize,
) {
    for reference in list {
        if *budget == 0 || reference.at.weak || !seen.insert(reference.node) {
            continue;
        }
        let side = match back {
            None => referents(held, reference.node, BRANCHES),
            Some(back) => {
                let mut side = Side { first: Vec::new(), all: 0, counts: Counts::default() };
                let mut reader = held.target.reader();
                for same in back.row(reference.node).chunk_by(|a, b| a == b) {
                    let label = (side.first.len() < BRANCHES)
                        .then(|| held.label(&mut held.target.reader(), same[0], reference.node));
                    let label = label.flatten();
                    side.add(held, &mut reader, same[0], label.as_ref(), false, same.len() as u64, BRANCHES);
                }
                side
            }
        };
        let mut beyond = side.first;
        beyond.truncate(*budget);
        *budget -= beyond.len();
        reference.truncated = Some(side.all - beyond.len() as u64).filter(|left| *left > 0);
        if depth > 1 {
            expand(held, back, &mut beyond, seen, depth - 1, budget);
        }
        *(if back.is_none() { &mut reference.to } else { &mut reference.from }) = beyond;
    }
}

/// Counts by type and label. Names are told apart while there are few of them.
#[derive(Default)]
struct Counts<'t>(FxHashMap<(&'t str, Option<Sort>, bool), Names>);

#[derive(Default)]
struct Names {
    /// Of all, or beyond those that have names of their own.
    sum: Sum,
    named: FxHashMap<Name, Sum>,
    many: bool,
}

#[derive(Default, Clone)]
struct Sum {
    count: u64,
    bytes: u64,
    node: u32,
    label: Option<Label>,
    example: Option<String>,
}

/// Names that are told apart: above, they are keys of data.
const NAMES: usize = 8;

impl<'t> Counts<'t> {
    fn add(&mut self, held: &Held<'t>, node: u32, label: Option<&Label>, weak: bool) {
        let sort = label.map(|label| label.via);
        let names = self.0.entry((held.type_name(node), sort, weak)).or_default();
        let numbered =
            matches!(sort, None | Some(Sort::Index | Sort::Element | Sort::Order | Sort::Stack | Sort::Key));
        names.many |= numbered;
        let one = |sum: &mut Sum| {
            if sum.count == 0 {
                (sum.node, sum.label) = (node, label.cloned());
                sum.example = held.addr(&mut held.target.reader(), node).map(hex);
            }
            sum.count += 1;
            sum.bytes = sum.bytes.saturating_add(held.graph.size(node));
        };
        one(&mut names.sum);
        if let Some(label) = label.filter(|_| !names.many) {
            one(names.named.entry(label.name.clone()).or_default());
            if names.named.len() > NAMES {
                names.many = true;
                names.named.clear();
            }
        }
    }

    fn rows(&self) -> Vec<Count> {
        let mut rows = Vec::new();
        for ((ty, sort, weak), names) in &self.0 {
            let mut row = |sum: &Sum, alone: bool| {
                let label = sum.label.as_ref();
                rows.push(Count {
                    count: sum.count,
                    name: (*ty).to_owned(),
                    via: Kind {
                        kind: sort.map_or("field", Sort::word),
                        value: label.filter(|_| alone).map(|label| Via::from(label).text()),
                    },
                    bytes: sum.bytes,
                    example: sum.example.clone(),
                    label: match label {
                        Some(label) if alone => label.to_string(),
                        Some(label) => holders::pattern(label),
                        None => String::new(),
                    } + if *weak { " (weak)" } else { "" },
                });
            };
            match names.many {
                true => row(&names.sum, names.sum.count == 1),
                false if names.named.is_empty() => row(&names.sum, false),
                false => names.named.values().for_each(|sum| row(sum, true)),
            }
        }
        rows.sort_by(|a, b| {
            b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)).then_with(|| a.label.cmp(&b.label))
        });
        rows
    }
}

fn page(screen: &Screen, subject: &Subject, body: &Body, ask: &Ask) -> String {
    let of = &body.of;
    let mut out = title(screen, &format!("{} at {}", shown(&of.name), of.addr.as_deref().unwrap_or("?")));
    let sides = [
        ("REFERS TO", &body.to, &body.to_counts, body.to_truncated, true),
        ("REFERRED TO BY", &body.from, &body.from_counts, body.from_truncated, false),
    ];
    for (name, list, counts, truncated, is_to) in sides {
        let all = list.len() as u64 + truncated.unwrap_or(0);
        out.push_str(&format!("\n{}", title(screen, &format!("{name}  {}", counted(all, "reference")))));
        out.push_str(&counts_table(screen, counts));
        if ask.depth > 1 {
            out.push('\n');
            let mut lines = Vec::new();
            branch_lines(list, 0, is_to, &mut lines);
            let left = lines.len().saturating_sub(4 * SHOWN);
            for (indent, label, name, addr) in lines.into_iter().take(4 * SHOWN) {
                let line = format!("{}{label}  {name}", "  ".repeat(1 + indent.min(screen.width / 6)));
                out.push_str(&cut(&line, screen.width.saturating_sub(addr.len() + 3)));
                out.push_str(&screen.paint(Look::Dim, &format!("  {addr}\n")));
            }
            if left > 0 {
                let command =
                    format!("wmr refs {} {} --depth {} --json", subject.typed, of_addr(of), ask.depth);
                out.push_str(&super::more(screen, &counted(left as u64, "more line"), &command));
            }
        }
    }
    out.push_str(&format!("\n  why it is alive: wmr path {} {}\n", subject.typed, of_addr(of)));
    out
}

fn of_addr(of: &Ref) -> &str {
    of.addr.as_deref().unwrap_or("ADDR")
}

/// Levels and columns of the lines below each other; as deep as was asked for.
fn branch_lines(
    list: &[Reference],
    indent: usize,
    is_to: bool,
    out: &mut Vec<(usize, String, String, String)>,
) {
    for reference in list {
        let addr = reference.at.addr.clone().unwrap_or_default();
        out.push((indent, shown(&reference.label), shown(&reference.at.name), addr));
        branch_lines(if is_to { &reference.to } else { &reference.from }, indent + 1, is_to, out);
        if let Some(left) = reference.truncated {
            out.push((indent + 1, format!("… {} more", grouped(left)), String::new(), String::new()));
        }
    }
}

fn counts_table(screen: &Screen, counts: &[Count]) -> String {
    let mut table = Table::new(screen)
        .column("", Align::Right)
        .column("type", Align::Text)
        .column("via", Align::Text)
        .column("bytes", Align::Right)
        .column("", Align::Left);
    for row in counts.iter().take(SHOWN) {
        table.row([
            format!("{} ×", grouped(row.count)),
            shown(&row.name),
            shown(&row.label),
            grouped(row.bytes),
            row.example.clone().unwrap_or_default(),
        ]);
    }
    let mut out = if counts.is_empty() { "  nothing\n".to_owned() } else { table.render() };
    if let Some(left) = counts.len().checked_sub(SHOWN + 1) {
        out.push_str(&screen.paint(Look::Dim, &format!("  … {} more\n", counted(left as u64 + 1, "kind"))));
    }
    out
}
