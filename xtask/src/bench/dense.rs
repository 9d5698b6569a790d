//! `cargo xtask bench dense`: what looking costs where objects are small and many. What is asked goes by the target's
//! size, and what is kept and done goes by the object: of the smallest there are thirty million in half a GiB.

use super::{MIB, build, cost_of, interpreter, load_average, mib, own_peak_limit, rss, verdict};
use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use serde_json::Value;
use std::process::{Command, Stdio};

/// The clone's life: ms per GiB of the target.
const CHILD_PER_GIB: f64 = 1000.0;

/// What `bench/probes/dense.py` makes, and how many with pymalloc and with malloc: some hundred MiB each.
const KINDS: &[(&str, [u32; 2])] = &[
    ("object", [30_000_000, 10_000_000]),
    ("float", [20_000_000, 10_000_000]),
    ("int", [20_000_000, 10_000_000]),
    ("str", [10_000_000, 6_000_000]),
    ("tuple", [8_000_000, 4_000_000]),
    ("list", [5_000_000, 4_000_000]),
    ("dict", [2_000_000, 1_500_000]),
    ("set", [2_000_000, 1_500_000]),
    ("record", [4_000_000, 3_000_000]),
    ("rows", [1_000_000, 500_000]),
];

pub fn run(runs: u32, tag: &str) -> Result<()> {
    let (wmr, python) = (build()?, interpreter(tag)?);
    let probe = wmr_testing::workload("").join("../probes/dense.py").canonicalize()?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "RSS MiB", "own peak MiB", "at most", "", "clone lives ms", "at most", ""]);
    let rows =
        KINDS.iter().flat_map(|(kind, [most, fewer])| [(kind, most, "pymalloc"), (kind, fewer, "malloc")]);
    for (kind, count, allocator) in rows {
        let target = python.spawn_file(&probe, |command| {
            command.args([kind, count.to_string().as_str()]).env("PYTHONMALLOC", allocator);
        })?;
        let rss = rss(&target)?;
        let (mut peak, mut child) = (0, f64::INFINITY);
        for _ in 0..runs.max(1) {
            let mut command = Command::new(&wmr);
            command.args(["heap", &target.pid().to_string(), "--json", "--max-pause", "10000"]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            let cost = cost_of(command, &[0])?;
            let document: Value = serde_json::from_slice(&cost.stdout).context("its JSON")?;
            let capture = &document["capture"];
            ensure!(capture["method"] == "clone", "captured by {}: {}", capture["method"], document["notes"]);
            peak = cost.peak.max(peak);
            child = capture["child_ms"].as_f64().context("no life of the clone")?.min(child);
        }
        let (most, longest) = (own_peak_limit(rss), CHILD_PER_GIB * rss as f64 / MIB / 1024.0);
        table.add_row([
            format!("{count} × {kind}, {allocator}"),
            mib(rss),
            mib(peak),
            mib(most),
            verdict(peak <= most).to_owned(),
            format!("{child:.0}"),
            format!("{longest:.0}"),
            verdict(child <= longest).to_owned(),
        ]);
    }
    println!("\n{}, the best of {runs}, load average now {}\n{table}", python.version, load_average());
    Ok(())
}
