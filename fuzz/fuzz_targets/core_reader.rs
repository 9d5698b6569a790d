//! Any bytes as a core file: opened, and everything in it looked at once.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wmr_memory::open_core_bytes;

fuzz_target!(|bytes: &[u8]| {
    let Ok(target) = open_core_bytes(bytes.to_vec()) else { return };
    assert!(target.mappings.windows(2).all(|w| w[0].end <= w[1].start));
    let mut reader = target.reader();
    for mapping in &target.mappings {
        assert!(mapping.start < mapping.end);
        let _ = (reader.u64(mapping.start), reader.u64(mapping.end - 1));
        assert!(mapping.residency.charge(mapping.start..mapping.end).total() <= mapping.len());
        if let Some((start, bytes)) = target.memory.extent(mapping.start) {
            assert!(start <= mapping.start && mapping.start - start < bytes.len() as u64);
        }
    }
    for image in &target.images {
        let _ = (image.symbol("main"), image.symbolize(image.bias), image.symbols().count());
        let _ = (image.section(".data"), image.writable().count(), image.file_bytes(image.bias));
    }
});
