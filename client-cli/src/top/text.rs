//! Figures as a server shows them: OpenMetrics text, and the older Prometheus text that it grew from.

use std::collections::BTreeMap;

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Name, with the endings that its kind gives it (`_total`, `_bucket`).
    pub(crate) name: String,
    /// Labels by name.
    pub(crate) labels: BTreeMap<String, String>,
    /// How much.
    pub(crate) value: f64,
}

/// A line that is no sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the answer is no figure")]
pub(crate) struct NotAFigure {
    /// Counted from 1.
    line: usize,
}

/// All samples, in their order. Comments, which carry help and kinds, are passed over.
///
/// # Errors
/// Names the first line that cannot be read: half an answer is worse than none.
pub(crate) fn parse(text: &str) -> Result<Vec<Sample>, NotAFigure> {
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'));
    lines.map(|(i, l)| sample(l).ok_or(NotAFigure { line: i + 1 })).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // A timestamp or an exemplar may follow the value.
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then(|| Sample { name: name.to_owned(), labels, value })
}

/// `a="b",c="d"} …` as labels and what follows the brace.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut found = BTreeMap::new();
    loop {
        rest = rest.strip_prefix(',').unwrap_or(rest);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((found, after));
        }
        let (key, value) = rest.split_once("=\"")?;
        let (value, after) = quoted(value)?;
        found.insert(key.to_owned(), value);
        rest = after;
    }
}

/// The text up to the closing quote, and what follows it. `\\`, `\"` and `\n` are escaped.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut signs = text.char_indices();
    loop {
        match signs.next()?.1 {
            '"' => return Some((out, signs.as_str())),
            '\\' => out.push(match signs.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_are_read_and_comments_are_not() {
        let text =
            "# HELP a help\n# TYPE a counter\na_total 3\nb{x=\"1\",y=\"q\\\"\\\\\\n}\"} -0.5 17\n\nc{} +Inf\n# EOF\n";
        let all = parse(text).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].name.as_str(), all[0].value), ("a_total", 3.0));
        assert_eq!(all[1].labels["y"], "q\"\\\n}");
        assert_eq!(all[1].value, -0.5);
        assert!(all[2].labels.is_empty() && all[2].value.is_infinite());
    }

    #[test]
    fn a_line_that_is_no_figure_is_named_by_its_number() {
        for bad in ["a", "a b", "a{x=\"1\" 2", "a{x=1} 2", "{x=\"1\"} 2", "<html>", "a{x=\"1\\"] {
            let e = parse(&format!("ok 1\n{bad}\n")).expect_err(bad);
            assert_eq!(e.to_string(), "line 2 of the answer is no figure", "{bad}");
        }
    }
}
