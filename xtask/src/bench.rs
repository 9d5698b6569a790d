//! `cargo xtask bench`: this program and the tools people have today, on the same workloads, in one run.

pub mod dense;
pub mod graph;
pub mod pause;

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use wmr_testing::{Interpreter, Target};

/// Name, script, and the wall seconds that `wmr heap` should take at most on 2 cores.
const WORKLOADS: &[(&str, &str, Option<f64>)] = &[
    ("w1", "w1_seed.py", None),
    ("w2", "w2_web.py", Some(0.5)),
    ("w3", "w3_numpy.py", None),
    ("w4", "w4_leak.py", None),
    ("w4c", "w4c_cext.py", None),
    ("w5", "w5_small.py", Some(0.8)),
];

/// Each is a script under `bench/rivals` that runs inside a process of its own.
const RIVALS: &[&str] = &["guppy3", "pympler", "objgraph"];

const MIB: f64 = 1_048_576.0;

pub fn run(names: &[String], runs: u32, tag: &str) -> Result<()> {
    if let Some(name) = names.iter().find(|name| !WORKLOADS.iter().any(|(known, ..)| known == name)) {
        let known: Vec<&str> = WORKLOADS.iter().map(|workload| workload.0).collect();
        bail!("no workload {name:?}; there are {}", known.join(", "));
    }
    let python = interpreter(tag)?;
    let wmr = build()?;
    for (name, script, limit) in WORKLOADS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            // A workload whose packages are lacking does not cost the others.
            match bench(&python, &wmr, script, runs) {
                Ok(rows) => print(&python, name, *limit, &rows),
                Err(why) => println!("\n{name}: {why:#}"),
            }
        }
    }
    Ok(())
}

/// With the packages that workloads want, where they are installed.
fn interpreter(tag: &str) -> Result<Interpreter> {
    let python = wmr_testing::venv(tag).or_else(|| wmr_testing::python(tag).cloned());
    python.with_context(|| format!("no python {tag}; cargo xtask pythons"))
}

/// The release build of the program.
pub fn build() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--package", "wheresmyram", "--message-format=json"]);
    let out = cargo.current_dir(root).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let mut messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let built = messages.find_map(|m| m["executable"].as_str().map(PathBuf::from));
    built.filter(|_| out.status.success()).context("the program does not build")
}

/// What one tool cost. Bytes.
struct Row {
    tool: String,
    /// The best of the runs: noise only ever adds.
    wall: f64,
    runs: usize,
    peak: Option<u64>,
    target_before: u64,
    target_after: u64,
    pause_ms: Option<f64>,
}

fn bench(python: &Interpreter, wmr: &Path, script: &str, runs: u32) -> Result<Vec<Row>> {
    let extension = if script == "w4c_cext.py" {
        Some(wmr_testing::build_extension(python, &wmr_testing::workload("leakext.c"))?)
    } else {
        None
    };
    let target = python.spawn_file(&wmr_testing::workload(script), |command| {
        import_from(command, extension.as_deref());
    })?;
    let pid = target.pid().to_string();
    let mut rows = Vec::new();
    rows.push(ours(&target, wmr, &["heap", &pid, "--json"], runs)?);
    rows.push(ours(&target, wmr, &["heap", &pid, "--by", "type", "--json"], runs)?);
    let (before, clock) = (rss(&target)?, Instant::now());
    match wmr_testing::gcore(target.pid()) {
        Ok(core) => {
            let wall = clock.elapsed().as_secs_f64();
            let after = rss(&target)?;
            // It writes while the process is stopped: the pause is nearly all of it.
            let (tool, pause_ms) = ("gcore".to_owned(), None);
            let row =
                Row { tool, wall, runs: 1, peak: None, target_before: before, target_after: after, pause_ms };
            rows.push(row);
            let path = core.to_string_lossy().into_owned();
            rows.push(ours(&target, wmr, &["heap", &path, "--json"], runs)?);
        }
        Err(why) => println!("gcore: {why}"),
    }
    drop(target);
    for rival in RIVALS {
        match inside(python, script, extension.as_deref(), rival) {
            Ok(row) => rows.push(row),
            Err(why) => println!("{rival}: {why:#}"),
        }
    }
    Ok(rows)
}

fn import_from(command: &mut Command, extension: Option<&Path>) {
    if let Some(folder) = extension.and_then(Path::parent) {
        command.env("PYTHONPATH", folder);
    }
}

/// What a tool costs that runs inside a process of its own: a script under `bench/rivals`.
fn inside(python: &Interpreter, script: &str, extension: Option<&Path>, rival: &str) -> Result<Row> {
    let hook = wmr_testing::workload("").join("../rivals").join(format!("{rival}.py")).canonicalize()?;
    let target = python.spawn_file(&wmr_testing::workload(script), |command| {
        command.env("WORKLOAD_HOOK", &hook);
        import_from(command, extension);
    })?;
    let line = target.line()?;
    let cost: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    let kb = |key: &str| cost[key].as_u64().unwrap_or(0) * 1024;
    Ok(Row {
        tool: format!("{rival}, inside"),
        wall: cost["wall_s"].as_f64().unwrap_or(f64::NAN),
        runs: 1,
        peak: None,
        target_before: kb("rss_before_kb"),
        target_after: kb("rss_peak_kb"),
        pause_ms: cost["wall_s"].as_f64().map(|s| s * 1e3),
    })
}

/// Runs the program on a live target or its core.
fn ours(target: &Target, wmr: &Path, arguments: &[&str], runs: u32) -> Result<Row> {
    let before = rss(target)?;
    let (mut walls, mut peak, mut pause) = (Vec::new(), 0, None);
    for _ in 0..runs.max(1) {
        let mut command = Command::new(wmr);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let cost = cost_of(command, &[0])?;
        walls.push(cost.wall);
        peak = cost.peak.max(peak);
        let document: Value = serde_json::from_slice(&cost.stdout).context("its JSON")?;
        pause = document["capture"]["pause_ms"].as_f64().or(pause);
    }
    let shown: Vec<&str> = arguments.iter().map(|a| if a.contains('/') { "CORE" } else { a }).collect();
    Ok(Row {
        tool: format!("wmr {}", shown.join(" ").replace(&target.pid().to_string(), "PID")),
        wall: walls.iter().copied().fold(f64::INFINITY, f64::min),
        runs: walls.len(),
        peak: Some(peak),
        target_before: before,
        target_after: rss(target)?,
        pause_ms: pause,
    })
}

struct Cost {
    wall: f64,
    peak: u64,
    stdout: Vec<u8>,
}

/// Wall time and peak RSS of a command that ends with one of these exit codes.
fn cost_of(mut command: Command, codes: &[i32]) -> Result<Cost> {
    use std::io::Read;
    let start = Instant::now();
    let mut child = command.spawn()?;
    let mut stdout = Vec::new();
    child.stdout.take().context("no stdout")?.read_to_end(&mut stdout)?;
    let (mut status, pid) = (0, child.id() as libc::pid_t);
    // SAFETY: both pointers are to locals that outlive the call; all-zero is a valid rusage.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &mut status, 0, &mut usage), usage)
    };
    let wall = start.elapsed().as_secs_f64();
    if waited != pid || !libc::WIFEXITED(status) || !codes.contains(&libc::WEXITSTATUS(status)) {
        bail!("{command:?} ended with wait status {status:#x}");
    }
    Ok(Cost { wall, peak: usage.ru_maxrss as u64 * 1024, stdout })
}

fn rss(target: &Target) -> Result<u64> {
    rollup(target, "Rss:")
}

/// One of the sums over all mappings. Bytes.
fn rollup(target: &Target, field: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", target.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kb = line.and_then(|l| l.split_whitespace().next());
    let kb: u64 = kb.with_context(|| format!("no {field}"))?.parse()?;
    Ok(kb * 1024)
}

/// What is open to a process that is looked at: a quarter of it, and room for the program itself.
fn own_peak_limit(target: u64) -> u64 {
    (64 << 20) + target / 4
}

fn verdict(held: bool) -> &'static str {
    if held { "held" } else { "NOT held" }
}

/// A busy machine makes every time here meaningless but the ratios.
fn load_average() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB)
}

/// The first row is what the others are compared with.
fn print_rows(python: &Interpreter, name: &str, rows: &[Row]) {
    let Some(ours) = rows.first() else { return };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "tool",
        "runs",
        "wall s",
        "× ours",
        "pause ms",
        "own peak MiB",
        "target MiB",
        "after, or peak",
    ]);
    for row in rows {
        table.add_row([
            row.tool.clone(),
            row.runs.to_string(),
            format!("{:.3}", row.wall),
            format!("{:.1}", row.wall / ours.wall),
            row.pause_ms.map_or_else(String::new, |ms| format!("{ms:.1}")),
            row.peak.map_or_else(String::new, mib),
            mib(row.target_before),
            mib(row.target_after),
        ]);
    }
    let load = load_average();
    let rss = mib(ours.target_before);
    println!("\n{name} on {}, RSS {rss} MiB, load average now {load}\n{table}", python.version);
}

fn print(python: &Interpreter, name: &str, limit: Option<f64>, rows: &[Row]) {
    let Some(ours) = rows.first() else { return };
    print_rows(python, name, rows);
    let memory = 64.0 * MIB + 1.25 * ours.target_before as f64;
    if let Some(limit) = limit {
        println!("  wall at most {limit} s: {}", verdict(ours.wall <= limit));
    }
    let peak = ours.peak.unwrap_or(0) as f64;
    println!("  own peak at most {:.0} MiB: {}", memory / MIB, verdict(peak <= memory));
    println!("  target's RSS unchanged: {}", verdict(ours.target_after == ours.target_before));
}
