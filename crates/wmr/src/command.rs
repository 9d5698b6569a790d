//! One module a command: its JSON document, its table for people.

mod address;
pub mod alive;
pub mod arenas;
pub mod core;
pub mod demo;
pub mod diff;
pub mod export;
pub mod findings;
pub mod foreign;
pub mod heap;
pub mod hexdump;
mod holders;
pub mod labels;
pub mod leaks;
pub mod listing;
pub mod map;
pub mod path;
pub mod ps;
pub mod refs;
pub mod retained;
mod saving;
pub mod scope;
pub mod sharing;
pub mod show;
pub mod sizes;
pub mod snapshot;
pub mod summary;
pub mod threads;
pub mod total_refs;
pub mod tree;
pub mod types;
mod wanted;
pub mod watch;
pub mod what_if;

use crate::Answer;
use crate::cli::Options;
use crate::document::{Document, local_time, notes};
use crate::failure::{self, code};
use crate::numbers::scaled;
use crate::open::Subject;
use crate::screen::{Look, Screen};
use crate::text;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;
use wmr_memory::{Method, TargetKind};

/// Notes that people are shown; all are in the JSON.
const NOTES: usize = 4;

/// The answer as JSON, or as what `page` draws.
fn answer<T: Serialize>(
    schema: &'static str,
    subject: &Subject,
    options: &Options,
    body: T,
    page: impl FnOnce(&Screen, &T) -> String,
) -> Answer {
    noting(schema, subject, Vec::new(), options, body, page)
}

/// The same with notes of the command's own, ahead of those about the target.
fn noting<T: Serialize>(
    schema: &'static str,
    subject: &Subject,
    own: Vec<String>,
    options: &Options,
    body: T,
    page: impl FnOnce(&Screen, &T) -> String,
) -> Answer {
    let text = if options.json {
        Document::of(schema, subject, body).noting(own).to_text()
    } else {
        let screen = Screen::of_stdout(options.color);
        let mut text = header(&screen, subject) + &page(&screen, &body);
        text.push_str(&notes_page(&screen, &[own, notes(subject)].concat()));
        screen.finished(text)
    };
    finished(subject, text)
}

/// Exit code and last word: whether there was a Python in it.
fn finished(subject: &Subject, text: String) -> Answer {
    if let Err(lost) = subject.target.memory.finish() {
        let failure = failure::of_lost(lost);
        return Answer { text: String::new(), code: failure.code, complaint: Some(failure.to_string()) };
    }
    let Err(error) = &subject.inspection.python else {
        return Answer { text, code: 0, complaint: None };
    };
    let what = text::shown(&subject.typed);
    let why = failure::of_python(error, subject.target.process.swap);
    Answer {
        text,
        code: code::NOT_PYTHON,
        complaint: Some(format!("wmr: {what}: {why}; what is known without it is shown")),
    }
}

/// Two lines: what it is, and what the system says it takes.
pub fn header(screen: &Screen, subject: &Subject) -> String {
    let process = &subject.target.process;
    let python = match &subject.inspection.python {
        Ok(python) => format!("CPython {}{}", python.version, if python.debug { " (debug)" } else { "" }),
        Err(_) => "no CPython to read".to_owned(),
    };
    let pid = if process.pid > 0 { format!("pid {} · ", process.pid) } else { String::new() };
    let right = format!("{pid}{python}");
    let room = screen.width.saturating_sub(right.width() + 2).max(20);
    let what = text::cut(&text::command_line(&process.cmdline, &process.exe), room);
    let first = screen.sides(&what, &right);
    let first = first.replacen(&what, &screen.paint(Look::Title, &what), 1);

    let figure = |name: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{name} {}", scaled(bytes)));
    let ledger = &subject.inspection.tally.ledger;
    let figures: Vec<String> = match subject.target.knows_residency() {
        true => [
            figure("RSS", process.rss),
            figure("peak", process.peak_rss),
            figure("PSS", process.pss),
            figure("swap", process.swap),
        ]
        .into_iter()
        .flatten()
        .collect(),
        false => vec![format!("{} stored", scaled(ledger.total)), text::shown(&subject.typed)],
    };
    let capture = &subject.target.capture;
    let how = match capture.method {
        Method::Clone => format!("paused {:.1} ms, clone", capture.pause.as_secs_f64() * 1e3),
        Method::Stop => format!("paused {:.1} ms", capture.pause.as_secs_f64() * 1e3),
        Method::None => "not paused".to_owned(),
        Method::File => "core".to_owned(),
    };
    let how = match subject.target.kind {
        TargetKind::Snapshot => format!("snapshot · {how}"),
        _ => how,
    };
    let left = figures.join(" · ");
    let right = format!("{how} · {}", local_time(capture.time));
    let second = if left.width() + right.width() < screen.width {
        screen.sides(&left, &right)
    } else {
        screen.sides(&left, &how)
    };
    format!("{first}\n{second}\n\n")
}

fn title(screen: &Screen, text: &str) -> String {
    screen.paint(Look::Title, text) + "\n"
}

/// What could not be read or decided: the first few.
fn notes_page(screen: &Screen, notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let mut out = format!("\n{}", title(screen, "NOTES"));
    for note in notes.iter().take(NOTES) {
        for (i, line) in text::wrap(&text::shown(note), screen.width - 4).iter().enumerate() {
            let line = format!("  {}{line}", if i == 0 { "" } else { "  " });
            out.push_str(&screen.paint(Look::Dim, &line));
            out.push('\n');
        }
    }
    if notes.len() > NOTES {
        let more = format!("  … {} more with --json", notes.len() - NOTES);
        out.push_str(&screen.paint(Look::Dim, &more));
        out.push('\n');
    }
    out
}

/// `… 12 more types`, and beside it the command that shows them.
fn more(screen: &Screen, what: &str, command: &str) -> String {
    let left = format!("  … {what}");
    let gap = screen.width.saturating_sub(left.width() + command.width());
    format!(
        "{}{}{}\n",
        screen.paint(Look::Dim, &left),
        " ".repeat(gap.max(2)),
        screen.paint(Look::Command, command)
    )
}
