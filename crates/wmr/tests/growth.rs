//! What grows between pictures, and what only seems to: series of snapshots, and a process that is watched.

mod common;

use common::{failure, json, wmr};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use wmr_testing::{Target, at_rest, python};

/// Grows by an order a step, keeps a cache within bounds, and replaces a batch each time.
const SHOP: &str = r#"
import collections, os, sys
class Order(object):
    def __init__(self, n):
        self.n, self.lines = n, ['line %d of %d' % (i, n) for i in range(3)]
class Shop(object):
    def __init__(self):
        self.orders, self.seen, self.batch = [], collections.OrderedDict(), []
    def order(self, n):
        self.orders.append(Order(n))
        self.seen['order %d' % n] = [n]
        if len(self.seen) > 3000:
            self.seen.popitem(last=False)
    def step(self, step):
        for n in range(2000):
            self.order(step * 2000 + n + 5000)
        self.batch = ['batch %d, %d' % (step, n) for n in range([9000, 100, 9000, 50][step % 4])]
shop = Shop()
for step in range(3):
    shop.step(step)
sys.stdout.write('ready %d\n' % os.getpid()); sys.stdout.flush()
for line in iter(sys.stdin.readline, ''):
    step += 1
    shop.step(step)
    sys.stdout.write('done\n'); sys.stdout.flush()
"#;

fn shop(tag: &str) -> Target {
    let target = python(tag).expect("an interpreter").spawn(SHOP).expect("it starts");
    at_rest(target.pid()).unwrap();
    target
}

fn step(target: &mut Target) {
    target.send("step").unwrap();
    assert_eq!(target.line().unwrap(), "done");
    at_rest(target.pid()).unwrap();
}

fn keep(target: &Target, folder: &std::path::Path, name: &str) -> String {
    let path = folder.join(name).to_str().unwrap().to_owned();
    json(&["snapshot", &target.pid().to_string(), "-o", &path]);
    path
}

#[test]
fn a_series_names_what_grew_and_clears_what_did_not() {
    for tag in ["3.8", "3.13"] {
        let folder = tempfile::tempdir().unwrap();
        let mut target = shop(tag);
        let mut files = Vec::new();
        for n in 0..3 {
            step(&mut target);
            files.push(keep(&target, folder.path(), &format!("{n}.wmr")));
        }
        let series = json(&["leaks", &files[0], &files[1], &files[2]]);
        let first = &series["findings"][0];
        assert_eq!(first["where"], "__main__.shop.orders", "{tag}: {series:#}");
        assert_eq!(
            (first["count"].as_u64(), &first["sure"]),
            (Some(4000), &Value::from("likely")),
            "{tag}: {first:#}"
        );
        let row = &series["growth"][0];
        assert_eq!(row["type"], "__main__.Order");
        assert!(row["bytes_per_hour"].as_u64() > Some(0));
        // The same leak has the same name in one picture, of another process too.
        let one = json(&["leaks", &shop(tag).pid().to_string()]);
        assert_eq!(one["suspects"][0]["signature"], first["signature"], "{tag}: {one:#}");
        let place = |list: &Value| -> Vec<String> {
            let rows = list.as_array().unwrap().iter();
            rows.map(|row| row["where"].as_str().unwrap().to_owned()).collect()
        };
        let findings = place(&series["findings"]);
        assert!(
            !findings.iter().any(|place| place.contains("seen") || place.contains("batch")),
            "{tag}: {findings:?}"
        );
        assert!(place(&series["stable"]).contains(&"__main__.shop.seen".to_owned()), "{tag}: {series:#}");
        assert!(place(&series["churn"]).iter().any(|p| p.contains("shop.batch")), "{tag}: {series:#}");

        // A gate is one for a series too, and what was accepted passes it.
        let gate = |more: &[&str]| {
            let output =
                wmr(&["leaks", &files[0], &files[1], &files[2], "--fail-on", "likely"]).args(more).output();
            output.unwrap().status.code()
        };
        let accepted = folder.path().join("accepted");
        let rows = series["findings"].as_array().unwrap().iter();
        let signatures: Vec<&str> = rows.map(|row| row["signature"].as_str().unwrap()).collect();
        std::fs::write(&accepted, signatures.join("\n")).unwrap();
        assert_eq!(gate(&[]), Some(6), "{tag}");
        assert_eq!(gate(&["--max-bytes", "1G"]), Some(0), "{tag}");
        assert_eq!(gate(&["--known", accepted.to_str().unwrap()]), Some(0), "{tag}");

        // Backwards: nothing grew, and no rate is made up.
        let back = json(&["leaks", &files[2], &files[1], &files[0]]);
        assert!(!place(&back["findings"]).contains(&"__main__.shop.orders".to_owned()), "{tag}: {back:#}");
        assert!(back["notes"].to_string().contains("do not ascend"), "{tag}: {}", back["notes"]);
    }
}

#[test]
fn pictures_of_different_programs_are_no_series() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (shop("3.11"), common::target());
    let (one, other) = (keep(&one, folder.path(), "a.wmr"), keep(&other, folder.path(), "b.wmr"));
    let said = failure(&["leaks", &one, &other]);
    assert!(said.starts_with("exit 2,") && said.contains("a series is of one program"), "{said}");
    // Started anew it is the same program.
    let again = shop("3.11");
    let series = json(&["leaks", &one, &again.pid().to_string()]);
    assert!(series["notes"].to_string().contains("started anew"), "{}", series["notes"]);
}

/// What `wmr watch` prints, line by line.
struct Watching {
    child: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watching {
    fn begin(arguments: &[&str]) -> Watching {
        let mut child = wmr(arguments).arg("--json").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Watching { child, lines }
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("a look").unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn watching_tells_what_grows() {
    let mut target = shop("3.11");
    let pid = target.pid().to_string();
    let mut watching = Watching::begin(&["watch", &pid, "--every", "300ms"]);
    let first = watching.next();
    assert_eq!((&first["schema"], first["look"].as_u64()), (&Value::from("wmr/watch/1"), Some(1)));
    assert_eq!(first["findings"].as_array().map(Vec::len), Some(0), "{first:#}");
    // Looks in between may fall together with a step: those that follow a whole one tell.
    let grown = (0..20).find_map(|_| {
        step(&mut target);
        let look = watching.next();
        let found =
            look["findings"][0]["where"] == "__main__.shop.orders" && look["compared"].as_u64() >= Some(3);
        assert!(look["cost"]["percent"].as_f64() <= Some(1.001), "{}", look["cost"]);
        found.then_some(look)
    });
    let grown = grown.expect("what grows is told");
    assert!(grown["rss_growth"].is_i64() || grown["rss_growth"].is_u64(), "{grown:#}");
    assert!(grown["growth_explained"]["objects"].as_i64() > Some(0), "{grown:#}");
}

#[test]
fn a_program_that_starts_itself_anew_is_noticed() {
    let again = "    if line == 'again\\n': os.execv(sys.executable, [sys.executable] + sys.orig_argv[1:])\n";
    let script = SHOP.replace("    step += 1\n", &format!("{again}    step += 1\n"));
    let mut target = python("3.11").unwrap().spawn(&script).unwrap();
    let pid = target.pid().to_string();
    let mut watching = Watching::begin(&["watch", &pid, "--every", "300ms"]);
    assert_eq!(watching.next()["restarted"], false);
    // What it held more of before is not asked for again: a few looks tell what still grows.
    let grown = |target: &mut Target, watching: &mut Watching, looks: u32| {
        (0..looks).find_map(|_| {
            step(target);
            let look = watching.next();
            (look["findings"][0]["where"] == "__main__.shop.orders").then_some(look)
        })
    };
    for _ in 0..4 {
        step(&mut target);
    }
    grown(&mut target, &mut watching, 20).expect("what grows is told");
    target.send("again").unwrap();
    assert!(target.line().unwrap().starts_with("ready "));
    let anew = (0..10).map(|_| watching.next()).find(|look| look["restarted"] == true);
    let anew = anew.expect("it is noticed");
    assert!(anew["notes"].to_string().contains("started anew"));
    assert_eq!(anew["compared"], 1);
    let look = grown(&mut target, &mut watching, 4).expect("what grows is told at once");
    assert!(
        look["findings"][0]["why"].to_string().contains("before the program was started anew"),
        "{look:#}"
    );
}

#[test]
fn watching_ends_when_it_has_grown_by_so_much() {
    let mut target = shop("3.11");
    let pid = target.pid().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("grown.wmr").to_str().unwrap().to_owned();
    let arguments = ["watch", &pid, "--every", "200ms", "--until", "1M", "--snapshot", &file];
    let mut watching = Watching::begin(&arguments);
    watching.next();
    (0..6).for_each(|_| step(&mut target));
    let status = watching.child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(json(&["leaks", &file])["suspects"][0]["where"], "__main__.shop.orders");

    let said = failure(&["watch", &pid, "--every", "10ms", "--times", "2", "--until", "1G"]);
    assert!(
        said.starts_with("exit 1,") && said.contains("has not grown by 1,024.0 MiB in 2 looks"),
        "{said}"
    );
    let said = failure(&["watch", &pid, "--snapshot", &file]);
    assert!(said.starts_with("exit 2,") && said.contains("--until"), "{said}");
}
