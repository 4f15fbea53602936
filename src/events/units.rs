//! Numbers as people read them: bytes, counts, rates, durations.

/// `3.9 GiB`, `412 MiB`, `96 B`: three significant digits at most.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            return if value < 10.0 && unit != "B" {
                format!("{value:.1} {unit}")
            } else {
                format!("{value:.0} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `1,112,576`.
pub fn count(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `950`, `8.1k`, `1.2M`.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => format!("{value}"),
        v if v < 999.5 => format!("{value:.0}"),
        v if v < 9_950.0 => format!("{:.1}k", value / 1e3),
        v if v < 999_500.0 => format!("{:.0}k", value / 1e3),
        v if v < 9_950_000.0 => format!("{:.1}M", value / 1e6),
        v if v < 999_500_000.0 => format!("{:.0}M", value / 1e6),
        _ => format!("{:.1}G", value / 1e9),
    }
}

/// `00:07:46`.
pub fn clock(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.max(0.0) as u64 } else { 0 };
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `2.0e-4`, as learning rates are written.
pub fn rate(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(bytes(96), "96 B");
        assert_eq!(bytes(4_404_019), "4.2 MiB");
        assert_eq!(bytes(432_013_312), "412 MiB");
        assert_eq!(bytes(4_187_593_113), "3.9 GiB");
        assert_eq!(bytes(1023), "1.0 KiB");
        assert_eq!(count(7), "7");
        assert_eq!(count(1_112_576), "1,112,576");
        assert_eq!(short(8123.0), "8.1k");
        assert_eq!(short(999.7), "1.0k");
        assert_eq!(short(f64::NAN), "NaN");
        assert_eq!(clock(466.9), "00:07:46");
        assert_eq!(clock(f64::INFINITY), "00:00:00");
        assert_eq!(rate(2e-4), "2.0e-4");
    }
}
