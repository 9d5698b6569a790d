//! `wmr map`: the mappings, what of them is in RAM and swap, what is shared, and who has them.

use super::{answer, finished};
use crate::Answer;
use crate::cli::Options;
use crate::document::{csv, hex};
use crate::failure::Failure;
use crate::numbers::{Unit, counted};
use crate::open::{Subject, open_for_census};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::{shown, utf8};
use serde::Serialize;
use std::ffi::OsStr;
use wmr_alloc::SpanKind;
use wmr_memory::{Backing, Mapping, Perms};

#[derive(Serialize)]
struct Body {
    rows: Vec<Row>,
}

/// `start` and `end` are addresses. What a core does not tell is absent.
#[derive(Serialize)]
struct Row {
    start: String,
    end: String,
    perms: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    owner: String,
    size: u64,
    rss: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pss: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    private: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    huge: Option<u64>,
}

pub fn run(word: &OsStr, as_csv: bool, options: &Options) -> Result<Answer, Failure> {
    let subject = open_for_census(word, options)?;
    let rows: Vec<Row> = subject.target.mappings.iter().map(|mapping| row(&subject, mapping)).collect();
    if as_csv {
        return Ok(finished(&subject, csv(&rows)));
    }
    Ok(answer("wmr/map/1", &subject, options, Body { rows }, |screen, body| page(screen, &body.rows)))
}

fn row(subject: &Subject, mapping: &Mapping) -> Row {
    // smaps knows what is shared with whom; of a core only what is stored is known.
    let live = subject.target.knows_residency();
    let usage = mapping.usage;
    let charge = mapping.residency.charge(mapping.start..mapping.end);
    let told = |bytes: u64| live.then_some(bytes);
    Row {
        start: hex(mapping.start),
        end: hex(mapping.end),
        perms: perms(mapping.perms),
        path: utf8(&mapping.name),
        owner: owner(subject, mapping),
        size: mapping.len(),
        rss: if live { usage.rss } else { charge.resident },
        pss: told(usage.pss),
        private: told(usage.private_clean + usage.private_dirty),
        shared: told(usage.shared_clean + usage.shared_dirty),
        swap: told(usage.swap),
        huge: told(usage.anon_huge),
    }
}

fn perms(perms: Perms) -> String {
    let bit = |set, c| if set { c } else { '-' };
    let kind = if perms.shared { 's' } else { 'p' };
    [bit(perms.read, 'r'), bit(perms.write, 'w'), bit(perms.exec, 'x'), kind].into_iter().collect()
}

/// Who has most of the mapping: an allocator, an image, a thread.
fn owner(subject: &Subject, mapping: &Mapping) -> String {
    let mut held = [(0u64, "pymalloc"), (0, "malloc"), (0, "malloc chunk")];
    let spans = subject.inspection.blocks.spans();
    let first = spans.partition_point(|span| span.end <= mapping.start);
    for span in spans[first..].iter().take_while(|span| span.start < mapping.end) {
        let bytes = span.end.min(mapping.end) - span.start.max(mapping.start);
        let i = match span.kind {
            SpanKind::Pymalloc { .. } => 0,
            SpanKind::Mmapped => 2,
            SpanKind::Heap { .. } | SpanKind::Slots { .. } => 1,
        };
        held[i].0 += bytes;
    }
    if let Some((_, name)) = held.into_iter().filter(|(bytes, _)| *bytes > 0).max_by_key(|(bytes, _)| *bytes)
    {
        return name.to_owned();
    }
    let target = &subject.target;
    // A segment need not begin where its first page does.
    let image = target.images.iter().find(|image| {
        image.segments.iter().any(|s| s.range.start < mapping.end && mapping.start < s.range.end)
    });
    match mapping.backing {
        Backing::File if image.is_some() => "image".to_owned(),
        Backing::File => "file".to_owned(),
        Backing::SharedMemory => "shared memory".to_owned(),
        Backing::Device => "device".to_owned(),
        Backing::Kernel => "kernel".to_owned(),
        Backing::Stack => "main stack".to_owned(),
        Backing::Brk => "unknown".to_owned(),
        Backing::Anonymous => {
            if image.is_some() {
                return "image, zeroed data".to_owned();
            }
            // A thread's stack is below where its pointer was, and above it.
            match target.threads.iter().find(|thread| mapping.contains(thread.sp)) {
                Some(thread) => format!("stack of thread {}", thread.tid),
                None if !mapping.perms.read && !mapping.perms.write => "reserved".to_owned(),
                None => "unknown".to_owned(),
            }
        }
    }
}

fn page(screen: &Screen, rows: &[Row]) -> String {
    let total = |figure: fn(&Row) -> u64| rows.iter().map(figure).sum::<u64>();
    let unit = Unit::for_total(total(|row| row.rss));
    let wide = screen.width >= 120;
    let mut table = Table::new(screen).column("start", Align::Left);
    if wide {
        table = table.column("end", Align::Left);
    }
    table = table.column("perm", Align::Left).column("size", Align::Right).column("RSS", Align::Right);
    if wide {
        table = table
            .column("PSS", Align::Right)
            .column("private", Align::Right)
            .column("shared", Align::Right)
            .column("huge", Align::Right);
    }
    table = table.column("swap", Align::Right).column("owner", Align::Left).column("path", Align::Path);
    let number = |bytes: u64| if bytes == 0 { "0".to_owned() } else { unit.number(bytes) };
    let told = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), number);
    for row in rows {
        let mut cells = vec![row.start[2..].to_owned()];
        if wide {
            cells.push(row.end[2..].to_owned());
        }
        cells.extend([row.perms.clone(), number(row.size), number(row.rss)]);
        if wide {
            cells.extend([told(row.pss), told(row.private), told(row.shared), told(row.huge)]);
        }
        cells.extend([told(row.swap), shown(&row.owner), shown(&row.path)]);
        table.row(cells);
    }
    let sum = |figure: fn(&Row) -> u64| unit.number(total(figure));
    format!(
        "{}\n  {}: {} {} mapped, {} in RAM, {} swapped\n",
        table.render(),
        counted(rows.len() as u64, "mapping"),
        sum(|row| row.size),
        unit.name,
        sum(|row| row.rss),
        sum(|row| row.swap.unwrap_or(0)),
    )
}
