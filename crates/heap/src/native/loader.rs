//! What the dynamic loader keeps of each library: the list that it has for debuggers (`link.h`).

use super::Native;
use crate::kinds::{Domain, Sure};
use wmr_memory::Reader;

/// `struct r_debug`: the list's head. `struct link_map`: next and previous; the name.
const R_MAP: u64 = 8;
const L_NAME: u64 = 8;
const L_NEXT: u64 = 24;
const L_PREV: u64 = 32;
const MAX_LIBRARIES: usize = 100_000;

impl Native<'_> {
    /// Names the loader's list; returns its members, whose fields may be followed.
    pub(super) fn name_libraries(&mut self) -> Vec<u32> {
        let mut reader = self.target.reader();
        let debug = self.target.images.iter().find_map(|image| image.symbol("_r_debug"));
        let Some(mut at) = debug.and_then(|debug| reader.u64(debug.wrapping_add(R_MAP)).ok()) else {
            return Vec::new();
        };
        let kind = self.intern(Domain::Native, "loaded library", Sure::Exact);
        let name = self.intern(Domain::Native, "data of loaded library", Sure::Owner);
        let mut found = Vec::new();
        let mut before = 0;
        for _ in 0..MAX_LIBRARIES {
            // What comes back is in the list; a list that is being changed ends here.
            if at == 0 || word(&mut reader, at, L_PREV) != Some(before) {
                break;
            }
            let unnamed = |native: &Self, addr| {
                native.blocks.at(addr).filter(|block| native.census.mark(*block).is_none())
            };
            if let Some(block) = unnamed(self, at) {
                self.set(block, kind);
                found.push(block);
            }
            if let Some(block) = word(&mut reader, at, L_NAME).and_then(|addr| unnamed(self, addr)) {
                self.set(block, name);
            }
            let Some(next) = word(&mut reader, at, L_NEXT) else { break };
            (before, at) = (at, next);
        }
        found
    }
}

fn word(reader: &mut Reader, addr: u64, offset: u64) -> Option<u64> {
    reader.u64(addr.wrapping_add(offset)).ok()
}
