//! Rows that can be added up.

pub trait Counted {
    fn count(&self) -> u64;
    fn bytes(&self) -> u64;
}

/// For rows with these fields.
macro_rules! counted {
    ($($row:ty),*) => {
        $(impl $crate::command::heap::Counted for $row {
            fn count(&self) -> u64 {
                self.count
            }
            fn bytes(&self) -> u64 {
                self.bytes
            }
        })*
    };
}
