//! Text that came from elsewhere, and times.

/// Longest text that is shown.
const CHARS_MAX: usize = 1_000;

/// Without characters that print nothing, end a line or turn the direction of writing; each becomes U+FFFD. Escaping is left
/// to whoever writes the page.
#[must_use]
pub fn clean(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    let mut out: String = text.chars().take(CHARS_MAX).map(|c| if odd(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

/// Seconds since 1970 as `2026-11-22 15:04 UTC`; what cannot be a time is said to be none.
#[must_use]
pub fn utc(unix_s: f64) -> String {
    // Until the year 9999.
    if !(0.0..253_402_300_800.0).contains(&unix_s) {
        return "at no time that can be".to_owned();
    }
    let seconds = unix_s as u64;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut day) = (1970, days);
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if day < length {
            break;
        }
        day -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02} {:02}:{:02} UTC", day + 1, rest / 3_600, rest / 60 % 60)
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}
