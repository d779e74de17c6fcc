//! What a person sees meanwhile: a line for each thing that was found, and one for what runs. On a terminal that one is written over
//! itself, so that what was found stays to be read; into a file or a pipe it is a line a second.

use ratatui::crossterm::terminal;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};
use trocar_link::result::Quantiles;

/// Between two looks of something that runs: on a terminal, and as lines.
const EVERY_LIVE: Duration = Duration::from_millis(200);
const EVERY: Duration = Duration::from_secs(1);
/// Of a terminal that does not say.
const COLUMNS: usize = 80;
/// To the beginning of the line, and empties it (ECMA-48: CR, EL).
const OVER: &str = "\r\x1b[K";

/// Writes lines, with the seconds since the beginning before each.
pub(super) struct Show {
    began: Instant,
    last: Instant,
    to_stderr: bool,
    /// Somebody sits at a terminal.
    live: bool,
    /// A line of what runs stands there, and is to be written over.
    open: bool,
}

impl Show {
    /// On standard output, unless that is for JSON.
    pub(super) fn start(to_stderr: bool) -> Self {
        let now = Instant::now();
        let live = if to_stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        Self { began: now, last: now, to_stderr, live, open: false }
    }

    /// Whether somebody sits at a terminal.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    fn timed(&self, phase: &str, text: &str) -> String {
        format!("[{:6.1} s] {phase:<8} {text}", self.began.elapsed().as_secs_f64())
    }

    /// Something was found.
    pub(super) fn line(&mut self, phase: &str, text: &str) {
        self.last = Instant::now();
        let text = self.timed(phase, text);
        self.say(&text);
    }

    /// Something runs.
    pub(super) fn tick(&mut self, phase: &str, text: impl FnOnce() -> String) {
        if self.last.elapsed() < if self.live { EVERY_LIVE } else { EVERY } {
            return;
        }
        if !self.live {
            return self.line(phase, &text());
        }
        self.last = Instant::now();
        // A line that is wider than the terminal could not be written over.
        let text: String = self.timed(phase, &text()).chars().take(columns().saturating_sub(1)).collect();
        self.write(&format!("{OVER}{text}"));
        self.open = true;
    }

    /// Words without a time.
    pub(super) fn say(&mut self, text: &str) {
        let over = if std::mem::take(&mut self.open) { OVER } else { "" };
        self.write(&format!("{over}{text}\n"));
    }

    /// Sentences without a time, broken between words where the terminal ends.
    pub(super) fn say_in_words(&mut self, text: &str) {
        let columns = columns();
        let text: Vec<String> =
            text.lines().map(|l| if self.live { broken(l, columns) } else { l.to_owned() }).collect();
        self.say(&text.join("\n"));
    }

    /// A terminal that is gone is no reason to end: the report is written all the same.
    fn write(&self, text: &str) {
        let _ = if self.to_stderr {
            std::io::stderr().write_all(text.as_bytes())
        } else {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        // What is said behind it, such as an error, stands on a line of its own.
        if self.open {
            self.say("");
        }
    }
}

fn columns() -> usize {
    terminal::size().map_or(COLUMNS, |(columns, _)| columns.into())
}

/// A line broken between words, so that no part is wider than this, unless one word is. What follows stands under the first word, and two
/// further in.
fn broken(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    let indent = line.chars().take_while(|c| *c == ' ').count();
    let (mut out, mut at) = (" ".repeat(indent), indent);
    for (i, word) in line.split_whitespace().enumerate() {
        let long = word.chars().count();
        if i > 0 && at + 1 + long > columns {
            out.push_str(&format!("\n{}", " ".repeat(indent + 2)));
            at = indent + 2;
        } else if i > 0 {
            out.push(' ');
            at += 1;
        }
        out.push_str(word);
        at += long;
    }
    out
}

/// Microseconds in milliseconds, as people read them.
pub(super) fn ms(us: f64) -> String {
    let ms = us * 1e-3;
    let digits = if ms.abs() < 10.0 { 2 } else { 1 };
    format!("{ms:.digits$} ms")
}

/// The middle and the tail of a distribution.
pub(super) fn spread(q: Option<&Quantiles>) -> String {
    q.map_or_else(|| "unknown".to_owned(), |q| format!("{} p50, {} p99", ms(q.p50), ms(q.p99)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_between_words_and_only_where_it_is_too_wide() {
        assert_eq!(broken("  What to change: ask for shaping", 20), "  What to change:\n    ask for shaping");
        assert_eq!(broken("  kept   a  table", 17), "  kept   a  table", "what fits stays as it is");
        assert_eq!(broken("immeasurably", 4), "immeasurably");
    }

    #[test]
    fn short_times_have_two_digits_behind_the_point() {
        assert_eq!(
            (ms(1_234.0), ms(45_678.0), ms(-50.0)),
            ("1.23 ms".to_owned(), "45.7 ms".to_owned(), "-0.05 ms".to_owned())
        );
        assert_eq!(spread(None), "unknown");
    }
}
