//! What of injecting a system call depends on the processor: x86-64.
//!
//! Words of `NT_PRSTATUS` are those of `user_regs_struct` (asm/user_64.h).

use super::Call;

const R10: usize = 7;
const R9: usize = 8;
const R8: usize = 9;
const RAX: usize = 10;
const RDX: usize = 12;
const RSI: usize = 13;
const RDI: usize = 14;
const ORIG_RAX: usize = 15;
const RIP: usize = 16;

/// Registers that hold the arguments, in order.
const ARGUMENTS: [usize; 6] = [RDI, RSI, RDX, R10, R8, R9];

/// The fewest words a register set has.
pub const WORDS: usize = 27;

/// `syscall`; may stand at any address.
pub const SYSCALL: &[u8] = &[0x0f, 0x05];
pub const SYSCALL_ALIGN: usize = 1;

/// include/linux/errno.h: the kernel repeats the call, unless it has a handler to run first; the
/// handler's program then sees `EINTR`.
const ERESTARTNOHAND: i64 = 514;

/// `registers`, poised at the system call instruction at `instruction`.
pub fn call(registers: &[u64], instruction: u64, number: i64, arguments: [u64; 6]) -> Vec<u64> {
    let mut words = registers.to_vec();
    words[RAX] = number as u64;
    // Not in a system call, so nothing is restarted on the way there.
    words[ORIG_RAX] = u64::MAX;
    words[RIP] = instruction;
    for (register, value) in ARGUMENTS.into_iter().zip(arguments) {
        words[register] = value;
    }
    words
}

/// Is a stopped thread in a system call?
pub fn in_call(registers: &[u64]) -> bool {
    registers[ORIG_RAX] as i64 >= 0
}

/// Where it goes on.
pub fn ip(registers: &[u64]) -> u64 {
    registers[RIP]
}

pub fn set_ip(registers: &mut [u64], ip: u64) {
    registers[RIP] = ip;
}

/// What a system call answered.
pub fn result(registers: &[u64]) -> i64 {
    registers[RAX] as i64
}

/// The call that a stop has made return `EINTR`.
pub fn interrupted(registers: &[u64]) -> Option<Call> {
    let number = registers[ORIG_RAX] as i64;
    let failed = result(registers) == -i64::from(libc::EINTR);
    (failed && number >= 0).then(|| Call { number, arguments: ARGUMENTS.map(|register| registers[register]) })
}

/// Has the kernel begin an interrupted call anew. It decides when the thread goes on: a signal that
/// has come meanwhile is handled first, and the call then returns `EINTR` after all. Nothing has to be
/// known of signals here, so none can come at the wrong moment.
pub fn restart(registers: &mut [u64]) {
    registers[RAX] = (-ERESTARTNOHAND) as u64;
}

/// Ends an interrupted call with this result instead.
pub fn finish(registers: &mut [u64], result: i64) {
    registers[RAX] = result as u64;
    registers[ORIG_RAX] = u64::MAX;
}

/// Changes an argument of the call that is restarted.
pub fn set_argument(registers: &mut [u64], index: usize, value: u64) {
    registers[ARGUMENTS[index]] = value;
}
