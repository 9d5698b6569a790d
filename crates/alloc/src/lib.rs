//! Blocks: what the allocators of a target have handed out, read from outside.
//!
//! Each allocator has a walk of its own ([`pymalloc`], [`glibc`]) that reads nothing but its own
//! structures and trusts none of them. [`Blocks`] joins the walks into one index, in which a block
//! is found by any address inside it and numbered by its rank in address order.

pub mod blocks;
pub mod glibc;
mod naming;
pub mod pymalloc;

pub use blocks::{Block, Blocks, Builder, Pool, Slots, Span, SpanKind, State, TooManyBlocks};
pub use naming::{Allocator, allocator};
