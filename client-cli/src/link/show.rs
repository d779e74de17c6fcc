//! What a person sees meanwhile: a line for each thing that was found, and one a second while something runs.

use std::time::{Duration, Instant};
use trocar_link::result::Quantiles;

/// Between two lines of something that runs.
const EVERY: Duration = Duration::from_secs(1);

/// Writes lines, with the seconds since the beginning before each.
pub(super) struct Show {
    began: Instant,
    last: Instant,
    to_stderr: bool,
}

impl Show {
    /// On standard output, unless that is for JSON.
    pub(super) fn start(to_stderr: bool) -> Self {
        let now = Instant::now();
        Self { began: now, last: now, to_stderr }
    }

    /// Something was found.
    pub(super) fn line(&mut self, phase: &str, text: &str) {
        self.last = Instant::now();
        self.say(&format!("[{:6.1} s] {phase:<8} {text}", self.began.elapsed().as_secs_f64()));
    }

    /// Something runs: said at most once a second.
    pub(super) fn tick(&mut self, phase: &str, text: impl FnOnce() -> String) {
        if self.last.elapsed() >= EVERY {
            self.line(phase, &text());
        }
    }

    /// Words without a time.
    pub(super) fn say(&self, text: &str) {
        if self.to_stderr {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
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
    fn short_times_have_two_digits_behind_the_point() {
        assert_eq!(
            (ms(1_234.0), ms(45_678.0), ms(-50.0)),
            ("1.23 ms".to_owned(), "45.7 ms".to_owned(), "-0.05 ms".to_owned())
        );
        assert_eq!(spread(None), "unknown");
    }
}
