//! Rates as they are typed, and as they stand in configurations.

/// A rate in Mbit/s.
///
/// # Errors
/// Says what would be right.
pub fn mbit_s(s: &str) -> Result<f64, String> {
    let wrong = || "a number of bits per second with k, M or G is right, as in 50M or 400k".to_owned();
    let (number, unit) = s.split_at_checked(s.len().saturating_sub(1)).ok_or_else(wrong)?;
    let factor = match unit {
        "k" => 1e-3,
        "M" => 1.0,
        "G" => 1e3,
        _ => return Err(wrong()),
    };
    let value = number.parse::<f64>().map_err(|_| wrong())? * factor;
    if (0.1..=10_000.0).contains(&value) { Ok(value) } else { Err("100k to 10G are right".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units_and_mistakes_are_told_what_is_right() {
        assert_eq!((mbit_s("50M"), mbit_s("400k"), mbit_s("1G")), (Ok(50.0), Ok(0.4), Ok(1_000.0)));
        for bad in ["", "50", "M", "é", "-1M", "NaNM"] {
            assert!(mbit_s(bad).is_err(), "{bad}");
        }
        assert!(mbit_s("100G").unwrap_err().contains("100k to 10G"));
    }
}
