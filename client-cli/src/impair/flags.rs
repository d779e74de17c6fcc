//! Values with units, as people type them: `20ms`, `1%`, `50M`, `5s+200ms`.

use trocar_proto::link::config::Blackout;

/// Splits a number from its unit.
fn split(s: &str) -> Option<(f64, &str)> {
    let unit = s.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(s.len());
    let (number, unit) = s.split_at_checked(unit)?;
    Some((number.parse().ok()?, unit))
}

/// A time, in milliseconds.
pub(super) fn milliseconds(s: &str) -> Result<f64, String> {
    let factor = |unit| match unit {
        "us" => Some(0.001),
        "ms" => Some(1.0),
        "s" => Some(1_000.0),
        _ => None,
    };
    let value = split(s).and_then(|(n, unit)| Some(n * factor(unit)?));
    value.ok_or_else(|| "a number with us, ms or s is right, as in 20ms or 1.5s".to_owned())
}

/// A share in per cent, 0 to 100.
pub(super) fn percent(s: &str) -> Result<f64, String> {
    let value = split(s).filter(|(n, unit)| *unit == "%" && (0.0..=100.0).contains(n));
    value.map(|(n, _)| n).ok_or_else(|| "a number from 0 to 100 with % is right, as in 0.5%".to_owned())
}

/// A rate in Mbit/s.
pub(super) fn mbit_s(s: &str) -> Result<f64, String> {
    let factor = |unit| match unit {
        "k" => Some(0.001),
        "M" => Some(1.0),
        "G" => Some(1_000.0),
        _ => None,
    };
    let value = split(s).and_then(|(n, unit)| Some(n * factor(unit)?));
    value.ok_or_else(|| "a number of bits per second with k, M or G is right, as in 50M or 400k".to_owned())
}

/// A blackout, as its beginning and its length.
pub(super) fn blackout(s: &str) -> Result<Blackout, String> {
    let wrong = || "beginning+length is right, as in 5s+200ms".to_owned();
    let (start, length) = s.split_once('+').ok_or_else(wrong)?;
    let ms = |s| milliseconds(s).map_err(|_| wrong());
    Ok(Blackout { start_ms: ms(start)?, length_ms: ms(length)?, every_ms: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_units() {
        assert_eq!(milliseconds("20ms"), Ok(20.0));
        assert_eq!(milliseconds("1.5s"), Ok(1_500.0));
        assert_eq!(milliseconds("250us"), Ok(0.25));
        assert_eq!(percent("0.5%"), Ok(0.5));
        assert_eq!(mbit_s("50M"), Ok(50.0));
        assert_eq!(mbit_s("1.5G"), Ok(1_500.0));
        assert_eq!(mbit_s("400k"), Ok(0.4));
        assert_eq!(blackout("5s+200ms"), Ok(Blackout { start_ms: 5_000.0, length_ms: 200.0, every_ms: None }));
    }

    #[test]
    fn what_is_no_value_is_answered_with_one_that_is() {
        for s in ["", "20", "ms", "-1ms", "1..2ms", "20 ms", "é", "1e3ms", "20m"] {
            assert!(milliseconds(s).is_err_and(|e| e.contains("20ms")), "{s:?}");
            assert!(mbit_s(&format!("{s}x")).is_err_and(|e| e.contains("50M")), "{s:?}");
            assert!(blackout(s).is_err_and(|e| e.contains("5s+200ms")), "{s:?}");
        }
        for s in ["", "1", "101%", "-1%", "%"] {
            assert!(percent(s).is_err_and(|e| e.contains("0.5%")), "{s:?}");
        }
    }
}
