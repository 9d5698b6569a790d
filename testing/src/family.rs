//! A parent that builds objects and forks workers, which use them when they are told to.

use crate::{Interpreter, READY, Target};
use std::io;
use std::process::Command;

/// 200,000 strings and tuples, and 50,000 instances whose attribute is inside them. No collection runs
/// by itself, so the tuples stay tracked. Workers do what their name says, and wait again.
const SCRIPT: &str = r#"
import gc, itertools, os, sys
gc.disable()
class Slotted(object):
    __slots__ = ("a",)
    def __init__(self):
        self.a = True
OBJECTS = []
for i in range(100000):
    OBJECTS.append("object %d" % i)
    OBJECTS.append((i, "x"))
SLOTTED = [Slotted() for i in range(50000)]
def use(percent):
    for o in itertools.islice(OBJECTS, len(OBJECTS) * percent // 100): pass
    o = None
def write():
    for o in SLOTTED: o.a = None
    o = None
WORKERS = [("use 0", use, (0,)), ("use 25", use, (25,)), ("use 50", use, (50,)), ("use 100", use, (100,)),
    ("write", write, ()), ("collect", gc.collect, ())]
def work(function, arguments, orders, answers):
    while os.read(orders, 1):
        function(*arguments)
        os.write(answers, b"d")
    os._exit(0)
pipes = []
for name, function, arguments in WORKERS:
    orders, answers = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        # Whoever still had the other ends would keep them all waiting when the parent has gone.
        for ends in pipes:
            for end in ends: os.close(end)
        os.close(orders[1]); os.close(answers[0])
        work(function, arguments, orders[0], answers[1])
    os.close(orders[0]); os.close(answers[1])
    pipes.append((orders[1], answers[0]))
    print("worker %d %s" % (pid, name))
sys.stdout.write("ready %d\n" % os.getpid()); sys.stdout.flush()
while sys.stdin.readline():
    for orders, answers in pipes:
        os.write(orders, b"g"); os.read(answers, 1)
    print("done"); sys.stdout.flush()
"#;

/// The parent, and its workers by what they do: `use 0`, `use 25`, `use 50` and `use 100` take that many
/// percent of the objects into their hands, `write` changes objects, `collect` runs the collector.
#[derive(Debug)]
pub struct Family {
    pub parent: Target,
    pub workers: Vec<(String, i32)>,
}

impl Family {
    /// # Errors
    /// As [`Target::start`].
    pub fn start(python: &Interpreter) -> io::Result<Family> {
        Family::start_with(python, |_| ())
    }

    /// As [`start`](Self::start); `change` may choose another user.
    ///
    /// # Errors
    /// As [`Target::start`].
    pub fn start_with(python: &Interpreter, change: impl FnOnce(&mut Command)) -> io::Result<Family> {
        let parent = python.spawn_with(SCRIPT, change)?;
        let worker = |line: &String| {
            let (pid, name) = line.strip_prefix("worker ")?.split_once(' ')?;
            Some((name.to_owned(), pid.parse().ok()?))
        };
        let workers = parent.truth().iter().filter_map(worker).collect();
        Ok(Family { parent, workers })
    }

    /// The worker that does this.
    ///
    /// # Panics
    /// There is none.
    pub fn worker(&self, name: &str) -> i32 {
        let found = self.workers.iter().find(|(does, _)| does == name);
        found.unwrap_or_else(|| panic!("no worker does {name}")).1
    }

    /// Has all workers do their work once, and waits until they have.
    ///
    /// # Errors
    /// The parent has ended.
    pub fn work(&mut self) -> io::Result<()> {
        self.parent.send("go")?;
        self.parent.line().map(drop)
    }

    /// The program of a parent that forks one worker and then becomes another process by `exec`.
    pub fn starts_anew() -> String {
        let again = format!("import os{READY}");
        format!(
            "import os, sys\nDATA = ['%d' % n for n in range(10000)]\nreader, writer = os.pipe()\n\
             if not os.fork():\n    os.close(writer); os.read(reader, 1); os._exit(0)\n\
             os.set_inheritable(writer, True)\n\
             os.execv(sys.executable, [sys.executable, '-c', {again:?}])\n"
        )
    }
}
