//! Where the interpreter keeps what the hashes of strings are made with.

use crate::runtime::Python;
use std::ops::Range;
use wmr_memory::Target;

/// `_Py_HashSecret` (Include/pyhash.h), and the two words that it is in 2.7.
const SECRET: u64 = 24;
const OLD_SECRET: u64 = 16;

impl Python {
    /// The key of the hashes, and the seed that it was made from (`PYTHONHASHSEED`), which each interpreter's
    /// configuration repeats from 3.7 on.
    pub fn hash_keys(&self, target: &Target) -> Vec<Range<u64>> {
        let secret = self.image(target).and_then(|image| image.symbol("_Py_HashSecret"));
        let size = if self.version.at_least(3, 0) { SECRET } else { OLD_SECRET };
        let mut keys: Vec<Range<u64>> = secret.into_iter().map(|at| at..at.saturating_add(size)).collect();
        let field = |name| self.layout.table.offset("_is", name);
        let seed = field("config.hash_seed").or_else(|| field("core_config.hash_seed"));
        keys.extend(seed.into_iter().flat_map(|at| {
            self.interpreters.iter().map(move |interpreter| {
                let seed = interpreter.addr.saturating_add(at);
                seed..seed.saturating_add(8)
            })
        }));
        keys
    }
}
