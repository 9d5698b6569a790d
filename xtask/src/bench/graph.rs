//! `cargo xtask bench graph`: references, all retained sizes and the report of leaks beside the census of the same
//! process, and how the cost of dominators grows with the graph.

use super::{build, cost_of, inside, interpreter, mib, ours, print_rows, verdict};
use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use wmr_testing::Interpreter;

/// Wall seconds at most on 2 cores.
struct Asked {
    name: &'static str,
    script: &'static str,
    /// What references take beyond the census.
    graph: Option<f64>,
    retained: Option<f64>,
    leaks: Option<f64>,
}

const ASKED: &[Asked] = &[
    Asked { name: "w2", script: "w2_web.py", graph: Some(1.2), retained: Some(3.0), leaks: Some(5.0) },
    Asked { name: "w5", script: "w5_small.py", graph: None, retained: Some(3.0), leaks: None },
];
/// Of the target's resident bytes.
const GRAPH_PEAK: f64 = 0.6;
const RETAINED_PEAK: f64 = 1.2;
/// Millions of nodes, with three references each.
const SYNTHETIC: &[u32] = &[1, 10, 50];
const SYNTHETIC_WALL: f64 = 60.0;
const SYNTHETIC_PEAK: u64 = 5 << 30;
/// Nanoseconds a node, largest graph to smallest.
const SYNTHETIC_GROWTH: f64 = 1.3;

pub fn run(runs: u32, tag: &str) -> Result<()> {
    let python = interpreter(tag)?;
    let wmr = build()?;
    for asked in ASKED {
        // A workload whose packages are lacking does not cost the others.
        if let Err(why) = workload(&python, &wmr, asked, runs) {
            println!("\n{}: {why:#}", asked.name);
        }
    }
    synthetic()
}

fn workload(python: &Interpreter, wmr: &Path, asked: &Asked, runs: u32) -> Result<()> {
    let target = python.spawn_file(&wmr_testing::workload(asked.script), |_| ())?;
    let pid = target.pid().to_string();
    let largest = ["select", &pid, "type = 'dict'", "--sort", "bytes", "--limit", "1", "--json"];
    let out = Command::new(wmr).args(largest).stdin(Stdio::null()).output()?;
    let found: Value = serde_json::from_slice(&out.stdout).context("its JSON")?;
    let addr = found["rows"][0]["addr"].as_str().context("no dict")?.to_owned();
    let mut rows = Vec::new();
    for arguments in [
        &["heap", &pid, "--json"][..],
        &["refs", &pid, &addr, "--json"],
        &["path", &pid, &addr, "--json"],
        &["retained", &pid, "--json"],
        &["retained", &pid, "--by", "type", "--json"],
        &["leaks", &pid, "--json"],
    ] {
        rows.push(ours(&target, wmr, arguments, runs)?);
    }
    drop(target);
    match inside(python, asked.script, None, "guppy3_retained") {
        Ok(row) => rows.push(row),
        Err(why) => println!("guppy3: {why:#}"),
    }
    print_rows(python, asked.name, &rows);
    let rss = rows[0].target_before as f64;
    let wall = |what: &str, got: f64, limit: Option<f64>| {
        if let Some(limit) = limit {
            println!("  {what} {got:.2} s, at most {limit} s: {}", verdict(got <= limit));
        }
    };
    wall("references beyond the census", rows[1].wall - rows[0].wall, asked.graph);
    wall("all retained sizes", rows[3].wall.max(rows[4].wall), asked.retained);
    wall("leaks", rows[5].wall, asked.leaks);
    for (what, row, limit) in [
        ("references", &rows[1], GRAPH_PEAK),
        ("retained sizes", &rows[3], RETAINED_PEAK),
        ("retained sizes by type", &rows[4], RETAINED_PEAK),
    ] {
        let ratio = row.peak.unwrap_or(0) as f64 / rss;
        println!(
            "  own peak of {what}: {ratio:.2} of the target's RSS, at most {limit}: {}",
            verdict(ratio <= limit)
        );
    }
    Ok(())
}

/// One process for each size.
fn synthetic() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "million nodes",
        "references",
        "graph s",
        "dominators s",
        "sums s",
        "ns a node",
        "own peak MiB",
    ]);
    let (mut each, mut last) = (Vec::new(), (0.0, 0));
    for millions in SYNTHETIC {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "wmr-heap",
            "--example",
            "synthetic_graph",
        ]);
        command.arg("--").arg(millions.to_string()).current_dir(root).stdout(Stdio::piped());
        let out = String::from_utf8(cost_of(command, &[0])?.stdout)?;
        let said: Vec<f64> = out.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [nodes, references, _, graph, dominators, sums, peak, ..] = said[..] else {
            anyhow::bail!("the example says {out:?}");
        };
        let wall = dominators + sums;
        each.push(wall / nodes * 1e9);
        last = (graph + wall, peak as u64);
        table.add_row([
            millions.to_string(),
            references.to_string(),
            format!("{graph:.2}"),
            format!("{dominators:.2}"),
            format!("{sums:.2}"),
            format!("{:.0}", wall / nodes * 1e9),
            mib(peak as u64),
        ]);
    }
    println!("\nsynthetic graphs\n{table}");
    let growth = each.last().unwrap_or(&0.0) / each.first().unwrap_or(&1.0);
    println!(
        "  the largest in {:.1} s, at most {SYNTHETIC_WALL} s: {}",
        last.0,
        verdict(last.0 <= SYNTHETIC_WALL)
    );
    println!("  own peak at most {} MiB: {}", SYNTHETIC_PEAK >> 20, verdict(last.1 <= SYNTHETIC_PEAK));
    println!(
        "  time a node grows {growth:.2} times, at most {SYNTHETIC_GROWTH}: {}",
        verdict(growth <= SYNTHETIC_GROWTH)
    );
    Ok(())
}
