//! What is said in large words although all figures are well: that somebody came in without the login that was asked for.

use super::rows::Figures;
use crate::verbs::table::{clean, plural, utc};
use trocar_proto::session::api::SessionInfo;

/// A line for the node, where somebody is there by break-glass or waits for a review, and one for each in the session that is looked at.
pub(super) fn break_glass(figures: &Figures, session: Option<&SessionInfo>) -> Vec<String> {
    let number = |name: &str| {
        let value = figures.totals.get(&format!("trocar_signaling_break_glass_{name}"));
        value.map_or(0, |v| v.max(0.0) as usize)
    };
    let (here, unreviewed) = (number("participants"), number("unreviewed"));
    if here == 0 && unreviewed == 0 {
        return Vec::new();
    }
    let who = plural(here, "participant");
    let mut lines = vec![format!("BREAK-GLASS: {who} without the login that is asked for, {unreviewed} not reviewed")];
    for p in session.into_iter().flat_map(|s| &s.participants) {
        if let Some(glass) = &p.break_glass {
            let (name, reason) = (clean(&p.name), clean(&glass.reason));
            lines.push(format!("  {name}, {}: {reason} (until {})", p.role.name(), utc(glass.until)));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    fn figures(totals: &[(&str, f64)]) -> Figures {
        let totals = totals.iter().map(|(name, v)| (format!("trocar_signaling_break_glass_{name}"), *v)).collect();
        let (at, window) = (Instant::now(), Duration::ZERO);
        Figures { at, window, feeds: Vec::new(), legs: Vec::new(), totals, rates: BTreeMap::new() }
    }

    #[test]
    fn nothing_is_said_where_everybody_came_in_as_usual() {
        assert_eq!(break_glass(&figures(&[]), None), Vec::<String>::new());
        assert_eq!(break_glass(&figures(&[("participants", 0.0), ("unreviewed", 0.0)]), None), Vec::<String>::new());
    }

    #[test]
    fn whoever_came_in_so_is_named_with_the_reason() {
        let session: SessionInfo = serde_json::from_value(json!({
            "session": "or-1", "title": "Theatre", "feeds": [], "participants": [
                {"participant": "p1", "name": "Dr. Ito", "role": "expert", "realm": "north", "since": 0,
                 "break_glass": {"reason": "bleeding\u{1b}[2J", "until": 60_000_000}},
                {"participant": "p2", "name": "Nurse", "role": "local", "realm": "north", "since": 0},
            ]
        }))
        .unwrap();
        let lines = break_glass(&figures(&[("participants", 1.0), ("unreviewed", 2.0)]), Some(&session));
        let [head, who] = &lines[..] else { panic!("{lines:?}") };
        assert!(head.contains("1 participant without") && head.contains("2 not reviewed"), "{head}");
        assert_eq!(who, "  Dr. Ito, expert: bleeding\u{fffd}[2J (until 1970-01-01T00:01:00Z)");
    }
}
