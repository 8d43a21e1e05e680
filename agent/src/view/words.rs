//! Figures and times as people read them.

/// How long ago `at` was: `12 minutes ago`.
pub(crate) fn ago(now: u64, at: u64) -> String {
    match now.saturating_sub(at) {
        0..5 => "just now".to_owned(),
        secs => format!("{} ago", span(secs)),
    }
}

/// A stretch of time in its largest unit: `12 minutes`.
pub(crate) fn span(secs: u64) -> String {
    let (count, unit) = match secs {
        0..120 => (secs, "second"),
        120..7_200 => (secs / 60, "minute"),
        7_200..172_800 => (secs / 3_600, "hour"),
        _ => (secs / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// Bytes in the largest unit that leaves a figure of at least 1: `3.1 GB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    for (unit, name) in units {
        if bytes >= unit {
            let tenths = bytes / (unit / 10);
            return match tenths {
                0..100 => format!("{}.{} {name}", tenths / 10, tenths % 10),
                _ => format!("{} {name}", tenths / 10),
            };
        }
    }
    format!("{bytes} B")
}

/// The first twelve digits of a release's id, which tell it from any other.
pub(crate) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_in_their_largest_unit() {
        assert_eq!(ago(100, 98), "just now");
        assert_eq!(ago(100, 200), "just now", "a clock was set back");
        assert_eq!(ago(1_000, 280), "12 minutes ago");
        assert_eq!(span(1), "1 second");
        assert_eq!(span(7_200), "2 hours");
        assert_eq!(span(u64::MAX), "213503982334601 days");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(3_140_000_000), "3.1 GB");
        assert_eq!(bytes(412_900_000), "412 MB");
        assert_eq!(bytes(u64::MAX), "18446744073 GB");
    }
}
