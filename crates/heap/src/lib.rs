//! The census: a name for every byte of a Python process, and the ledger that adds them up.

pub mod census;
pub mod claims;
pub mod kinds;
pub mod ledger;
mod marks;

pub use census::{Census, Known};
pub use kinds::{Domain, Kind, Kinds, Sure};
pub use ledger::{Amount, KnownRange, Ledger, Tally};
pub use marks::Mark;
