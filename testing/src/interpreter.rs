//! Which interpreters there are, and how each is started.

use crate::Target;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where an interpreter comes from, which decides what is odd about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Built by pyenv: a shared `libpythonX.Y.so` with symbols and DWARF.
    Pyenv,
    /// Another one on PATH; the distribution's own is static and stripped.
    System,
    /// A Debian package unpacked into a folder: runs under `chroot`, or through that folder's `ld.so`.
    Debian,
    /// As `Debian`, built with `Py_DEBUG`.
    Debug,
}

/// One line of the index that `cargo xtask pythons` writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// `3.11.7`, as `sys.version_info` gives it.
    pub version: String,
    /// `3.11`; with `Py_DEBUG` `3.11d`.
    pub tag: String,
    pub kind: Kind,
    /// What to run, e.g. `["chroot", ROOT, "/usr/bin/python3.14"]`.
    pub command: Vec<String>,
    /// The program as this side sees it.
    pub exe: PathBuf,
    /// What the target takes for `/`, when that is not ours. A script cannot name a file outside it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root: Option<PathBuf>,
    /// The same through its own `ld.so`, which needs no root; `/proc/PID/exe` is then the loader.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub loader: Vec<String>,
}

impl Interpreter {
    /// `(3, 11)`.
    pub fn minor(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|p| p.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    pub fn is_debug(&self) -> bool {
        self.kind == Kind::Debug
    }

    /// The same interpreter started through its own `ld.so`, where there is such a way: a target
    /// whose `/proc/PID/exe` is the loader and whose root is ours.
    pub fn through_loader(&self) -> Option<Interpreter> {
        let command = Some(self.loader.clone()).filter(|l| !l.is_empty())?;
        Some(Interpreter { command, root: None, ..self.clone() })
    }

    /// The interpreter, without arguments, not affected by the `PYTHON*` variables around us.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PYTHON") {
                command.env_remove(name);
            }
        }
        // 3.6 under the C locale cannot print a name that is not ASCII.
        command.env("LC_ALL", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Runs `script` (given to `-c`) until it says it is ready.
    ///
    /// # Errors
    /// As [`Target::start`].
    pub fn spawn(&self, script: &str) -> io::Result<Target> {
        self.spawn_with(script, |_| ())
    }

    /// As [`spawn`](Self::spawn); `change` may add arguments (`sys.argv[1:]`) and variables.
    ///
    /// # Errors
    /// As [`Target::start`].
    pub fn spawn_with(&self, script: &str, change: impl FnOnce(&mut Command)) -> io::Result<Target> {
        let mut command = self.command();
        command.arg("-c").arg(script);
        change(&mut command);
        Target::start(command)
    }

    /// Runs the script in `path`; not for an interpreter with a root of its own.
    ///
    /// # Errors
    /// As [`Target::start`], and when the interpreter cannot see the file.
    pub fn spawn_file(&self, path: &Path, change: impl FnOnce(&mut Command)) -> io::Result<Target> {
        if let Some(root) = &self.root {
            return Err(io::Error::other(format!(
                "python {} sees only what is under {}, not {}",
                self.version,
                root.display(),
                path.display()
            )));
        }
        let mut command = self.command();
        command.arg(path.canonicalize()?);
        change(&mut command);
        Target::start(command)
    }

    /// What `script` prints.
    ///
    /// # Errors
    /// The interpreter cannot be run, or ends with an error.
    pub fn output(&self, script: &str) -> io::Result<String> {
        let out = self.command().arg("-c").arg(script).stdin(Stdio::null()).output()?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            return Err(io::Error::other(format!("python {}: {}: {said}", self.version, out.status)));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

/// Folder for what is downloaded or built for tests: `$XDG_CACHE_HOME/wheresmyram`.
pub fn cache_dir() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("wheresmyram")
}

/// The index: a JSON list of [`Interpreter`]. `WMR_PYTHONS` names another file.
pub fn index_path() -> PathBuf {
    std::env::var_os("WMR_PYTHONS").map_or_else(|| cache_dir().join("pythons.json"), PathBuf::from)
}

/// Every interpreter in the index, oldest first; without an index, those that this machine has.
///
/// Read once a process: an interpreter installed meanwhile is not seen.
pub fn interpreters() -> &'static [Interpreter] {
    static FOUND: OnceLock<Vec<Interpreter>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let index = std::fs::read_to_string(index_path()).ok();
        index.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_else(discover)
    })
}

/// The ordinary interpreter of a minor version (`"3.11"`), or a debug build (`"3.11d"`).
///
/// pyenv's comes before the distribution's where both are there.
pub fn python(tag: &str) -> Option<&'static Interpreter> {
    interpreters().iter().find(|i| i.tag == tag)
}

/// An interpreter with the packages that the workloads want, where `cargo xtask pythons` could make one.
pub fn venv(tag: &str) -> Option<Interpreter> {
    let program = venv_dir(tag).join("bin/python");
    let command = vec![program.to_string_lossy().into_owned()];
    program.is_file().then(|| python(tag).map(|base| Interpreter { command, ..base.clone() }))?
}

/// Where the virtual environment of that version is, or would be.
pub fn venv_dir(tag: &str) -> PathBuf {
    cache_dir().join("venvs").join(tag)
}

/// Where Meliae is for Python 2.7, or would be.
pub fn meliae_dir() -> PathBuf {
    cache_dir().join("meliae")
}

/// A script of `bench/workloads`: `workload("w2_web.py")`.
pub fn workload(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/workloads").join(name)
}

/// The interpreters of this machine: pyenv's and those on PATH. Each is run once to ask its version.
pub fn discover() -> Vec<Interpreter> {
    let mut found: Vec<Interpreter> = Vec::new();
    for (path, kind) in candidates() {
        let Ok(exe) = path.canonicalize() else { continue };
        if found.iter().any(|i| i.exe == exe) {
            continue;
        }
        let command = vec![path.to_string_lossy().into_owned()];
        found.extend(identify(command, exe, kind).ok());
    }
    sort(&mut found);
    found
}

/// Makes an index entry by asking the interpreter itself.
///
/// # Errors
/// It does not run, is not CPython, or is free-threaded.
pub fn identify(command: Vec<String>, exe: PathBuf, kind: Kind) -> io::Result<Interpreter> {
    const QUESTION: &str = "import sys, platform, sysconfig\n\
        print('%s %d.%d.%d %d %d' % ((platform.python_implementation(),) + tuple(sys.version_info[:3]) \
        + (hasattr(sys, 'gettotalrefcount'), bool(sysconfig.get_config_var('Py_GIL_DISABLED')))))";
    let (version, tag) = (String::from("?"), String::from("?"));
    let mut python = Interpreter { version, tag, kind, command, exe, root: None, loader: Vec::new() };
    let answer = python.output(QUESTION)?;
    let words: Vec<&str> = answer.split_whitespace().collect();
    let ["CPython", version, debug, "0"] = words[..] else {
        return Err(io::Error::other(format!("not a CPython with a GIL: {answer}")));
    };
    python.version = version.to_owned();
    python.tag = version.rsplit_once('.').map_or(version, |(minor, _)| minor).to_owned();
    if debug == "1" {
        python.kind = Kind::Debug;
        python.tag.push('d');
    }
    Ok(python)
}

/// Oldest first; within a version pyenv's, then the machine's own, then the unpacked, then debug builds.
pub fn sort(found: &mut [Interpreter]) {
    found.sort_by_key(|i| (i.minor(), i.kind as u8, i.exe.clone()));
}

fn candidates() -> Vec<(PathBuf, Kind)> {
    let minors = || (6..=15).map(|n| format!("python3.{n}")).chain(["python2.7".to_owned()]);
    let mut found = Vec::new();
    let pyenv = std::env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pyenv")));
    if let Some(versions) = pyenv.as_ref().and_then(|root| std::fs::read_dir(root.join("versions")).ok()) {
        let bins = versions.flatten().map(|v| v.path().join("bin"));
        found.extend(bins.flat_map(|bin| minors().map(move |m| (bin.join(m), Kind::Pyenv))));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A test run from a virtual environment or pyenv's own PATH still covers the distribution's.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/bin")]);
    for folder in folders.filter(|f| pyenv.as_ref().is_none_or(|p| !f.starts_with(p))) {
        found.extend(minors().map(|m| (folder.join(m), Kind::System)));
        found.push((folder.join("python3"), Kind::System));
    }
    found.retain(|(path, _)| path.is_file());
    found
}
