//! `cargo xtask pythons`: which interpreters tests run on.

use crate::debian::{SUITES, Suite};
use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use std::fs;
use std::process::Command;
use wmr_testing::{Interpreter, Kind};

/// What must be there when all is required: every supported version, and the distribution's
/// stripped build.
const SUPPORTED: &[&str] =
    &["2.7", "3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15", "3.11 stripped"];

/// Debug builds are covered where they can be had.
const WELCOME: &[&str] = &["3.11d", "3.13d", "3.14d"];

/// The versions that get a virtual environment, and what the workloads and the tools that they are
/// compared with want in it.
const VENVS: &[&str] = &["3.11", "3.13"];
const PACKAGES: &[&str] = &[
    "flask",
    "greenlet",
    "sqlalchemy",
    "numpy",
    "pandas",
    "guppy3",
    "pympler",
    "objgraph",
    "pyarrow",
    "lxml",
    "Pillow",
    "cython",
    "pybind11",
];

/// Finds or installs the interpreters, writes the index and prints it.
pub fn run(required: bool, update: bool) -> Result<Vec<Interpreter>> {
    let mut found = wmr_testing::discover();
    for suite in SUITES {
        match suite.install(update) {
            Ok(()) => found.extend(suite.programs.iter().filter_map(|program| of_suite(suite, program))),
            Err(why) => eprintln!("Debian {}: {why:#}", suite.name),
        }
    }
    // The machine's own stripped 3.11 covers what the unpacked one would.
    let own: Vec<String> = found.iter().filter(|p| p.kind == Kind::System).map(|p| p.tag.clone()).collect();
    found.retain(|python| python.kind != Kind::Debian || !own.contains(&python.tag));
    wmr_testing::sort(&mut found);
    let index = wmr_testing::index_path();
    if let Some(folder) = index.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&index, serde_json::to_string_pretty(&found)?)?;
    print(&found);
    for python in found.iter().filter(|p| VENVS.contains(&p.tag.as_str()) && p.kind == Kind::Pyenv) {
        if let Err(why) = venv(python, update) {
            eprintln!("no packages for {}: {why:#}", python.version);
        }
    }
    if let Some(python) = found.iter().find(|python| python.tag == "2.7")
        && let Err(why) = meliae(python, update)
    {
        eprintln!("no Meliae for {}: {why:#}", python.version);
    }
    println!("index: {}", index.display());
    let lacking = lacking(&found, SUPPORTED);
    if required && !lacking.is_empty() {
        bail!("required interpreters are lacking: {}", lacking.join(", "));
    }
    Ok(found)
}

fn of_suite(suite: &Suite, program: &str) -> Option<Interpreter> {
    let root = suite.root();
    let exe = root.join("usr/bin").join(program).canonicalize().ok()?;
    let (chroot, loader) = suite.launchers(program);
    let identify = |command: &Vec<String>| wmr_testing::identify(command.clone(), exe.clone(), Kind::Debian);
    let asked = if nix::unistd::Uid::effective().is_root() {
        identify(&chroot).map(|python| Interpreter { root: Some(root), loader, ..python })
    } else {
        identify(&loader).map(|python| Interpreter { loader, ..python })
    };
    asked.inspect_err(|why| eprintln!("Debian {} {program}: {why}", suite.name)).ok()
}

/// Prints what there is and what lacks.
pub fn print(found: &[Interpreter]) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["version", "tag", "kind", "program"]);
    for python in found {
        let kind = format!("{:?}", python.kind).to_lowercase();
        let exe = python.exe.display().to_string();
        table.add_row([python.version.clone(), python.tag.clone(), kind, exe]);
    }
    println!("{table}");
    let lacking = lacking(found, &[SUPPORTED, WELCOME].concat());
    println!("lacking: {}", if lacking.is_empty() { "none".to_owned() } else { lacking.join(", ") });
}

fn lacking(found: &[Interpreter], wanted: &[&'static str]) -> Vec<&'static str> {
    let stripped = |python: &Interpreter| matches!(python.kind, Kind::System | Kind::Debian);
    let there = |wanted: &str| match wanted.strip_suffix(" stripped") {
        Some(tag) => found.iter().any(|python| python.tag == tag && stripped(python)),
        None => found.iter().any(|python| python.tag == wanted),
    };
    wanted.iter().copied().filter(|wanted| !there(wanted)).collect()
}

/// Makes the virtual environment, unless that was done before.
fn venv(python: &Interpreter, update: bool) -> Result<()> {
    let folder = wmr_testing::venv_dir(&python.tag);
    let (done, wanted) = (folder.join(".packages"), format!("{} {}", python.version, PACKAGES.join(" ")));
    if !update && fs::read_to_string(&done).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    eprintln!("installing {} into {}", PACKAGES.join(", "), folder.display());
    finish(python.command().args(["-m", "venv", "--clear"]).arg(&folder))?;
    let pip = |packages: &[&str]| {
        let mut command = Command::new(folder.join("bin/python"));
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
        finish(&mut command)
    };
    // One package without a wheel for this version should not cost the others.
    if pip(PACKAGES).is_err() {
        for package in PACKAGES {
            pip(&[package])?;
        }
    }
    Ok(fs::write(done, wanted)?)
}

/// Installs Meliae, which reads what `wmr export` writes, in a folder of its own, unless that was done before.
fn meliae(python: &Interpreter, update: bool) -> Result<()> {
    let folder = wmr_testing::meliae_dir();
    if !update && folder.join("meliae").is_dir() {
        return Ok(());
    }
    eprintln!("installing meliae into {}", folder.display());
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"];
    finish(python.command().args(pip).arg(&folder).args(["meliae", "six"]))
}

fn finish(command: &mut Command) -> Result<()> {
    let out = command.output()?;
    if !out.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
