//! The census: a name for every byte of a Python process, and the ledger that adds them up.

pub mod anatomy;
pub mod census;
pub mod claims;
pub mod difference;
pub mod filter;
pub mod graph;
pub mod held;
mod inspect;
pub mod kinds;
pub mod leaks;
pub mod ledger;
mod marks;
mod misstated;
mod native;
pub mod roots;
mod rows;
pub mod select;
pub mod sharing;
mod strip;

pub use census::{Census, Known};
pub use held::Held;
pub use inspect::{Inspection, inspect, inspect_only, model};
pub use kinds::{Domain, Kind, Kinds, Sure};
pub use ledger::{Amount, KnownRange, Ledger, Tally, state_name};
pub use marks::Mark;
pub use misstated::Misstated;
pub use rows::{KindRow, ModuleRow, SizeRow, TypeRow};
pub use strip::Strip;
pub use wmr_alloc::TooManyBlocks;
