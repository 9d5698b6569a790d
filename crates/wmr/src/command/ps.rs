//! `wmr ps`: the Python processes of this machine; with `--tree` parents with the workers they forked.

mod tree;

use super::{notes_page, sharing};
use crate::Answer;
use crate::cli::Options;
use crate::document::{Document, Sizes, csv};
use crate::failure::Failure;
use crate::numbers::{Unit, counted};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text;
use serde::Serialize;
use wmr_memory::live::{Families, PythonProcess, SharingOptions, families, processes};

#[derive(Serialize)]
struct Body {
    /// With `--tree`, when there was anything to compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared_by: Option<&'static str>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    ppid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(flatten)]
    sizes: Sizes,
    exe: String,
    cmdline: Vec<String>,
    /// Last, so that the columns have one order whoever comes first.
    #[serde(flatten)]
    place: Place,
}

/// Where in a family a process is: `family` is the pid of the parent of all. A worker has what it shares
/// with the parent that forked it, `ppid`.
#[derive(Serialize)]
struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<i32>,
    #[serde(flatten)]
    shares: Option<sharing::Shares>,
}

pub fn run(as_tree: bool, as_csv: bool, options: &Options) -> Result<Answer, Failure> {
    let list = processes();
    let mut notes = match list.unreadable {
        0 => Vec::new(),
        n => vec![format!(
            "{} may not be looked into, being another user's or a sandbox's",
            counted(n as u64, "process")
        )],
    };
    let found = match as_tree {
        true => families(&list.rows, &SharingOptions::default()),
        false => Families::default(),
    };
    notes.extend(found.told_by.map(|told_by| sharing::told_by_note(told_by).to_owned()));
    notes.extend(found.notes.iter().cloned());
    let text = if options.json || as_csv {
        let rows: Vec<Row> = list.rows.into_iter().map(|process| row(process, &found)).collect();
        let compared_by = found.told_by.map(sharing::told_by_name);
        let body = Body { compared_by, rows };
        if as_csv { csv(&body.rows) } else { Document::without_target("wmr/ps/1", notes, body).to_text() }
    } else {
        let screen = Screen::of_stdout(options.color);
        let page = match as_tree {
            true => tree::page(&screen, &list.rows, &found),
            false => page(&screen, &list.rows),
        };
        screen.finished(page + &notes_page(&screen, &notes))
    };
    Ok(Answer { text, code: 0, complaint: None })
}

fn row(found: PythonProcess, families: &Families) -> Row {
    let process = found.process;
    let worker = families.workers.get(&process.pid);
    Row {
        pid: process.pid,
        ppid: process.ppid,
        version: found.version,
        sizes: Sizes::of(&process),
        place: Place {
            family: families.of(process.pid),
            shares: worker.map(|worker| sharing::Shares::of(&worker.shares)),
        },
        exe: text::utf8(&process.exe),
        cmdline: process.cmdline.iter().map(|word| text::utf8(word)).collect(),
    }
}

/// One unit for the figures of all processes.
fn unit(rows: &[PythonProcess]) -> Unit {
    Unit::for_total(rows.iter().filter_map(|row| row.process.rss).max().unwrap_or(0))
}

const NONE: &str = "no Python process found\n";

fn page(screen: &Screen, rows: &[PythonProcess]) -> String {
    if rows.is_empty() {
        return NONE.to_owned();
    }
    let unit = unit(rows);
    let cell = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| unit.number(bytes));
    let mut table = Table::new(screen)
        .column("pid", Align::Right)
        .column("python", Align::Left)
        .column("RSS", Align::Right)
        .column("PSS", Align::Right)
        .column("USS", Align::Right)
        .column("swap", Align::Right)
        .column("peak", Align::Right)
        .column("command", Align::Text);
    for row in rows {
        let process = &row.process;
        table.row([
            process.pid.to_string(),
            row.version.clone().unwrap_or_else(|| "?".to_owned()),
            cell(process.rss),
            cell(process.pss),
            cell(process.uss),
            cell(process.swap),
            cell(process.peak_rss),
            text::command_line(&process.cmdline, &process.exe),
        ]);
    }
    format!("{}\n  {}, in {}\n", table.render(), counted(rows.len() as u64, "process"), unit.name)
}
