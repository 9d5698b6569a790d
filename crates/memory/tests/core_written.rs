//! Cores that we write: against the target they are of, and as gdb reads them.

mod core_written {
    mod lacking;
    mod programs;
    mod pythons;
    mod vdso;
}

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use wmr_memory::{Backing, CoreOptions, CoreWritten, Mapping, Target, open_core, write_core};

const PAGE: u64 = 4096;

/// A core in a folder of its own.
struct Core {
    path: PathBuf,
    written: CoreWritten,
    /// What the progress came to.
    progress: u64,
    _folder: tempfile::TempDir,
}

fn write(target: &Target) -> Core {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("core");
    let progress = std::sync::atomic::AtomicU64::new(0);
    let add = |bytes| {
        progress.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
    };
    let written = write_core(target, &File::create_new(&path).unwrap(), &add).unwrap();
    Core { path, written, progress: progress.into_inner(), _folder: folder }
}

impl Core {
    fn open(&self) -> Target {
        open_core(&self.path, &CoreOptions::default()).unwrap()
    }

    /// Bytes on the disk.
    fn on_disk(&self) -> u64 {
        std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&self.path).unwrap()) * 512
    }

    /// What gdb says to some commands; both of its outputs.
    fn gdb(&self, exe: Option<&Path>, commands: &[String]) -> String {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "--batch"]);
        for command in commands {
            gdb.args(["-ex", command]);
        }
        match exe {
            Some(exe) => gdb.arg(exe).arg(&self.path),
            None => gdb.arg("--core").arg(&self.path),
        };
        let out = gdb.output().expect("gdb is installed");
        [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    }
}

fn is_private_memory(mapping: &Mapping) -> bool {
    matches!(mapping.backing, Backing::Anonymous | Backing::Brk | Backing::Stack)
}

fn page_at(target: &Target, addr: u64) -> Result<Vec<u8>, wmr_memory::Fault> {
    let mut page = vec![0; PAGE as usize];
    target.memory.read(addr, &mut page).map(|()| page)
}

/// A reopened core against the target it was written of: mappings, threads, process, and every byte.
fn assert_same(live: &Target, core: &Target) {
    let seen = |target: &Target| -> Vec<_> {
        let facts = |m: &Mapping| {
            // A core has names for files, stack and heap.
            let name =
                if m.name.starts_with(b"[v") || m.name.starts_with(b"[anon") { b"" } else { &m.name[..] };
            // And does not tell who maps a memfd privately.
            let backing = if m.name.starts_with(b"/memfd:") { Backing::SharedMemory } else { m.backing };
            let perms = (m.perms.read, m.perms.write, m.perms.exec);
            let name = String::from_utf8_lossy(name).into_owned();
            (m.start, m.end, perms, backing, m.offset, m.deleted, name)
        };
        target.mappings.iter().map(facts).collect()
    };
    for (live, core) in seen(live).iter().zip(&seen(core)) {
        assert_eq!(live, core);
    }
    assert_eq!(live.mappings.len(), core.mappings.len());

    let threads = |target: &Target| -> Vec<_> {
        let mut all: Vec<_> =
            target.threads.iter().map(|t| (t.tid, t.sp, t.ip, t.tls, t.regs.clone())).collect();
        all.sort();
        all
    };
    assert_eq!(threads(live), threads(core));
    let process = |t: &Target| {
        let p = t.process.clone();
        (p.pid, p.ppid, p.exe, p.cmdline, p.auxv)
    };
    assert_eq!(process(live), process(core));

    for mapping in &live.mappings {
        let copy = core.mapping(mapping.start).unwrap();
        let range = mapping.start..mapping.end;
        if is_private_memory(mapping) {
            let charge = |m: &Mapping| m.residency.charge(range.clone()).resident;
            assert_eq!(charge(mapping), charge(copy), "{:x}", mapping.start);
        }
        for run in &mapping.residency.runs {
            for addr in (run.start..run.end).step_by(PAGE as usize) {
                let (ours, theirs) = (page_at(live, addr), page_at(core, addr));
                match (&ours, &theirs) {
                    (Ok(ours), Ok(theirs)) => assert!(ours == theirs, "{addr:x}"),
                    // Clean pages of a file that is no image are left to the file.
                    (Ok(_), Err(_)) => {
                        assert!(run.state.file && mapping.backing == Backing::File, "{addr:x}")
                    }
                    (Err(_), Ok(_)) => panic!("{addr:x}: nobody can know this"),
                    (Err(_), Err(_)) => {}
                }
            }
        }
        // What was never touched: at its ends.
        let mut at = mapping.start;
        let end = (mapping.end, mapping.end);
        for (start, next) in mapping.residency.runs.iter().map(|run| (run.start, run.end)).chain([end]) {
            if at < start && is_private_memory(mapping) {
                for addr in [at, start - PAGE] {
                    assert_eq!(page_at(live, addr), page_at(core, addr), "{addr:x}");
                }
            }
            at = next;
        }
    }
}
