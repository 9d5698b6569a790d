//! What can be shown where the output goes: columns, colour, block characters.

use crate::cli::ColorChoice;
use anstyle::{AnsiColor, Style};
use std::io::IsTerminal;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of output that goes to no terminal.
const PIPED_WIDTH: usize = 100;
/// Wider lines are hard to follow.
const MAX_WIDTH: usize = 200;

/// Where the output goes.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub width: usize,
    pub colour: bool,
    /// Block characters and dots of the locale's encoding, else ASCII.
    pub unicode: bool,
}

/// What a piece of text is, and so how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Look {
    #[default]
    Plain,
    Title,
    /// Beside the point.
    Dim,
    Bar,
    /// Something to type.
    Command,
}

impl Screen {
    pub fn of_stdout(choice: ColorChoice) -> Screen {
        let terminal = std::io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let colour = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                terminal && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
            }
        };
        let told = set("COLUMNS").and_then(|n| n.to_str()?.parse::<usize>().ok());
        let width = told.or_else(|| {
            let size = terminal_size::terminal_size_of(std::io::stdout()).filter(|_| terminal)?;
            Some(usize::from(size.0.0))
        });
        // The first of these that is set decides (setlocale(3)).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
        let locale = locale.to_string_lossy().to_ascii_lowercase();
        Screen {
            width: width.unwrap_or(PIPED_WIDTH).clamp(40, MAX_WIDTH),
            colour,
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    pub fn paint(&self, look: Look, text: &str) -> String {
        let style = match look {
            Look::Plain => Style::new(),
            Look::Title => Style::new().bold(),
            Look::Dim => Style::new().dimmed(),
            Look::Bar => AnsiColor::Cyan.on_default(),
            Look::Command => AnsiColor::Green.on_default(),
        };
        if !self.colour || text.is_empty() || style == Style::new() {
            return text.to_owned();
        }
        format!("{style}{text}{style:#}")
    }

    /// A whole page as this terminal can show it: each column of what is not ASCII by a stand-in.
    pub fn finished(&self, page: String) -> String {
        if self.unicode || page.is_ascii() {
            return page;
        }
        page.chars()
            .flat_map(|c| {
                let stand_in = match c {
                    '·' => '-',
                    '…' => '~',
                    '→' => '>',
                    c if c.is_ascii() => c,
                    _ => '?',
                };
                std::iter::repeat_n(stand_in, c.width().unwrap_or(1))
            })
            .collect()
    }

    /// `left`, and `right` at the right margin; on a line of its own where both do not fit.
    pub fn sides(&self, left: &str, right: &str) -> String {
        let gap = self.width.saturating_sub(left.width() + right.width());
        if gap == 0 {
            return format!("{left}\n{}{right}", " ".repeat(self.width.saturating_sub(right.width())));
        }
        format!("{left}{}{right}", " ".repeat(gap))
    }
}
