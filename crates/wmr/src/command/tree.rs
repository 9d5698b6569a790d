//! `wmr tree`: what hangs on what, from the roots or from one object on.

use super::holders::{self, Via};
use super::{address, noting, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::{hex, limited};
use crate::failure::Failure;
use crate::numbers::{bar, counted, grouped, percent, scaled};
use crate::open::{Subject, open};
use crate::screen::{Look, Screen};
use crate::text::{cut, shown};
use serde::Serialize;
use std::ffi::OsStr;
use unicode_width::UnicodeWidthStr;
use wmr_heap::Held;
use wmr_heap::graph::tree::{Branch, Facts, Hanging, Show};
use wmr_heap::graph::{ROOT, UNREACHED};
use wmr_memory::Reader;

#[derive(Serialize)]
struct Body {
    /// What the tree is of: an address, or the roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    /// Bytes of all objects in it, with what they own.
    total: u64,
    /// Each after the one it hangs on.
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<usize>,
    depth: usize,
    /// Of a single object; of many alike, of the one that retains most.
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// What holds it, of what is a root.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    /// How the object above refers to it, if it does itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<Via>,
    count: u64,
    bytes: u64,
    retained: u64,
    /// Levels above it that are left out, as almost all that hangs on the upper one hangs on this one.
    #[serde(skip_serializing_if = "is_zero")]
    levels_skipped: u64,
    /// What is left of a branch.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rest: bool,
    #[serde(skip)]
    label: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What is asked for.
pub struct Ask<'a> {
    pub addr: Option<&'a str>,
    pub depth: usize,
    pub width: usize,
    pub limit: Option<usize>,
    pub no_fold: bool,
}

/// Rows that people are shown.
const SHOWN: usize = 60;
/// What part of all is worth a row of its own.
const LEAST: u64 = 1000;

pub fn run(word: &OsStr, ask: &Ask, options: &Options) -> Result<Answer, Failure> {
    let addr = ask.addr.map(address::parse).transpose()?;
    let subject = open(word, options)?;
    let held = holders::find(&subject, holders::fold(ask.no_fold))?;
    let from = addr.map(|addr| holders::node_at(&subject, &held, addr)).transpose()?.unwrap_or(ROOT);
    let dominators = held.dominators();
    let retained = held.retained(&dominators);
    let hanging = Hanging::of(&dominators);
    let total = match from {
        ROOT => hanging.on(ROOT).map(|node| retained[node as usize]).sum(),
        node => retained[node as usize],
    };
    // Of what is next to nothing people are told the sum.
    let least = if options.json { 0 } else { total / LEAST };
    let facts = Facts {
        hanging: &hanging,
        retained: &retained,
        size: &|node| held.graph.size(node),
        kind: &|node| held.type_of(node).map_or(u32::MAX, |ty| ty.shape.id),
    };
    let branches = facts.branches(from, Show { depth: ask.depth, width: ask.width, least });
    let reached = from == ROOT || dominators.idom[from as usize] != UNREACHED;
    let mut reader = subject.target.reader();
    let rows = branches.iter().map(|branch| row(&held, &mut reader, &branches, branch)).collect();
    let (rows, truncated) = limited(rows, ask.limit.unwrap_or(if options.json { 0 } else { SHOWN }));
    let body = Body { of: addr.map(hex), total, rows, truncated };
    let mut notes = holders::left_out(&held);
    if !reached {
        notes.insert(
            0,
            format!("no root leads to {}: nothing is known to hang on it", hex(addr.unwrap_or(0))),
        );
    }
    Ok(noting("wmr/tree/1", &subject, notes, options, body, |screen, body| page(screen, &subject, body, ask)))
}

fn row(held: &Held, reader: &mut Reader, branches: &[Branch], branch: &Branch) -> Row {
    let above = branch.parent.and_then(|parent| branches.get(parent));
    let alone = above.filter(|above| above.count == 1 && branch.skipped == 0 && !branch.is_rest);
    let label = alone.and_then(|above| held.label(reader, above.node, branch.node));
    let root = held.root(branch.node).filter(|_| branch.count == 1 && branch.parent.is_none());
    let known = !branch.is_rest;
    Row {
        parent: branch.parent,
        depth: branch.depth,
        addr: held.addr(reader, branch.node).filter(|_| known).map(hex),
        name: known.then(|| held.type_name(branch.node).to_owned()),
        root: root.map(|root| root.holder.name(held.target, held.inspection)),
        via: label.as_ref().filter(|_| branch.count == 1).map(Via::from),
        count: branch.count,
        bytes: branch.bytes,
        retained: branch.retained,
        levels_skipped: branch.skipped,
        rest: branch.is_rest,
        label: match &label {
            Some(label) if branch.count == 1 => label.to_string(),
            Some(label) => holders::pattern(label),
            None => String::new(),
        },
    }
}

fn page(screen: &Screen, subject: &Subject, body: &Body, ask: &Ask) -> String {
    let of = body.of.as_ref().map_or_else(String::new, |addr| format!(" ON {addr}"));
    let mut out = title(screen, &format!("WHAT HANGS{of} TOGETHER, {}", scaled(body.total)));
    let wide = if screen.width >= 100 { 12 } else { 0 };
    for row in &body.rows {
        let indent = "  ".repeat(1 + row.depth.min(screen.width / 8));
        let mut words: Vec<String> = Vec::new();
        if row.levels_skipped > 0 {
            words.push(format!("… {} down:", counted(row.levels_skipped, "level")));
        }
        match (row.rest, row.count) {
            (true, n) => words.push(format!("… {} more", grouped(n))),
            (_, 1) => {}
            (_, n) => words.push(format!("{} ×", grouped(n))),
        }
        words.extend([&row.root].into_iter().flatten().map(|root| shown(root)));
        words.push(shown(&row.label));
        words.extend(row.name.as_ref().filter(|_| row.root.is_none()).map(|name| shown(name)));
        words.retain(|word| !word.is_empty());
        let drawn = bar(row.retained, body.total, wide, screen.unicode);
        let drawn = format!("{drawn}{}", " ".repeat(wide.saturating_sub(drawn.width())));
        let right =
            format!("{:>11}  {:>5}  {drawn}", scaled(row.retained), percent(row.retained, body.total));
        let addr = row.addr.as_deref().filter(|_| row.count == 1).unwrap_or("");
        let room = screen.width.saturating_sub(right.width() + 17);
        let left = cut(&format!("{indent}{}", words.join(" ")), room);
        let gap = " ".repeat(room.saturating_sub(left.width()));
        let line = format!("{left}{gap}{right} {}", screen.paint(Look::Dim, addr));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    if let Some(rest) = body.truncated {
        let command = format!("wmr tree {} --depth {} --limit 0", subject.typed, ask.depth);
        out.push_str(&super::more(screen, &counted(rest as u64, "more branch"), &command));
    }
    out + &format!(
        "\n  further down: wmr tree {} ADDRESS · who holds it: wmr path {} ADDRESS\n",
        subject.typed, subject.typed
    )
}
