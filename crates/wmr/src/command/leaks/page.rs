//! The report as people read it.

use super::collector;
use super::document::Body;
use super::finding::Finding;
use super::unread;
use crate::command::{more, title};
use crate::numbers::{counted, scaled};
use crate::open::Subject;
use crate::screen::{Look, Screen};
use crate::text::{cut, shown, wrap};
use unicode_width::UnicodeWidthStr;
use wmr_heap::leaks::Leaks;

pub fn page(screen: &Screen, subject: &Subject, leaks: &Leaks, body: &Body) -> String {
    let mut out = String::new();
    if body.findings.is_empty() && body.accepted > 0 {
        out.push_str(&format!("Nothing but {}.\n", counted(body.accepted as u64, "known finding")));
    } else if body.findings.is_empty() {
        for line in wrap(unread::nothing_found(subject, leaks), screen.width - 2) {
            out.push_str(&line);
            out.push('\n');
        }
    } else {
        out.push_str(&title(screen, &format!("LEAKS  {} certain or likely", scaled(body.bytes))));
        for finding in &body.findings {
            out.push_str(&told(screen, finding));
        }
        if let Some(rest) = body.truncated {
            let command = format!("wmr leaks {} --limit 0", subject.typed);
            out.push_str(&more(screen, &counted(rest as u64, "more finding"), &command));
        }
        if body.accepted > 0 {
            let accepted = format!("  {} left out", counted(body.accepted as u64, "known finding"));
            out.push_str(&screen.paint(Look::Dim, &accepted));
            out.push('\n');
        }
    }
    if let Some(line) = collector::line(leaks) {
        for line in wrap(&line, screen.width - 2) {
            out.push_str(&screen.paint(Look::Dim, &format!("  {line}")));
            out.push('\n');
        }
    }
    out
}

fn told(screen: &Screen, finding: &Finding) -> String {
    let right = format!("{} · {}", scaled(finding.bytes), finding.sure.name());
    let left = format!("  {}", cut(&shown(&finding.what), screen.width.saturating_sub(right.width() + 5)));
    let gap = screen.width.saturating_sub(left.width() + right.width() + 1).max(2);
    let mut out = format!("{left}{}{right}\n", " ".repeat(gap));
    if let Some(place) = finding.place.as_ref().filter(|place| !finding.what.contains(*place)) {
        out.push_str(&format!("      {}\n", cut(&shown(&format!("in {place}")), screen.width - 7)));
    }
    let why = format!("{} (signature {})", finding.why, finding.signature);
    // Escaped line by line: the whole is longer than any name.
    for line in wrap(&why, screen.width - 6) {
        out.push_str(&screen.paint(Look::Dim, &format!("      {}", shown(&line))));
        out.push('\n');
    }
    let next = cut(&shown(&finding.next), screen.width.saturating_sub(8));
    out.push_str(&format!("      → {}\n", screen.paint(Look::Command, &next)));
    out
}
