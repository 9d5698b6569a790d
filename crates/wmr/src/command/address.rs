//! Addresses as people type them.

use crate::document::hex;
use crate::failure::{Failure, code};
use crate::text;
use wmr_memory::Target;

/// `0x7f2a…`, `7f2a…` with a letter in it, or decimal.
pub fn parse(word: &str) -> Result<u64, Failure> {
    let plain = word.trim();
    let prefixed = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X"));
    let parsed = match prefixed {
        Some(digits) => u64::from_str_radix(digits, 16),
        None if plain.bytes().any(|b| b.is_ascii_alphabetic()) => u64::from_str_radix(plain, 16),
        None => plain.parse(),
    };
    // `from_str_radix` takes a sign.
    let parsed = parsed.ok().filter(|_| !plain.contains(['+', '-']));
    parsed.ok_or_else(|| {
        let shown = text::shown(word);
        Failure::new(code::USAGE, format!("{shown} is no address of up to 64 bits"))
            .advise("an address is written 0x7f2a10c0, or in decimal")
    })
}

/// Fails with the neighbours of an address that is in no mapping.
pub fn mapped(target: &Target, addr: u64) -> Result<(), Failure> {
    if target.mapping(addr).is_some() {
        return Ok(());
    }
    let failure = Failure::new(code::FAILED, format!("{} is not mapped", hex(addr)));
    // From here on up addresses are the kernel's (x86-64, five levels of page tables too).
    if addr >= 1 << 56 {
        return Err(failure.advise("addresses that high are the kernel's, or no addresses at all"));
    }
    let after = target.mappings.partition_point(|m| m.end <= addr);
    let name = |i: usize| {
        let mapping = &target.mappings[i];
        let range = format!("{:#x}-{:#x}", mapping.start, mapping.end);
        format!("{range} {}", text::shown_bytes(&mapping.name)).trim_end().to_owned()
    };
    let mut failure = failure;
    if let Some(before) = after.checked_sub(1) {
        failure = failure.advise(format!("the mapping before it: {}", name(before)));
    }
    if after < target.mappings.len() {
        failure = failure.advise(format!("the mapping after it: {}", name(after)));
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_and_decimal() {
        assert_eq!(parse("0x10").ok(), Some(16));
        assert_eq!(parse("0XfF").ok(), Some(255));
        assert_eq!(parse("7fa0").ok(), Some(0x7fa0));
        assert_eq!(parse("16").ok(), Some(16));
        assert_eq!(parse("0xffffffffffffffff").ok(), Some(u64::MAX));
        for bad in ["", "0x", "-1", "+1", "0x-1", "0x10000000000000000", "99999999999999999999", "1.5", "xyz"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
