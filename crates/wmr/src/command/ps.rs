//! `wmr ps`: the Python processes of this machine.

use super::notes_page;
use crate::Answer;
use crate::cli::Options;
use crate::document::{Document, Sizes, csv};
use crate::failure::Failure;
use crate::numbers::{Unit, counted};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text;
use serde::Serialize;
use wmr_memory::live::{PythonProcess, processes};

#[derive(Serialize)]
struct Body {
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
}

pub fn run(as_csv: bool, options: &Options) -> Result<Answer, Failure> {
    let list = processes();
    let notes = match list.unreadable {
        0 => Vec::new(),
        n => vec![format!(
            "{} may not be looked into, being another user's or a sandbox's",
            counted(n as u64, "process")
        )],
    };
    let text = if options.json || as_csv {
        let rows: Vec<Row> = list.rows.into_iter().map(row).collect();
        if as_csv { csv(&rows) } else { Document::without_target("wmr/ps/1", notes, Body { rows }).to_text() }
    } else {
        let screen = Screen::of_stdout(options.color);
        screen.finished(page(&screen, &list.rows) + &notes_page(&screen, &notes))
    };
    Ok(Answer { text, code: 0, complaint: None })
}

fn row(found: PythonProcess) -> Row {
    let process = found.process;
    Row {
        pid: process.pid,
        ppid: process.ppid,
        version: found.version,
        sizes: Sizes::of(&process),
        exe: text::utf8(&process.exe),
        cmdline: process.cmdline.iter().map(|word| text::utf8(word)).collect(),
    }
}

fn page(screen: &Screen, rows: &[PythonProcess]) -> String {
    if rows.is_empty() {
        return "no Python process found\n".to_owned();
    }
    let most = rows.iter().filter_map(|row| row.process.rss).max().unwrap_or(0);
    let unit = Unit::for_total(most);
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
