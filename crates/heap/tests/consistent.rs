//! A capture shows one moment: what holds in the target at each moment holds in every picture.

use std::collections::HashSet;
use wmr_cpython::Python;
use wmr_cpython::dicts::for_each_entry;
use wmr_cpython::model::Model;
use wmr_heap::{inspect, model};
use wmr_memory::live::{Capturing, LiveOptions, attach};
use wmr_memory::{Method, Reader, Target};
use wmr_testing::python;

/// Several threads move items between two dicts. Inside the lock, and only there, `MOVING[0]` is true, and
/// one item may be in neither dict; outside, each is in one.
const MOVERS: &str = r#"
import os, sys, threading
ITEMS = ['item %d' % n for n in range(3000)]
LEFT, RIGHT = dict.fromkeys(ITEMS[:1500], 1), dict.fromkeys(ITEMS[1500:], 1)
MOVING, lock = [False], threading.Lock()
moves = 0
def move(seed):
    global moves
    while True:
        for n in range(8):
            seed = (seed * 1103515245 + 12345) % 2147483648
            item = ITEMS[seed // 8 % len(ITEMS)]
            with lock:
                MOVING[0] = True
                if item in LEFT:
                    value = LEFT.pop(item)
                    RIGHT[item] = value
                else:
                    value = RIGHT.pop(item)
                    LEFT[item] = value
                moves += 1
                MOVING[0] = False
sys.setswitchinterval(0.0005)
for seed in range(4): threading.Thread(target=move, args=(seed,), daemon=True).start()
print(id(LEFT), id(RIGHT), id(MOVING), id(False))
sys.stdout.write('ready %d\n' % os.getpid()); sys.stdout.flush()
os.read(0, 1)
os._exit(0)
"#;

const ITEMS: u64 = 3000;

/// What one picture says of the two dicts.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Nobody is inside the lock, and all is as it must be.
    AtRest,
    /// Somebody is, and at most one item is in neither.
    Moving,
    Broken(String),
}

fn look(model: &Model, target: &Target, places: &[u64]) -> Option<Found> {
    let &[left, right, moving, no] = places else { return None };
    let reader = &mut Reader::new(&*target.memory);
    let used = model.layout.dict.ma_used?;
    let sum = reader.u64(left + used).ok()?.wrapping_add(reader.u64(right + used).ok()?);
    // A list keeps its items elsewhere: `ob_item` is the word behind the size.
    let items = reader.u64(moving + 24).ok()?;
    if reader.u64(items).ok()? != no {
        let right = sum == ITEMS || sum == ITEMS - 1;
        return Some(if right { Found::Moving } else { Found::Broken(format!("{sum} while one moves")) });
    }
    let (mut keys, mut twice) = (HashSet::new(), 0);
    for dict in [left, right] {
        for_each_entry(model, reader, dict, 1 << 20, &mut |_, key, _| {
            twice += u32::from(!keys.insert(key));
            true
        })?;
    }
    let all_there = (sum, keys.len() as u64, twice) == (ITEMS, ITEMS, 0);
    let broken = || Found::Broken(format!("{sum} counted, {} there, {twice} of them twice", keys.len()));
    Some(if all_there { Found::AtRest } else { broken() })
}

#[test]
fn two_hundred_pictures_hold_what_always_holds() {
    for tag in ["3.11", "3.13"] {
        let Some(python) = python(tag) else { continue };
        let process = python.spawn(MOVERS).unwrap();
        let places: Vec<u64> = process.truth()[0].split(' ').map(|word| word.parse().unwrap()).collect();
        let capture = |capture| {
            attach(process.pid(), &LiveOptions { capture, ..LiveOptions::default() }).expect("captured")
        };
        let model = model(&Python::find(&capture(Capturing::Clone)).unwrap());
        let (mut at_rest, mut moving) = (0, 0);
        for round in 0..200 {
            let picture = capture(Capturing::Clone);
            assert_eq!(picture.capture.method, Method::Clone, "{:?}", picture.notes);
            match look(&model, &picture, &places) {
                Some(Found::AtRest) => at_rest += 1,
                Some(Found::Moving) => moving += 1,
                other => panic!("{tag}, picture {round}: {other:?}"),
            }
            // The census of some, whose rows must add up.
            if round % 50 == 0 {
                let ledger = inspect(&picture).unwrap().tally.ledger;
                assert_eq!(ledger.rows.iter().map(|row| row.bytes).sum::<u64>(), ledger.total);
            }
        }
        assert!(at_rest > 0, "{tag}: {moving} while one moves, none at rest");
        // What was looked for can be seen: pictures of a process that runs on do not hold it.
        let broken = (0..50).find(|_| {
            let found = look(&model, &capture(Capturing::None), &places);
            !matches!(found, Some(Found::AtRest | Found::Moving))
        });
        println!("{tag}: {at_rest} at rest, {moving} while one moves; without a stop, broken {broken:?}");
        assert!(broken.is_some(), "{tag}: no picture without a stop is broken");
    }
}
