//! Columns: as wide as what is in them, one of them giving way to the screen's width.

use crate::screen::{Look, Screen};
use crate::text;
use unicode_width::UnicodeWidthStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
    /// Left, and cut to what the screen leaves: in its middle, as both ends of a path tell something.
    Path,
    /// Left, and cut at its end to what the screen leaves.
    Text,
}

struct Column {
    title: &'static str,
    align: Align,
    look: Look,
}

/// Rows of cells; every cell is shown as it is, so names must have gone through [`text::shown`].
pub struct Table<'s> {
    screen: &'s Screen,
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// Narrowest a column that gives way becomes.
const MIN_FLEXIBLE: usize = 8;
const INDENT: usize = 2;
const GAP: usize = 2;

impl<'s> Table<'s> {
    pub fn new(screen: &'s Screen) -> Self {
        Table { screen, columns: Vec::new(), rows: Vec::new() }
    }

    pub fn column(mut self, title: &'static str, align: Align) -> Self {
        self.columns.push(Column { title, align, look: Look::Plain });
        self
    }

    pub fn styled(mut self, title: &'static str, align: Align, look: Look) -> Self {
        self.columns.push(Column { title, align, look });
        self
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, column)| {
                let cells = self.rows.iter().filter_map(|r| r.get(i)).map(|c| c.width());
                cells.max().unwrap_or(0).max(column.title.width())
            })
            .collect();
        // What is too much is taken from the flexible columns, the widest first.
        let room = self.screen.width.saturating_sub(INDENT + GAP * (widths.len().max(1) - 1));
        loop {
            let excess = widths.iter().sum::<usize>().saturating_sub(room);
            let flexible = |i: &usize| matches!(self.columns[*i].align, Align::Path | Align::Text);
            let widest = (0..widths.len()).filter(flexible).max_by_key(|&i| widths[i]);
            match widest {
                Some(i) if excess > 0 && widths[i] > MIN_FLEXIBLE => widths[i] -= 1,
                _ => return widths,
            }
        }
    }

    /// One string, a line a row, without trailing blanks.
    pub fn render(&self) -> String {
        let widths = self.widths();
        let mut out = String::new();
        if self.columns.iter().any(|c| !c.title.is_empty()) {
            let titles: Vec<String> = self.columns.iter().map(|c| c.title.to_owned()).collect();
            self.line(&mut out, &titles, &widths, Some(Look::Dim));
        }
        for row in &self.rows {
            self.line(&mut out, row, &widths, None);
        }
        out
    }

    fn line(&self, out: &mut String, cells: &[String], widths: &[usize], look: Option<Look>) {
        let mut pending = INDENT;
        for ((column, cell), &width) in self.columns.iter().zip(cells).zip(widths) {
            let cell = match column.align {
                Align::Path => text::cut_middle(cell, width),
                Align::Text => text::cut(cell, width),
                _ => cell.clone(),
            };
            let space = width.saturating_sub(cell.width());
            if column.align == Align::Right {
                pending += space;
            }
            if !cell.is_empty() {
                out.push_str(&" ".repeat(pending));
                out.push_str(&self.screen.paint(look.unwrap_or(column.look), &cell));
                pending = 0;
            }
            if column.align != Align::Right {
                pending += space;
            }
            pending += GAP;
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(width: usize) -> Screen {
        Screen { width, colour: false, unicode: true }
    }

    #[test]
    fn columns_give_way_to_the_screen() {
        let screen = screen(30);
        let mut table =
            Table::new(&screen).column("name", Align::Text).column("n", Align::Right).column("", Align::Left);
        table.row(["a_very_long_name_of_a_type".into(), "1,000".into(), String::new()]);
        table.row(["名前".into(), "7".into(), "x".into()]);
        let shown = table.render();
        assert_eq!(
            shown,
            "  name                    n\n  a_very_long_name_…  1,000\n  名前                    7  x\n",
        );
    }
}
