//! Where in a target a CPython may be: never by a file's name, always checked by what is there.

use crate::layout::Layout;
use crate::sysdict;
use crate::tables::Known;
use crate::version::Version;
use rustc_hash::FxHashSet;
use std::ops::Range;
use wmr_memory::{Fault, Image, Reader, Target};

/// Interpreters and threads of one process. Real programs have thousands of threads at most.
pub(crate) const MAX_LINKS: usize = 1 << 16;
/// Writable bytes that are searched when there is no symbol to go by.
const MAX_SCAN: u64 = 64 << 20;

/// First bytes of `_PyRuntime` from 3.13 on (`_Py_DebugOffsets.cookie`).
const COOKIE: &[u8; 8] = b"xdebugpy";

/// Where the list of interpreters starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Address of `_PyRuntime` (3.7+).
    Runtime(u64),
    /// Address of the static `interp_head` (2.7 to 3.6).
    InterpHead(u64),
}

/// A place to look closer at.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Index into `Target::images`.
    pub image: Option<usize>,
    pub anchor: Anchor,
    /// What the target itself states: `_Py_DebugOffsets` (3.13+) or `Py_Version` (3.11+).
    pub version: Option<Version>,
    /// `_Py_DebugOffsets.free_threaded`.
    pub free_threaded: bool,
}

/// What the images say, before anything is followed.
#[derive(Debug, Default)]
pub struct Survey {
    pub candidates: Vec<Candidate>,
    /// An image is PyPy's.
    pub pypy: bool,
    /// Images that define `PyType_Type` or the runtime: CPython, or something that imitates it.
    pub python_like: Vec<usize>,
}

/// Looks at every mapped image: symbols first, the `.PyRuntime` section (3.11+) next, the cookie last.
pub fn survey(target: &Target) -> Survey {
    let mut survey = Survey::default();
    let mut reader = target.reader();
    for (i, image) in target.images.iter().enumerate() {
        let anchor = image
            .symbol("_PyRuntime")
            .or_else(|| image.section(".PyRuntime").map(|s| s.start))
            .map(Anchor::Runtime)
            .or_else(|| image.symbol("interp_head").map(Anchor::InterpHead));
        // PyPy's embedding entry point and its RPython start-up.
        survey.pypy |= ["pypy_execute_source", "pypy_main_startup", "rpython_startup_code"]
            .iter()
            .any(|name| image.symbol(name).is_some());
        if anchor.is_some() || image.symbol("PyType_Type").is_some() {
            survey.python_like.push(i);
        }
        if let Some(anchor) = anchor {
            let stated = image
                .symbol("Py_Version")
                .and_then(|at| reader.u32(at).ok())
                .map(Version)
                .filter(|v| v.plausible());
            survey.candidates.push(candidate(&mut reader, Some(i), anchor, stated));
        }
    }
    if survey.candidates.is_empty() && !survey.pypy {
        for range in writable(target) {
            find_cookies(&mut reader, range, |reader, at| {
                let image = target.images.iter().position(|i| i.contains(at));
                survey.candidates.push(candidate(reader, image, Anchor::Runtime(at), None));
            });
        }
    }
    survey
}

fn candidate(
    reader: &mut Reader<'_>,
    image: Option<usize>,
    anchor: Anchor,
    stated: Option<Version>,
) -> Candidate {
    let mut candidate = Candidate { image, anchor, version: stated, free_threaded: false };
    if let Anchor::Runtime(at) = anchor
        && reader.array::<8>(at).is_ok_and(|b| b == *COOKIE)
    {
        if let Ok(word) = reader.u64(at.wrapping_add(8)) {
            let version = u32::try_from(word).ok().map(Version).filter(|v| v.plausible());
            candidate.version = version.or(stated);
        }
        candidate.free_threaded = reader.u64(at.wrapping_add(16)).is_ok_and(|w| w == 1);
    }
    candidate
}

/// Writable memory of the images, then small writable mappings of files or beside them.
fn writable(target: &Target) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = target.images.iter().flat_map(Image::writable).collect();
    let files = target.mappings.iter().filter(|m| m.perms.write && m.inode != 0 && !m.perms.shared);
    ranges.extend(files.map(|m| m.start..m.end));
    ranges.sort_by_key(|r| r.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    let mut left = MAX_SCAN;
    merged.retain(|r| {
        let fits = r.end - r.start <= left;
        left -= if fits { r.end - r.start } else { 0 };
        fits
    });
    merged
}

fn find_cookies<'m>(reader: &mut Reader<'m>, range: Range<u64>, mut found: impl FnMut(&mut Reader<'m>, u64)) {
    for_each_word(&mut reader.clone(), range, |at, word| {
        if word == u64::from_le_bytes(*COOKIE) {
            found(reader, at);
        }
    });
}

/// Calls `f(address, word)` for each aligned word of `range` that can be read.
pub fn for_each_word(reader: &mut Reader<'_>, range: Range<u64>, mut f: impl FnMut(u64, u64)) {
    const WINDOW: u64 = 64 << 10;
    let mut scratch = Vec::new();
    let mut at = range.start.next_multiple_of(8);
    while at < range.end {
        let len = (range.end - at).min(WINDOW) & !7;
        if len == 0 {
            break;
        }
        match reader.window(at, len as usize, &mut scratch) {
            Ok(bytes) => {
                for (i, word) in bytes.chunks_exact(8).enumerate() {
                    let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
                    f(at + i as u64 * 8, word);
                }
            }
            Err(_) => {
                // Some page of the window is missing: take the others one by one.
                for i in (0..len).step_by(4096) {
                    let part = (len - i).min(4096) as usize;
                    if let Ok(bytes) = reader.window(at + i, part, &mut scratch) {
                        for (j, word) in bytes.chunks_exact(8).enumerate() {
                            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
                            f(at + i + j as u64 * 8, word);
                        }
                    }
                }
            }
        }
        at += len;
    }
}

/// Searches the writable memory for a word that starts an interpreter list by one of `tables`: for
/// binaries without the symbols. Up to 3.12; later ones are found by their cookie. What hangs together
/// by the wrong table is told by `sys.hexversion`, which must name the table's own series.
pub fn scan_for_interpreters(target: &Target, tables: &[(&'static Known, Layout)]) -> Option<Candidate> {
    let mut reader = target.reader();
    let mut found = None;
    for range in writable(target) {
        for_each_word(&mut reader.clone(), range, |at, word| {
            if found.is_some() || word == 0 || !word.is_multiple_of(8) || target.mapping(word).is_none() {
                return;
            }
            for (known, layout) in tables.iter().filter(|(k, _)| (k.major, k.minor) <= (3, 12)) {
                let anchor = match &layout.runtime {
                    Some(runtime) => Anchor::Runtime(at.wrapping_sub(runtime.head)),
                    None => Anchor::InterpHead(at),
                };
                let version = close(&mut reader, layout, anchor).ok().and_then(|closed| {
                    let sysdict = closed.interpreters.last()?.wrapping_add(layout.interpreter.sysdict);
                    let dict = reader.u64(sysdict).ok()?;
                    sysdict::read(&mut reader, layout, dict).version.filter(|v| known.describes(*v))
                });
                if version.is_some() {
                    let image = target.images.iter().position(|i| i.contains(at));
                    found = Some(Candidate { image, anchor, version, free_threaded: false });
                    return;
                }
            }
        });
    }
    found
}

/// An interpreter list that was followed to its end and found to hang together.
#[derive(Debug, Clone, Default)]
pub struct Closed {
    /// `PyInterpreterState` addresses, in list order: the newest first.
    pub interpreters: Vec<u64>,
    /// `PyThreadState` addresses of each interpreter, newest first.
    pub threads: Vec<Vec<u64>>,
    pub type_type: u64,
    pub dict_type: u64,
    /// A list did not end where it should: it came back on itself or was cut by [`MAX_LINKS`].
    pub broken: bool,
}

/// Why an anchor was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// The list of interpreters is empty: Python is linked in but not started, or has finished.
    Empty,
    /// Something there contradicts CPython.
    Contradiction,
    Fault(Fault),
}

impl From<Fault> for Open {
    fn from(fault: Fault) -> Open {
        Open::Fault(fault)
    }
}

/// Follows interpreter → thread state → interpreter, and `sys`' dict → dict → type → type.
pub fn close(reader: &mut Reader<'_>, layout: &Layout, anchor: Anchor) -> Result<Closed, Open> {
    let head = match (anchor, &layout.runtime) {
        (Anchor::Runtime(at), Some(runtime)) => at.wrapping_add(runtime.head),
        (Anchor::InterpHead(at), None) => at,
        _ => return Err(Open::Contradiction),
    };
    let (is, ts) = (&layout.interpreter, &layout.thread);
    let thread_head = is.threads_head.or(is.tstate_head).ok_or(Open::Contradiction)?;
    let mut closed = Closed::default();
    let mut seen = FxHashSet::default();

    let mut interpreter = reader.u64(head)?;
    if interpreter == 0 {
        return Err(Open::Empty);
    }
    while interpreter != 0 {
        if !interpreter.is_multiple_of(8) {
            return Err(Open::Contradiction);
        }
        if !seen.insert(interpreter) || seen.len() > MAX_LINKS {
            closed.broken = true;
            break;
        }
        let mut threads = Vec::new();
        let mut thread = reader.u64(interpreter.wrapping_add(thread_head))?;
        while thread != 0 {
            if reader.u64(thread.wrapping_add(ts.interp))? != interpreter {
                return Err(Open::Contradiction);
            }
            if !seen.insert(thread) || seen.len() > MAX_LINKS {
                closed.broken = true;
                break;
            }
            threads.push(thread);
            thread = reader.u64(thread.wrapping_add(ts.next))?;
        }
        closed.interpreters.push(interpreter);
        closed.threads.push(threads);
        interpreter = reader.u64(interpreter.wrapping_add(is.next))?;
    }
    if closed.threads.iter().all(Vec::is_empty) {
        return Err(Open::Contradiction);
    }

    // The main interpreter is the oldest, the last of the list; a fresh one may not have its dict yet.
    let main = *closed.interpreters.last().ok_or(Open::Empty)?;
    let sysdict = reader.u64(main.wrapping_add(is.sysdict))?;
    if sysdict == 0 {
        return Err(Open::Empty);
    }
    let ob_type = layout.object.ob_type;
    closed.dict_type = reader.u64(sysdict.wrapping_add(ob_type))?;
    closed.type_type = reader.u64(closed.dict_type.wrapping_add(ob_type))?;
    if closed.type_type == closed.dict_type
        || reader.u64(closed.type_type.wrapping_add(ob_type))? != closed.type_type
        || !named(reader, layout, closed.dict_type, b"dict")
        || !named(reader, layout, closed.type_type, b"type")
    {
        return Err(Open::Contradiction);
    }
    Ok(closed)
}

/// Is this type's name `name`? A core may lack read-only data: what cannot be read is not held
/// against it.
fn named(reader: &mut Reader<'_>, layout: &Layout, type_object: u64, name: &[u8]) -> bool {
    match reader.u64(type_object.wrapping_add(layout.type_object.tp_name)) {
        Ok(at) => reader.cstr(at, name.len() + 1).map_or(true, |text| text == name),
        Err(_) => false,
    }
}

/// A version text (`3.5.10`) among an image's read-only strings: `PY_VERSION`, as `sys.version` is
/// built from it. For naming what is not supported, never for choosing a layout.
pub fn version_text(target: &Target, image: &Image) -> Option<Version> {
    let mut reader = target.reader();
    let mut scratch = Vec::new();
    let ranges: Vec<Range<u64>> = match image.section(".rodata") {
        Some(section) => vec![section],
        None => image.segments.iter().filter(|s| !s.write).map(|s| s.range.clone()).collect(),
    };
    for range in ranges {
        if range.end.saturating_sub(range.start) > MAX_SCAN {
            continue;
        }
        let Ok(bytes) = reader.window(range.start, (range.end - range.start) as usize, &mut scratch) else {
            continue;
        };
        let found = bytes
            .split(|b| *b == 0)
            .filter(|s| (5..=12).contains(&s.len()))
            .filter_map(|s| std::str::from_utf8(s).ok())
            .find_map(Version::parse);
        if found.is_some() {
            return found;
        }
    }
    None
}
