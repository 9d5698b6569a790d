//! `cargo xtask test`: everything that has to hold, and on which interpreters it was tried.

use crate::{bench, pythons};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Programs that tests start, and the Debian packages that bring them.
const TOOLS: &[(&str, &str)] = &[
    ("gcore", "gdb"),
    ("cc", "gcc"),
    ("c++", "g++"),
    ("prlimit", "util-linux"),
    ("dpkg", "dpkg"),
    ("zstd", "zstd"),
    ("swig", "swig"),
];

/// Libraries that tests load, and the Debian packages that bring them.
const LIBRARIES: &[(&str, &str)] = &[
    ("libgio-2.0.so.0", "libglib2.0-0"),
    ("libgdk_pixbuf-2.0.so.0", "libgdk-pixbuf-2.0-0"),
    ("libpangoft2-1.0.so.0", "libpangoft2-1.0-0"),
    ("libX11.so.6", "libx11-6"),
];

const FUZZ_SECONDS: u32 = 60;

pub fn run(required: bool) -> Result<()> {
    let required = required || std::env::var("CI").is_ok_and(|value| value == "true");
    tools();
    let mut suite = Suite::default();
    let found = match pythons::run(required, false) {
        Ok(found) => found,
        Err(why) => {
            suite.failed.push(format!("{why:#}"));
            wmr_testing::interpreters().to_vec()
        }
    };
    suite.step("formatting", cargo(&["fmt", "--all", "--check"]));
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    suite.step("clippy", cargo(&clippy));
    let nextest = works(cargo(&["nextest", "--version"]));
    if nextest {
        suite.step("tests", cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]));
        suite.step("documentation tests", cargo(&["test", "--workspace", "--doc", "--quiet"]));
    } else {
        suite.step("tests", cargo(&["test", "--workspace", "--no-fail-fast"]));
    }
    // What people run is optimised more than what the tests are: a compiler's mistake was seen there alone.
    match bench::build() {
        Ok(program) => {
            let run: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
            let mut command = cargo(run);
            command.args(["--package", "wheresmyram", "--no-fail-fast"]).env("WMR_PROGRAM", program);
            suite.step("the release build", command);
        }
        Err(why) => suite.failed.push(format!("the release build: {why:#}")),
    }
    fuzz(&mut suite);
    println!("\ninterpreters covered:");
    pythons::print(&found);
    println!();
    for (name, took) in &suite.passed {
        println!("passed  {name} ({} s)", took.as_secs());
    }
    for name in &suite.failed {
        println!("FAILED  {name}");
    }
    if !suite.failed.is_empty() {
        bail!("{} of {} steps failed", suite.failed.len(), suite.failed.len() + suite.passed.len());
    }
    Ok(())
}

#[derive(Default)]
struct Suite {
    passed: Vec<(String, Duration)>,
    failed: Vec<String>,
}

impl Suite {
    /// One step's failure does not hide what the next would say.
    fn step(&mut self, name: &str, mut command: Command) {
        println!("\n== {name}: {command:?}");
        let start = Instant::now();
        match command.status() {
            Ok(status) if status.success() => self.passed.push((name.to_owned(), start.elapsed())),
            Ok(status) => self.failed.push(format!("{name}: {status}")),
            Err(why) => self.failed.push(format!("{name}: {why}")),
        }
    }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

fn works(mut command: Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What a fresh machine lacks: installed where we may, else named.
fn tools() {
    for component in ["fmt", "clippy"] {
        if !works(cargo(&[component, "--version"])) {
            let component = if component == "fmt" { "rustfmt" } else { component };
            let mut rustup = Command::new("rustup");
            rustup.args(["component", "add", component]);
            println!("{component} is lacking: {rustup:?}");
            if !works(rustup) {
                println!("  it failed");
            }
        }
    }
    let on_path = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    let loaded = Command::new("ldconfig").arg("-p").output().map(|out| out.stdout).unwrap_or_default();
    let loaded = String::from_utf8_lossy(&loaded);
    let tools = TOOLS.iter().filter(|(program, _)| !on_path(program));
    let libraries = LIBRARIES.iter().filter(|(library, _)| !loaded.contains(library));
    let lacking: Vec<&str> = tools.chain(libraries).map(|needed| needed.1).collect();
    if lacking.is_empty() {
        return;
    }
    println!("installing {}", lacking.join(", "));
    let mut update = Command::new("apt-get");
    update.args(["-qq", "update"]);
    let mut install = Command::new("apt-get");
    install.args(["-qq", "install", "-y", "--no-install-recommends"]).args(&lacking);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    let root = nix::unistd::Uid::effective().is_root();
    if !root || !works(update) || !works(install) {
        println!("could not; tests that need them will fail. As root: apt-get install {}", lacking.join(" "));
    }
}

/// Each fuzz target for a minute, where the fuzzer and the nightly compiler it wants are there. Their
/// corpora are replayed by ordinary tests in any case.
fn fuzz(suite: &mut Suite) {
    let folder = root().join("fuzz");
    if !folder.join("Cargo.toml").is_file() {
        return;
    }
    let fuzz = |arguments: &[&str]| {
        // Not $CARGO: that is one toolchain's own, which knows no +nightly.
        let mut command = Command::new("cargo");
        command.args(["+nightly", "fuzz"]).args(arguments).current_dir(root()).env_remove("CARGO");
        command.env_remove("RUSTUP_TOOLCHAIN");
        command
    };
    let list = fuzz(&["list"]).output().ok().filter(|out| out.status.success());
    let Some(list) = list else {
        println!("\n== fuzzing: left out, cargo-fuzz or a nightly compiler is lacking");
        return;
    };
    for target in String::from_utf8_lossy(&list.stdout).lines() {
        // New inputs go to the first folder: the committed corpus grows by hand.
        let grown = wmr_testing::cache_dir().join("fuzz").join(target);
        if let Err(why) = std::fs::create_dir_all(&grown) {
            suite.failed.push(format!("{}: {why}", grown.display()));
            continue;
        }
        let mut command = fuzz(&["run", target]);
        command.arg(grown);
        command.args(Some(folder.join("corpus").join(target)).filter(|known| known.is_dir()));
        command.args(["--", &format!("-max_total_time={FUZZ_SECONDS}")]);
        suite.step(&format!("fuzz {target}"), command);
    }
}
