//! Times and sizes as people type them.

use std::time::Duration;

/// `100`, `2.5`.
pub fn parse_millis(text: &str) -> Result<Duration, String> {
    let millis = text.trim_end_matches("ms").parse::<f64>();
    let time = millis.ok().and_then(|millis| Duration::try_from_secs_f64(millis / 1e3).ok());
    time.ok_or_else(|| "milliseconds were expected, e.g. 250".to_owned())
}

/// `500ms`, `10s`, `10`, `1m`, `2h`.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let number: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let seconds = match &text[number.len()..] {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit {unit}; ms, s, m and h are known")),
    };
    let time = number.parse::<f64>().ok().and_then(|n| Duration::try_from_secs_f64(n * seconds).ok());
    time.filter(|time| !time.is_zero()).ok_or_else(|| "a time was expected, e.g. 10s".to_owned())
}

/// `512M`, `8G`, `1.5GiB`, `1000000`, `0x1000`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).map_err(|_| "hexadecimal digits were expected".to_owned());
    }
    let number: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let factor = match text[number.len()..].to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b')
    {
        "" => 1u64,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        unit => return Err(format!("unknown unit {unit}; K, M, G and T are known")),
    };
    let bytes =
        number.parse::<f64>().map_err(|_| "a number was expected, e.g. 512M".to_owned())? * factor as f64;
    // `as` saturates.
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, bytes) in
            [("512M", 512 << 20), ("1.5GiB", 3 << 29), ("77", 77), ("2kb", 2048), ("0x20", 32)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert!(parse_size("12X").is_err() && parse_size("0xg").is_err() && parse_size("M").is_err());
        assert_eq!(parse_time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        assert!(parse_time("0").is_err() && parse_time("x").is_err() && parse_time("9e99h").is_err());
    }
}
