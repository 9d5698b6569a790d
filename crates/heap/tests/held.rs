//! The graph of real interpreters: who holds what a script made, and what it retains.

use wmr_heap::graph::paths::Merged;
use wmr_heap::graph::{Bits, Fold, Reach};
use wmr_heap::{Held, inspect};
use wmr_memory::Target;
use wmr_memory::live::attach;
use wmr_testing::{Interpreter, at_rest, interpreters};

const SCRIPT: &str = r#"
import os, sys
HELD = [[str(i) * 9 for i in range(j * 100, j * 100 + 100)] for j in range(100)]
SHARED = ['x' * (500 + len(sys.argv))]
OTHER = [SHARED]
head = None
for i in range(100000):
    head = [head]
def outer():
    kept = [SHARED, 1]
    def inner(): return kept
    return inner
class Thing(object):
    def __init__(self): self.name = [self]
class Slotted(object):
    __slots__ = ('left',)
plain, asked, vain = Thing(), Thing(), Thing()
asked.__dict__['more'] = [2]
SHARES = vain.__dict__
slotted = Slotted(); slotted.left = [3]
inner = outer()
COUNT = {7: [4], None: [5]}
print('at %d %d %d' % (id(HELD), id(SHARED), id(head)))
print('link module %d .HELD %d' % (id(sys.modules['__main__']), id(HELD)))
print('link instance %d .name %d' % (id(plain), id(plain.name)))
print('link asked %d .name %d' % (id(asked), id(asked.name)))
print('link asked %d .more %d' % (id(asked), id(asked.more)))
print('link vain %d __dict__ %d' % (id(vain), id(SHARES)))
print('link dict %d %s %d' % (id(SHARES), "['name']", id(vain.name)))
print('link class %d .__init__ %d' % (id(Thing), id(Thing.__dict__['__init__'])))
print('link slots %d slot~left %d' % (id(slotted), id(slotted.left)))
print('link function %d closure~kept %d' % (id(inner), id(inner.__closure__[0])))
print('link globals %d __globals__ %d' % (id(inner), id(sys.modules['__main__'])))
print('link int %d [7] %d' % (id(COUNT), id(COUNT[7])))
print('link None %d [None] %d' % (id(COUNT), id(COUNT[None])))
print('link list %d [3] %d' % (id(HELD), id(HELD[3])))
print('part %d %d' % (id(sys.modules['__main__']), id(globals())))
print('part %d %d' % (id(asked), id(asked.__dict__)))
print('part %d %d' % (id(inner), id(inner.__closure__)))
print('apart %d' % id(SHARES))
sys.stdout.flush()
print('ready %d' % os.getpid())
sys.stdout.flush()
sys.stdin.read()
"#;

/// Looks at a process that has run the script.
fn look(python: &Interpreter) -> (Target, Vec<String>) {
    let process = python.spawn(SCRIPT).expect("starts");
    let truth = process.truth().to_vec();
    at_rest(process.pid()).expect("rests");
    (attach(process.pid(), &Default::default()).expect("attached"), truth)
}

fn numbers(line: &str) -> Vec<u64> {
    line.split(' ').filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn what_a_module_holds_is_found_from_it_and_retained_by_what_holds_it_alone() {
    for python in interpreters() {
        let (target, truth) = look(python);
        let inspection = inspect(&target).expect("few blocks");
        let version = &python.version;
        let seen = Held::find(&target, &inspection, Fold::Yes).expect("Python").expect("few references");
        let said = numbers(truth.iter().find(|line| line.starts_with("at ")).expect("addresses"));
        let nodes = seen.root_nodes();
        let reach = seen.reach();
        let [held, shared, nested] = [0, 1, 2].map(|at| seen.node_at(said[at]).expect("an object"));
        for node in [held, shared, nested] {
            let path = reach.path(node);
            assert_eq!(seen.root_name(path[0]), "module __main__", "{version}: {path:?}");
            assert_eq!(path.len(), 2, "{version}: {path:?}");
        }
        let dominators = seen.dominators();
        let ones = dominators.retained(|_| 1);
        assert_eq!(ones[held as usize], 1 + 100 + 10_000, "{version}");
        assert_eq!(ones[nested as usize], 100_000, "{version}");
        assert_eq!(ones[shared as usize], 2, "{version}");
        let bytes = seen.retained(&dominators);
        assert!(bytes[shared as usize] > 500 + seen.graph.size(shared), "{version}");
        // The strings of all lists, merged: one path to the list of lists, a hundred from there.
        let strings = seen.graph.csr.row(held).iter().flat_map(|list| seen.graph.csr.row(*list));
        let wanted = Bits::of(seen.graph.nodes(), strings.copied());
        let merged = Merged::of(&reach, &wanted, |node| seen.graph.size(node));
        let step = merged.steps.iter().find(|step| step.node == held).expect("on the way");
        assert_eq!((step.count, merged.unreached), (10_000, (0, 0)), "{version}");
        let without = Reach::without(&seen.graph.csr, &nodes, &Bits::of(seen.graph.nodes(), [held]));
        assert!(wanted.iter().all(|string| !without.reaches(string)), "{version}");
        // Small integers are kept by the interpreter's own variables or state alone.
        assert!(seen.roots.iter().filter(|root| !root.holder.is_sure()).count() > 1, "{version}");
    }
}

#[test]
fn objects_are_one_with_their_namespaces_and_call_what_is_in_them_theirs() {
    for python in interpreters() {
        let (target, truth) = look(python);
        let inspection = inspect(&target).expect("few blocks");
        let model = inspection.model.as_ref().expect("Python");
        let version = &python.version;
        let folded = Held::find(&target, &inspection, Fold::Yes).expect("Python").expect("few references");
        let blocks = Held::find(&target, &inspection, Fold::No).expect("Python").expect("few references");
        let node = |held: &Held, addr| held.node_at(addr).expect("an object");
        let mut reader = target.reader();
        let mut links = 0;
        for line in truth.iter().filter(|line| line.starts_with("link ")) {
            let ends = numbers(line);
            let label = line.split(' ').nth(3).expect("a label").replace('~', " ");
            let (from, to) = (node(&folded, ends[0]), node(&folded, ends[1]));
            let ours = folded.label(&mut reader, from, to).map(|label| label.to_string());
            assert_eq!(ours, Some(label.clone()), "{version}: {line}");
            let mut all = Vec::new();
            folded.links(from, &mut |link| {
                all.extend((link.node == Some(to)).then(|| link.label.to_string()));
                true
            });
            assert!(all.contains(&label), "{version}: {line}: {all:?}");
            let from = Bits::of(folded.graph.nodes(), [to]);
            assert!(folded.referrers(&from).contains(&(node(&folded, ends[0]), to)), "{version}: {line}");
            links += 1;
        }
        assert_eq!(links, 13);
        let mut parts = 0;
        for line in truth.iter().filter(|line| line.starts_with("part ")) {
            let ends = numbers(line);
            let whole = node(&folded, ends[0]);
            assert_eq!(node(&folded, ends[1]), whole, "{version}: {line}");
            // Where it is a node of its own, the whole has fewer bytes, and nothing is lost.
            let (apart, own) = (node(&blocks, ends[1]), node(&blocks, ends[0]));
            assert_ne!(apart, own, "{version}: {line}");
            let size = |node| blocks.graph.size(node);
            let all = folded.graph.parts(whole).iter().map(|part| size(part.part)).sum::<u64>();
            assert_eq!(folded.graph.size(whole), size(own) + all, "{version}: {line}");
            assert!(folded.type_of(apart).is_none() && blocks.type_of(apart).is_some(), "{version}: {line}");
            parts += 1;
        }
        assert_eq!(parts, 3);
        let apart = numbers(truth.iter().find(|line| line.starts_with("apart")).expect("a dict"))[0];
        let own = folded.graph.node_of_its_own(&inspection, model, apart);
        assert_eq!(folded.node_at(apart), own, "{version}");
        let total = |held: &Held| (0..held.graph.nodes()).map(|node| held.graph.size(node)).sum::<u64>();
        assert_eq!(total(&folded), total(&blocks), "{version}");
    }
}
