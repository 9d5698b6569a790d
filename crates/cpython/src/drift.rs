//! Another patch level or another build than the table's: interpreter fields move, and the runtime
//! states only some of them (`_Py_DebugOffsets`).
//!
//! Between two fields whose place is known the others moved as they did, if both moved alike. The
//! places that are known: what the target states, and what can be recognised by what it points at.
//! A field between places that moved differently is forgotten: what it served is left out, and said.

use crate::layout::Layout;
use crate::locate::Closed;
use crate::roots::is_arena_array;
use crate::sysdict::maps_strings_to_themselves;
use wmr_memory::{Reader, Target};

/// How far a field may have moved within a minor version. 3.14.0 to 3.14.10: 32 bytes.
const REACH: u64 = 512;

/// A field whose place in the target is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Landmark {
    table: u64,
    target: u64,
}

impl Landmark {
    fn moved(self) -> i64 {
        self.target.wrapping_sub(self.table) as i64
    }
}

/// Corrects `layout` (already holding what the target states of itself) where `_is` differs from
/// `original`, the committed table.
pub(crate) fn settle(
    target: &Target,
    reader: &mut Reader<'_>,
    layout: Layout,
    original: &Layout,
    closed: &Closed,
    notes: &mut Vec<String>,
) -> Layout {
    let same = |field: &str| layout.table.offset("_is", field) == original.table.offset("_is", field);
    if layout.interpreter.size == original.interpreter.size
        && original.table.fields("_is").all(|(f, _)| same(f))
    {
        return layout;
    }
    let Some(&main) = closed.interpreters.last() else { return layout };
    let mut landmarks = vec![
        Landmark { table: 0, target: 0 },
        Landmark { table: original.interpreter.size, target: layout.interpreter.size },
    ];
    for (field, table) in original.table.fields("_is") {
        if !same(field) || stated(field) {
            landmarks.extend(layout.table.offset("_is", field).map(|target| Landmark { table, target }));
        }
    }
    // The collector's state is stated by its start and its `collecting`: its list heads lie between.
    let collecting = |l: &Layout| Some(l.interpreter.gc? + l.gc_state.as_ref()?.collecting);
    landmarks.extend(
        collecting(original).zip(collecting(&layout)).map(|(table, target)| Landmark { table, target }),
    );
    let mut search = |field: &str, fits: &mut dyn FnMut(&mut Reader<'_>, u64) -> bool| {
        let table = original.table.offset("_is", field)?;
        // Nearest first: the same shape may come again further off.
        let places = (0..=REACH).step_by(8).flat_map(|d| [table.saturating_sub(d), table + d]);
        let target = places.into_iter().find(|at| fits(reader, main.wrapping_add(*at)))?;
        Some(Landmark { table, target })
    };
    let found = [
        search("obmalloc", &mut |reader, at| {
            let arenas =
                layout.obmalloc_state.as_ref().zip(layout.obmalloc_mgmt.as_ref()).and_then(|(s, m)| {
                    let state = reader.u64(at).ok()?;
                    reader.u64(state.wrapping_add(s.mgmt).wrapping_add(m.arenas)).ok()
                });
            arenas.is_some_and(|arenas| is_arena_array(target, reader, arenas))
        }),
        search("cached_objects.interned_strings", &mut |reader, at| {
            let Ok(dict) = reader.u64(at) else { return false };
            reader.u64(dict.wrapping_add(layout.object.ob_type)) == Ok(closed.dict_type)
                && maps_strings_to_themselves(reader, &layout, dict)
        }),
        // The first static type says so itself: tp_subclasses is its index + 1 (3.12+).
        search("types.builtins.initialized", &mut |reader, at| {
            let Ok(first) = reader.u64(at) else { return false };
            reader.u64(first.wrapping_add(layout.object.ob_type)) == Ok(closed.type_type)
                && reader.u64(first.wrapping_add(layout.type_object.tp_subclasses)) == Ok(1)
        }),
        // The main interpreter's first thread state is a part of it.
        original.interpreter.initial_thread.and_then(|table| {
            let inside = main..main.saturating_add(layout.interpreter.size);
            let thread = closed.threads.last()?.iter().find(|t| inside.contains(t))?;
            Some(Landmark { table, target: thread - main })
        }),
    ];
    landmarks.extend(found.into_iter().flatten());
    landmarks.sort_unstable_by_key(|l| l.table);

    let mut table = layout.table.clone();
    let mut forgotten = 0;
    for (field, offset) in original.table.fields("_is") {
        match place(&landmarks, offset) {
            Some(at) => table.set_offset("_is", field, at),
            None => {
                forgotten += 1;
                table.forget("_is", field);
            }
        }
    }
    match Layout::from_table(table) {
        Ok(settled) => {
            notes.push(format!(
                "the interpreter state is not as the table of this version has it (another patch level or build): \
                 fields were placed by what they hold, {forgotten} could not be and are left out"
            ));
            settled
        }
        Err(_) => layout,
    }
}

/// Fields of `_is` that every `_Py_DebugOffsets` states: equal ones are known to be where they were.
fn stated(field: &str) -> bool {
    matches!(field, "id" | "next" | "threads.head" | "gc" | "imports.modules" | "sysdict" | "builtins")
}

/// Where the field at `offset` of the table is, if its neighbours on both sides agree.
fn place(landmarks: &[Landmark], offset: u64) -> Option<u64> {
    let after = landmarks.partition_point(|l| l.table <= offset);
    let below = landmarks.get(after.checked_sub(1)?)?;
    if below.table == offset {
        return Some(below.target);
    }
    let above = landmarks.get(after)?;
    (below.moved() == above.moved()).then(|| offset.wrapping_add_signed(below.moved()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_move_with_both_neighbours_or_are_forgotten() {
        let l = |table, target| Landmark { table, target };
        let landmarks = [l(0, 0), l(100, 100), l(200, 224), l(400, 424), l(500, 532)];
        assert_eq!(place(&landmarks, 50), Some(50));
        assert_eq!(place(&landmarks, 100), Some(100));
        assert_eq!(place(&landmarks, 150), None, "something between 100 and 200 grew");
        assert_eq!(place(&landmarks, 200), Some(224));
        assert_eq!(place(&landmarks, 300), Some(324));
        assert_eq!(place(&landmarks, 450), None);
        assert_eq!(place(&landmarks, 600), None, "past the end");
    }
}
