//! What `sys.gettotalrefcount()` would say: the references there are to all objects together, of any build.
//!
//! A debug build counts each reference when it is taken and given back. That sum is in the objects: their
//! counts, without what static objects begin with. Immortal objects have none (3.12+).

use crate::graph::statics;
use crate::inspect::Inspection;
use rayon::prelude::*;
use wmr_cpython::model::{Model, RefCount};
use wmr_memory::{Reader, Target};

/// Objects of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub count: u64,
    /// Objects that are never freed, whose references are not counted.
    pub immortal: u64,
    pub refs: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotalRefs {
    /// By type, as the census numbers them.
    pub types: Vec<Sum>,
    /// Up to 3.11: strings' references from the table of interned ones, which their own counts leave out.
    pub interned: i64,
}

/// `_PyObject_IMMORTAL_REFCNT` of 3.11: what objects in the data of the interpreter begin with.
const MANY: i64 = 999_999_999;

impl TotalRefs {
    /// `None` without an interpreter.
    pub fn of(target: &Target, inspection: &Inspection) -> Option<TotalRefs> {
        let model = inspection.model.as_ref()?;
        let none = || vec![Sum::default(); inspection.census.types.len()];
        let blocks = &inspection.blocks;
        let mut types = (0..blocks.spans().len())
            .into_par_iter()
            .fold(none, |mut sums, span| {
                let mut reader = target.reader();
                for block in blocks.iter_span(span) {
                    let Some((object, _)) = inspection.object_in(model, &mut reader, block) else { continue };
                    let sum = &mut sums[object.shape.id as usize];
                    sum.add(model, &mut reader, object.addr, 0);
                }
                sums
            })
            .reduce(none, |mut a, b| {
                for (a, b) in a.iter_mut().zip(b) {
                    a.count += b.count;
                    a.immortal += b.immortal;
                    a.refs = a.refs.saturating_add(b.refs);
                }
                a
            });
        let mut reader = target.reader();
        // What stands for removed items of sets is left out by the interpreter too.
        let dummy = inspection.python.as_ref().ok().and_then(|python| {
            let at = python.image(target)?.symbol("_PySet_Dummy")?;
            reader.u64(at).ok()
        });
        for (addr, shape) in statics::find(target, inspection, model) {
            if Some(addr) != dummy
                && let Some(sum) = types.get_mut(shape.id as usize)
            {
                sum.add(model, &mut reader, addr, 1);
            }
        }
        Some(TotalRefs { types, interned: interned(target, inspection, model) })
    }

    pub fn total(&self) -> i64 {
        let sum = self.types.iter().fold(0i64, |sum, ty| sum.saturating_add(ty.refs));
        sum.saturating_add(self.interned)
    }
}

impl Sum {
    /// `first`: what the object's count began with.
    fn add(&mut self, model: &Model, reader: &mut Reader, addr: u64, first: i64) {
        match model.refcount(reader, addr) {
            Ok(RefCount::Count(count)) => {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                let first = if first > 0 && count > MANY / 2 { MANY } else { first };
                self.count += 1;
                self.refs = self.refs.saturating_add(count.saturating_sub(first));
            }
            Ok(RefCount::Immortal) => {
                self.count += 1;
                self.immortal += 1;
                // 3.11 does not free them, and counts their references all the same.
                if model.hex >> 16 < 0x030c
                    && let Ok(count) = reader.i64(addr.wrapping_add(model.layout.object.ob_refcnt))
                {
                    self.refs = self.refs.saturating_add(count.saturating_sub(MANY));
                }
            }
            _ => {}
        }
    }
}

fn interned(target: &Target, inspection: &Inspection, model: &Model) -> i64 {
    let Ok(python) = &inspection.python else { return 0 };
    // Later ones are immortal.
    if python.version.at_least(3, 12) {
        return 0;
    }
    let l = &model.layout.dict;
    let Some(at) = l.ma_used else { return 0 };
    let mut reader = target.reader();
    let used = python.interned(target).dicts.into_iter().filter_map(|dict| reader.i64(dict + at).ok());
    used.fold(0, |sum: i64, used| sum.saturating_add(used.saturating_mul(2)))
}
