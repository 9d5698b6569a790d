//! The report as people read it.

use super::document::Body;
use crate::command::{more, title};
use crate::numbers::{counted, scaled};
use crate::open::Subject;
use crate::screen::{Look, Screen};
use crate::text::{shown, wrap};
use unicode_width::UnicodeWidthStr;

pub fn page(screen: &Screen, subject: &Subject, body: &Body) -> String {
    let mut out = String::new();
    if body.findings.is_empty() && body.accepted > 0 {
        return format!("Nothing but {}.\n", counted(body.accepted as u64, "known finding"));
    }
    if body.findings.is_empty() {
        out.push_str("Everything in use is reached by something: no lost memory, no unreachable objects.\n");
        return out;
    }
    out.push_str(&title(screen, &format!("NOBODY REACHES {}", scaled(body.bytes))));
    for finding in &body.findings {
        let left = format!("  {}", shown(&finding.what));
        let right = format!("{} · {}", scaled(finding.bytes), finding.sure.name());
        let gap = screen.width.saturating_sub(left.width() + right.width() + 1).max(2);
        out.push_str(&format!("{left}{}{right}\n", " ".repeat(gap)));
        if let Some(place) = &finding.place {
            out.push_str(&format!("      {}\n", shown(place)));
        }
        let mut why = finding.why.clone();
        if let Some(file) = &finding.mentions {
            why.push_str(&format!("; they mention {}", shown(file)));
        }
        if let Some(first) = finding.examples.first() {
            why.push_str(&format!("; one is at {first}"));
        }
        why.push_str(&format!(" (signature {})", finding.signature));
        for line in wrap(&why, screen.width - 6) {
            out.push_str(&screen.paint(Look::Dim, &format!("      {line}")));
            out.push('\n');
        }
    }
    if let Some(rest) = body.truncated {
        out.push_str(&more(
            screen,
            &counted(rest as u64, "more finding"),
            &format!("wmr leaks {} --limit 0", subject.typed),
        ));
    }
    if body.accepted > 0 {
        let accepted = format!("  {} left out", counted(body.accepted as u64, "known finding"));
        out.push_str(&screen.paint(Look::Dim, &accepted));
        out.push('\n');
    }
    out
}
