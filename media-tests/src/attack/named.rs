//! Tests that tables name, and whether they exist.

use anyhow::Context as _;
use std::collections::BTreeSet;
use std::path::Path;

/// Names of all tests in the sources of the workspace.
///
/// # Errors
/// Where a file cannot be read.
pub fn tests_of_the_workspace() -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for folder in ["proto", "link", "control", "relay", "signaling", "gate", "client-cli", "media-tests"] {
        collect(&crate::workspace().join(folder), &mut found)?;
    }
    Ok(found)
}

fn collect(folder: &Path, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with("target") {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.extend(tests_in(&std::fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

/// Functions that follow an attribute that ends in `test]`, and the rows of the macro that makes a test of each failure.
fn tests_in(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        let name = line.split("fn ").nth(1).and_then(|l| l.split('(').next()).map(str::trim);
        if line.starts_with("#[") {
            is_test |= line.ends_with("test]") || line.contains("tokio::test");
        } else if let Some(name) = name.filter(|_| is_test) {
            found.insert(name.to_owned());
            is_test = false;
        } else if let Some((name, rest)) = line.split_once(": \"F")
            && rest.ends_with("\";")
        {
            found.insert(name.to_owned());
        }
    }
    found
}

/// Tests that a table names and that do not exist.
#[must_use]
pub fn missing_tests<'a>(named: impl IntoIterator<Item = &'a str>, there: &BTreeSet<String>) -> Vec<&'a str> {
    named.into_iter().filter(|n| !there.contains(*n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in the last column of the table of guidelines.
    fn shown_by(book: &str) -> Vec<&str> {
        let table = book.split("| requirement | where | shown by |").nth(1).unwrap_or("");
        let rows = table.lines().skip(1).take_while(|l| l.is_empty() || l.starts_with('|'));
        let last = rows.filter_map(|l| l.trim_end_matches([' ', '|']).rsplit('|').next());
        last.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter(|n| !n.contains(' ')).collect()
    }

    #[test]
    fn every_test_that_the_table_of_guidelines_names_exists() {
        let book = std::fs::read_to_string(crate::workspace().join("SECURITY.md")).unwrap();
        let there = tests_of_the_workspace().unwrap();
        let named = shown_by(&book);
        assert!(named.len() >= 40, "{named:?}");
        assert_eq!(missing_tests(named, &there), Vec::<&str>::new());
        let wrong = book.replace("`older_tls_is_refused`", "`older_tls_is_welcome`");
        assert_eq!(missing_tests(shown_by(&wrong), &there), ["older_tls_is_welcome"]);
    }
}
