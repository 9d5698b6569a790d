//! `wmr snapshot`: keeps a target in a file.

use super::{notes_page, saving};
use crate::Answer;
use crate::cli::Options;
use crate::document::Document;
use crate::failure::{self, Failure, code};
use crate::numbers::scaled;
use crate::open::{open_target, with_progress};
use crate::screen::{Look, Screen};
use crate::text;
use serde::Serialize;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;
use wmr_heap::{Strip, inspect};
use wmr_memory::{Redact, SnapshotOptions, TargetKind, write_snapshot};

#[derive(Serialize)]
struct Body {
    path: String,
    /// Size of the file.
    bytes: u64,
    /// Of memory, unpacked.
    memory: u64,
    /// Of programs and libraries, unpacked.
    files: u64,
    stripped: bool,
}

/// What the file is to be like.
#[derive(Debug, Clone, Copy)]
pub struct How {
    pub strip: bool,
    /// Of the compression.
    pub level: i32,
}

pub fn run(
    word: &OsStr,
    path: Option<&Path>,
    force: bool,
    how: How,
    options: &Options,
) -> Result<Answer, Failure> {
    // A process is not stopped for a file that cannot be written.
    let given = path.map(|path| saving::create(path, force)).transpose()?;
    let target = open_target(word, options)?;
    let path = path.map_or_else(|| saving::default_path(&target, "wmr"), Path::to_owned);
    let output = given.map_or_else(|| saving::create(&path, force), Ok)?;
    let began = Instant::now();
    let strip = match how.strip {
        true => {
            let inspection = with_progress("telling structure from values", || inspect(&target));
            let inspection = inspection.map_err(|e| Failure::new(code::FAILED, e.to_string()))?;
            Some(Strip::new(&target, &inspection))
        }
        false => None,
    };
    let redact = strip.as_ref().map(|strip| strip as &dyn Redact);
    let kept = saving::write(&output, &path, |file, progress| {
        write_snapshot(&target, file, SnapshotOptions { level: how.level, redact }, progress)
    })
    .map_err(|error| saving::refused(&path, &error))?;
    // Only what came from a clone that lived to the end is worth a name.
    target.memory.finish().map_err(failure::of_lost)?;
    saving::finish(output, &path)?;

    let mut notes = target.notes.clone();
    notes.extend_from_slice(&kept.notes);
    notes.extend(target.memory.troubles());
    let body = Body {
        path: text::utf8(path.as_os_str().as_encoded_bytes()),
        bytes: kept.bytes,
        memory: kept.memory,
        files: kept.files,
        stripped: how.strip,
    };
    let text = if options.json {
        Document::of_target("wmr/snapshot/1", &target, notes, body).to_text()
    } else {
        let screen = Screen::of_stdout(options.color);
        let paused = match target.kind {
            TargetKind::Process => format!(", paused {:.1} ms", target.capture.pause.as_secs_f64() * 1e3),
            _ => String::new(),
        };
        let next = format!("wmr {}", text::quoted(&path.to_string_lossy()));
        let page = format!(
            "{}: {} with {} of memory and {} of programs and libraries{}\n  written in {:.1} s{paused}\n  open it, here or elsewhere: {}\n",
            saving::shown(&path),
            scaled(kept.bytes),
            scaled(kept.memory),
            scaled(kept.files),
            if how.strip { ", values stripped" } else { "" },
            began.elapsed().as_secs_f64(),
            screen.paint(Look::Command, &next),
        );
        screen.finished(page + &notes_page(&screen, &notes))
    };
    Ok(Answer { text, code: 0, complaint: None })
}
