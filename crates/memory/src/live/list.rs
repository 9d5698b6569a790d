//! Which processes have a CPython in them.

use super::files::Opener;
use super::procdir::ProcDir;
use super::smaps;
use crate::{Backing, Mapping, Process};
use object::{Object, ObjectSection, ObjectSymbol};
use rustc_hash::FxHashMap;

/// One process with a CPython in it.
#[derive(Debug, Clone)]
pub struct PythonProcess {
    pub process: Process,
    /// `3.11`, when the name of the file that holds the interpreter says so.
    pub version: Option<String>,
}

/// What [`processes`] found.
#[derive(Debug, Clone, Default)]
pub struct ProcessList {
    /// By pid.
    pub rows: Vec<PythonProcess>,
    /// How many processes may not be looked into.
    pub unreadable: usize,
}

/// All processes that map an ELF file which defines the CPython runtime, whatever it is called.
///
/// Costs one pass over `/proc/PID/maps` of every process, one look into every file that is mapped
/// executable anywhere, and smaps_rollup (27 ms per GiB) of those that are Python.
pub fn processes() -> ProcessList {
    let mut list = ProcessList::default();
    let mut known = FxHashMap::default();
    let own = std::process::id() as i32;
    let Ok(entries) = std::fs::read_dir("/proc") else { return list };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids.filter(|&pid| pid != own) {
        let Ok(view) = ProcDir::open(pid).and_then(|dir| dir.view()) else { continue };
        let maps = match view.read("maps") {
            Ok(maps) => maps,
            Err(error) => {
                list.unreadable += usize::from(error.kind() == std::io::ErrorKind::PermissionDenied);
                continue;
            }
        };
        if let Some(name) = runtime_file(&view, &maps, &mut known) {
            let version = version_in_name(&name);
            list.rows.push(PythonProcess { process: facts(pid, &view), version });
        }
    }
    list.rows.sort_by_key(|row| row.process.pid);
    list
}

/// Name of the first mapped file that defines the runtime.
fn runtime_file(
    dir: &ProcDir,
    maps: &[u8],
    known: &mut FxHashMap<((u32, u32), u64), bool>,
) -> Option<Vec<u8>> {
    let opener = Opener::new(dir);
    smaps::parse(maps)
        .into_iter()
        .map(|entry| entry.mapping)
        .filter(|mapping| mapping.backing == Backing::File && mapping.perms.exec)
        .find(|mapping| {
            *known
                .entry((mapping.dev, mapping.inode))
                .or_insert_with(|| defines_runtime(&opener, mapping).unwrap_or(false))
        })
        .map(|mapping| mapping.name)
}

fn defines_runtime(opener: &Opener<'_>, mapping: &Mapping) -> Option<bool> {
    let file = opener.open(mapping)?;
    let bytes = crate::file::FileBytes::map(&file)?;
    let elf = object::File::parse(&*bytes).ok()?;
    // Extension modules name these too, but do not define them. A static interpreter that exports
    // nothing has them in .symtab, and from 3.11 on a section of its own.
    let defines = |symbol: object::Symbol<'_, '_>| {
        symbol.is_definition() && matches!(symbol.name_bytes(), Ok(b"_PyRuntime" | b"PyType_Type"))
    };
    Some(
        elf.dynamic_symbols().any(defines)
            || elf.sections().any(|section| section.name_bytes() == Ok(b".PyRuntime"))
            || elf.symbols().any(defines),
    )
}

/// `libpython3.11.so.1.0`, `python3.11`, `libpython2.7d.so` → `3.11`, `3.11`, `2.7`.
fn version_in_name(path: &[u8]) -> Option<String> {
    let name = String::from_utf8_lossy(path.rsplit(|&b| b == b'/').next()?).into_owned();
    let (_, rest) = name.split_once("python")?;
    let (major, rest) = rest.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let number = |text: &str| text.parse::<u8>().is_ok();
    (number(major) && number(&minor)).then(|| format!("{major}.{minor}"))
}

fn facts(pid: i32, dir: &ProcDir) -> Process {
    let status = dir.status().unwrap_or_default();
    // One entry that sums up all, its first line shaped like any other.
    let rollup = dir.read("smaps_rollup").map(|text| smaps::parse(&text)).unwrap_or_default();
    let usage = rollup.first().map(|entry| entry.mapping.usage);
    Process {
        pid,
        ppid: Some(status.ppid),
        exe: executable(dir),
        cmdline: command_line(dir),
        rss: usage.map(|u| u.rss).or(status.rss),
        pss: usage.map(|u| u.pss),
        uss: usage.map(|u| u.private_clean + u.private_dirty),
        swap: usage.map(|u| u.swap).or(status.swap),
        peak_rss: status.peak_rss,
        ..Process::default()
    }
}

/// The executable as the kernel names it.
pub(super) fn executable(dir: &ProcDir) -> Vec<u8> {
    let mut exe = dir.link("exe").unwrap_or_default();
    if let Some(plain) = exe.strip_suffix(b" (deleted)") {
        exe.truncate(plain.len());
    }
    exe
}

pub(super) fn command_line(dir: &ProcDir) -> Vec<Vec<u8>> {
    let line = dir.read("cmdline").unwrap_or_default();
    if line.is_empty() {
        return Vec::new();
    }
    // Each argument ends with a NUL, unless the process has overwritten its own.
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    line.split(|&b| b == 0).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_names() {
        let version = |name: &str| version_in_name(name.as_bytes());
        assert_eq!(version("/usr/lib/libpython3.11.so.1.0").as_deref(), Some("3.11"));
        assert_eq!(version("/usr/bin/python3.9").as_deref(), Some("3.9"));
        assert_eq!(version("/opt/libpython2.7.so").as_deref(), Some("2.7"));
        assert_eq!(version("/usr/bin/python3"), None);
        assert_eq!(version("/srv/uwsgi"), None);
    }
}
