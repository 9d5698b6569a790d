//! `_Py_DebugOffsets` (3.13+): what the runtime itself states of its layout.
//!
//! The table stays the source; what the target states is compared with it field by field, and wins
//! where they differ, because patch levels drift within a minor version.

use crate::layout::Layout;
use wmr_memory::Reader;

/// No structure of CPython is larger; guards against reading a shifted block of offsets.
const MAX_SIZE: u64 = 4 << 20;

/// Fields of `_Py_DebugOffsets` and the structure field each speaks of.
const STATED: &[(&str, &str, &str)] = &[
    ("runtime_state.interpreters_head", "pyruntimestate", "interpreters.head"),
    ("interpreter_state.id", "_is", "id"),
    ("interpreter_state.next", "_is", "next"),
    ("interpreter_state.threads_head", "_is", "threads.head"),
    ("interpreter_state.gc", "_is", "gc"),
    ("interpreter_state.imports_modules", "_is", "imports.modules"),
    ("interpreter_state.sysdict", "_is", "sysdict"),
    ("interpreter_state.builtins", "_is", "builtins"),
    ("thread_state.next", "_ts", "next"),
    ("thread_state.interp", "_ts", "interp"),
    ("thread_state.current_frame", "_ts", "current_frame"),
    ("thread_state.thread_id", "_ts", "thread_id"),
    ("thread_state.native_thread_id", "_ts", "native_thread_id"),
    ("thread_state.datastack_chunk", "_ts", "datastack_chunk"),
    ("pyobject.ob_type", "PyObject", "ob_type"),
    ("type_object.tp_name", "PyTypeObject", "tp_name"),
    ("tuple_object.ob_item", "PyTupleObject", "ob_item"),
    ("list_object.ob_item", "PyListObject", "ob_item"),
    ("dict_object.ma_keys", "PyDictObject", "ma_keys"),
    ("dict_object.ma_values", "PyDictObject", "ma_values"),
    ("set_object.used", "PySetObject", "used"),
    ("set_object.table", "PySetObject", "table"),
    ("set_object.mask", "PySetObject", "mask"),
    ("gc.collecting", "_gc_runtime_state", "collecting"),
];

/// Sizes that are stated.
const SIZES: &[(&str, &str)] = &[
    ("runtime_state.size", "pyruntimestate"),
    ("interpreter_state.size", "_is"),
    ("thread_state.size", "_ts"),
    ("type_object.size", "PyTypeObject"),
    ("gc.size", "_gc_runtime_state"),
];

/// Compares `layout` with what the runtime at `runtime` states; returns it corrected. `section` is
/// the size of the `.PyRuntime` section, if there is one.
pub(crate) fn apply(
    reader: &mut Reader<'_>,
    layout: Layout,
    runtime: u64,
    section: Option<u64>,
    notes: &mut Vec<String>,
) -> Layout {
    let Some(expected) = layout.runtime.as_ref().map(|r| r.size) else { return layout };
    let mut table = layout.table.clone();
    let mut differs = Vec::new();
    let stated = |reader: &mut Reader<'_>, name: &str| {
        let at = layout.table.offset("_Py_DebugOffsets", name)?;
        reader.u64(runtime.wrapping_add(at)).ok().filter(|v| *v < MAX_SIZE)
    };
    // One size the block of offsets must state rightly, or it is not where the table has it.
    let sound = match (stated(reader, "runtime_state.size"), section) {
        (None, _) => false,
        (Some(says), Some(size)) => says == size,
        (Some(says), None) => says == expected,
    };
    if sound {
        for (name, object) in SIZES {
            if let Some(size) = stated(reader, name)
                && layout.table.size(object).is_some_and(|s| s != size)
            {
                table.set_size(object, size);
                differs.push(*object);
            }
        }
        for (name, object, field) in STATED {
            if let Some(offset) = stated(reader, name)
                && layout.table.offset(object, field).is_some_and(|o| o != offset)
            {
                table.set_offset(object, field, offset);
                differs.push(*object);
            }
        }
    } else if let Some(size) = section
        && size != expected
    {
        notes.push(format!(
            "_PyRuntime has {size} bytes and the layout table expects {expected}: another build of this version"
        ));
        return layout;
    }
    if differs.is_empty() {
        return layout;
    }
    differs.dedup();
    match Layout::from_table(table) {
        Ok(corrected) => {
            notes.push(format!(
                "the layout table differs from what the target states of {}: the target's word is used",
                differs.join(", ")
            ));
            corrected
        }
        Err(_) => layout,
    }
}
