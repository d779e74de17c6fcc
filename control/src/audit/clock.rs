//! UTC as text (RFC 3339), for records and documents that people read.

use trocar_proto::units::WallMicros;

/// `2026-03-01T10:20:30.123456Z`.
#[must_use]
pub fn utc(at: WallMicros) -> String {
    let (day, of_day) = (at.0 / 86_400_000_000, at.0 % 86_400_000_000);
    let (y, m, d) = civil(day);
    let (s, us) = (of_day / 1_000_000, of_day % 1_000_000);
    format!("{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}.{us:06}Z", s / 3_600, s / 60 % 60, s % 60)
}

/// `2026-03-01T10:20:30Z`: to the second, rounded down.
#[must_use]
pub fn utc_seconds(at: WallMicros) -> String {
    let mut text = utc(at);
    text.truncate("2026-03-01T10:20:30".len());
    text.push('Z');
    text
}

/// Reads `2026-03-01T10:20:30Z`, with or without a fraction of up to six digits. Nothing for another form, another zone or a date
/// that is none.
#[must_use]
pub fn parse_utc(text: &str) -> Option<WallMicros> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [y, m, d] = numbers(date, '-', [4, 2, 2])?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [h, min, s] = numbers(clock, ':', [2, 2, 2])?;
    let digits = (1..=6).contains(&fraction.len()) && fraction.bytes().all(|b| b.is_ascii_digit());
    let us: u64 = format!("{fraction:0<6}").parse().ok().filter(|_| digits)?;
    if !(1970..=9999).contains(&y) || !(1..=12).contains(&m) || h > 23 || min > 59 || s > 59 {
        return None;
    }
    let day = days(y, m, d);
    (d >= 1 && civil(day) == (y, m, d)).then(|| WallMicros((((day * 24 + h) * 60 + min) * 60 + s) * 1_000_000 + us))
}

fn numbers(text: &str, between: char, widths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut out = [0; 3];
    for (n, width) in out.iter_mut().zip(widths) {
        let part = parts.next().filter(|p| p.len() == width && p.bytes().all(|b| b.is_ascii_digit()))?;
        *n = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

/// Year, month and day of the day with this number since 1970-01-01, in the Gregorian calendar. Counted in years that begin in March,
/// so that the leap day is the last one.
const fn civil(day: u64) -> (u64, u64, u64) {
    let z = day + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let d = of_year - (153 * month + 2) / 5 + 1;
    let m = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + (m <= 2) as u64, m, d)
}

/// The other way round; for a date that is none, that of another day.
const fn days(y: u64, m: u64, d: u64) -> u64 {
    let y = y - (m <= 2) as u64;
    let (era, year) = (y / 400, y % 400);
    let month = if m > 2 { m - 3 } else { m + 9 };
    let of_year = (153 * month + 2) / 5 + d.saturating_sub(1);
    era * 146_097 + year * 365 + year / 4 - year / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_back() {
        for (us, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (1_700_000_000_123_456, "2023-11-14T22:13:20.123456Z"),
            (4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(utc(WallMicros(us)), text);
            assert_eq!(parse_utc(text), Some(WallMicros(us)));
        }
        assert_eq!(parse_utc("2023-11-14T22:13:20Z"), Some(WallMicros(1_700_000_000_000_000)));
        assert_eq!(utc_seconds(WallMicros(1_700_000_000_999_999)), "2023-11-14T22:13:20Z");
        for day in (0..80_000).step_by(97) {
            let (y, m, d) = civil(day);
            assert_eq!(days(y, m, d), day);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20+01:00",
            "2023-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-00-10T00:00:00Z",
            "2023-01-00T00:00:00Z",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:13:60Z",
            "1969-12-31T23:59:59Z",
            "2023-11-14T22:13:20.1234567Z",
            "2023-11-14T22:13:20.Z",
            "+023-11-14T22:13:20Z",
        ] {
            assert_eq!(parse_utc(bad), None, "{bad:?}");
        }
    }
}
