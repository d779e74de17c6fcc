//! Words for a terminal that may be narrow.

use ratatui::text::{Line, Span};

/// The parts one after the other, in as many lines of so many columns as they need. A part is not cut in two, unless it is wider than
/// a line; lines after the first begin with `indent`.
pub(crate) fn fold(
    parts: Vec<Span<'static>>,
    between: &'static str,
    indent: &'static str,
    width: u16,
) -> Vec<Line<'static>> {
    let width = usize::from(width);
    let mut lines = vec![Line::default()];
    for part in parts {
        let full = lines.last().is_some_and(|l| l.width() > 0 && l.width() + between.len() + part.width() > width);
        if full {
            let indent = (!indent.is_empty()).then(|| Span::raw(indent));
            lines.push(indent.into_iter().chain([part]).collect());
        } else if let Some(line) = lines.last_mut() {
            if !line.spans.is_empty() {
                line.push_span(between);
            }
            line.push_span(part);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(width: u16) -> Vec<String> {
        let parts = ["CPU 9 %", "2 feeds", "rather a long word", "end"].map(Span::raw).to_vec();
        fold(parts, ", ", "  ", width).iter().map(Line::to_string).collect()
    }

    #[test]
    fn parts_stand_in_one_line_where_it_is_wide_enough_and_none_is_lost_or_cut_where_not() {
        assert_eq!(folded(42), ["CPU 9 %, 2 feeds, rather a long word, end"]);
        assert_eq!(folded(41), ["CPU 9 %, 2 feeds, rather a long word, end"]);
        assert_eq!(folded(40), ["CPU 9 %, 2 feeds, rather a long word", "  end"]);
        assert_eq!(folded(20), ["CPU 9 %, 2 feeds", "  rather a long word", "  end"]);
        assert_eq!(folded(1).len(), 4);
        assert_eq!(fold(Vec::new(), ", ", "", 9).len(), 1);
    }
}
