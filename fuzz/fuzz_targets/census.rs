//! The census over any memory: it ends, and its ledger adds up.

#![no_main]

#[path = "../../crates/heap/tests/synthetic/mod.rs"]
mod synthetic;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    synthetic::census_of(bytes);
});
