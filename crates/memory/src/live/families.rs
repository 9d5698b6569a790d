//! Parents that loaded everything and then forked workers: who belongs to whom.

use super::list::PythonProcess;
use super::procdir::ProcDir;
use super::sharing::{Shares, SharingError, SharingOptions, ToldBy, compare};
use std::collections::{BTreeMap, BTreeSet};

/// Children compared at a time: each takes a descriptor, of which there are usually 1024.
const MAX_COMPARED: usize = 256;

/// Processes named in a note.
const MAX_NAMED: usize = 8;

/// A process that was forked by another one of the list and still shares memory with it.
#[derive(Debug, Clone)]
pub struct Worker {
    pub parent: i32,
    pub shares: Shares,
}

/// The families among the processes of a list.
#[derive(Debug, Clone, Default)]
pub struct Families {
    /// By pid.
    pub workers: BTreeMap<i32, Worker>,
    /// `None` when nothing was compared.
    pub told_by: Option<ToldBy>,
    /// Who should have been in it, and why not: for the user.
    pub notes: Vec<String>,
}

impl Families {
    /// The pid of the first parent of the family that `pid` is of.
    pub fn of(&self, pid: i32) -> Option<i32> {
        let mut top = pid;
        // Bounded: a number used anew while they were looked at may have made a circle.
        for _ in 0..=self.workers.len() {
            match self.workers.get(&top) {
                Some(worker) => top = worker.parent,
                None => break,
            }
        }
        let is_parent = self.workers.values().any(|worker| worker.parent == pid);
        (is_parent || top != pid).then_some(top)
    }
}

/// Groups parents with the workers they forked: children that run the same executable and have private
/// pages in common with them.
pub fn families(rows: &[PythonProcess], options: &SharingOptions) -> Families {
    let listed: BTreeMap<i32, &PythonProcess> = rows.iter().map(|row| (row.process.pid, row)).collect();
    let mut candidates: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut closed = BTreeSet::new();
    for (&pid, row) in &listed {
        let Some(ppid) = row.process.ppid else { continue };
        match listed.get(&ppid) {
            Some(parent) if parent.process.exe == row.process.exe => {
                candidates.entry(ppid).or_default().push(pid);
            }
            // Another program, which started this one.
            Some(_) => {}
            None if is_closed_namesake(ppid, pid) => {
                closed.insert(ppid);
            }
            None => {}
        }
    }
    let mut found = Families::default();
    for ppid in closed {
        found
            .notes
            .push(format!("{}: what its workers share is not known", SharingError::NotPermitted(ppid)));
    }
    for (parent, children) in candidates {
        for children in children.chunks(MAX_COMPARED) {
            found.add(parent, children, options);
        }
    }
    found
}

impl Families {
    fn add(&mut self, parent: i32, children: &[i32], options: &SharingOptions) {
        let compared = match compare(parent, children, options) {
            Ok(compared) => compared,
            Err(error) => {
                self.notes.push(format!("{error}: what its workers share is not known"));
                return;
            }
        };
        self.told_by = Some(compared.told_by);
        let mut apart = Vec::new();
        for (&pid, shares) in children.iter().zip(compared.children) {
            match shares {
                Ok(shares) if shares.with_parent > 0 => {
                    self.workers.insert(pid, Worker { parent, shares });
                }
                Ok(_) => apart.push(pid.to_string()),
                Err(error) => self.notes.push(error.to_string()),
            }
        }
        if !apart.is_empty() {
            let more = if apart.len() > MAX_NAMED { ", …" } else { "" };
            apart.truncate(MAX_NAMED);
            self.notes.push(format!(
                "process {parent} and its children {}{more} run one program and share no memory: started anew \
                 (exec), not only forked",
                apart.join(", ")
            ));
        }
    }
}

/// A process beside the one that started it.
#[derive(Debug)]
pub struct Descent {
    pub parent: i32,
    pub told_by: ToldBy,
    pub shares: Shares,
}

/// What a process shares with its parent, if that runs the same program.
///
/// # Errors
/// One of both may not be looked into, or has ended.
pub fn descent(pid: i32, options: &SharingOptions) -> Result<Option<Descent>, SharingError> {
    let ended = |_| SharingError::Ended(pid);
    let status = ProcDir::open(pid).and_then(|dir| dir.status()).map_err(ended)?;
    // Of a thread, the process.
    let (pid, parent) = (status.tgid, status.ppid);
    if parent <= 0 {
        return Ok(None);
    }
    let compared = match compare(parent, &[pid], options) {
        Err(SharingError::NotPermitted(closed)) if closed == parent && !is_closed_namesake(parent, pid) => {
            return Ok(None);
        }
        compared => compared?,
    };
    match compared.children.into_iter().next() {
        Some(Ok(shares)) => {
            // Nobody else was looked at.
            let shares = Shares { with_siblings: None, ..shares };
            Ok(Some(Descent { parent, told_by: compared.told_by, shares }))
        }
        Some(Err(SharingError::OtherProgram { .. })) | None => Ok(None),
        Some(Err(error)) => Err(error),
    }
}

/// A parent that may not be looked into and has the name of its child.
fn is_closed_namesake(parent: i32, child: i32) -> bool {
    let name = |pid: i32| {
        let dir = ProcDir::open(pid).ok()?;
        Some((dir.status().ok()?.name, dir))
    };
    let (Some((parent_name, dir)), Some((child_name, _))) = (name(parent), name(child)) else { return false };
    parent_name == child_name
        && dir.read("maps").is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}
