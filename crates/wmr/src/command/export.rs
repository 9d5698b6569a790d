//! `wmr export`: the graph of objects in a file that other programs read.

use super::{holders, notes_page, saving};
use crate::Answer;
use crate::cli::{ExportFormat, Options};
use crate::document::{Document, notes};
use crate::failure::{self, Failure};
use crate::numbers::{counted, scaled};
use crate::open::open;
use crate::screen::{Look, Screen};
use crate::text;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use std::ffi::OsStr;
use std::io::{BufWriter, Write};
use std::path::Path;
use wmr_heap::graph::Fold;
use wmr_heap::meliae;

#[derive(Serialize)]
struct Body {
    path: String,
    format: &'static str,
    objects: u64,
    /// Of these, objects in the data of the interpreter and of libraries, which take nothing of the heap.
    #[serde(rename = "static")]
    statics: u64,
    /// Of the objects with what they own, as the allocator has it.
    bytes: u64,
    refs: u64,
}

/// Buffered, as lines are short.
const BUFFER: usize = 1 << 20;

pub fn run(
    word: &OsStr,
    format: ExportFormat,
    path: &Path,
    force: bool,
    options: &Options,
) -> Result<Answer, Failure> {
    // A process is not stopped for a file that cannot be written.
    let output = saving::create(path, force)?;
    let subject = open(word, options)?;
    let held = holders::find(&subject, Fold::No)?;
    let packed = path.extension().is_some_and(|ending| ending == "gz");
    let ExportFormat::Meliae = format;
    let totals = saving::write(&output, path, |file, progress| {
        let file = BufWriter::with_capacity(BUFFER, file);
        if packed {
            let mut file = GzEncoder::new(file, Compression::fast());
            let totals = meliae::write(&held, &mut file, progress)?;
            file.finish()?.flush()?;
            return Ok(totals);
        }
        let mut file = file;
        let totals = meliae::write(&held, &mut file, progress)?;
        file.flush()?;
        Ok(totals)
    })
    .map_err(|error: std::io::Error| saving::refused(path, &error))?;
    subject.target.memory.finish().map_err(failure::of_lost)?;
    saving::finish(output, path)?;
    let body = Body {
        path: text::utf8(path.as_os_str().as_encoded_bytes()),
        format: "meliae",
        objects: totals.objects,
        statics: totals.statics,
        bytes: totals.bytes,
        refs: totals.refs,
    };
    let text = if options.json {
        Document::of("wmr/export/1", &subject, body).to_text()
    } else {
        let screen = Screen::of_stdout(options.color);
        let next = format!("wmr retained {}", text::quoted(&path.to_string_lossy()));
        let page = format!(
            "{}: {} in {}, with {}\n  Meliae reads it, and so does: {}\n",
            saving::shown(path),
            scaled(totals.bytes),
            counted(totals.objects, "object"),
            counted(totals.refs, "reference"),
            screen.paint(Look::Command, &next),
        );
        screen.finished(page + &notes_page(&screen, &notes(&subject)))
    };
    Ok(Answer { text, code: 0, complaint: None })
}
