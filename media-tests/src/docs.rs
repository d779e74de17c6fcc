//! The parts of the documents that commands write, so that no figure in them is typed by hand.

use anyhow::Context;
use std::path::Path;
use std::process::Command;

/// Puts a generated part into a document, between its marks, which stay.
///
/// # Errors
/// Where the document cannot be read or written, or has lost its marks.
pub fn put(file: &Path, begin: &str, end: &str, generated: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let lost = |mark: &str| format!("{} has lost its mark {mark}", file.display());
    let (before, rest) = text.split_once(begin).with_context(|| lost(begin))?;
    let (_, after) = rest.split_once(end).with_context(|| lost(end))?;
    let all = format!("{before}{begin}\n\n{}\n\n{end}{after}", generated.trim());
    std::fs::write(file, all).with_context(|| file.display().to_string())
}

/// Commit, time and load: what figures are worth.
#[must_use]
pub fn provenance() -> String {
    let say = |program: &str, arguments: &[&str]| {
        let out = Command::new(program).args(arguments).current_dir(crate::workspace()).output().ok();
        out.map_or_else(|| "unknown".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
    };
    let changed = if say("git", &["status", "--porcelain"]).is_empty() { "" } else { " with uncommitted changes" };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    format!(
        "Commit {}{changed}; {}; load average {load} at the end of the run.",
        say("git", &["rev-parse", "--short", "HEAD"]),
        say("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_marks_is_replaced_and_nothing_else_and_without_marks_nothing_is_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "before\n<a>\n\nold\n\n<b>\nafter\n").unwrap();
        put(file.path(), "<a>", "<b>", "new\n").unwrap();
        let now = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(now, "before\n<a>\n\nnew\n\n<b>\nafter\n");
        let error = put(file.path(), "<a>", "<c>", "newer").unwrap_err().to_string();
        assert!(error.contains("lost its mark <c>"), "{error}");
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), now);
    }
}
