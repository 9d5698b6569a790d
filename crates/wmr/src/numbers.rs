//! Numbers for people: grouped, scaled, drawn.

/// `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// One unit for all numbers of a table, so that they can be compared by eye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    pub name: &'static str,
    bytes: u64,
    decimals: usize,
}

impl Unit {
    /// Suits numbers that add up to `total`.
    pub fn for_total(total: u64) -> Unit {
        const MIB: u64 = 1 << 20;
        match total {
            t if t >= 100 << 30 => Unit { name: "GiB", bytes: 1 << 30, decimals: 2 },
            t if t >= 100 * MIB => Unit { name: "MiB", bytes: MIB, decimals: 1 },
            _ => Unit { name: "MiB", bytes: MIB, decimals: 2 },
        }
    }

    /// Without the unit's name: `1,234.5`.
    pub fn number(self, bytes: u64) -> String {
        let scaled = format!("{:.*}", self.decimals, bytes as f64 / self.bytes as f64);
        match scaled.split_once('.') {
            Some((whole, rest)) => format!("{}.{rest}", grouped(whole.parse().unwrap_or(0))),
            None => scaled,
        }
    }
}

/// A lone figure in the unit that suits it: `57 B`, `3.4 KiB`, `245.1 MiB`.
pub fn scaled(bytes: u64) -> String {
    let (unit, name) = match bytes {
        b if b >= 1 << 40 => (1u64 << 40, "TiB"),
        b if b >= 10 << 30 => (1 << 30, "GiB"),
        b if b >= 1 << 20 => (1 << 20, "MiB"),
        b if b >= 1 << 10 => (1 << 10, "KiB"),
        b => return format!("{b} B"),
    };
    let number = format!("{:.1}", bytes as f64 / unit as f64);
    let (whole, tenth) = number.split_once('.').unwrap_or((&number, "0"));
    format!("{}.{tenth} {name}", grouped(whole.parse().unwrap_or(0)))
}

/// Share in percent with one decimal; empty for nothing of nothing.
pub fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => String::new(),
        // More than what is in RAM: memory that was never touched.
        _ if part > whole => ">100".to_owned(),
        _ => format!("{:.1}", share(part, whole)),
    }
}

pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// A bar of at most `width` columns, in eighths of a column where the terminal can show them.
pub fn bar(part: u64, whole: u64, width: usize, unicode: bool) -> String {
    let fraction = if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) };
    if !unicode {
        return "#".repeat((fraction * width as f64).round() as usize);
    }
    let mut eighths = (fraction * width as f64 * 8.0).round() as usize;
    if part > 0 {
        // Something is not nothing.
        eighths = eighths.max(1);
    }
    let mut bar = "█".repeat(eighths / 8);
    bar.push_str(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]);
    bar
}

/// `1 arena`, `2 arenas`, `2 processes`, `2 branches`.
pub fn counted(n: u64, noun: &str) -> String {
    let plural = match n {
        1 => "",
        _ if noun.ends_with('s') || noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{} {noun}{plural}", grouped(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(scaled(57), "57 B");
        assert_eq!(scaled(5 << 30), "5,120.0 MiB");
        assert_eq!(Unit::for_total(5 << 30).number(1234 << 20), "1,234.0");
        assert_eq!(percent(1, 3), "33.3");
        assert_eq!(percent(4, 3), ">100");
    }

    #[test]
    fn bars() {
        assert_eq!(bar(1, 1, 4, true), "████");
        assert_eq!(bar(5, 16, 4, true), "█▎");
        assert_eq!(bar(1, 1_000_000, 4, true), "▏");
        assert_eq!(bar(0, 10, 4, true), "");
        assert_eq!(bar(1, 2, 4, false), "##");
    }
}
