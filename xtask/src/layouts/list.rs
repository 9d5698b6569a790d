//! `layouts.list`: which structures a table has, and how far they are opened.

use super::dwarf::{Shapes, Structure};
use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// A line of the list: `Name=OtherName,… @unit.c depth=N +path -path`.
#[derive(Debug)]
pub struct Entry {
    /// What the table calls it, then what C calls it in this or that version.
    pub names: Vec<String>,
    /// End of the name of the compile unit, where several have one of that name.
    unit: Option<String>,
    /// How many levels of members held by value are opened.
    depth: usize,
    /// Paths opened one level beyond the depth.
    open: Vec<String>,
    /// Paths not opened.
    closed: Vec<String>,
}

pub fn parse(text: &str) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        let mut words = line.split_whitespace();
        let Some(names) = words.next() else { continue };
        let names: Vec<String> = names.split(['=', ',']).map(str::to_owned).collect();
        if entries.iter().any(|entry| entry.names[0] == names[0]) {
            bail!("layouts.list has {} twice", names[0]);
        }
        let mut entry = Entry { names, unit: None, depth: 1, open: Vec::new(), closed: Vec::new() };
        for word in words {
            match word.split_at(1) {
                ("@", unit) => entry.unit = Some(unit.to_owned()),
                ("+", path) => entry.open.push(path.to_owned()),
                ("-", path) => entry.closed.push(path.to_owned()),
                _ => match word.strip_prefix("depth=").map(str::parse) {
                    Some(Ok(depth)) => entry.depth = depth,
                    _ => bail!("layouts.list: {word:?} in the line of {}", entry.names[0]),
                },
            }
        }
        entries.push(entry);
    }
    Ok(entries)
}

impl Entry {
    /// How deep its structure has to be read.
    pub fn levels(&self) -> usize {
        let open = self.open.iter().map(|path| path.split('.').count()).max();
        self.depth.max(open.unwrap_or(0))
    }

    /// The table's line, `None` where a version has no such structure.
    pub fn line(&self, found: &BTreeMap<String, Shapes>) -> Result<Option<String>> {
        for name in &self.names {
            let shapes = found.get(name).into_iter().flatten();
            let fits = |unit: &str| self.unit.as_ref().is_none_or(|wanted| unit.ends_with(wanted.as_str()));
            let mut lines: Vec<(String, &str)> = Vec::new();
            for (structure, units) in shapes {
                let Some(unit) = units.iter().find(|unit| fits(unit)) else { continue };
                let line = self.write(structure);
                if !lines.iter().any(|(known, _)| *known == line) {
                    lines.push((line, unit));
                }
            }
            match lines.len() {
                0 => continue,
                1 => return Ok(lines.pop().map(|(line, _)| line)),
                _ => {
                    let units: Vec<&str> = lines.iter().map(|(_, unit)| *unit).collect();
                    bail!("{name} differs between {}", units.join(", "));
                }
            }
        }
        Ok(None)
    }

    fn write(&self, structure: &Structure) -> String {
        let mut line = format!("{} {}", self.names[0], structure.size);
        self.members(structure, "", 0, self.depth, &mut line);
        line
    }

    fn members(&self, structure: &Structure, prefix: &str, base: u64, depth: usize, line: &mut String) {
        for member in &structure.members {
            let offset = base + member.offset;
            let Some(name) = &member.name else {
                if let Some(inside) = &member.inside {
                    self.members(inside, prefix, offset, depth, line);
                }
                continue;
            };
            // The header is the same everywhere and has lines of its own.
            let header = matches!(name.as_str(), "ob_base" | "ob_refcnt" | "ob_type");
            if prefix.is_empty() && header && !self.is_header() {
                continue;
            }
            let path = format!("{prefix}{name}");
            line.push_str(&format!(" {path}@{offset}"));
            let opened = (depth > 0 || self.open.contains(&path)) && !self.closed.contains(&path);
            if let Some(inside) = member.inside.as_ref().filter(|_| opened) {
                self.members(inside, &format!("{path}."), offset, depth.saturating_sub(1), line);
            }
        }
    }

    fn is_header(&self) -> bool {
        matches!(self.names[0].as_str(), "PyObject" | "PyVarObject")
    }
}
