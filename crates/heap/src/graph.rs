//! Who refers to whom: the graph of a target's objects, and what follows from it alone.
//!
//! Nodes are numbers; what they stand for is said by whoever builds the graph. Everything here is
//! iterative: chains of millions of nodes are ordinary.

pub mod alone;
pub mod bits;
pub mod build;
pub mod csr;
pub mod dominators;
pub mod fold;
mod forest;
pub mod paths;
pub mod reach;
mod region;
pub mod sizes;
pub(crate) mod statics;
pub mod subtrees;
pub mod tree;
pub mod ways;

pub use alone::alone;
pub use bits::Bits;
pub use build::{Graph, LeftOut};
pub(crate) use csr::chunks;
pub use csr::{Csr, Rows, TooManyEdges};
pub use dominators::Dominators;
pub use fold::{Fold, Part};
pub use paths::{Merged, Step};
pub use reach::Reach;
pub use sizes::Sizes;
pub use subtrees::Subtrees;
pub use tree::{Branch, Hanging};
pub use ways::ways;

/// In place of a node: what holds the roots.
pub const ROOT: u32 = u32::MAX;
/// In place of a node: there is no way to it from any root.
pub const UNREACHED: u32 = u32::MAX - 1;
/// Numbers from here on are not nodes.
pub const MAX_NODES: u32 = u32::MAX - 2;
