//! What accumulates in a process, and how long it took to tell: `suspects_of PID`.

use std::time::Instant;
use wmr_heap::graph::Fold;
use wmr_heap::{Held, suspects};
use wmr_memory::live::{LiveOptions, attach};

fn main() {
    let pid = std::env::args().nth(1).and_then(|word| word.parse().ok()).expect("a pid");
    let target = attach(pid, &LiveOptions { max_pause: None, ..LiveOptions::default() }).expect("a process");
    let inspection = wmr_heap::inspect(&target).expect("its census");
    let begin = Instant::now();
    let held = Held::find(&target, &inspection, Fold::Yes).expect("Python").expect("its graph");
    println!("graph {:?}", begin.elapsed());
    let reach = held.reach();
    let dominators = held.dominators();
    let retained = held.retained(&dominators);
    println!("dominators {:?}", begin.elapsed());
    for suspect in suspects::find(&held, &reach, &dominators, &retained).iter().take(20) {
        println!("{suspect:#?}");
    }
    println!("suspects {:?}", begin.elapsed());
}
