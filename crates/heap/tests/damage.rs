//! The census over memory that means harm: it ends, it adds up, and it says the same each time.

mod synthetic;

use proptest::prelude::*;
use std::path::Path;
use synthetic::census_of;

#[test]
fn the_undamaged_memory_has_its_objects() {
    // 3.11: pools of floats, ints, lists, dicts, sets and tuples.
    let outcome = census_of(&[6, 0]);
    let objects = outcome.marks.iter().filter(|m| m.as_object().is_some()).count();
    assert!(objects > 100, "{objects} objects of {}", outcome.marks.len());
    let types: std::collections::BTreeSet<_> = outcome.marks.iter().filter_map(|m| m.as_object()).collect();
    assert!(types.len() >= 3, "types {types:?}");
}

#[test]
fn every_file_of_the_corpus_is_survived() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/census");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is committed") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("readable");
        census_of(&bytes);
        seen += 1;
    }
    assert!(seen > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_survived_and_the_result_is_the_same_for_any_number_of_threads(
        head in any::<[u8; 2]>(),
        patches in prop::collection::vec((0u32..1 << 17, any::<u8>(), any::<u64>()), 0..200),
    ) {
        let mut input = head.to_vec();
        for (at, sort, raw) in patches {
            input.extend_from_slice(&at.to_le_bytes()[..3]);
            input.push(sort);
            input.extend_from_slice(&raw.to_le_bytes());
        }
        let threads = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads");
        let one = threads(1).install(|| census_of(&input));
        let three = threads(3).install(|| census_of(&input));
        prop_assert_eq!(one.ledger, three.ledger);
        let named = |marks: &[wmr_heap::Mark]| marks.iter().map(|m| (m.is_none(), m.as_object().is_some())).collect::<Vec<_>>();
        prop_assert_eq!(named(&one.marks), named(&three.marks));
    }
}
