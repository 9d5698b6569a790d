//! `cargo xtask bench pause`: what a process notices of being looked at, by its own clock.
//!
//! The processes run `bench/probes`. While one of them watches its clock, the largest gap it sees is the
//! pause; while it touches all it has, round after round, what the rounds took longer is the time lost in
//! all, with the copies of pages that it writes to while the clone lives.

use super::{build, cost_of, interpreter, load_average, own_peak_limit, rollup, rss, verdict};
use anyhow::{Context, Result, bail, ensure};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use wmr_testing::Target;

/// A core takes its time, and ten do not tell more than three.
const CORES: u32 = 3;
/// Without anybody looking: long enough for some rounds.
const IDLE: Duration = Duration::from_millis(700);

/// What is asked of one target. Milliseconds.
struct Asked {
    pause: f64,
    /// The pause is per GiB.
    per_gib: bool,
    lost: Option<f64>,
}

pub fn run(runs: u32, tag: &str, mib: u64) -> Result<()> {
    let wmr = build()?;
    let runs = runs.max(1);
    let probes = wmr_testing::workload("").join("../probes").canonicalize()?;
    let python = interpreter(tag)?;
    let workload = || {
        let started = python.spawn_file(&wmr_testing::workload("w2_web.py"), |command| {
            command.env("WORKLOAD_HOOK", probes.join("probe.py"));
        });
        started.context("w2")
    };
    let asked = Asked { pause: 15.0, per_gib: false, lost: Some(300.0) };
    let measured = measure(&wmr, &workload, runs, false);
    match measured.and_then(|got| Ok(Got { watched: Some(watched(&wmr, &mut workload()?)?), ..got })) {
        Ok(got) => print(&format!("w2 on {}", python.version), &asked, &got),
        // The packages it wants are lacking: that does not cost the others.
        Err(why) => println!("\nw2: {why:#}"),
    }
    let source = std::fs::read_to_string(probes.join("probe.c"))?;
    let program = wmr_testing::compile_c(&source, &["-O1"])?;
    for (pages, pause) in [("small", 40.0), ("huge", 3.0)] {
        let block = || {
            let mut command = Command::new(&*program);
            command.args([&mib.to_string(), pages]);
            Ok(Target::start(command)?)
        };
        // Huge pages that were split stay so: each round of touching wants a process of its own.
        let got = measure(&wmr, &block, runs, pages == "huge")?;
        print(&format!("{mib} MiB of {pages} pages"), &Asked { pause, per_gib: true, lost: None }, &got);
    }
    Ok(())
}

/// Milliseconds and bytes.
#[derive(Default)]
struct Got {
    rss: u64,
    own_peak: u64,
    /// Nobody looks: what the machine does to the clock.
    idle: Vec<f64>,
    gap: Vec<f64>,
    /// What the program itself says.
    pause: Vec<f64>,
    child: Vec<f64>,
    core: Vec<f64>,
    lost: Vec<f64>,
    /// Of that on the CPU: what was copied.
    lost_cpu: Vec<f64>,
    /// Of that waiting for a CPU, which it shares with who looks.
    lost_queue: Vec<f64>,
    /// Length of a round that nobody disturbs.
    round: Vec<f64>,
    huge_before: u64,
    huge_after: Vec<f64>,
    /// Of its time, what is lost while it is watched: percent.
    watched: Option<f64>,
}

fn measure(wmr: &Path, start: &dyn Fn() -> Result<Target>, runs: u32, anew_each_time: bool) -> Result<Got> {
    let mut target = start()?;
    wmr_testing::at_rest(target.pid())?;
    let mut got = Got { rss: rss(&target)?, ..Got::default() };
    for _ in 0..runs {
        got.idle.push(spin(&mut target, idle)?);
        let gap = spin(&mut target, |pid| look(wmr, pid, &mut got))?;
        got.gap.push(gap);
    }
    for _ in 0..CORES {
        got.core.push(spin(&mut target, core)?);
    }
    got.huge_before = rollup(&target, "AnonHugePages:")?;
    for _ in 0..runs {
        if anew_each_time {
            target = start()?;
        }
        let alone = touch(&mut target, idle)?;
        let busy = touch(&mut target, |pid| look(wmr, pid, &mut got))?;
        let more = |of: fn(&Rounds) -> f64| of(&busy) - of(&alone) / alone.count * busy.count;
        got.lost.push(more(|rounds| rounds.wall));
        got.lost_cpu.push(more(|rounds| rounds.cpu));
        got.lost_queue.push(more(|rounds| rounds.queue));
        got.round.push(alone.wall / alone.count);
        got.huge_after.push(rollup(&target, "AnonHugePages:")? as f64);
    }
    Ok(got)
}

/// Looks of `wmr watch`, and the time between them.
const LOOKS: u32 = 4;
/// Rounds that began so long before or after a look's pause, in milliseconds, were disturbed by it: a round has its
/// length, the clone lives for some hundred milliseconds, and what it left write-protected is found at the next
/// round. Later other CPUs are busy with what was seen, which slows rounds down and is no cost of looking.
const DISTURBED: Range<f64> = -200.0..800.0;
/// And these were not: how long a round takes drifts by more than what is asked for here.
const QUIET: Range<f64> = -3000.0..-200.0;
/// So that there are some before the first look.
const BEFORE: Duration = Duration::from_secs(3);

/// Which part of its time a process loses to pauses and copies of pages while `wmr watch` looks at it: a process
/// that touches all it has without pause, so that each page has to be copied that can be. What rounds about each
/// look took longer than those just before it. Waiting for a CPU that it shares with who looks is not counted.
fn watched(wmr: &Path, target: &mut Target) -> Result<f64> {
    let mut looks: Vec<Value> = Vec::new();
    let said = probe(target, "rounds", |pid| {
        std::thread::sleep(BEFORE);
        let (pid, times) = (pid.to_string(), LOOKS.to_string());
        let mut command = Command::new(wmr);
        command.args(["watch", &pid, "--every", "10s", "--times", &times, "--json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let output = cost_of(command, &[0])?.stdout;
        // What the last look disturbed has an end.
        std::thread::sleep(BEFORE);
        looks = serde_json::Deserializer::from_slice(&output).into_iter().collect::<Result<_, _>>()?;
        Ok(())
    })?;
    ensure!(looks.len() == LOOKS as usize, "{} looks", looks.len());
    let rounds: Vec<[f64; 2]> =
        said.chunks_exact(3).map(|round| [round[0] / NANOS, (round[1] - round[2]) / NANOS]).collect();
    let (mut lost, mut all) = (0.0, 0.0);
    for look in &looks {
        let time = of_day(look["capture"]["time"].as_str().context("a look without its time")?)?;
        let within = |range: &Range<f64>| -> Vec<f64> {
            let since = |began: f64| (began - time - range.start).rem_euclid(DAY);
            let rounds = rounds.iter().filter(|[began, _]| since(*began) < range.end - range.start);
            rounds.map(|[_, took]| *took).collect()
        };
        let quiet = within(&QUIET);
        ensure!(!quiet.is_empty(), "no round before a look");
        let quiet = median(&quiet);
        lost += within(&DISTURBED).iter().map(|took| took - quiet).sum::<f64>();
        // It looks less often than it was told to where that would cost too much.
        all += look["cost"]["next_s"].as_f64().context("a look without the next one's time")? * 1000.0;
    }
    Ok(lost / all * 100.0)
}

const DAY: f64 = 86_400_000.0;

/// Milliseconds since midnight of `2026-01-31T12:34:56.789Z`.
fn of_day(time: &str) -> Result<f64> {
    let clock = time.split_once('T').and_then(|(_, clock)| clock.strip_suffix('Z')).unwrap_or_default();
    let parts: Vec<f64> = clock.split(':').filter_map(|part| part.parse().ok()).collect();
    let [hours, minutes, seconds] = parts[..] else { bail!("{time} is no time") };
    Ok(((hours * 60.0 + minutes) * 60.0 + seconds) * 1000.0)
}

/// Nothing is done.
fn idle(_: i32) -> Result<()> {
    std::thread::sleep(IDLE);
    Ok(())
}

fn core(pid: i32) -> Result<()> {
    wmr_testing::gcore(pid)?;
    Ok(())
}

/// One capture, by the program as it is.
fn look(wmr: &Path, pid: i32, got: &mut Got) -> Result<()> {
    let mut command = Command::new(wmr);
    command.args(["heap", &pid.to_string(), "--json", "--max-pause", "10000"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // 4: it is no Python process, and was looked at all the same.
    let cost = cost_of(command, &[0, 4])?;
    got.own_peak = got.own_peak.max(cost.peak);
    let document: Value = serde_json::from_slice(&cost.stdout).context("its JSON")?;
    let capture = &document["capture"];
    ensure!(capture["method"] == "clone", "captured by {}: {}", capture["method"], document["notes"]);
    got.pause.push(capture["pause_ms"].as_f64().context("no pause")?);
    got.child.push(capture["child_ms"].as_f64().context("no life of the clone")?);
    Ok(())
}

/// What a probe says of the time in which something was done.
fn probe(target: &mut Target, order: &str, action: impl FnOnce(i32) -> Result<()>) -> Result<Vec<f64>> {
    target.send(order)?;
    let begins = target.line()?;
    ensure!(begins == "begins", "the probe says {begins}");
    action(target.pid())?;
    target.send("stop")?;
    let said = target.line()?;
    said.split(' ').map(|word| word.parse().with_context(|| format!("the probe says {said}"))).collect()
}

const NANOS: f64 = 1e6;

fn spin(target: &mut Target, action: impl FnOnce(i32) -> Result<()>) -> Result<f64> {
    let said = probe(target, "spin", action)?;
    Ok(said.first().context("no gap")? / NANOS)
}

struct Rounds {
    count: f64,
    wall: f64,
    cpu: f64,
    queue: f64,
}

fn touch(target: &mut Target, action: impl FnOnce(i32) -> Result<()>) -> Result<Rounds> {
    let before = queued(target.pid())?;
    let said = probe(target, "touch", action)?;
    let [count, wall, cpu] = said[..] else { bail!("the probe says {said:?}") };
    let queue = queued(target.pid())? - before;
    Ok(Rounds { count, wall: wall / NANOS, cpu: cpu / NANOS, queue })
}

/// How long its first thread has been ready to run and did not.
fn queued(pid: i32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    Ok(text.split(' ').nth(1).context("no schedstat")?.parse::<f64>()? / NANOS)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// The median, and the least and the largest.
fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{:.1} ({least:.1} – {most:.1})", median(values))
}

fn print(name: &str, asked: &Asked, got: &Got) {
    let mib = |bytes: f64| format!("{:.1}", bytes / super::MIB);
    let gib = got.rss as f64 / super::MIB / 1024.0;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "asked", "got", ""]);
    let mut row = |what: &str, asked: Option<(String, bool)>, got: String| {
        let (asked, held) = asked.map_or(Default::default(), |(asked, held)| (asked, verdict(held)));
        table.add_row([what.to_owned(), asked, got, held.to_owned()]);
    };
    let limit = if asked.per_gib { asked.pause * gib } else { asked.pause };
    let gap = median(&got.gap);
    row("largest gap in its clock, nobody looking, ms", None, spread(&got.idle));
    row("  wmr heap", Some((format!("{limit:.1}"), gap <= limit)), spread(&got.gap));
    row("  gcore", None, spread(&got.core));
    let times = median(&got.core) / gap;
    row("  how many times shorter", Some(("10".to_owned(), times >= 10.0)), format!("{times:.1}"));
    row("capture.pause_ms", None, spread(&got.pause));
    let child = median(&got.child);
    let limit = 1000.0 * gib;
    row("capture.child_ms", Some((format!("{limit:.0}"), child <= limit)), spread(&got.child));
    let lost = median(&got.lost);
    let limit = asked.lost.map(|limit| (format!("{limit:.0}"), lost <= limit));
    row("touching all, time lost in all, ms", limit, spread(&got.lost));
    row("  of it on the CPU", None, spread(&got.lost_cpu));
    row("  of it waiting for a CPU", None, spread(&got.lost_queue));
    row("  a round that nobody disturbs", None, spread(&got.round));
    if let Some(percent) = got.watched {
        let asked = Some(("1.0".to_owned(), percent < 1.0));
        row("wmr watch --every 10s, time lost of all, %", asked, format!("{percent:.2}"));
    }
    row("huge pages before, MiB", None, mib(got.huge_before as f64));
    row("  after", None, mib(median(&got.huge_after)));
    let limit = own_peak_limit(got.rss);
    let held = got.own_peak <= limit;
    row("own peak, MiB", Some((mib(limit as f64), held)), mib(got.own_peak as f64));
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let (rss, runs, load) = (mib(got.rss as f64), got.gap.len(), load_average());
    println!("\n{name}, RSS {rss} MiB, medians of {runs} (least – most), load average now {load}\n{table}");
}
