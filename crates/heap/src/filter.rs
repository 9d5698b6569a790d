//! The filter language: an SQL WHERE expression over the columns of a listing of blocks.
//!
//! `kind = 'str' and bytes > 1K`, `type like 'app.%'`, `addr between 0x1000 and 0x2000`, `owner is null`.
//! An expression is typed when it is parsed, so evaluating cannot fail. It is evaluated column by column
//! over batches of rows; text is compared once per distinct text, not once per row.
//!
//! What is typed may be anything: its length and depth are bounded before anything is built from it.

mod columns;
mod eval;
mod lexer;
mod like;
mod parser;

pub use columns::{Column, Type};
pub use eval::{Batch, Bound, NO_TEXT, Texts};

use parser::Cond;

/// Longest expression that is looked at.
pub const MAX_TEXT: usize = 64 << 10;

/// A parsed expression.
#[derive(Debug, Clone)]
pub struct Filter {
    cond: Cond,
}

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FilterError {
    pub message: String,
    /// Byte offset in the text; its length where something is missing at the end.
    pub at: usize,
    /// Bytes that are meant, at least 1.
    pub len: usize,
    /// Would the list of columns help?
    pub list_columns: bool,
}

impl Filter {
    /// # Errors
    /// What cannot be read, has no such column, or compares what cannot be compared.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        if text.len() > MAX_TEXT {
            let message =
                format!("the expression has {} bytes, at most {MAX_TEXT} are looked at", text.len());
            return Err(FilterError { message, at: 0, len: 1, list_columns: false });
        }
        Ok(Filter { cond: parser::parse(text)? })
    }

    /// Both must hold.
    pub fn and(self, other: Filter) -> Filter {
        Filter { cond: Cond::all(vec![self.cond, other.cond]) }
    }

    /// Made ready for rows whose text columns hold what `texts` says.
    pub fn bind(&self, texts: &dyn Texts) -> Bound {
        eval::bind(&self.cond, texts)
    }

    /// Does the expression look at the column?
    pub fn uses(&self, column: Column) -> bool {
        self.cond.uses(column)
    }
}

#[cfg(test)]
mod tests;
