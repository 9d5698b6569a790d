//! The cyclic collector's own state.

use crate::Inspection;
use wmr_memory::Target;

/// Whether the collector is enabled.
pub(super) fn is_enabled(target: &Target, inspection: &Inspection) -> Option<bool> {
    let python = inspection.python.as_ref().ok()?;
    let mut reader = target.reader();
    let table = &python.layout.table;
    let state = "_gc_runtime_state";
    if let (Some(enabled), Some(generations), Some(list)) =
        (table.offset(state, "enabled"), table.offset(state, "generations"), python.gc.lists.first())
    {
        return reader
            .u32(list.head.wrapping_sub(generations).wrapping_add(enabled))
            .ok()
            .map(|word| word != 0);
    }
    // 2.7 and 3.6: a static variable.
    let at = python.image(target)?.symbol("enabled")?;
    reader.u32(at).ok().map(|word| word != 0)
}
