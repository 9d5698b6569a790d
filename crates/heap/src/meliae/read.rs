//! Reading a dump: hostile input, a line at a time.

use crate::graph::{Bits, Csr, Reach};
use flate2::read::MultiGzDecoder;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Bytes of one line: a list of eight million items has a hundred.
const MAX_LINE: u64 = 256 << 20;
/// Types and names that are told apart; what names there are beyond is left out.
const MAX_NAMES: usize = 1 << 20;
/// Characters of a type, a name or a value that are kept.
const MAX_TEXT: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    #[error("{0}")]
    Read(#[from] std::io::Error),
    #[error("line {line}: {why}")]
    Line { line: u64, why: String },
    #[error("line {line}: more objects or references than can be numbered")]
    TooMany { line: u64 },
    #[error("there is no object in it")]
    Empty,
}

/// A graph of objects without the memory they were in.
#[derive(Debug)]
pub struct Foreign {
    /// By node.
    pub addrs: Vec<u64>,
    pub sizes: Vec<u64>,
    types: Vec<u32>,
    type_names: Vec<Box<str>>,
    /// Of nodes that have one.
    names: FxHashMap<u32, Box<str>>,
    pub csr: Csr,
    /// Modules first, then what nobody refers to, then one of each ring that nothing else leads to.
    pub roots: Vec<u32>,
    by_addr: FxHashMap<u64, u32>,
    /// What was odd about the file.
    pub notes: Vec<String>,
}

/// A line, as Meliae's scanner writes it.
#[derive(Deserialize)]
struct Line<'l> {
    address: u64,
    #[serde(borrow, rename = "type")]
    name_of_type: Cow<'l, str>,
    size: u64,
    #[serde(borrow, default)]
    name: Option<Cow<'l, str>>,
    refs: Vec<u64>,
}

impl Foreign {
    pub fn nodes(&self) -> u32 {
        self.addrs.len() as u32
    }

    pub fn type_name(&self, node: u32) -> &str {
        let id = self.types.get(node as usize).copied().unwrap_or(u32::MAX);
        self.type_names.get(id as usize).map_or("?", |name| name)
    }

    /// Of a module, class, function: what it is called.
    pub fn name(&self, node: u32) -> Option<&str> {
        self.names.get(&node).map(|name| &**name)
    }

    pub fn node_at(&self, addr: u64) -> Option<u32> {
        self.by_addr.get(&addr).copied()
    }

    pub fn size(&self, node: u32) -> u64 {
        self.sizes.get(node as usize).copied().unwrap_or(0)
    }

    pub fn of_type(&self, name: &str) -> Bits {
        let full = self.type_names.iter().any(|known| **known == *name);
        let is_it = |known: &str| known == name || !full && known.rsplit('.').next() == Some(name);
        let wanted: Vec<bool> = self.type_names.iter().map(|known| is_it(known)).collect();
        let nodes = (0..self.nodes()).filter(|node| wanted[self.types[*node as usize] as usize]);
        Bits::of(self.nodes(), nodes)
    }

    pub fn reach(&self) -> Reach {
        Reach::from(&self.csr, &self.roots)
    }
}

/// Does the file begin like a dump, packed by gzip or not?
pub fn is_dump(path: &Path) -> bool {
    let mut head = [0; 64];
    let begins = || {
        let mut file = opened(path).ok()?;
        let mut len = 0;
        while len < head.len() {
            match file.read(&mut head[len..]).ok()? {
                0 => break,
                n => len += n,
            }
        }
        let text = head[..len].trim_ascii_start();
        let text = text.strip_prefix(b"[").map_or(text, <[u8]>::trim_ascii_start);
        Some(text.starts_with(b"{\"address\"") || text.starts_with(b"{ \"address\""))
    };
    let mut begins = begins;
    // To open a pipe would wait for whoever writes to it.
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) && begins().unwrap_or(false)
}

fn opened(path: &Path) -> std::io::Result<Box<dyn BufRead>> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let packed = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    Ok(if packed {
        Box::new(BufReader::with_capacity(1 << 20, MultiGzDecoder::new(file)))
    } else {
        Box::new(file)
    })
}

/// Reads a dump. References to what has no line are left out, and counted.
///
/// # Errors
/// The file cannot be read, or a line is no object.
pub fn read(path: &Path) -> Result<Foreign, ForeignError> {
    from(&mut opened(path)?)
}

fn from(file: &mut dyn BufRead) -> Result<Foreign, ForeignError> {
    let mut graph = Foreign {
        addrs: Vec::new(),
        sizes: Vec::new(),
        types: Vec::new(),
        type_names: Vec::new(),
        names: FxHashMap::default(),
        csr: Csr::empty(),
        roots: Vec::new(),
        by_addr: FxHashMap::default(),
        notes: Vec::new(),
    };
    let (mut refs, mut ends) = (Vec::<u64>::new(), Vec::<usize>::new());
    let mut type_ids: FxHashMap<Box<str>, u32> = FxHashMap::default();
    let mut twice: Option<(u64, u64)> = None;
    let (mut text, mut line) = (Vec::new(), 0u64);
    loop {
        text.clear();
        line += 1;
        if Read::take(&mut *file, MAX_LINE).read_until(b'\n', &mut text)? == 0 {
            break;
        }
        if text.len() as u64 == MAX_LINE {
            return Err(ForeignError::Line { line, why: "it is too long for one object".to_owned() });
        }
        // Older dumps are one list.
        let body = text.trim_ascii();
        let body = body.strip_suffix(b",").unwrap_or(body);
        if matches!(body, b"" | b"[" | b"]") {
            continue;
        }
        let one: Line = serde_json::from_slice(body)
            .map_err(|error| ForeignError::Line { line, why: in_words(&error) })?;
        let node = u32::try_from(graph.addrs.len()).ok().filter(|node| *node < crate::graph::MAX_NODES);
        let node = node.ok_or(ForeignError::TooMany { line })?;
        if graph.by_addr.contains_key(&one.address) {
            twice = Some(twice.map_or((line, 1), |(first, count)| (first, count + 1)));
            continue;
        }
        let cut = |text: &str| text.chars().take(MAX_TEXT).collect::<String>().into_boxed_str();
        let ty = match type_ids.get(&*one.name_of_type) {
            Some(ty) => *ty,
            None if type_ids.len() >= MAX_NAMES => 0,
            None => {
                let (id, name) = (graph.type_names.len() as u32, cut(&one.name_of_type));
                graph.type_names.push(name.clone());
                *type_ids.entry(name).or_insert(id)
            }
        };
        if let Some(name) = one.name.filter(|_| graph.names.len() < MAX_NAMES) {
            graph.names.insert(node, cut(&name));
        }
        graph.by_addr.insert(one.address, node);
        graph.addrs.push(one.address);
        graph.sizes.push(one.size);
        graph.types.push(ty);
        refs.extend(one.refs);
        ends.push(refs.len());
    }
    if graph.addrs.is_empty() {
        return Err(ForeignError::Empty);
    }
    if let Some((line, count)) = twice {
        graph.notes.push(format!(
            "{count} lines have an address that came before, the first is line {line}: left out"
        ));
    }
    graph.link(&refs, &ends, line)?;
    Ok(graph)
}

/// What is wrong, without the line and column of a text that is one line.
fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    format!("{text} (column {})", error.column())
}

impl Foreign {
    fn link(&mut self, refs: &[u64], ends: &[usize], line: u64) -> Result<(), ForeignError> {
        let dangling = refs.iter().filter(|to| !self.by_addr.contains_key(*to)).count();
        if dangling > 0 {
            self.notes.push(format!("{dangling} references lead to objects that are not in the file"));
        }
        let row = |node: u32| {
            let first = node.checked_sub(1).map_or(0, |before| ends[before as usize]);
            &refs[first..ends[node as usize]]
        };
        self.csr = Csr::of(self.nodes(), |node, f| {
            row(node).iter().filter_map(|to| self.by_addr.get(to)).for_each(|to| f(*to));
        })
        .map_err(|_| ForeignError::TooMany { line })?;
        let referred = Bits::new(self.nodes());
        for node in 0..self.nodes() {
            self.csr.row(node).iter().filter(|to| **to != node).for_each(|to| {
                referred.insert(*to);
            });
        }
        let mut roots: Vec<u32> =
            (0..self.nodes()).filter(|node| self.type_name(*node) == "module").collect();
        roots.extend(
            (0..self.nodes()).filter(|node| !referred.contains(*node) && self.type_name(*node) != "module"),
        );
        // A ring that nothing leads to: its first is taken for what holds it.
        let mut reach = Reach::from(&self.csr, &roots);
        let mut open: Vec<u32> = Vec::new();
        for node in 0..self.nodes() {
            if reach.reaches(node) {
                continue;
            }
            roots.push(node);
            reach.parent[node as usize] = crate::graph::ROOT;
            open.push(node);
            while let Some(at) = open.pop() {
                for to in self.csr.row(at) {
                    if !reach.reaches(*to) {
                        reach.parent[*to as usize] = at;
                        open.push(*to);
                    }
                }
            }
        }
        self.roots = roots;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Result<Foreign, String> {
        from(&mut text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_become_a_graph() {
        let graph = of("[\n\
            {\"address\": 1, \"type\": \"module\", \"size\": 60, \"name\": \"app\", \"refs\": [2]},\n\
            {\"address\": 2, \"type\": \"dict\", \"size\": 300, \"len\": 1, \"refs\": [3, 99]},\n\
            {\"address\": 3, \"type\": \"str\", \"size\": 50, \"value\": \"\\u00e9\", \"refs\": []},\n\
            {\"address\": 4, \"type\": \"list\", \"size\": 70, \"refs\": [5]},\n\
            {\"address\": 5, \"type\": \"list\", \"size\": 70, \"refs\": [4]}\n]\n")
        .unwrap();
        assert_eq!((graph.nodes(), graph.csr.row(1), graph.type_name(2)), (5, &[2][..], "str"));
        assert_eq!((graph.name(0), graph.roots.clone()), (Some("app"), vec![0, 3]));
        assert_eq!(graph.notes, ["1 references lead to objects that are not in the file"]);
        assert_eq!(graph.reach().path(graph.node_at(3).unwrap()), [0, 1, 2]);
        assert_eq!(graph.of_type("list").count(), 2);
    }

    #[test]
    fn what_is_no_object_is_said_with_its_line() {
        let good = "{\"address\": 1, \"type\": \"int\", \"size\": 28, \"refs\": []}\n";
        for (bad, why) in [
            ("{\"address\": 2, \"type\": \"int\", \"refs\": []}", "line 2: missing field `size`"),
            ("{\"address\": -2, \"type\": \"int\", \"size\": 1, \"refs\": []}", "line 2: invalid value"),
            ("{\"address\": 2, \"type\": \"int\", \"size\": 1, \"refs\": [", "line 2: EOF"),
            ("nonsense", "line 2: expected"),
        ] {
            let said = of(&format!("{good}{bad}")).unwrap_err();
            assert!(said.starts_with(why), "{said}");
        }
        assert_eq!(of("").unwrap_err(), "there is no object in it");
        let twice = of(&format!("{good}{good}")).unwrap();
        assert!(twice.nodes() == 1 && twice.notes[0].contains("line 2"), "{:?}", twice.notes);
    }

    proptest! {
        #[test]
        fn any_text_is_an_error_or_a_graph(text in "(\\{\"address\": [0-9]{1,3}, \"type\": \"[a-z]\", \"size\": 1, \"refs\": \\[[0-9]{0,2}\\]\\}\n|.{0,20}\n){0,20}") {
            if let Ok(graph) = of(&text) {
                let reach = graph.reach();
                prop_assert!((0..graph.nodes()).all(|node| reach.reaches(node)));
            }
        }
    }
}
