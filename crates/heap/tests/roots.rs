//! What holds objects that no object does is called as a person would.

use std::path::Path;
use wmr_heap::graph::Fold;
use wmr_heap::{Held, inspect};
use wmr_memory::live::attach;
use wmr_testing::{at_rest, build_extension, interpreters, python};

/// `held WHERE ADDRESS`: where the path to that object begins.
const SCRIPT: &str = r#"
import codecs, os, sys
def only(where, thing):
    print('held %s %d' % (where, id(thing)))
class Kept(object): pass
class Searching(Kept):
    def __call__(self, name): return None
class Hook(Kept):
    def __call__(self, *args): pass
def hold():
    search, error, fork = Searching(), Hook(), Hook()
    codecs.register(search); only('codecs.register()', search)
    codecs.register_error('wmr', error); only('codecs.register_error()', error)
    if hasattr(os, 'register_at_fork'):
        os.register_at_fork(before=fork); only('os.register_at_fork()', fork)
    if hasattr(sys, 'addaudithook'):
        audit = Hook()
        sys.addaudithook(audit); only('sys.addaudithook()', audit)
    if 'keeps' in sys.argv:
        import keeps
        variable, block = Kept(), Kept()
        keeps.in_variable(variable); only('kept_here+0x10~in~keeps.so', variable)
        keeps.in_block(block); only('native', block)
hold()
sys.stdout.flush()
print('ready %d' % os.getpid())
sys.stdout.flush()
sys.stdin.read()
"#;

fn check(process: &wmr_testing::Target, version: &str) -> usize {
    at_rest(process.pid()).expect("rests");
    let target = attach(process.pid(), &Default::default()).expect("attached");
    let inspection = inspect(&target).expect("few blocks");
    let held = Held::find(&target, &inspection, Fold::Yes).expect("Python").expect("few references");
    let reach = held.reach();
    let mut seen = 0;
    for line in process.truth().iter().filter_map(|line| line.strip_prefix("held ")) {
        let (place, addr) = line.split_once(' ').expect("a place and an address");
        let node = held.node_at(addr.parse().expect("a number")).expect("an object");
        let path = reach.path(node);
        let root = *path.first().unwrap_or_else(|| panic!("{version}: nothing holds {place}"));
        let (name, kind) = (held.root_name(root), held.root(root).expect("a root").holder.kind());
        let place = place.replace('~', " ");
        assert!(name.starts_with(&place) || kind == place, "{version}: {place} is called {name:?}, {path:?}");
        seen += 1;
    }
    seen
}

#[test]
fn what_the_interpreter_keeps_is_called_by_how_it_got_there() {
    for python in interpreters() {
        let process = python.spawn(SCRIPT).expect("starts");
        assert!(check(&process, &python.version) >= 2, "{}", python.version);
    }
}

#[test]
fn what_c_code_keeps_is_called_by_library_and_symbol() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keeps.c");
    for tag in ["3.8", "3.11", "3.13"] {
        let python = python(tag).expect("cargo xtask pythons installs it");
        let extension = build_extension(python, &source).expect("the extension builds");
        let script = format!("import sys\nsys.argv.append('keeps')\n{SCRIPT}");
        let folder = extension.parent().expect("a folder").to_owned();
        let process = python
            .spawn_with(&script, |command| {
                command.env("PYTHONPATH", folder);
            })
            .expect("starts");
        assert!(check(&process, tag) >= 6, "{tag}");
    }
}
