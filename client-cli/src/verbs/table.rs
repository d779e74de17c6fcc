//! Tables, times and foreign text for a terminal.

use trocar_proto::units::WallMicros;
use unicode_width::UnicodeWidthStr as _;

/// Which side of its column a cell is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a head, in columns as wide as they need to be.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    head: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    /// What is printed where there are no rows.
    empty: &'static str,
}

impl Table {
    /// Without rows yet.
    pub(crate) fn new(head: &[(&'static str, Align)]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new(), empty: "nothing" }
    }

    /// Adds a row; a cell for each column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// What is printed in place of a table without rows.
    pub(crate) fn or_say(mut self, empty: &'static str) -> Self {
        self.empty = empty;
        self
    }

    /// As lines, each with its end.
    pub(crate) fn render(&self) -> String {
        if self.rows.is_empty() {
            return format!("{}\n", self.empty);
        }
        let head: Vec<String> = self.head.iter().map(|(name, _)| (*name).to_owned()).collect();
        let widths: Vec<usize> = (0..self.head.len())
            .map(|i| {
                let cells = std::iter::once(&head).chain(&self.rows).filter_map(|r| r.get(i));
                cells.map(|c| c.width()).max().unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, (_, align)), width) in row.iter().zip(&self.head).zip(&widths) {
                let room = " ".repeat(width.saturating_sub(cell.width()));
                match align {
                    Align::Left => line.extend([cell.as_str(), room.as_str(), "  "]),
                    Align::Right => line.extend([room.as_str(), cell.as_str(), "  "]),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Text from outside, with what could move the cursor or turn the direction of writing replaced.
pub(crate) fn clean(text: &str) -> String {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if bad(c) { '\u{fffd}' } else { c }).collect()
}

/// "1 feed", "2 feeds".
pub(crate) fn plural(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// The time from one point to the other in its two largest units; "now" where the first is not before the second.
pub(crate) fn since(from: WallMicros, to: WallMicros) -> String {
    let s = to.signed_since(from) / 1_000_000;
    match s {
        i64::MIN..=0 => "now".to_owned(),
        1..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// A point of the wall clock as UTC to the second, RFC 3339.
pub(crate) fn utc(at: WallMicros) -> String {
    let s = at.0 / 1_000_000;
    let (days, s) = (s / 86_400, s % 86_400);
    // Counted from 1 March of year 0, so that the leap day is a year's last; an era is 400 years, 146 097 days.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let d = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{d:02}T{:02}:{:02}:{:02}Z", s / 3_600, s % 3_600 / 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_where_signs_are_wide() {
        let mut t = Table::new(&[("NAME", Align::Left), ("N", Align::Right)]);
        t.row(["外科".to_owned(), "1".to_owned()]);
        t.row(["ab".to_owned(), "100".to_owned()]);
        assert_eq!(t.render(), "NAME    N\n外科    1\nab    100\n");
        assert_eq!(Table::new(&[("X", Align::Left)]).or_say("no rows").render(), "no rows\n");
    }

    #[test]
    fn a_time_is_written_as_the_calendar_has_it() {
        for (s, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(WallMicros(s * 1_000_000)), want);
        }
    }

    #[test]
    fn a_span_has_its_two_largest_units() {
        let span = |s: u64| since(WallMicros(0), WallMicros(s * 1_000_000));
        assert_eq!(
            [span(0), span(59), span(61), span(3_660), span(90_000)],
            ["now", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]
        );
        assert_eq!(since(WallMicros(9_000_000), WallMicros(0)), "now");
    }

    #[test]
    fn text_from_outside_cannot_write_on_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\u{202e}c\n"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
        assert_eq!(clean("外科 O'Neil"), "外科 O'Neil");
    }
}
