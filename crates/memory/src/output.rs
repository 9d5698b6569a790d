//! Files that are there whole or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file without its name until [`finish`](Output::finish): whatever ends this program before, nothing is
/// left of it. Only its owner may read it, as it holds what a process holds.
pub struct Output {
    file: Unnamed,
    path: PathBuf,
    replace: bool,
}

enum Unnamed {
    /// `O_TMPFILE`: it has no name anywhere, so that even SIGKILL leaves nothing.
    Nameless(File),
    /// Where the file system knows nothing of that.
    Temporary(NamedTempFile),
}

impl Output {
    /// To be named `path`; with `replace` also when there is such a file. What is no file stays: root could take
    /// `/dev/null` from everybody.
    ///
    /// # Errors
    /// `AlreadyExists`; `Unsupported` when what is there is no file; or what the system says of the folder.
    pub fn create(path: &Path, replace: bool) -> io::Result<Output> {
        let there = std::fs::symlink_metadata(path).ok();
        if there.as_ref().is_some_and(|found| found.is_dir()) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if there.is_some() && !replace {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        is_replaceable(path)?;
        let folder = folder(path);
        let nameless =
            OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(folder);
        let file = match nameless {
            Ok(file) => Unnamed::Nameless(file),
            Err(error) => match error.raw_os_error() {
                // open(2): what old kernels and file systems without it answer.
                Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL) => {
                    let made = tempfile::Builder::new().prefix(".wmr-").tempfile_in(folder);
                    // Its message has a name that nobody gave it.
                    Unnamed::Temporary(made.map_err(|error| error.kind())?)
                }
                _ => return Err(error),
            },
        };
        Ok(Output { file, path: path.to_owned(), replace })
    }

    pub fn file(&self) -> &File {
        match &self.file {
            Unnamed::Nameless(file) => file,
            Unnamed::Temporary(file) => file.as_file(),
        }
    }

    /// Brings it to the disk and gives it its name.
    ///
    /// # Errors
    /// `AlreadyExists` when somebody else has made such a file meanwhile; what the system says otherwise.
    pub fn finish(self) -> io::Result<()> {
        // Some systems find out only now that there is no room.
        self.file().sync_data()?;
        is_replaceable(&self.path)?;
        match self.file {
            Unnamed::Nameless(file) => name(&file, &self.path, self.replace),
            Unnamed::Temporary(file) if self.replace => {
                file.persist(&self.path).map(drop).map_err(Into::into)
            }
            Unnamed::Temporary(file) => file.persist_noclobber(&self.path).map(drop).map_err(Into::into),
        }
    }
}

/// Is there nothing, a file, or a link to whatever, which is replaced and not followed?
fn is_replaceable(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() && !found.is_symlink() => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(()),
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn name(file: &File, path: &Path, replace: bool) -> io::Result<()> {
    match link(file, path) {
        Err(error) if replace && error.kind() == io::ErrorKind::AlreadyExists => {
            // A link cannot take another's place, a rename can.
            let mut temporary = OsString::from(format!(".wmr-{}-", std::process::id()));
            temporary.push(path.file_name().unwrap_or(OsStr::new("file")));
            let temporary = folder(path).join(temporary);
            link(file, &temporary)?;
            std::fs::rename(&temporary, path).inspect_err(|_| drop(std::fs::remove_file(&temporary)))
        }
        result => result,
    }
}

fn link(file: &File, path: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, AtFlags};
    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    nix::unistd::linkat(AT_FDCWD, descriptor.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_there_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let count = || std::fs::read_dir(folder.path()).unwrap().count();

        let output = Output::create(&path, false).unwrap();
        output.file().write_all(b"abc").unwrap();
        assert_eq!(count(), 0, "no name before it is finished");
        output.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let refused = Output::create(&path, false).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        let output = Output::create(&path, true).unwrap();
        output.file().write_all(b"d").unwrap();
        output.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"d");
        drop(Output::create(&path, true).unwrap());
        assert_eq!(count(), 1, "nothing is left of one that was given up");
    }

    #[test]
    fn what_is_no_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(Output::create(&path, true).err().unwrap().kind(), io::ErrorKind::Unsupported);
        let late = folder.path().join("late");
        let output = Output::create(&late, true).unwrap();
        std::fs::rename(&path, &late).unwrap();
        assert_eq!(output.finish().unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert!(!late.symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn one_made_meanwhile_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let output = Output::create(&path, false).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        assert_eq!(output.finish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
    }
}
