//! CPython from outside: where its runtime is, which version and build it is, how its structures are
//! laid out, which types and objects there are, what they own and how big they are.

pub mod collector;
pub mod datastack;
pub mod dicts;
pub mod entries;
pub mod family;
pub mod frames;
pub mod freelists;
pub mod gc;
pub mod hashing;
pub mod interned;
pub mod layout;
pub mod locate;
pub mod model;
pub mod object;
pub mod owned;
pub mod owns;
pub mod refers;
pub mod roots;
pub mod runtime;
pub mod sizes;
pub mod state;
pub mod statics;
pub mod strings;
pub mod sysdict;
pub mod tables;
pub mod types;
pub mod version;

mod debug_offsets;
mod drift;
mod gil;

pub use gc::{Gc, GcList, Generation};
pub use roots::{Allocators, Mode};
pub use runtime::{FindError, Interpreter, PyThread, Python};
pub use version::Version;
