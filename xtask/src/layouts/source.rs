//! The builds whose DWARF is read.

use super::dwarf::{self, Shapes};
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use wmr_testing::{Interpreter, Kind};

/// One build: the interpreter's ELF file and its extension modules'.
pub struct Source {
    pub tag: String,
    pub version: String,
    kind: Kind,
    files: Vec<PathBuf>,
    debug_root: Option<PathBuf>,
}

/// Every build at hand that has DWARF, oldest version first: pyenv's, else Debian's; debug builds.
pub fn all() -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for python in wmr_testing::interpreters() {
        if sources.iter().any(|source| source.tag == python.tag) {
            continue;
        }
        let source = of(python);
        if !source.files.is_empty() {
            sources.push(source);
        }
    }
    sources
}

fn of(python: &Interpreter) -> Source {
    let (major, minor) = python.minor();
    // …/versions/3.11.7/bin/python3.11, …/usr/bin/python3.14
    let prefix = python.exe.parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    let library = prefix.join("lib");
    let shared = files(&library, |name| name.starts_with(&format!("libpython{major}.{minor}")));
    let mark = if python.is_debug() { format!("-{major}{minor}d-") } else { format!("-{major}{minor}") };
    let dynload = library.join(format!("python{major}.{minor}/lib-dynload"));
    // 2.7's names carry no mark.
    let marked = |name: &str| {
        name.ends_with(".so")
            && (major == 2 || name.contains(&mark))
            && (python.is_debug() || !name.contains(&format!("-{major}{minor}d-")))
    };
    let main = match python.kind {
        Kind::Pyenv => shared.into_iter().find(|path| path.to_string_lossy().contains(".so.")),
        Kind::Debian | Kind::Debug => Some(python.exe.clone()),
        Kind::System => None,
    };
    let extensions = files(&dynload, marked);
    let files = main.into_iter().flat_map(|main| std::iter::once(main).chain(extensions.clone())).collect();
    Source {
        tag: python.tag.clone(),
        version: python.version.clone(),
        kind: python.kind,
        files,
        debug_root: python.root.clone().or_else(|| prefix.parent().map(Path::to_owned)),
    }
}

fn files(folder: &Path, keep: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(&keep));
    let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

impl Source {
    pub fn describe(&self) -> String {
        match self.kind {
            Kind::Pyenv => format!("pyenv's {}", self.version),
            Kind::Debug => format!("Debian's Py_DEBUG build of {}", self.version),
            Kind::System | Kind::Debian => format!("Debian's {}", self.version),
        }
    }

    /// The wanted structures of all its files. An extension module without DWARF is left out, said so.
    pub fn structures(
        &self,
        levels: usize,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, Shapes>> {
        let mut found = BTreeMap::new();
        for (n, file) in self.files.iter().enumerate() {
            match dwarf::read(file, self.debug_root.as_deref(), levels, wanted, &mut found) {
                Err(why) if n > 0 => eprintln!("{}: {why:#}", self.tag),
                outcome => outcome?,
            }
        }
        Ok(found)
    }
}
