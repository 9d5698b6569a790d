//! `wmr leaks TARGET --story ADDR`: why one object is held.

use crate::Answer;
use crate::cli::Options;
use crate::command::{address, answer, holders, title};
use crate::document::hex;
use crate::failure::{Failure, code};
use crate::numbers::{grouped, scaled};
use crate::open::{Subject, open};
use crate::screen::{Look, Screen};
use crate::text::{cut, shown, wrap};
use serde::Serialize;
use std::ffi::OsStr;
use unicode_width::UnicodeWidthStr;
use wmr_heap::graph::Fold;
use wmr_heap::suspects::View;
use wmr_heap::suspects::story::{self, Status};

#[derive(Serialize)]
struct Body {
    addr: String,
    #[serde(rename = "type")]
    name: String,
    /// What would be freed with it.
    retained: u64,
    /// From the root to the object; empty when nothing leads there.
    steps: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    addr: String,
    #[serde(rename = "type")]
    name: String,
    /// Of the first its root, else how the one before refers to it.
    by: String,
    /// Steps before it that are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u64>,
    /// `not leaking`, `unknown`, `leaking`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The reference that leads here is one to look at.
    suspect: bool,
}

pub fn run(word: &OsStr, addr: &str, options: &Options) -> Result<Answer, Failure> {
    let addr = address::parse(addr)?;
    let subject = open(word, options)?;
    let held = holders::find(&subject, Fold::Yes)?;
    let node = holders::node_at(&subject, &held, addr)?;
    let reach = held.reach();
    let view = View::new(&held, &reach)
        .ok_or_else(|| Failure::new(code::NOT_PYTHON, "its objects could not be followed"))?;
    let steps = story::tell(&view, node).unwrap_or_default();
    let dominators = held.dominators();
    let row = |step: &story::Step| Row {
        addr: hex(step.addr),
        name: step.type_name.clone(),
        by: step.by.clone(),
        skipped: Some(step.skipped).filter(|skipped| *skipped > 0),
        status: match step.status {
            Status::NotLeaking => "not leaking",
            Status::Unknown => "unknown",
            Status::Leaking => "leaking",
        },
        why: step.why.clone(),
        suspect: step.suspect,
    };
    let body = Body {
        addr: hex(addr),
        name: held.type_name(node).to_owned(),
        retained: held.retained(&dominators).get(node as usize).copied().unwrap_or(0),
        steps: steps.iter().map(row).collect(),
    };
    Ok(answer("wmr/story/1", &subject, options, body, |screen, body| page(screen, &subject, body)))
}

fn page(screen: &Screen, subject: &Subject, body: &Body) -> String {
    let head = format!("WHY {} {} IS HELD  {} with it", shown(&body.name), body.addr, scaled(body.retained));
    let mut out = title(screen, &head);
    if body.steps.is_empty() {
        out.push_str(&format!("  no root leads there: wmr leaks {}\n", subject.typed));
        return out;
    }
    for step in &body.steps {
        if let Some(skipped) = step.skipped {
            out.push_str(&format!("    … {} steps\n", grouped(skipped)));
        }
        // What stands between needed and leaking is underlined, as the reference to look at.
        let mark = if step.suspect { "?" } else { " " };
        let right = format!("{}  {}", step.status, step.addr);
        let left = format!("  {mark} {}  {}", shown(&step.by), shown(&step.name));
        let left = cut(&left, screen.width.saturating_sub(right.width() + 2));
        let gap = screen.width.saturating_sub(left.width() + right.width()).max(2);
        out.push_str(&format!("{left}{}{}\n", " ".repeat(gap), screen.paint(Look::Dim, &right)));
        for line in step.why.iter().flat_map(|why| wrap(&shown(why), screen.width - 8)) {
            out.push_str(&screen.paint(Look::Dim, &format!("        {line}")));
            out.push('\n');
        }
    }
    if body.steps.iter().any(|step| step.suspect) {
        out.push_str("\n  ? is a reference that should perhaps have been cleared\n");
    }
    out
}
