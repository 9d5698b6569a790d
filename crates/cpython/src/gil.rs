//! Who holds the lock of an interpreter.

use crate::runtime::{Interpreter, Python};
use wmr_memory::Target;

impl Python {
    /// Address of the `PyThreadState` that holds the GIL of an interpreter; 0 when nobody does. None where it
    /// is not known.
    pub fn gil_holder(&self, target: &Target, interpreter: &Interpreter) -> Option<u64> {
        let (mut reader, table) = (target.reader(), &self.layout.table);
        // 3.12+: each interpreter has one, its own or the main one's.
        if let Some(at) = table.offset("_is", "ceval.gil") {
            let own = table.offset("_is", "_gil")?;
            let field = |name: &str| Some(table.offset("_is", name)?.wrapping_sub(own));
            let gil = reader.u64(interpreter.addr.wrapping_add(at)).ok()?;
            let locked = reader.u32(gil.wrapping_add(field("_gil.locked")?)).ok()? as i32;
            let holder = reader.u64(gil.wrapping_add(field("_gil.last_holder")?)).ok()?;
            return Some(if locked > 0 { holder } else { 0 });
        }
        // Before there is one for all, and a variable says whose it is.
        let current = match table.offset("pyruntimestate", "gilstate.tstate_current").zip(self.runtime) {
            Some((at, runtime)) => runtime.wrapping_add(at),
            None => self.image(target)?.symbol("_PyThreadState_Current")?,
        };
        reader.u64(current).ok()
    }
}
