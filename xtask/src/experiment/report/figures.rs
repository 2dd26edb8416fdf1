//! Figures for people.

/// A figure for people: three or more digits that count, thousands apart.
pub(super) fn figure(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e15).contains(&size) {
        return format!("{value:.2e}");
    }
    let (value, unit) = match size {
        1e12.. => (value / 1e12, "\u{202f}T"),
        1e9.. => (value / 1e9, "\u{202f}G"),
        999_999.5.. => (value / 1e6, "\u{202f}M"),
        _ => (value, ""),
    };
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        _ => 5,
    };
    let text = format!("{value:.decimals$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) if digits != "0" => ("−", digits),
        Some(digits) => ("", digits),
        None => ("", text),
    };
    match digits.len() > 3 && !digits.contains('.') {
        true => {
            let (thousands, rest) = digits.split_at(digits.len() - 3);
            format!("{sign}{thousands}\u{202f}{rest}{unit}")
        }
        false => format!("{sign}{digits}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_exact_enough() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (10.0, "10"),
            (10.86, "10.9"),
            (2.345, "2.35"),
            (0.034, "0.034"),
            (-20.0, "−20"),
            (100.0, "100"),
            (999.6, "1\u{202f}000"),
            (8796.0, "8\u{202f}796"),
            (123_456.0, "123\u{202f}456"),
            (2_500_000.0, "2.5\u{202f}M"),
            (3e10, "30\u{202f}G"),
            (1e-7, "1.00e-7"),
            (1e20, "1.00e20"),
        ] {
            assert_eq!(figure(value), text, "{value}");
        }
    }
}
