//! The page of `wmr path`: each way with its steps, or the tree of ways to many.

use super::super::{more, title};
use super::{Body, Path};
use crate::numbers::{counted, grouped, scaled};
use crate::screen::{Look, Screen};
use crate::text::{cut, shown, wrap};
use unicode_width::UnicodeWidthStr;

/// Steps of one way that people are shown.
const STEPS: usize = 20;

pub fn draw(screen: &Screen, typed: &str, body: &Body) -> String {
    let mut heading = format!("WHO HOLDS {}", cut(&shown(&body.of), screen.width.saturating_sub(40)));
    if body.count != 1 {
        heading.push_str(&format!("  {} · {}", counted(body.count, "object"), scaled(body.bytes)));
    }
    let mut out = title(screen, &heading);
    for path in &body.paths {
        out.push_str(&one(screen, path));
    }
    if !body.tree.is_empty() {
        if !body.paths.is_empty() {
            out.push('\n');
        }
        out.push_str(&tree(screen, body));
    }
    if let Some(rest) = body.truncated {
        let command = format!("wmr path {typed} … --limit 0");
        out.push_str(&more(screen, &counted(rest as u64, "more step"), &command));
    }
    if body.unreached > 0 {
        let what = match body.count {
            1 => "no root that is known leads to it".to_owned(),
            n => format!("{} of {} are reached from nowhere", grouped(body.unreached), grouped(n)),
        };
        out.push_str(&format!("\n  {what}: → wmr leaks {typed}\n"));
    }
    out
}

fn one(screen: &Screen, path: &Path) -> String {
    let mut out = String::from("\n");
    let kept = if path.internal { "  (internal)" } else { "" };
    let many = if path.count > 1 { format!("  {} ×", grouped(path.count)) } else { String::new() };
    for (i, line) in wrap(&shown(&path.text), screen.width.saturating_sub(4 + kept.len())).iter().enumerate()
    {
        let indent = if i == 0 { "  " } else { "    " };
        out.push_str(&screen.paint(Look::Command, &cut(&format!("{indent}{line}"), screen.width)));
        out.push_str(if i == 0 { kept } else { "" });
        out.push('\n');
    }
    let left = path.steps.len().saturating_sub(STEPS) as u64 + path.truncated.unwrap_or(0);
    for (at, step) in path.steps.iter().enumerate() {
        if at == STEPS / 2 && left > 0 {
            out.push_str(&screen.paint(Look::Dim, &format!("      … {}\n", counted(left, "more step"))));
        }
        if left > 0 && at >= STEPS / 2 && at + STEPS / 2 < path.steps.len() {
            continue;
        }
        let last = at + 1 == path.steps.len();
        let addr = step.addr.as_deref().unwrap_or("");
        let via = step.via.as_ref().map(|via| shown(&via.text())).unwrap_or_default();
        let line = format!("      {}  {via}{}", shown(&step.name), if last { many.as_str() } else { "" });
        out.push_str(&cut(&line, screen.width.saturating_sub(addr.len() + 3)));
        out.push_str(&screen.paint(Look::Dim, &format!("  {addr}\n")));
    }
    out
}

fn tree(screen: &Screen, body: &Body) -> String {
    let mut out = String::new();
    for row in &body.tree {
        let indent = "  ".repeat(1 + row.depth.min(screen.width / 6));
        let name = row.name.as_deref().map(|name| format!("  {}", shown(name))).unwrap_or_default();
        let many = match (row.objects, row.chain) {
            (1, _) => String::new(),
            (n, true) => format!(" × {} in a chain", grouped(n)),
            (_, false) if row.name.is_none() => String::new(),
            (n, false) => format!(" × {}", grouped(n)),
        };
        let right = format!("{} · {}", grouped(row.count), scaled(row.bytes));
        let left = format!("{indent}{}{name}{many}", shown(&row.by));
        let left = cut(&left, screen.width.saturating_sub(right.width() + 2));
        let gap = screen.width.saturating_sub(left.width() + right.width());
        out.push_str(&format!("{left}{}{}\n", " ".repeat(gap), screen.paint(Look::Dim, &right)));
    }
    out
}
