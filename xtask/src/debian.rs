//! Interpreters out of Debian packages, unpacked beside the system instead of installed into it.
//!
//! Only packages are fetched, through the machine's own apt and its mirror, with lists of their own:
//! nothing of the system's state changes.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The packages wanted of one suite, and the programs they bring.
pub struct Suite {
    pub name: &'static str,
    /// Programs under `/usr/bin`.
    pub programs: &'static [&'static str],
    packages: &'static [&'static str],
}

/// Names common to every suite below: what the interpreters' extension modules link to.
const LIBRARIES: &[&str] = &[
    "libbz2-1.0",
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libncursesw6",
    "libsqlite3-0",
    "libtinfo6",
    "libuuid1",
    "libzstd1",
    "zlib1g",
];

/// bookworm: the stripped 3.11 and its debug build; trixie: a 3.13 debug build; sid: what pyenv may
/// not have yet. The `-dbg` packages carry both the debug build and the DWARF of the stripped one.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "bookworm",
        programs: &["python3.11", "python3.11d"],
        packages: &[
            "libcrypt1",
            "libdb5.3",
            "libnsl2",
            "libreadline8",
            "libssl3",
            "libtirpc3",
            "python3.11",
            "python3.11-minimal",
            "libpython3.11-minimal",
            "libpython3.11-stdlib",
            "python3.11-dbg",
            "libpython3.11-dbg",
        ],
    },
    Suite {
        name: "trixie",
        programs: &["python3.13d"],
        packages: &[
            "libdb5.3t64",
            "libreadline8t64",
            "libssl3t64",
            "python3.13",
            "python3.13-minimal",
            "libpython3.13-minimal",
            "libpython3.13-stdlib",
            "python3.13-dbg",
            "libpython3.13-dbg",
        ],
    },
    Suite {
        name: "sid",
        programs: &["python3.14", "python3.14d", "python3.15"],
        packages: &[
            "libdb5.3t64",
            "libreadline8t64",
            "libssl3t64",
            "python3.14",
            "python3.14-minimal",
            "libpython3.14-minimal",
            "libpython3.14-stdlib",
            "python3.14-dbg",
            "libpython3.14-dbg",
            "python3.15",
            "python3.15-minimal",
            "libpython3.15-minimal",
            "libpython3.15-stdlib",
            "python3.15-dbg",
            "libpython3.15-dbg",
        ],
    },
];

impl Suite {
    /// The folder that is `/` to this suite's interpreters.
    pub fn root(&self) -> PathBuf {
        wmr_testing::cache_dir().join("roots").join(self.name)
    }

    /// Downloads and unpacks, unless that was done before.
    pub fn install(&self, update: bool) -> Result<()> {
        let (root, packages) = (self.root(), [LIBRARIES, self.packages].concat());
        let (done, wanted) = (root.join(".packages"), packages.join("\n"));
        if !update && fs::read_to_string(&done).is_ok_and(|text| text == wanted) {
            return Ok(());
        }
        eprintln!("fetching {} packages of Debian {} into {}", packages.len(), self.name, root.display());
        let debs = self.download(&packages)?;
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&root)?;
        for deb in fs::read_dir(&debs)? {
            run(Command::new("dpkg").arg("-x").arg(deb?.path()).arg(&root))?;
        }
        complete(&root)?;
        fs::remove_dir_all(&debs)?;
        Ok(fs::write(done, wanted)?)
    }

    /// A folder with exactly the packages asked for.
    fn download(&self, packages: &[&str]) -> Result<PathBuf> {
        let apt = wmr_testing::cache_dir().join("apt").join(self.name);
        let debs = apt.join("debs");
        if debs.exists() {
            fs::remove_dir_all(&debs)?;
        }
        for folder in [&debs, &apt.join("lists/partial"), &apt.join("archives/partial")] {
            fs::create_dir_all(folder)?;
        }
        let sources = apt.join("sources.list");
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        fs::write(&sources, format!("deb [signed-by={keyring}] {} {} main\n", mirror()?, self.name))?;
        let apt_get = || {
            let mut command = Command::new("apt-get");
            let option = |name: &str, value: &Path| format!("-o{name}={}", value.display());
            command.current_dir(&debs).args(["-qq", "-oAPT::Sandbox::User=root"]);
            command.args(["-oDir::Cache::pkgcache=", "-oDir::Cache::srcpkgcache="]);
            command.arg(option("Dir::Etc::SourceList", &sources));
            command.arg(option("Dir::Etc::SourceParts", Path::new("/dev/null")));
            command.arg(option("Dir::State::Lists", &apt.join("lists")));
            command.arg(option("Dir::Cache::Archives", &apt.join("archives")));
            // Otherwise apt prefers the version that the machine has installed.
            command.args(["-t", self.name]);
            command
        };
        run(apt_get().arg("update"))?;
        if run(apt_get().arg("download").args(packages)).is_err() {
            // One name that the suite no longer has spoils the whole list.
            for package in packages {
                if let Err(why) = run(apt_get().arg("download").arg(package)) {
                    eprintln!("  without {package}: {why:#}");
                }
            }
        }
        Ok(debs)
    }

    /// How to start a program: `chroot` needs root and gives a natural `/proc/PID/exe`; the suite's
    /// own `ld.so` needs nothing.
    pub fn launchers(&self, program: &str) -> (Vec<String>, Vec<String>) {
        let root = self.root();
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let chroot = ["chroot", &text(root.clone()), &format!("/usr/bin/{program}")].map(str::to_owned);
        let arch = std::env::consts::ARCH;
        let loader = if arch == "aarch64" { "ld-linux-aarch64.so.1" } else { "ld-linux-x86-64.so.2" };
        let libraries = root.join(format!("usr/lib/{arch}-linux-gnu"));
        let mut start = root.join("lib").join(loader);
        if !start.is_file() {
            start = root.join("lib64").join(loader);
        }
        let exe = root.join("usr/bin").join(program);
        (chroot.to_vec(), vec![text(start), "--library-path".into(), text(libraries), text(exe)])
    }
}

/// What `dpkg -x` alone does not make: the links of a merged `/usr`, and a `/dev/null`.
fn complete(root: &Path) -> Result<()> {
    for name in ["lib", "lib64", "bin"] {
        let (link, inside) = (root.join(name), root.join("usr").join(name));
        fs::create_dir_all(&inside)?;
        // bookworm's libc6 still ships a real /lib beside its /usr/lib.
        if link.is_dir() && !link.is_symlink() {
            run(Command::new("cp").arg("-a").arg(link.join(".")).arg(&inside))?;
            fs::remove_dir_all(&link)?;
        }
        if !link.exists() {
            std::os::unix::fs::symlink(format!("usr/{name}"), &link)?;
        }
    }
    for name in ["proc", "tmp", "dev"] {
        fs::create_dir_all(root.join(name))?;
    }
    Ok(fs::write(root.join("dev/null"), "")?)
}

/// The mirror this machine uses for Debian itself.
fn mirror() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.flatten().map(|part| part.path()));
    }
    let texts: Vec<String> = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    let mut words = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
        .flat_map(str::split_whitespace);
    let found = words.find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"));
    found.map(str::to_owned).context("no mirror of Debian is among this machine's sources of packages")
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().with_context(|| name.clone())?;
    if !out.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
