//! Any bytes as a snapshot: opened, and everything in it looked at once. Checksums are made to fit, as
//! somebody hostile would.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wmr_memory::open_snapshot_bytes;
use xxhash_rust::xxh3::xxh3_64;

fuzz_target!(|bytes: &[u8]| {
    look(bytes.to_vec());
    let mut bytes = bytes.to_vec();
    fit(&mut bytes);
    look(bytes);
});

fn fit(bytes: &mut [u8]) {
    let sum = |bytes: &mut [u8], of: std::ops::Range<usize>, at: usize| {
        let sum = xxh3_64(&bytes[of]);
        bytes[at..at + 8].copy_from_slice(&sum.to_le_bytes());
    };
    if bytes.len() >= 24 {
        sum(bytes, 0..16, 16);
    }
    let mut at = 24;
    while bytes.len().saturating_sub(at) >= 48 && bytes[at..].starts_with(b"wmrC") {
        let stored = bytes[at + 20..at + 24].try_into().map_or(0, u32::from_le_bytes) as usize;
        let end = (at + 48).saturating_add(stored).min(bytes.len());
        sum(bytes, at + 48..end, at + 32);
        sum(bytes, at..at + 40, at + 40);
        at = end;
    }
}

fn look(bytes: Vec<u8>) {
    let Ok(target) = open_snapshot_bytes(bytes) else { return };
    assert!(target.mappings.windows(2).all(|w| w[0].end <= w[1].start));
    let mut reader = target.reader();
    for mapping in target.mappings.iter().take(1000) {
        assert!(mapping.start < mapping.end);
        assert!(mapping.residency.charge(mapping.start..mapping.end).total() <= mapping.len());
        let _ = (reader.u64(mapping.start), reader.u64(mapping.end - 1));
        for run in mapping.residency.runs.iter().take(100) {
            let _ = (reader.u64(run.start), reader.array::<4096>(run.end.wrapping_sub(4000)));
            if let Some(window) = target.memory.window(run.start) {
                assert!(window.get(run.start, 1).is_some());
            }
        }
    }
    for image in &target.images {
        let _ = (image.symbol("main"), image.symbolize(image.bias), image.symbols().count());
    }
    let _ = target.memory.troubles();
}
