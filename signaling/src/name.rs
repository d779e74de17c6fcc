//! Text that people chose and others will see.

/// Longest shown name of a participant, in characters.
pub(crate) const MAX_NAME: usize = 64;
/// Longest title of a session, in characters.
pub(crate) const MAX_TITLE: usize = 128;

/// What a name or a title has to be.
pub(crate) const NAME_EXPECTED: &str =
    "1 to 64 characters, no control characters, no characters that change the direction of text or cannot be seen";
/// The same for a title.
pub(crate) const TITLE_EXPECTED: &str =
    "1 to 128 characters, no control characters, no characters that change the direction of text or cannot be seen";

/// The text without spaces around it, where it may be shown: not empty, at most `max` characters, and nothing in it that
/// could make it look like another name.
pub(crate) fn shown(text: &str, max: usize) -> Option<&str> {
    // Bytes first: counting the characters of a long text is work that its sender chose.
    let text = (text.len() <= max.saturating_mul(4).saturating_add(64)).then(|| text.trim())?;
    let length = text.chars().count();
    ((1..=max).contains(&length) && !text.chars().any(is_deceptive)).then_some(text)
}

/// `text` cut to `max` characters, with everything replaced that a log line, a terminal or a page could stumble over.
pub(crate) fn clean(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if is_deceptive(c) { '\u{fffd}' } else { c }).collect()
}

/// Control characters, line and paragraph separators, direction marks and overrides (Unicode UAX #9), characters of no
/// width, tags, and noncharacters. The joiners U+200C and U+200D stay: Persian and Indic names need them.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'
            | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_many_languages_pass() {
        for good in ["Dr. Müller", "林医生", "د. سارة", "می\u{200c}خواهم", "O'Neil-Smith, MD", &"x".repeat(64)]
        {
            assert_eq!(shown(good, MAX_NAME), Some(good));
        }
        assert_eq!(shown("  Ada  ", MAX_NAME), Some("Ada"));
    }

    #[test]
    fn names_that_deceive_are_refused() {
        for bad in ["", "   ", "a\0b", "a\nb", "\u{1b}[31m", "\u{202e}evil", "a\u{200b}b", "\u{2066}x", &"x".repeat(65)]
        {
            assert_eq!(shown(bad, MAX_NAME), None, "{bad:?} was taken");
        }
        assert_eq!(shown(&"x".repeat(10_000), MAX_NAME), None);
    }

    #[test]
    fn cleaned_text_is_short_and_harmless() {
        assert_eq!(clean("a\u{202e}b\nc", 3), "a\u{fffd}b");
    }
}
