//! The program and libraries of a core: which copies on this machine are the very same files.

use super::CoreOptions;
use super::layout::Area;
use super::memory::CoreMemory;
use crate::file::{FileBytes, FileSource};
use crate::image::{ElfHeaders, shown};
use crate::{Backing, Mapping};
use rustc_hash::FxHashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Notes on missing files, at most.
const MAX_TOLD: usize = 200;

/// Files whose build-id equals the one in the core.
#[derive(Default)]
pub(super) struct Modules {
    by_name: FxHashMap<Vec<u8>, usize>,
    opened: Vec<File>,
    mapped: Vec<FileBytes>,
    /// One line for each file that is needed and was not found.
    pub missing: Vec<String>,
}

impl Modules {
    /// `core` is the memory by the core alone; without `options` no file is opened.
    pub fn find(areas: &[Area], core: &CoreMemory, options: Option<&CoreOptions>) -> Self {
        let mut out = Modules::default();
        let mut groups: Vec<(&[u8], Vec<&Area>)> = Vec::new();
        let mut index = FxHashMap::default();
        for area in areas.iter().filter(|a| a.backing == Backing::File) {
            let i = *index.entry(area.name.as_slice()).or_insert(groups.len());
            if i == groups.len() {
                groups.push((&area.name, Vec::new()));
            }
            groups[i].1.push(area);
        }
        let mut untold = 0;
        for (name, areas) in groups {
            let exec = areas.iter().any(|a| a.perms.exec);
            let head = areas.iter().find(|a| a.file_offset == 0);
            let build_id = head.and_then(|area| {
                let headers = ElfHeaders::in_memory(core, area.start..area.end)?;
                Some(headers.build_id_in_memory(core, headers.bias(area.start)?))
            });
            let why = match build_id {
                Some(Some(id)) => match options.and_then(|o| matching(name, &id, o)) {
                    Some((file, bytes)) => {
                        out.by_name.insert(name.to_vec(), out.opened.len());
                        out.opened.push(file);
                        out.mapped.push(bytes);
                        continue;
                    }
                    None => format!("no file with build-id {} was found", hex(&id)),
                },
                Some(None) => "it has no build-id in the core to know the right file by".to_owned(),
                None if exec => "its first page is not in the core to know the right file by".to_owned(),
                // A font, an archive: nothing of it is needed.
                None => continue,
            };
            // Parts that may have been written to are in the core, or nowhere.
            let absent = areas.iter().filter(|a| !a.perms.write).map(|a| a.end - a.stored).sum::<u64>();
            if absent > 0 && out.missing.len() < MAX_TOLD {
                out.missing.push(format!(
                    "{}: {absent} bytes are not in the core, and {why}: constants and names in it cannot be read",
                    shown(name)
                ));
            } else if absent > 0 {
                untold += 1;
            }
        }
        if untold > 0 {
            out.missing.push(format!("{untold} more mapped files are not in the core and were not found"));
        }
        out
    }

    pub fn files(&self) -> &[FileBytes] {
        &self.mapped
    }

    /// Which of [`files`](Self::files) is behind an area.
    pub fn of(&self, area: &Area) -> Option<usize> {
        self.by_name.get(&area.name).copied()
    }
}

impl FileSource for Modules {
    fn open(&self, mapping: &Mapping) -> Option<File> {
        self.opened.get(*self.by_name.get(&mapping.name)?)?.try_clone().ok()
    }
}

/// The file under the sysroot, else this machine's, if its build-id is `id`.
fn matching(name: &[u8], id: &[u8], options: &CoreOptions) -> Option<(File, FileBytes)> {
    let path = Path::new(OsStr::from_bytes(name));
    let candidates = [options.sysroot.as_deref().and_then(|root| below(root, path)), Some(path.to_owned())];
    candidates.into_iter().flatten().filter(|p| p.is_absolute()).find_map(|path| {
        // The path comes from the core: a pipe or a device must neither block nor be read.
        let mut how = File::options();
        let file = how.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
        let bytes = FileBytes::map(&file)?;
        (ElfHeaders::parse(&bytes)?.build_id(&bytes).as_deref() == Some(id)).then_some((file, bytes))
    })
}

/// `path` below `root`; `None` when it would climb out.
fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut out = std::path::absolute(root).ok()?;
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(out)
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}
