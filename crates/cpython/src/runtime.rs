//! Finding CPython in a target and stating what it is.

use crate::debug_offsets;
use crate::drift;
use crate::gc::Gc;
use crate::layout::Layout;
use crate::locate::{self, Anchor, Candidate, Closed, Open};
use crate::roots::{self, Allocators};
use crate::sysdict::{self, SysFacts};
use crate::tables::{self, KNOWN, Known};
use crate::version::Version;
use wmr_alloc::pymalloc::Roots;
use wmr_memory::{Fault, Image, Reader, Target};

/// Why there is no [`Python`] to work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    #[error("there is no CPython in it")]
    NotPython,
    #[error("this is PyPy: its objects are not CPython's, and are not read")]
    PyPy,
    #[error("CPython {version} built without the GIL (free-threaded) is not supported yet")]
    FreeThreaded { version: Version },
    #[error("CPython {version} is not supported: 2.7 and 3.6 to 3.15 are")]
    Unsupported { version: Version },
    #[error("CPython {version} built with reference tracing (Py_TRACE_REFS) is not supported")]
    TraceRefs { version: Version },
    /// Linked in, not started or already finalised.
    #[error("CPython is there, but no interpreter is running in it")]
    NotRunning,
    /// The structures were found and contradict every layout known.
    #[error("CPython{} is there, but its structures could not be followed", version_suffix(.version))]
    Unreadable { version: Option<Version>, fault: Option<Fault> },
}

fn version_suffix(version: &Option<Version>) -> String {
    version.map(|v| format!(" {v}")).unwrap_or_default()
}

/// A thread's `PyThreadState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PyThread {
    pub addr: u64,
    /// `pthread_self()` of the thread that made it.
    pub thread_id: u64,
    /// Kernel thread id: stated by 3.11+, before that the thread whose TLS base is `thread_id`.
    pub native_id: Option<i32>,
}

/// A `PyInterpreterState`.
#[derive(Debug, Clone)]
pub struct Interpreter {
    pub addr: u64,
    /// 0 for the main one; 2.7 and 3.6 do not number them: position from the oldest.
    pub id: i64,
    pub main: bool,
    /// `sys.__dict__`.
    pub sysdict: u64,
    /// `sys.modules`; 0 when it is not known.
    pub modules: u64,
    /// Newest first.
    pub threads: Vec<PyThread>,
}

/// One CPython runtime, found and verified.
#[derive(Debug, Clone)]
pub struct Python {
    pub version: Version,
    /// Py_DEBUG build (`sys.abiflags` has `d`).
    pub debug: bool,
    /// The table of the version, corrected where the target states otherwise.
    pub layout: Layout,
    /// Index into `Target::images`; `None` when the runtime lies in no known image.
    pub image: Option<usize>,
    /// Address of `_PyRuntime` (3.7+).
    pub runtime: Option<u64>,
    /// Main interpreter first, then by age.
    pub interpreters: Vec<Interpreter>,
    pub type_type: u64,
    pub dict_type: u64,
    /// Address of `None`, where a symbol tells.
    pub none: Option<u64>,
    pub allocators: Allocators,
    /// One per obmalloc state; interpreters that share one count once.
    pub pymalloc_roots: Vec<Roots>,
    pub gc: Gc,
    /// What could not be decided and what it costs: for the user.
    pub notes: Vec<String>,
}

/// A layout that fits, and what was followed by it.
struct Fit {
    known: &'static Known,
    layout: Layout,
    closed: Closed,
    facts: SysFacts,
    notes: Vec<String>,
}

impl Python {
    /// Finds the CPython of a target, whatever its files are called.
    ///
    /// # Errors
    /// There is none, it is one that is not read, or it could not be followed.
    pub fn find(target: &Target) -> Result<Python, FindError> {
        Python::find_by(target, tables::loaded())
    }

    /// [`find`](Self::find) by these tables.
    fn find_by(target: &Target, tables: &[(&'static Known, Layout)]) -> Result<Python, FindError> {
        let survey = locate::survey(target);
        let mut reader = target.reader();
        let mut refusal = None;
        let mut found: Option<Python> = None;
        for candidate in &survey.candidates {
            match examine(target, &mut reader, candidate, tables) {
                Ok(python) => match &mut found {
                    None => found = Some(python),
                    Some(first) => first.notes.push(format!(
                        "a second CPython ({}) runs in this process; its objects are not read",
                        python.version
                    )),
                },
                // The first refusal is the symbol's own image; a later one must not hide it.
                Err(e) => refusal = refusal.or(Some(e)),
            }
        }
        if let Some(python) = found {
            return Ok(python);
        }
        if survey.pypy {
            return Err(FindError::PyPy);
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        // No symbol and no cookie: up to 3.12 the list can be recognised by what it points at.
        if let Some(candidate) = locate::scan_for_interpreters(target, tables)
            && let Ok(python) = examine(target, &mut reader, &candidate, tables)
        {
            return Ok(python);
        }
        match survey.python_like.first().and_then(|i| target.images.get(*i)) {
            Some(image) => match locate::version_text(target, image) {
                Some(version) if !supported(version) => Err(FindError::Unsupported { version }),
                version => Err(FindError::Unreadable { version, fault: None }),
            },
            None => Err(FindError::NotPython),
        }
    }

    /// The image the runtime lies in.
    pub fn image<'t>(&self, target: &'t Target) -> Option<&'t Image> {
        target.images.get(self.image?)
    }

    pub fn main(&self) -> Option<&Interpreter> {
        self.interpreters.iter().find(|i| i.main)
    }
}

fn supported(version: Version) -> bool {
    KNOWN.iter().any(|k| k.describes(version))
}

fn examine(
    target: &Target,
    reader: &mut Reader<'_>,
    candidate: &Candidate,
    tables: &[(&'static Known, Layout)],
) -> Result<Python, FindError> {
    if let Some(version) = candidate.version {
        if candidate.free_threaded {
            return Err(FindError::FreeThreaded { version });
        }
        if !supported(version) {
            return Err(FindError::Unsupported { version });
        }
    }
    let fit = fit(target, reader, candidate, tables)?;
    Ok(describe(target, reader, candidate, fit))
}

/// Tries the tables that may describe the candidate and keeps the one the target agrees with.
fn fit(
    target: &Target,
    reader: &mut Reader<'_>,
    candidate: &Candidate,
    tables: &[(&'static Known, Layout)],
) -> Result<Fit, FindError> {
    let mut empty = false;
    let mut fault = None;
    let mut best: Option<Fit> = None;
    // A program may delete `sys.hexversion`: then the text of `sys.version` decides.
    let text = || locate::version_text(target, target.images.get(candidate.image?)?);
    for (known, original) in tables {
        if candidate.version.is_some_and(|v| !known.describes(v)) {
            continue;
        }
        let mut layout = original.clone();
        let mut notes = Vec::new();
        if let Anchor::Runtime(at) = candidate.anchor {
            let stated = section_size(target, candidate);
            layout = debug_offsets::apply(reader, layout, at, stated, &mut notes);
        }
        let closed = match locate::close(reader, &layout, candidate.anchor) {
            Ok(closed) => closed,
            Err(open) => {
                empty |= open == Open::Empty;
                if let Open::Fault(f) = open {
                    fault = fault.or(Some(f));
                }
                continue;
            }
        };
        let facts = closed
            .interpreters
            .last()
            .and_then(|main| reader.u64(main.wrapping_add(layout.interpreter.sysdict)).ok())
            .map(|dict| sysdict::read(reader, &layout, dict))
            .unwrap_or_default();
        // What `sys` says decides between tables that all happen to close.
        if !facts.version.or(candidate.version).or_else(text).is_some_and(|v| known.describes(v)) {
            continue;
        }
        let layout = drift::settle(target, reader, layout, original, &closed, &mut notes);
        let fit = Fit { known, layout, closed, facts, notes };
        if fit.agrees() {
            return Ok(fit);
        }
        best = best.or(Some(fit));
    }
    if let Some(mut fit) = best {
        if fit.facts.debug.is_some_and(|d| d != fit.known.debug) {
            fit.notes.push(format!(
                "this is a {} build and no layout table describes it: the {}.{} table is used as far as it holds",
                if fit.known.debug { "release" } else { "debug" },
                fit.known.major,
                fit.known.minor
            ));
        }
        return Ok(fit);
    }
    let version = candidate.version.or_else(text);
    Err(match version {
        Some(version) if !supported(version) => FindError::Unsupported { version },
        Some(version) if traces_references(target, reader, candidate) => FindError::TraceRefs { version },
        _ if empty => FindError::NotRunning,
        version => FindError::Unreadable { version, fault },
    })
}

impl Fit {
    /// `sys` names the version and kind of build the table is for.
    fn agrees(&self) -> bool {
        // 2.7 has no `sys.abiflags`.
        self.facts.version.is_some() && self.facts.debug.unwrap_or(false) == self.known.debug
    }
}

/// `Py_TRACE_REFS` puts two words before `ob_refcnt`, so that `type`'s type is at +24, not at +8.
fn traces_references(target: &Target, reader: &mut Reader<'_>, candidate: &Candidate) -> bool {
    let image = candidate.image.and_then(|i| target.images.get(i));
    image
        .and_then(|i| i.symbol("PyType_Type"))
        .is_some_and(|at| reader.u64(at.wrapping_add(24)).is_ok_and(|word| word == at))
}

/// `sizeof(_PyRuntime)`, from its section (3.11+) where the image has section headers.
fn section_size(target: &Target, candidate: &Candidate) -> Option<u64> {
    let section = target.images.get(candidate.image?)?.section(".PyRuntime")?;
    Some(section.end - section.start)
}

fn describe(target: &Target, reader: &mut Reader<'_>, candidate: &Candidate, fit: Fit) -> Python {
    let Fit { known, layout, closed, facts, mut notes } = fit;
    let image = candidate.image.and_then(|i| target.images.get(i));
    if closed.broken {
        notes.push("the list of interpreters or threads does not end: read up to where it repeats".into());
    }
    let version = candidate.version.or(facts.version).unwrap_or_else(|| {
        let version = image.and_then(|i| locate::version_text(target, i));
        version.filter(|v| known.describes(*v)).unwrap_or_else(|| {
            notes.push(format!("the patch level of CPython {}.{} is not known", known.major, known.minor));
            Version::new(known.major, known.minor, 0)
        })
    });
    let mut python = Python {
        version,
        debug: facts.debug.unwrap_or(known.debug),
        image: candidate.image,
        runtime: match candidate.anchor {
            Anchor::Runtime(at) => Some(at),
            Anchor::InterpHead(_) => None,
        },
        interpreters: interpreters(target, reader, &layout, &closed),
        type_type: closed.type_type,
        dict_type: closed.dict_type,
        none: image.and_then(|i| i.symbol("_Py_NoneStruct")),
        allocators: Allocators::default(),
        pymalloc_roots: Vec::new(),
        gc: Gc::default(),
        layout,
        notes,
    };
    python.gc = Gc::find(target, reader, &mut python);
    roots::find(target, reader, &mut python);
    python
}

fn interpreters(
    target: &Target,
    reader: &mut Reader<'_>,
    layout: &Layout,
    closed: &Closed,
) -> Vec<Interpreter> {
    let is = &layout.interpreter;
    let mut out = Vec::with_capacity(closed.interpreters.len());
    // The list is newest first.
    for (age, (&addr, threads)) in closed.interpreters.iter().zip(&closed.threads).rev().enumerate() {
        let id = is.id.and_then(|at| reader.i64(addr.wrapping_add(at)).ok()).unwrap_or(age as i64);
        let modules = is.modules.or(is.imports_modules);
        out.push(Interpreter {
            addr,
            id,
            main: age == 0,
            sysdict: reader.u64(addr.wrapping_add(is.sysdict)).unwrap_or(0),
            modules: modules.and_then(|at| reader.u64(addr.wrapping_add(at)).ok()).unwrap_or(0),
            threads: threads.iter().map(|&t| thread(target, reader, layout, t)).collect(),
        });
    }
    out
}

fn thread(target: &Target, reader: &mut Reader<'_>, layout: &Layout, addr: u64) -> PyThread {
    let ts = &layout.thread;
    let thread_id = ts.thread_id.and_then(|at| reader.u64(addr.wrapping_add(at)).ok()).unwrap_or(0);
    let stated = ts.native_thread_id.and_then(|at| reader.u64(addr.wrapping_add(at)).ok());
    let native_id = stated.and_then(|id| i32::try_from(id).ok()).filter(|id| *id > 0).or_else(|| {
        // On x86-64 and aarch64 glibc's pthread_self() is the thread pointer or lies at it.
        target.threads.iter().find(|t| t.tls == thread_id && thread_id != 0).map(|t| t.tid)
    });
    PyThread { addr, thread_id, native_id }
}

#[cfg(test)]
mod tests;
