//! The whole way from a target to its census.

use crate::census::{Census, Known};
use crate::ledger::{KnownRange, Tally, tally};
use wmr_alloc::glibc::{self, Glibc};
use wmr_alloc::pymalloc::{self, PyMalloc};
use wmr_alloc::{Blocks, TooManyBlocks};
use wmr_cpython::model::Model;
use wmr_cpython::{FindError, Mode, Python};
use wmr_memory::Target;

/// Everything the questions about a target are answered from.
pub struct Inspection {
    /// The interpreter, or why there is none: the native ledger is there all the same.
    pub python: Result<Python, FindError>,
    pub model: Option<Model>,
    pub pymalloc: PyMalloc,
    pub glibc: Result<Glibc, glibc::NotFound>,
    pub blocks: Blocks,
    pub census: Census,
    pub tally: Tally,
    /// What could not be read or decided, and what it cost.
    pub notes: Vec<String>,
}

/// What the object walks need of an interpreter.
pub fn model(python: &Python) -> Model {
    let (preheader_flags, managed) = Model::rules(python.version.0);
    Model {
        layout: python.layout.clone(),
        hex: python.version.0,
        type_type: python.type_type,
        gc_head: python.gc.head_size,
        preheader_flags,
        managed,
        pymalloc: matches!(python.allocators.obj, Mode::Pymalloc | Mode::PymallocDebug),
        debug: python.allocators.padding,
        collecting: python.gc.collecting,
    }
}

/// Takes the census of a target.
///
/// # Errors
/// Only more blocks than can be numbered; all else that fails costs what it costs and is noted.
pub fn inspect(target: &Target) -> Result<Inspection, TooManyBlocks> {
    let python = Python::find(target);
    let mut notes = target.notes.clone();
    let pymalloc = match &python {
        Ok(python) => pymalloc::walk(&*target.memory, &target.mappings, &python.pymalloc_roots),
        Err(_) => PyMalloc::default(),
    };
    let glibc = glibc::find(target, &pymalloc.ranges());
    let mut builder = Blocks::builder().pymalloc(&pymalloc);
    if let Ok(glibc) = &glibc {
        builder = builder.glibc(glibc);
    }
    let model = python.as_ref().ok().map(model);
    let blocks = builder.build()?;
    let (known, ranges): (Vec<Known>, Vec<KnownRange>) = (Vec::new(), Vec::new());
    let mut census = match &model {
        Some(model) => Census::take(target, model, &blocks, &known),
        None => Census::without_python(&blocks),
    };
    if let Ok(python) = &python {
        census.untrack(&blocks, &python.gc.permanent(&mut target.reader(), blocks.len() as usize));
        notes.extend(python.notes.iter().cloned());
    }
    let tally = tally(target, &blocks, &mut census, &ranges);
    notes.extend(pymalloc.notes.iter().cloned());
    match &glibc {
        Ok(glibc) => notes.extend(glibc.notes.iter().cloned()),
        Err(e) => notes.push(e.to_string()),
    }
    notes.extend(blocks.notes().iter().cloned());
    Ok(Inspection { python, model, pymalloc, glibc, blocks, census, tally, notes })
}
