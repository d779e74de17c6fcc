//! The figures without a screen: one plain table, or JSON lines.

use super::rows::{Column, FEED_COLUMNS, Figures, LEG_COLUMNS};
use super::state::State;
use crate::verbs::table::{Align, Table, plural};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// As text.
pub(super) fn text(url: &str, figures: &Figures, words: &BTreeMap<String, String>, alarms: &[String]) -> String {
    let state = State::new();
    let none = String::new();
    let feeds = state.feeds(figures);
    let feeds = feeds.iter().map(|r| r.cells(words.get(&r.name.feed).unwrap_or(&none), true));
    let legs = state.legs(figures);
    let mut out = format!(
        "{url}: {}, {}; rates over {:.1} s, right to about a tenth\n\n",
        plural(figures.feeds.len(), "feed"),
        plural(figures.legs.len(), "leg"),
        figures.window.as_secs_f64(),
    );
    if !alarms.is_empty() {
        out.push_str(&format!("{}\n\n", alarms.join("\n")));
    }
    out.push_str(&table(FEED_COLUMNS, feeds).or_say("nothing is published").render());
    out.push('\n');
    out.push_str(&table(LEG_COLUMNS, legs.iter().map(|r| r.cells(true))).or_say("nobody watches").render());
    out.push('\n');
    for (name, value) in figures.totals.iter().filter(|(name, _)| name.starts_with("trocar_worker_")) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name} {value}");
    }
    out
}

fn table(columns: &[Column], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let align = |c: &Column| if c.number { Align::Right } else { Align::Left };
    let head: Vec<_> = columns.iter().map(|c| (c.head, align(c))).collect();
    let mut table = Table::new(&head);
    rows.for_each(|cells| table.row(cells));
    table
}

/// As one JSON object.
pub(super) fn json(url: &str, figures: &Figures) -> Value {
    json!({
        "type": "figures",
        "url": url,
        "window_s": figures.window.as_secs_f64(),
        "feeds": figures.feeds,
        "legs": figures.legs,
        "totals": figures.totals,
        "per_s": figures.rates,
    })
}

/// As one JSON object that there is no answer.
pub(super) fn json_silence(url: &str, why: &str, last_figures_age_s: Option<f64>) -> Value {
    json!({ "type": "no_answer", "url": url, "why": why, "last_figures_age_s": last_figures_age_s })
}
