//! Meliae's dumps: one JSON object a line for each object, which its loader reads; and graphs out of such
//! files, which have no memory beneath them.

mod read;
mod write;

pub use read::{Foreign, ForeignError, is_dump, read};
pub use write::{Totals, write};
