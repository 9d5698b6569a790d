//! temporary
use wmr_heap::graph::{Bits, Fold};
use wmr_heap::{Held, inspect};
use wmr_memory::live::attach;
fn main() {
    let args: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let target = attach(args[0] as i32, &Default::default()).expect("attached");
    let inspection = inspect(&target).expect("blocks can be numbered");
    let held = Held::find(&target, &inspection, Fold::Yes).expect("an interpreter").expect("few references");
    let mut reader = target.reader();
    for addr in &args[1..] {
        println!("--- {addr:#x}");
        if let Some(block) = inspection.blocks.find(*addr) {
            let mark = inspection.census.mark(block);
            println!(
                "block {block} {:?} owned {} {:?} holder {} kind {:?} owner {:?}",
                inspection.blocks.block(block),
                held.graph.is_owned(block),
                mark,
                inspection.blocks.is_holder(block),
                mark.as_kind().map(|k| format!("{:?}", inspection.census.kinds.get(k))),
                inspection.census.owner(block)
            );
            if let Some(o) = inspection.census.owner(block) {
                println!("owner type {}", held.type_name(o));
            }
        }
        let Some(node) = held.node_at(*addr) else {
            println!("no node");
            continue;
        };
        println!("{} {:?} {:?}", held.type_name(node), held.count(&mut reader, node), held.outside(node));
        let mut of = node;
        for _ in 0..4 {
            let from = held.referrers(&Bits::of(held.graph.nodes(), [of]));
            println!(
                "from {:?}",
                from.iter()
                    .take(8)
                    .map(|(f, t)| (
                        *f,
                        held.type_name(*f),
                        held.addr(&mut reader, *f),
                        held.label(&mut reader, *f, *t).map(|l| l.to_string()),
                        held.count(&mut reader, *f),
                        held.root(*f).map(|r| r.holder.name(&target, &inspection)),
                        held.outside(*f).cloned()
                    ))
                    .collect::<Vec<_>>()
            );
            let Some(f) = from.first() else { break };
            of = f.0;
        }
    }
}
