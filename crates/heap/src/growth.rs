//! What grew between pictures of one program: by route, without addresses, so that it does not matter that
//! objects moved, were replaced, or that the program was started anew.
//!
//! A picture is reduced to a [`Summary`], small enough to keep hundreds of. What grew is what was more in each
//! picture than in the one before, nearest to a root. What came and went, and what was replaced, is churn.

mod series;
mod summary;

pub use series::{Churn, Grown, Growth, Step, compare};
pub use summary::{Explained, Line, Summary};
