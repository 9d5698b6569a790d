//! Families of forked processes, drawn as trees.

use super::{NONE, unit};
use crate::numbers::counted;
use crate::screen::{Look, Screen};
use crate::table::{Align, Table};
use crate::text;
use std::collections::{BTreeMap, BTreeSet};
use wmr_memory::live::{Families, PythonProcess};

const LEGEND: &str = "shared: with the parent, in RAM once for both; un-shared: pages of which parent and \
    worker have each their own by now, as one of them wrote to them since the fork";

/// What is deeper in a family begins at the margin again.
const MAX_DEPTH: usize = 8;

pub fn page(screen: &Screen, rows: &[PythonProcess], families: &Families) -> String {
    if rows.is_empty() {
        return NONE.to_owned();
    }
    let unit = unit(rows);
    let cell = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| unit.number(bytes));
    let wide = screen.width >= 110;
    let (shared, unshared) =
        if wide { ("shared with parent", "un-shared since fork") } else { ("shared", "un-shared") };
    let mut table = Table::new(screen)
        .column("pid", Align::Left)
        .column("RSS", Align::Right)
        .column("PSS", Align::Right)
        .column("USS", Align::Right)
        .column(shared, Align::Right)
        .column(unshared, Align::Right)
        .column("command", Align::Text);
    for line in lines(rows, families, screen.unicode) {
        let process = &rows[line.row].process;
        let shares = families.workers.get(&process.pid).map(|worker| &worker.shares);
        let share = |bytes: Option<u64>| bytes.map(|bytes| unit.number(bytes)).unwrap_or_default();
        table.row([
            format!("{}{}", line.branch, process.pid),
            cell(process.rss),
            cell(process.pss),
            cell(process.uss),
            share(shares.map(|s| s.with_parent)),
            share(shares.map(|s| s.unshared)),
            text::command_line(&process.cmdline, &process.exe),
        ]);
    }
    let tops: BTreeSet<i32> = families.workers.keys().filter_map(|&pid| families.of(pid)).collect();
    let families_of = match tops.len() {
        0 => "none forked by another".to_owned(),
        1 => "1 family".to_owned(),
        n => format!("{n} families"),
    };
    let processes = counted(rows.len() as u64, "process");
    let mut out = format!("{}\n  {processes}, {families_of}, in {}\n", table.render(), unit.name);
    if !tops.is_empty() {
        for line in text::wrap(LEGEND, screen.width - 4) {
            out.push_str(&screen.paint(Look::Dim, &format!("  {line}")));
            out.push('\n');
        }
    }
    out
}

struct Line {
    /// Index of the row.
    row: usize,
    branch: String,
}

/// Parents in the order of the rows, each followed by its workers.
fn lines(rows: &[PythonProcess], families: &Families, unicode: bool) -> Vec<Line> {
    let mut workers: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (i, row) in rows.iter().enumerate() {
        if let Some(worker) = families.workers.get(&row.process.pid) {
            workers.entry(worker.parent).or_default().push(i);
        }
    }
    let mut drawing = Drawing { rows, workers, unicode, lines: Vec::new(), drawn: BTreeSet::new() };
    for (i, row) in rows.iter().enumerate() {
        if !families.workers.contains_key(&row.process.pid) {
            drawing.draw(i, 0, "", "");
        }
    }
    // Too deep in a family; or in a circle, which numbers used anew could make.
    for i in 0..rows.len() {
        drawing.draw(i, 0, "", "");
    }
    drawing.lines
}

struct Drawing<'a> {
    rows: &'a [PythonProcess],
    /// By the pid of their parent.
    workers: BTreeMap<i32, Vec<usize>>,
    unicode: bool,
    lines: Vec<Line>,
    drawn: BTreeSet<i32>,
}

impl Drawing<'_> {
    fn draw(&mut self, row: usize, depth: usize, branch: &str, below: &str) {
        let pid = self.rows[row].process.pid;
        if depth > MAX_DEPTH || !self.drawn.insert(pid) {
            return;
        }
        self.lines.push(Line { row, branch: branch.to_owned() });
        let workers = self.workers.get(&pid).cloned().unwrap_or_default();
        for (n, &worker) in workers.iter().enumerate() {
            let (arm, gap) = match (self.unicode, n + 1 == workers.len()) {
                (true, false) => ("├─ ", "│  "),
                (true, true) => ("└─ ", "   "),
                (false, false) => ("|- ", "|  "),
                (false, true) => ("`- ", "   "),
            };
            self.draw(worker, depth + 1, &format!("{below}{arm}"), &format!("{below}{gap}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wmr_memory::Process;
    use wmr_memory::live::{Shares, Worker};

    fn drawn(pids: &[i32], parents: &[(i32, i32)], unicode: bool) -> Vec<String> {
        let row = |&pid| PythonProcess { process: Process { pid, ..Process::default() }, version: None };
        let rows: Vec<_> = pids.iter().map(row).collect();
        let mut families = Families::default();
        for &(pid, parent) in parents {
            families.workers.insert(pid, Worker { parent, shares: Shares::default() });
        }
        let lines = lines(&rows, &families, unicode);
        lines.iter().map(|line| format!("{}{}", line.branch, pids[line.row])).collect()
    }

    #[test]
    fn workers_hang_below_their_parents() {
        let parents = [(3, 2), (4, 3), (7, 2)];
        assert_eq!(drawn(&[1, 2, 3, 4, 7, 9], &parents, true), ["1", "2", "├─ 3", "│  └─ 4", "└─ 7", "9"]);
        assert_eq!(drawn(&[2, 3, 4, 7], &parents, false), ["2", "|- 3", "|  `- 4", "`- 7"]);
    }

    #[test]
    fn nobody_is_left_out() {
        assert_eq!(drawn(&[2, 3], &[(2, 3), (3, 2)], true), ["2", "└─ 3"]);
        assert_eq!(drawn(&[5], &[(5, 4)], true), ["5"]);
        let deep: Vec<i32> = (1..200).collect();
        let parents: Vec<(i32, i32)> = (2..200).map(|pid| (pid, pid - 1)).collect();
        let lines = drawn(&deep, &parents, true);
        assert!(lines.len() == 199 && lines.iter().all(|line| line.chars().count() < 40), "{lines:?}");
    }
}
