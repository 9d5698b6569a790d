//! Small C programs and extension modules.

use crate::{Interpreter, TempFile};
use std::io;
use std::path::Path;
use std::process::Command;

/// Compiles one C source text with `cc -g` and further flags.
///
/// # Errors
/// No compiler, or it refuses; what it said is in the error.
pub fn compile_c(source: &str, flags: &[&str]) -> io::Result<TempFile> {
    let folder = tempfile::tempdir()?;
    let (input, output) = (folder.path().join("program.c"), folder.path().join("program"));
    std::fs::write(&input, source)?;
    run(Command::new("cc").arg("-g").arg(&input).arg("-o").arg(&output).args(flags))?;
    Ok(TempFile::new(folder, output))
}

/// Compiles one C++ source text with `c++ -g` and further flags.
///
/// # Errors
/// As [`compile_c`].
pub fn compile_cpp(source: &str, flags: &[&str]) -> io::Result<TempFile> {
    let folder = tempfile::tempdir()?;
    let (input, output) = (folder.path().join("program.cpp"), folder.path().join("program"));
    std::fs::write(&input, source)?;
    run(Command::new("c++").arg("-g").arg(&input).arg("-o").arg(&output).args(flags))?;
    Ok(TempFile::new(folder, output))
}

/// Compiles a C or C++ file to an extension module for that interpreter; put its folder on `PYTHONPATH`.
///
/// # Errors
/// No compiler or no headers, or the compiler refuses; what it said is in the error.
pub fn build_extension(python: &Interpreter, source: &Path) -> io::Result<TempFile> {
    let name = source.file_stem().ok_or_else(|| io::Error::other("an extension needs a name"))?;
    let include = python.output("import sysconfig; print(sysconfig.get_paths()['include'])")?;
    let folder = tempfile::tempdir()?;
    let output = folder.path().join(name).with_extension("so");
    let is_cpp = source.extension().is_some_and(|extension| extension == "cpp");
    let mut compiler = Command::new(if is_cpp { "c++" } else { "cc" });
    compiler.args(["-g", "-O1", "-fPIC", "-shared", "-I", include.trim()]).arg(source).arg("-o").arg(&output);
    run(&mut compiler)?;
    Ok(TempFile::new(folder, output))
}

/// Compiles a C++ file to an extension module for that interpreter, as [`build_extension`]; `flags` may name
/// more folders of headers.
///
/// # Errors
/// As [`build_extension`].
pub fn build_cpp_extension(
    python: &Interpreter,
    source: &Path,
    name: &str,
    flags: &[&str],
) -> io::Result<()> {
    let folder = source.parent().ok_or_else(|| io::Error::other("a source is in a folder"))?;
    let include = python.output("import sysconfig; print(sysconfig.get_paths()['include'])")?;
    let mut compiler = Command::new("c++");
    compiler.args(["-g1", "-O0", "-fPIC", "-shared", "-std=c++17", "-I", include.trim()]).args(flags);
    compiler.arg(source).arg("-o").arg(folder.join(name).with_extension("so"));
    run(&mut compiler)
}

fn run(compiler: &mut Command) -> io::Result<()> {
    let out = compiler.output().map_err(|e| io::Error::other(format!("cc (package gcc): {e}")))?;
    if !out.status.success() {
        return Err(io::Error::other(format!("{compiler:?}: {}", String::from_utf8_lossy(&out.stderr))));
    }
    Ok(())
}
