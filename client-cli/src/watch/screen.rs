//! A few lines on a terminal that are written over in place.

use std::io::Write as _;

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
/// Lines end at the terminal's edge instead of going on below, where they would not be written over.
const CUT: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
const CLEAR_LINE: &str = "\x1b[2K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The lines. Dropping it gives the terminal back as it was, with the last lines left standing.
pub(crate) struct Screen {
    drawn: usize,
}

impl Screen {
    /// Takes the lines below the cursor.
    pub(crate) fn new() -> Self {
        write(HIDE_CURSOR);
        Self { drawn: 0 }
    }

    /// Shows these lines in place of the ones before, in one write: nothing flickers.
    pub(crate) fn draw(&mut self, lines: &[String]) {
        write(&frame(self.drawn, lines));
        self.drawn = lines.len();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write(SHOW_CURSOR);
    }
}

fn frame(drawn: usize, lines: &[String]) -> String {
    let mut out = String::from(CUT);
    if drawn > 0 {
        out.push_str(&format!("\x1b[{drawn}A"));
    }
    for line in lines {
        out.push_str(CLEAR_LINE);
        out.push_str(line);
        out.push_str("\r\n");
    }
    out.push_str(CLEAR_BELOW);
    out.push_str(WRAP);
    out
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    // A terminal that is gone ends the process by its hang-up signal.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Bold, in green.
pub(crate) fn good(text: &str) -> String {
    format!("\x1b[1;32m{text}\x1b[0m")
}

/// Bold, white on red.
pub(crate) fn alarm(text: &str) -> String {
    format!("\x1b[1;97;41m {text} \x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_goes_up_over_the_last_one_and_clears_what_was_longer() {
        let lines = ["one".to_owned(), "two".to_owned()];
        assert!(!frame(0, &lines).contains('A'));
        let again = frame(3, &lines);
        assert!(again.starts_with("\x1b[?7l\x1b[3A\x1b[2Kone\r\n\x1b[2Ktwo\r\n"), "{again:?}");
        assert!(again.ends_with("\x1b[J\x1b[?7h"), "{again:?}");
    }
}
