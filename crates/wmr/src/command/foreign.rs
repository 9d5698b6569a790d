//! Graphs without a memory beneath them: `wmr refs`, `path` and `retained` of a dump that Meliae, or `wmr
//! export`, wrote. What references are called is not in such a file.

use super::{address, notes_page, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::{Document, hex, limited};
use crate::failure::{Failure, code};
use crate::numbers::{Unit, counted, grouped, percent, scaled};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::{self, cut, shown, utf8};
use serde::Serialize;
use std::ffi::OsStr;
use std::path::Path;
use wmr_heap::graph::{Bits, Dominators, ROOT};
use wmr_heap::meliae::{self, Foreign, ForeignError};

/// An opened dump.
pub struct Graph<'w> {
    word: &'w OsStr,
    graph: Foreign,
}

#[derive(Serialize)]
struct Ref {
    addr: String,
    #[serde(rename = "type")]
    name: String,
    bytes: u64,
}

#[derive(Serialize)]
struct Refs {
    of: Ref,
    to: Vec<Ref>,
    from: Vec<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct Paths {
    of: String,
    count: u64,
    bytes: u64,
    paths: Vec<Way>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct Way {
    root: Root,
    steps: Vec<Ref>,
}

#[derive(Serialize)]
struct Root {
    kind: &'static str,
    name: String,
}

#[derive(Serialize)]
struct Retained {
    by: &'static str,
    total: u64,
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<String>,
    #[serde(rename = "type")]
    name: String,
    count: u64,
    bytes: u64,
    retained: u64,
}

/// Rows, and ways, that people are shown; steps of one way.
const SHOWN: usize = 25;
const WAYS: usize = 3;
const STEPS: usize = 64;
/// Rows of single objects, and ways, for machines.
const OBJECTS: usize = 1000;
const MOST_WAYS: usize = 100;

/// `None` when what is named is no such file.
pub fn open(word: &OsStr) -> Result<Option<Graph<'_>>, Failure> {
    let path = Path::new(word);
    // All digits are a pid.
    let pid = word.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    if pid || !path.is_file() || !meliae::is_dump(path) {
        return Ok(None);
    }
    let graph = meliae::read(path).map_err(|error| {
        let said = format!("{}: {}", shown(&word.to_string_lossy()), shown(&error.to_string()));
        let failure = Failure::new(code::FAILED, said);
        match error {
            ForeignError::Line { .. } => failure.advise(
                "a line is {\"address\": 1, \"type\": \"int\", \"size\": 28, \"refs\": []}: Meliae and wmr export write them",
            ),
            _ => failure,
        }
    })?;
    Ok(Some(Graph { word, graph }))
}

impl Graph<'_> {
    fn reference(&self, node: u32) -> Ref {
        let addr = self.graph.addrs.get(node as usize).copied().unwrap_or(0);
        Ref { addr: hex(addr), name: utf8(self.named(node).as_bytes()), bytes: self.graph.size(node) }
    }

    /// Its type, and its own name where it has one.
    fn named(&self, node: u32) -> String {
        match self.graph.name(node) {
            Some(name) => format!("{} {name}", self.graph.type_name(node)),
            None => self.graph.type_name(node).to_owned(),
        }
    }

    fn node(&self, text: &str) -> Result<u32, Failure> {
        let addr = address::parse(text)?;
        self.graph.node_at(addr).ok_or_else(|| {
            let typed = text::quoted(&self.word.to_string_lossy());
            Failure::new(code::FAILED, format!("no object in the file is at {}", hex(addr)))
                .advise(format!("the largest ones: wmr retained {typed}"))
        })
    }

    fn answer<T: Serialize>(
        &self,
        schema: &'static str,
        options: &Options,
        body: T,
        page: impl FnOnce(&Screen, &T) -> String,
    ) -> Answer {
        let notes = self.graph.notes.clone();
        let text = if options.json {
            Document::of_graph(schema, Path::new(self.word), notes, body).to_text()
        } else {
            let screen = Screen::of_stdout(options.color);
            let bytes: u64 = self.graph.sizes.iter().fold(0, |sum, size| sum.saturating_add(*size));
            let left = shown(&self.word.to_string_lossy());
            let right = format!("{} · {}", counted(self.graph.nodes().into(), "object"), scaled(bytes));
            let head =
                screen.sides(&cut(&left, screen.width.saturating_sub(right.len() + 2).max(20)), &right);
            screen.finished(format!("{head}\n\n{}{}", page(&screen, &body), notes_page(&screen, &notes)))
        };
        Answer { text, code: 0, complaint: None }
    }

    /// What an object refers to, and what refers to it.
    pub fn refs(&self, addr: &str, limit: Option<usize>, options: &Options) -> Result<Answer, Failure> {
        let node = self.node(addr)?;
        let limit = limit.unwrap_or(if options.json { 0 } else { SHOWN });
        let mut to: Vec<u32> = self.graph.csr.row(node).to_vec();
        to.sort_unstable();
        to.dedup();
        let mut from: Vec<u32> = self
            .graph
            .csr
            .referrers(&Bits::of(self.graph.nodes(), [node]))
            .into_iter()
            .map(|(from, _)| from)
            .collect();
        from.dedup();
        let ((to, cut_to), (from, cut_from)) = (limited(to, limit), limited(from, limit));
        let cut = cut_to.unwrap_or(0) + cut_from.unwrap_or(0);
        let all = |nodes: Vec<u32>| nodes.into_iter().map(|node| self.reference(node)).collect();
        let (to, from) = (all(to), all(from));
        let body = Refs { of: self.reference(node), to, from, truncated: Some(cut).filter(|cut| *cut > 0) };
        Ok(self.answer("wmr/refs/1", options, body, |screen, body| {
            let mut out = String::new();
            for (heading, rows) in [("IT REFERS TO", &body.to), ("IT IS REFERRED TO BY", &body.from)] {
                let mut table = Table::new(screen).column("addr", Align::Left).column("type", Align::Text);
                table = table.column("bytes", Align::Right);
                rows.iter().for_each(|r| table.row([r.addr.clone(), shown(&r.name), grouped(r.bytes)]));
                out.push_str(&(title(screen, heading) + &table.render() + "\n"));
            }
            out
        }))
    }

    /// The nearest way to an object, or to those of a type.
    pub fn path(
        &self,
        addr: Option<&str>,
        ty: Option<&str>,
        limit: Option<usize>,
        options: &Options,
    ) -> Result<Answer, Failure> {
        let wanted = match (addr, ty) {
            (Some(addr), _) => Bits::of(self.graph.nodes(), [self.node(addr)?]),
            (None, Some(ty)) => self.graph.of_type(ty),
            (None, None) => return Err(Failure::new(code::USAGE, "an address or --type is needed")),
        };
        let of = addr.or(ty).unwrap_or_default();
        if wanted.count() == 0 {
            let typed = text::quoted(&self.word.to_string_lossy());
            return Err(Failure::new(code::FAILED, format!("no type is called {}", shown(of)))
                .advise(format!("all of them: wmr retained {typed} --by type --limit 0")));
        }
        let reach = self.graph.reach();
        let most = match limit {
            Some(0) => usize::MAX,
            Some(limit) => limit,
            None if options.json => MOST_WAYS,
            None => WAYS,
        };
        let way = |node: u32| {
            let path = reach.path(node);
            let first = path.first().copied().unwrap_or(node);
            let kind = if self.graph.type_name(first) == "module" { "module" } else { "unknown" };
            let name = match (kind, self.graph.name(first)) {
                ("module", Some(name)) => format!("module {name}"),
                _ => "nobody that is in the file".to_owned(),
            };
            let root = Root { kind, name: utf8(name.as_bytes()) };
            Way { root, steps: path.iter().map(|node| self.reference(*node)).collect() }
        };
        let count = wanted.count();
        let paths: Vec<Way> = wanted.iter().take(most).map(way).collect();
        let left = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(paths.len());
        let bytes = wanted.iter().fold(0u64, |sum, node| sum.saturating_add(self.graph.size(node)));
        let truncated = Some(left).filter(|left| *left > 0);
        let body = Paths { of: utf8(of.as_bytes()), count, bytes, paths, truncated };
        Ok(self.answer("wmr/path/1", options, body, |screen, body| {
            let mut out = title(screen, &format!("WHO HOLDS {}", shown(&body.of)));
            for way in &body.paths {
                out.push_str(&format!("  {}\n", shown(&way.root.name)));
                let hidden = way.steps.len().saturating_sub(STEPS);
                for (depth, step) in way.steps.iter().enumerate().skip(hidden) {
                    let indent = "  ".repeat(2 + depth.min(screen.width / 8));
                    let line = format!("{indent}{}  {}", shown(&step.name), step.addr);
                    out.push_str(&(cut(&line, screen.width) + "\n"));
                }
            }
            if let Some(left) = body.truncated {
                out.push_str(&format!("  … {}: --limit 0\n", counted(left as u64, "more object")));
            }
            out
        }))
    }

    /// What would be freed with each object, or with all of a type.
    pub fn retained(
        &self,
        by_type: bool,
        limit: Option<usize>,
        options: &Options,
    ) -> Result<Answer, Failure> {
        let graph = &self.graph;
        let dominators = Dominators::of(&graph.csr, &graph.roots);
        let retained = dominators.retained(|node| graph.size(node));
        let total = graph.sizes.iter().fold(0u64, |sum, size| sum.saturating_add(*size));
        let mut rows = if by_type { self.types(&dominators, &retained) } else { Vec::new() };
        let wanted = limit.unwrap_or(if options.json { 0 } else { SHOWN });
        let mut beyond = 0;
        if !by_type {
            let mut nodes = dominators.order.clone();
            nodes.sort_unstable_by_key(|node| (std::cmp::Reverse(retained[*node as usize]), *node));
            let most = if wanted == 0 { OBJECTS } else { wanted };
            beyond = nodes.len().saturating_sub(most);
            rows.extend(nodes.into_iter().take(most).map(|node| {
                let at = self.reference(node);
                let retained = retained[node as usize];
                Row { addr: Some(at.addr), name: at.name, count: 1, bytes: at.bytes, retained }
            }));
        }
        let (rows, truncated) = limited(rows, wanted);
        let truncated = Some(truncated.unwrap_or(0) + beyond).filter(|cut| *cut > 0);
        let by = if by_type { "type" } else { "object" };
        let body = Retained { by, total, rows, truncated };
        Ok(self.answer("wmr/retained/1", options, body, |screen, body| {
            let unit = Unit::for_total(body.total);
            let mut table = Table::new(screen).column(body.by, Align::Text).column("count", Align::Right);
            table =
                table.column("own", Align::Right).column("retained", Align::Right).column("%", Align::Right);
            for row in &body.rows {
                let addr = row.addr.as_ref().map(|addr| format!(" {addr}")).unwrap_or_default();
                table.row([
                    shown(&row.name) + &addr,
                    grouped(row.count),
                    unit.number(row.bytes),
                    unit.number(row.retained),
                    percent(row.retained, body.total),
                ]);
            }
            title(screen, &format!("WHAT WOULD GO WITH IT, {}", unit.name)) + &table.render()
        }))
    }

    /// Of objects that one of their own type dominates only the first counts.
    fn types(&self, dominators: &Dominators, retained: &[u64]) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let mut ids = rustc_hash::FxHashMap::default();
        // By node: the nearest dominator of each type is found by walking up, which a long chain makes slow; so
        // the walk is a tour of the tree that counts what is open.
        let count = dominators.idom.len();
        const NONE: u32 = u32::MAX;
        let (mut first, mut next) = (vec![NONE; count + 1], vec![NONE; count]);
        for &node in &dominators.order {
            let parent = match dominators.idom[node as usize] {
                ROOT => count,
                parent => parent as usize,
            };
            next[node as usize] = first[parent];
            first[parent] = node;
        }
        let (mut open, mut path, mut at) = (Vec::<u32>::new(), Vec::<(u32, usize)>::new(), first[count]);
        loop {
            if at != NONE {
                let name = self.graph.type_name(at);
                let id = *ids.entry(name).or_insert_with(|| {
                    let name = utf8(name.as_bytes());
                    rows.push(Row { addr: None, name, count: 0, bytes: 0, retained: 0 });
                    open.push(0);
                    rows.len() - 1
                });
                rows[id].count += 1;
                rows[id].bytes = rows[id].bytes.saturating_add(self.graph.size(at));
                if open[id] == 0 {
                    rows[id].retained = rows[id].retained.saturating_add(retained[at as usize]);
                }
                open[id] += 1;
                path.push((at, id));
                at = first[at as usize];
                continue;
            }
            let Some((done, id)) = path.pop() else { break };
            open[id] -= 1;
            at = next[done as usize];
        }
        rows.sort_by(|a, b| b.retained.cmp(&a.retained).then_with(|| a.name.cmp(&b.name)));
        rows
    }
}
