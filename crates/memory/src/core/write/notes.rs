//! The notes that the kernel writes, in its order: fs/binfmt_elf.c, write_note_info.
//!
//! What a capture does not know is left out (`NT_FPREGSET`; of a living process `NT_SIGINFO`), or zero where
//! a structure has a place for it (times, user).

use super::note_header;
use crate::core::headers::Machine;
use crate::core::notes::{PR_PID, PR_REG};
use crate::{Mapping, Target, Thread};
use object::elf;

/// Of the strings in `elf_prpsinfo`, with the NUL that ends them.
const NAME: usize = 16;
const ARGUMENTS: usize = 80;

pub(super) fn of(target: &Target, machine: &Machine) -> Vec<u8> {
    let process = &target.process;
    let is_main = |thread: &Thread| thread.tid == process.pid;
    let mut out = Vec::new();
    // Debuggers take the first thread for the one to look at: of a core the one with the signal.
    let signalled = target.threads.first().filter(|_| !process.siginfo.is_empty());
    let main = signalled.or(target.threads.iter().find(|t| is_main(t))).or(target.threads.first());
    if let Some(main) = main {
        note(&mut out, elf::NT_PRSTATUS, &status(target, main, machine));
    }
    note(&mut out, elf::NT_PRPSINFO, &process_info(target));
    if !process.siginfo.is_empty() {
        note(&mut out, elf::NT_SIGINFO, &process.siginfo);
    }
    if !process.auxv.is_empty() {
        note(&mut out, elf::NT_AUXV, &process.auxv);
    }
    note(&mut out, elf::NT_FILE, &mapped_files(target));
    if let Some(main) = main {
        thread_pointer(&mut out, main, machine);
    }
    for thread in target.threads.iter().filter(|t| main.is_none_or(|main| !std::ptr::eq(main, *t))) {
        note(&mut out, elf::NT_PRSTATUS, &status(target, thread, machine));
        thread_pointer(&mut out, thread, machine);
    }
    out
}

fn note(out: &mut Vec<u8>, kind: elf::NoteType, desc: &[u8]) {
    // Writing to memory fails only for a note of more than 4 GiB, which is then not there.
    if note_header(out, b"CORE", kind, desc.len()).is_ok() {
        out.extend_from_slice(desc);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

/// `struct elf_prstatus`.
fn status(target: &Target, thread: &Thread, machine: &Machine) -> Vec<u8> {
    let mut desc = vec![0; PR_REG];
    put(&mut desc, PR_PID, &thread.tid.to_le_bytes());
    put(&mut desc, PR_PID + 4, &target.process.ppid.unwrap_or(0).to_le_bytes());
    if let Some(number) = target.process.siginfo.first_chunk::<4>() {
        // pr_info.si_signo and, a short, pr_cursig: of every thread, as gdb takes that of the last one.
        put(&mut desc, 0, number);
        put(&mut desc, 12, &number[..2]);
    }
    let mut registers = thread.regs.clone();
    if registers.is_empty() {
        registers.resize(machine.registers, 0);
        registers[machine.sp] = thread.sp;
        registers[machine.ip] = thread.ip;
        if let Some(tls) = machine.tls {
            registers[tls] = thread.tls;
        }
    }
    registers.resize(machine.registers, 0);
    desc.extend(registers.iter().flat_map(|register| register.to_le_bytes()));
    // pr_fpvalid: no floating point registers follow. And four bytes of padding.
    desc.extend([0; 8]);
    desc
}

/// Architectures that have the thread pointer among the registers need no note for it.
fn thread_pointer(out: &mut Vec<u8>, thread: &Thread, machine: &Machine) {
    let size = size_of::<u64>();
    if machine.tls.is_none() && note_header(out, b"LINUX", elf::NT_ARM_TLS, size).is_ok() {
        out.extend(thread.tls.to_le_bytes());
    }
}

/// `struct elf_prpsinfo`. The state is that of a thread that is about to run, as in the kernel's cores.
fn process_info(target: &Target) -> Vec<u8> {
    let process = &target.process;
    let mut desc = vec![0; 40 + NAME + ARGUMENTS];
    desc[1] = b'R';
    put(&mut desc, 24, &process.pid.to_le_bytes());
    put(&mut desc, 28, &process.ppid.unwrap_or(0).to_le_bytes());
    let main = target.threads.iter().find(|t| t.tid == process.pid).map(|t| t.name.as_slice());
    let file = process.exe.rsplit(|&b| b == b'/').next().unwrap_or_default();
    let name = main.filter(|name| !name.is_empty()).unwrap_or(file);
    put(&mut desc, 40, &name[..name.len().min(NAME - 1)]);
    let mut arguments = Vec::new();
    for argument in &process.cmdline {
        if arguments.len() >= ARGUMENTS {
            break;
        }
        arguments.extend_from_slice(&argument[..argument.len().min(ARGUMENTS)]);
        arguments.push(b' ');
    }
    arguments.pop();
    arguments.truncate(ARGUMENTS - 1);
    put(&mut desc, 40 + NAME, &arguments);
    desc
}

/// `NT_FILE`: count, unit of offsets, `(start, end, offset)` each, then the names.
fn mapped_files(target: &Target) -> Vec<u8> {
    let page = target.page_size.max(1);
    let files: Vec<&Mapping> = target.mappings.iter().filter(|m| has_file(m)).collect();
    let mut desc = Vec::new();
    let mut word = |value: u64| desc.extend(value.to_le_bytes());
    word(files.len() as u64);
    word(page);
    for file in &files {
        [file.start, file.end, file.offset / page].into_iter().for_each(&mut word);
    }
    for file in files {
        desc.extend_from_slice(&file.name);
        if file.deleted {
            desc.extend_from_slice(b" (deleted)");
        }
        desc.push(0);
    }
    desc
}

/// The kernel's own names for what has no file are in brackets.
fn has_file(mapping: &Mapping) -> bool {
    mapping.name.first().is_some_and(|&b| b != b'[') && !mapping.name.contains(&0)
}

fn put(desc: &mut [u8], at: usize, bytes: &[u8]) {
    desc[at..at + bytes.len()].copy_from_slice(bytes);
}
