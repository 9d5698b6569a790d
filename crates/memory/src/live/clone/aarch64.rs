//! What of injecting a system call depends on the processor: aarch64. Compiles; has not been run.
//!
//! Words of `NT_PRSTATUS` are those of `user_pt_regs` (asm/ptrace.h): x0–x30, sp, pc, pstate.

use super::Call;

const X0: usize = 0;
const X8: usize = 8;
const PC: usize = 32;

pub const WORDS: usize = 34;

/// `svc #0`.
pub const SYSCALL: &[u8] = &[0x01, 0x00, 0x00, 0xd4];
pub const SYSCALL_ALIGN: usize = 4;

/// `registers`, poised at the system call instruction at `instruction`.
///
/// Where a stop interrupted a call, the kernel has set its number aside before the stop is reported
/// (`do_signal` in arch/arm64/kernel/signal.c), so nothing is restarted on the way there.
pub fn call(registers: &[u64], instruction: u64, number: i64, arguments: [u64; 6]) -> Vec<u64> {
    let mut words = registers.to_vec();
    words[X8] = number as u64;
    words[PC] = instruction;
    words[X0..X0 + 6].copy_from_slice(&arguments);
    words
}

/// Never for sure: the number of a call is in no register of the set.
pub fn in_call(_registers: &[u64]) -> bool {
    false
}

pub fn ip(registers: &[u64]) -> u64 {
    registers[PC]
}

pub fn set_ip(registers: &mut [u64], ip: u64) {
    registers[PC] = ip;
}

pub fn result(registers: &[u64]) -> i64 {
    registers[X0] as i64
}

/// Never: the first argument is gone by now, and the kernel has settled already whether the call is
/// restarted. Such calls return `EINTR`, as after any stop (signal(7)).
pub fn interrupted(_registers: &[u64]) -> Option<Call> {
    None
}

pub fn restart(_registers: &mut [u64]) {}

pub fn finish(_registers: &mut [u64], _result: i64) {}

pub fn set_argument(_registers: &mut [u64], _index: usize, _value: u64) {}
