//! How much memory may be taken without pushing somebody out: the target above all.

use std::fs;
use std::path::{Path, PathBuf};

/// A clone of so much private memory is given up when its target's memory cgroup has less than this left, bytes. To
/// free its memory takes 30 ms a GiB, in which a target that touches all of its own dirties 36 MB more.
pub(super) fn last_reserve(private: u64) -> u64 {
    (24 << 20) + private / 28
}

/// Nine tenths of what the system, and every memory cgroup around this program, has left.
///
/// A container often holds the target and this program alike: a copy above its limit would have the
/// target killed.
pub(super) fn available() -> u64 {
    let group = Groups::of("/proc/self/cgroup").available();
    system().unwrap_or(u64::MAX).min(group.unwrap_or(u64::MAX)) / 10 * 9
}

/// What the system has left.
pub(super) fn system() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    field(&meminfo, "MemAvailable:").map(|kib| kib.saturating_mul(1024))
}

/// The memory cgroups with a limit that a process is in, from its own outward.
#[derive(Debug, Default)]
pub(super) struct Groups {
    folders: Vec<(PathBuf, &'static Version)>,
}

#[derive(Debug)]
struct Version {
    limit: &'static str,
    /// Above it nobody is killed, but all in the group are put to sleep again and again.
    throttle: Option<&'static str>,
    used: &'static str,
    /// Lines of memory.stat: cache that is dropped before anybody is killed.
    cache: [&'static str; 2],
}

const V1: Version = Version {
    limit: "memory.limit_in_bytes",
    throttle: None,
    used: "memory.usage_in_bytes",
    cache: ["total_inactive_file ", "total_active_file "],
};
const V2: Version = Version {
    limit: "memory.max",
    throttle: Some("memory.high"),
    used: "memory.current",
    cache: ["inactive_file ", "active_file "],
};

/// Version 1 writes no limit as the largest multiple of a page.
const NO_LIMIT: u64 = 1 << 60;

impl Groups {
    /// Of the process whose cgroup file this is.
    pub fn of(file: impl AsRef<Path>) -> Self {
        Self::parse(&fs::read_to_string(file).unwrap_or_default(), Path::new("/sys/fs/cgroup"))
    }

    pub fn parse(text: &str, root: &Path) -> Self {
        let mut groups = Groups::default();
        for line in text.lines() {
            // hierarchy:controllers:path
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next(), parts.next(), parts.next());
            let path = path.unwrap_or_default().trim_start_matches('/');
            // ".." stands there when the group lies outside our cgroup namespace.
            let path = Path::new(if path.starts_with("..") { "" } else { path });
            match controllers {
                Some("") => groups.add(root, path, &V2),
                Some(names) if names.split(',').any(|name| name == "memory") => {
                    groups.add(&root.join("memory"), path, &V1);
                }
                _ => {}
            }
        }
        groups
    }

    fn add(&mut self, root: &Path, path: &Path, version: &'static Version) {
        let folders = path.ancestors().map(|path| (root.join(path), version));
        self.folders.extend(folders.filter(|(folder, version)| version.ceiling(folder).is_some()));
    }

    /// Is there any limit?
    pub fn limited(&self) -> bool {
        !self.folders.is_empty()
    }

    /// The tightest limit, bytes.
    pub fn limit(&self) -> Option<u64> {
        self.folders.iter().filter_map(|(folder, version)| version.limit(folder)).min()
    }

    /// The least that any of them has left; `None` without a limit.
    pub fn available(&self) -> Option<u64> {
        self.folders.iter().filter_map(|(folder, version)| version.available(folder)).min()
    }
}

impl Version {
    fn limit(&self, folder: &Path) -> Option<u64> {
        figure(&folder.join(self.limit))
    }

    /// What is used without harm to anybody.
    fn ceiling(&self, folder: &Path) -> Option<u64> {
        let throttle = self.throttle.and_then(|name| figure(&folder.join(name)));
        self.limit(folder).into_iter().chain(throttle).min()
    }

    fn available(&self, folder: &Path) -> Option<u64> {
        let ceiling = self.ceiling(folder)?;
        let used = figure(&folder.join(self.used))?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cache = self.cache.iter().filter_map(|key| field(&stat, key)).sum::<u64>();
        Some(ceiling.saturating_sub(used.saturating_sub(cache)))
    }
}

/// The number that a file consists of; "max" is no limit.
fn figure(file: &Path) -> Option<u64> {
    let figure = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (figure < NO_LIMIT).then_some(figure)
}

/// The number behind `key` at the start of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_decides() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, max: &str, current: &str, stat: &str| {
            let folder = root.path().join(path);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("memory.max"), max).unwrap();
            std::fs::write(folder.join("memory.current"), current).unwrap();
            std::fs::write(folder.join("memory.stat"), stat).unwrap();
        };
        let left = |line: &str| Groups::parse(line, root.path()).available();
        group("a/b", "max\n", "5\n", "");
        assert_eq!(left("0::/a/b"), None);
        group("a", "1000\n", "900\n", "anon 1\nactive_file 30\ninactive_file 20\n");
        assert_eq!(left("0::/a/b\n"), Some(150));
        group("a/b", "100\n", "120\n", "");
        assert_eq!(left("1:name=systemd:/\n0::/a/b\n"), Some(0));
        assert_eq!(left("0::/../x"), None);
    }

    #[test]
    fn being_slowed_down_counts_like_a_limit_and_is_none() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
        write("memory.current", "70\n");
        write("memory.max", "max\n");
        write("memory.high", "max\n");
        let groups = || Groups::parse("0::/\n", root.path());
        assert!(!groups().limited());
        write("memory.high", "100\n");
        assert!(groups().limited());
        assert_eq!((groups().available(), groups().limit()), (Some(30), None));
        write("memory.max", "90\n");
        assert_eq!((groups().available(), groups().limit()), (Some(20), Some(90)));
    }

    #[test]
    fn the_older_hierarchy() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("memory/x");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("memory.usage_in_bytes"), "70\n").unwrap();
        std::fs::write(folder.join("memory.stat"), "total_inactive_file 20\n").unwrap();
        let groups = || Groups::parse("4:memory:/x\n0::/\n", root.path());
        std::fs::write(folder.join("memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert!(!groups().limited());
        std::fs::write(folder.join("memory.limit_in_bytes"), "100\n").unwrap();
        assert_eq!(groups().available(), Some(50));
    }

    #[test]
    fn this_machine_has_some() {
        assert!(available() > 1 << 20);
    }
}
