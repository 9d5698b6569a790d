//! Walks the allocators of a process, says what they hold and how long each step took:
//! `cargo run --release -p wmr-alloc --example walk PID`.

use std::hint::black_box;
use std::time::Instant;
use wmr_alloc::pymalloc::Arenas;
use wmr_alloc::{Blocks, State, glibc};
use wmr_cpython::Python;
use wmr_memory::live::{LiveOptions, attach};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pid: i32 = std::env::args().nth(1).ok_or("which PID?")?.parse()?;
    let target = timed("attach", || attach(pid, &LiveOptions::default()))?;
    let roots = timed("find CPython", || Python::find(&target)).map(|p| p.pymalloc_roots).unwrap_or_default();
    let arenas = timed("arenas", || Arenas::of(&*target.memory, &target.mappings, &roots));
    let taken = arenas.ranges();
    let pymalloc = timed("pymalloc", || arenas.walk(&*target.memory));
    let glibc = timed("glibc", || glibc::find(&target, &taken))?;
    let blocks = timed("index", || Blocks::builder().pymalloc(&pymalloc).glibc(&glibc).build())?;
    let bytes: u64 = timed("all blocks", || blocks.iter().map(|b| b.bytes).sum());
    timed("all ranges", || {
        let mut free = 0;
        for span in 0..blocks.spans().len() {
            blocks.for_each_range(span, |r, s| {
                free += u64::from(!matches!(s, State::Used(_))) * (r.end - r.start)
            });
        }
        println!("{:>12} bytes not used", free);
    });
    // Addresses as pointers give them: inside of random blocks.
    let mut x = 88172645463325252u64;
    let inside: Vec<u64> = (0..1_000_000)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let block = blocks.block((x % u64::from(blocks.len())) as u32);
            block.start + x % block.usable.min(512)
        })
        .collect();
    for (what, addrs) in [
        ("random", inside.clone()),
        ("ordered", {
            let mut s = inside;
            s.sort_unstable();
            s
        }),
    ] {
        let start = Instant::now();
        let found = addrs.iter().filter(|&&a| black_box(blocks.find(a)).is_some()).count();
        println!(
            "{:>9.1} ns  find, {what} ({found} of {} found)",
            start.elapsed().as_nanos() as f64 / addrs.len() as f64,
            addrs.len()
        );
    }
    println!(
        "{} blocks, {bytes} bytes, {} spans, {} arenas of pymalloc",
        blocks.len(),
        blocks.spans().len(),
        pymalloc.arenas.len()
    );
    println!("{:?}", glibc.mallinfo());
    for note in pymalloc.notes.iter().chain(&glibc.notes).chain(blocks.notes()) {
        println!("{note}");
    }
    Ok(())
}

fn timed<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = f();
    println!("{:>9.1} ms  {what}", start.elapsed().as_secs_f64() * 1e3);
    result
}
