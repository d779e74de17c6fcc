//! The figures of all relays as one text: each with the name of its relay.

use super::places::{Places, Standing};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One family of figures.
#[derive(Default)]
struct Family {
    head: Vec<String>,
    rows: Vec<String>,
}

/// Puts a label `relay` into each relay's figures, leaves `own` as they are, and figures of the same name together, as
/// Prometheus wants them.
pub(super) fn merge(places: &Places, texts: &[String], own: &str) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let of_relays = places.members.iter().zip(texts).map(|(member, text)| (Some(member.name.as_str()), text.as_str()));
    for (relay, text) in [(None, own)].into_iter().chain(of_relays) {
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (Some(kind), Some(name)) = (words.next(), words.next()) else { continue };
                if kind == "EOF" {
                    continue;
                }
                name.clone_into(&mut family);
                let head = &mut families.entry(family.clone()).or_default().head;
                if !head.iter().any(|h| h == line) {
                    head.push(line.to_owned());
                }
            } else if let Some(row) = relay.map_or_else(|| Some(line.to_owned()), |relay| labelled(line, relay)) {
                families.entry(family.clone()).or_default().rows.push(row);
            }
        }
    }
    let mut out = String::from(
        "# HELP trocar_relay_up 1 while the relay's event stream runs, else 0\n# TYPE trocar_relay_up gauge\n",
    );
    for m in &places.members {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "trocar_relay_up{{relay=\"{}\"}} {}", m.name, u8::from(m.standing == Standing::Up));
    }
    for family in families.into_values() {
        for line in family.head.into_iter().chain(family.rows) {
            out.push_str(&line);
            out.push('\n');
        }
    }
    out
}

fn labelled(line: &str, relay: &str) -> Option<String> {
    let at = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(at)?;
    match rest.strip_prefix('{') {
        Some(rest) => Some(format!("{name}{{relay=\"{relay}\",{rest}")),
        None => Some(format!("{name}{{relay=\"{relay}\"}}{rest}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relays::places::Member;

    #[test]
    fn figures_of_two_relays_stand_together_under_one_head() {
        let member = |name: &str| Member::new(name.into(), Vec::new(), (true, true));
        let places = Places::new(vec![member("a"), member("b")]);
        let text =
            "# HELP x_total Things\n# TYPE x counter\nx_total{f=\"1\"} 3\n# TYPE y gauge\ny 1\n# EOF\n".to_owned();
        let merged = merge(&places, &[text.clone(), text], "# TYPE x counter\nx_total 9\n");
        assert_eq!(merged.matches("# TYPE x counter").count(), 1, "{merged}");
        assert!(
            merged.contains("x_total 9\nx_total{relay=\"a\",f=\"1\"} 3\nx_total{relay=\"b\",f=\"1\"} 3\n"),
            "{merged}"
        );
        assert!(merged.contains("y{relay=\"b\"} 1\n") && !merged.contains("EOF"), "{merged}");
        assert!(merged.contains("trocar_relay_up{relay=\"a\"} 0\n"), "{merged}");
    }
}
