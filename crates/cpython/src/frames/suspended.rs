//! Frames that wait in generators and coroutines, and what coroutines wait for.

use super::{Frame, Kind, TAGS, is_code};
use crate::model::Model;
use crate::refers;
use crate::refers::At;
use wmr_memory::Reader;

/// The frame of a generator, coroutine or asynchronous generator that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspended {
    pub frame: Frame,
    /// It runs: it is on some thread's stack too.
    pub running: bool,
}

/// None of what is over, and of what is no generator.
pub fn suspended(model: &Model, reader: &mut Reader, generator: u64) -> Option<Suspended> {
    let l = model.layout.generator?;
    if let (Some(at), Some(state)) = (l.gi_iframe, l.gi_frame_state) {
        let state = reader.u8(generator.wrapping_add(state)).ok()? as i8;
        if state >= refers::frames::cleared(model) {
            return None;
        }
        let inner = model.layout.iframe?;
        let addr = generator.wrapping_add(at);
        let code = reader.u64(addr.wrapping_add(inner.code)).ok()? & !TAGS;
        is_code(model, reader, code, &mut None).then_some(())?;
        let kind = Kind::InGenerator { generator };
        return Some(Suspended {
            frame: Frame { addr, code, kind, complete: true },
            running: state == refers::frames::executing(model),
        });
    }
    let addr = reader.u64(generator.wrapping_add(l.gi_frame?)).ok().filter(|frame| *frame != 0)?;
    let code = reader.u64(addr.wrapping_add(model.layout.frame?.f_code?)).ok()?;
    is_code(model, reader, code, &mut None).then_some(())?;
    let frame = Frame { addr, code, kind: Kind::Object, complete: true };
    let running = frame.stack_words(model, reader).is_some();
    Some(Suspended { frame, running })
}

/// What a suspended coroutine awaits: what is on top of its stack of values. None while it runs and before
/// it began.
pub fn awaited(model: &Model, reader: &mut Reader, frame: &Frame) -> Option<u64> {
    let mut top = None;
    frame.references(model, reader, &mut |reference| {
        if matches!(reference.at, At::Stack(_)) {
            top = Some(reference.addr);
        }
    });
    let top = top?;
    let ty = model.type_of(reader, top).ok()?;
    let name = reader.u64(ty.wrapping_add(model.layout.type_object.tp_name)).ok()?;
    let name = reader.cstr(name, 32).ok()?;
    // Between a coroutine and what it awaits may be what `__await__` returned.
    let at = match name.as_slice() {
        b"coroutine_wrapper" => model.layout.coroutine_wrapper?.cw_coroutine,
        b"_asyncio.FutureIter" => model.layout.future_iter?.future,
        b"async_generator_asend" => model.layout.table.offset("PyAsyncGenASend", "ags_gen")?,
        b"async_generator_athrow" => model.layout.table.offset("PyAsyncGenAThrow", "agt_gen")?,
        _ => return Some(top),
    };
    reader.u64(top.wrapping_add(at)).ok()
}
