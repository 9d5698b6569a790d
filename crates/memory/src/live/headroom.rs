//! How much memory may be taken without pushing somebody out: the target above all.

use std::path::Path;

/// Nine tenths of what the system, and every memory cgroup (v2) around this program, has left.
///
/// A container often holds the target and this program alike: a copy above its limit would have the
/// target killed.
pub(super) fn available() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let system = field(&meminfo, "MemAvailable:").map(|kib| kib.saturating_mul(1024));
    let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::/"));
    let group = group.and_then(|path| in_groups(Path::new("/sys/fs/cgroup"), Path::new(path)));
    system.unwrap_or(u64::MAX).min(group.unwrap_or(u64::MAX)) / 10 * 9
}

/// The least that any group from `root/path` up to `root` has left; `None` without a limit.
fn in_groups(root: &Path, path: &Path) -> Option<u64> {
    // ".." stands there when the group lies outside our cgroup namespace.
    let path = if path.starts_with("..") { Path::new("") } else { path };
    path.ancestors().filter_map(|path| in_group(&root.join(path))).min()
}

fn in_group(folder: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    // "max" is no limit.
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let stat = read("memory.stat").unwrap_or_default();
    let cache = ["inactive_file ", "active_file "].iter().filter_map(|key| field(&stat, key)).sum::<u64>();
    Some(limit.saturating_sub(used.saturating_sub(cache)))
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
        group("a/b", "max\n", "5\n", "");
        assert_eq!(in_groups(root.path(), Path::new("a/b")), None);
        group("a", "1000\n", "900\n", "anon 1\nactive_file 30\ninactive_file 20\n");
        assert_eq!(in_groups(root.path(), Path::new("a/b")), Some(150));
        group("a/b", "100\n", "120\n", "");
        assert_eq!(in_groups(root.path(), Path::new("a/b")), Some(0));
        assert_eq!(in_groups(root.path(), Path::new("../x")), None);
    }

    #[test]
    fn this_machine_has_some() {
        assert!(available() > 1 << 20);
    }
}
