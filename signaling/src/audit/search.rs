//! Finds records, and hands them out as JSON lines, as CSV (RFC 4180) and as a story.

use super::Record;
use super::verify::{Bad, open, unreadable};
use std::fmt::Write as _;
use std::path::Path;
use trocar_control::audit::clock::utc;
use trocar_proto::units::WallMicros;

/// Which records are wanted. What is none restricts nothing.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of that session.
    pub session: Option<String>,
    /// Of that participant, by its id or a part of its name.
    pub participant: Option<String>,
    /// Of that patient, as `ASSIGNER|VALUE` or the value alone.
    pub patient: Option<String>,
    /// Of that kind, or of all whose kind begins so.
    pub kind: Option<String>,
    /// Not before, microseconds since 1970.
    pub from_us: Option<u64>,
    /// Before, microseconds since 1970.
    pub until_us: Option<u64>,
}

/// A record, its bytes as they were hashed, and the hash in hex.
#[derive(Debug, Clone)]
pub struct Row {
    /// What it says.
    pub record: Record,
    /// Its bytes.
    pub text: String,
    /// Their SHA-256.
    pub hash: String,
}

/// The records that were asked for, oldest first. They are not checked: that is [`super::verify`].
///
/// # Errors
/// Where the store cannot be read, or holds something that is no record.
pub fn search(store: &Path, filter: &Filter) -> Result<Vec<Row>, Bad> {
    let connection = open(store)?;
    let mut query = connection
        .prepare(
            "SELECT seq, record, hash FROM audit WHERE (?1 IS NULL OR session = ?1) AND at_us >= ?2 AND at_us < ?3 ORDER BY seq",
        )
        .map_err(unreadable)?;
    let bound = |us: Option<u64>, default| us.map_or(default, |us| i64::try_from(us).unwrap_or(i64::MAX));
    let bounds = (filter.session.as_deref(), bound(filter.from_us, 0), bound(filter.until_us, i64::MAX));
    let mut rows = query.query(bounds).map_err(unreadable)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(unreadable)? {
        let seq = row.get::<_, i64>(0).map_err(unreadable)?.unsigned_abs();
        let text: String = row.get(1).map_err(unreadable)?;
        let hash: Vec<u8> = row.get(2).map_err(unreadable)?;
        let record: Record =
            serde_json::from_str(&text).map_err(|e| Bad { seq, why: super::Why::NoRecord(e.to_string()) })?;
        if filter.takes(&record) {
            found.push(Row { record, text, hash: hex::encode(&hash) });
        }
    }
    Ok(found)
}

impl Filter {
    fn takes(&self, r: &Record) -> bool {
        let is = |wanted: &Option<String>, fits: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(fits);
        let contains = |text: &Option<String>, part: &str| {
            text.as_deref().is_some_and(|t| t.to_lowercase().contains(&part.to_lowercase()))
        };
        is(&self.kind, &|k| r.kind.starts_with(k))
            && is(&self.participant, &|p| r.participant.as_deref() == Some(p) || contains(&r.name, p))
            && is(&self.patient, &|p| {
                r.patient
                    .as_deref()
                    .is_some_and(|is| is == p || is.split_once('|').is_some_and(|(_, value)| value == p))
            })
    }
}

/// One JSON object a line: the record as it was hashed, and its hash as the last member. Without that member and the line feed a line
/// has the bytes whose SHA-256 it names.
#[must_use]
pub fn as_json(rows: &[Row]) -> String {
    rows.iter().fold(String::new(), |mut out, r| {
        let inner = r.text.strip_suffix('}').unwrap_or(&r.text);
        let _ = writeln!(out, "{inner},\"hash\":\"{}\"}}", r.hash);
        out
    })
}

/// RFC 4180, with a header line. A value that a spreadsheet would take for a formula has an apostrophe before it.
#[must_use]
pub fn as_csv(rows: &[Row]) -> String {
    let mut out = String::from(
        "seq,utc,clock_offset_us,kind,session,patient,participant,name,role,realm,feed,leg,duration_s,detail,lost,hash\r\n",
    );
    for row in rows {
        let r = &row.record;
        let text = |t: &Option<String>| cell(t.as_deref().unwrap_or_default());
        let cells = [
            r.seq.to_string(),
            utc(WallMicros(r.utc_us)),
            r.clock_offset_us.map_or_else(String::new, |o| o.to_string()),
            cell(&r.kind),
            text(&r.session),
            text(&r.patient),
            text(&r.participant),
            text(&r.name),
            text(&r.role),
            text(&r.realm),
            text(&r.feed),
            text(&r.leg),
            r.duration_us.map_or_else(String::new, |us| format!("{:.3}", us as f64 / 1e6)),
            cell(&r.detail),
            r.lost.to_string(),
            row.hash.clone(),
        ];
        out.push_str(&cells.join(","));
        out.push_str("\r\n");
    }
    out
}

fn cell(text: &str) -> String {
    let armed = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if armed.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", armed.replace('"', "\"\"")) } else { armed }
}

/// A line an event, for people.
#[must_use]
pub fn as_story(rows: &[Row]) -> String {
    let mut out = String::new();
    for Row { record: r, .. } in rows {
        let who = match (&r.name, &r.participant, &r.role) {
            (Some(name), _, Some(role)) => format!("{name} ({role})"),
            (Some(name), ..) => name.clone(),
            (None, Some(id), _) => id.clone(),
            _ => "the server".to_owned(),
        };
        let mut line = format!("{}  {:20} {who}", utc(WallMicros(r.utc_us)), r.kind);
        let mut add = |what: &str, value: &Option<String>| {
            if let Some(value) = value {
                let _ = write!(line, "  {what} {value}");
            }
        };
        add("session", &r.session);
        add("patient", &r.patient);
        add("feed", &r.feed);
        if let Some(us) = r.duration_us {
            let _ = write!(line, "  for {:.1} s", us as f64 / 1e6);
        }
        if !r.detail.is_empty() {
            let _ = write!(line, "  {}", r.detail);
        }
        if r.lost > 0 {
            let _ = write!(line, "  ({} RECORDS WERE LOST BEFORE THIS ONE)", r.lost);
        }
        // What came from outside cannot steer a terminal.
        out.extend(line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_and_never_a_formula() {
        assert_eq!(cell("plain"), "plain");
        assert_eq!(cell("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(cell("=HYPERLINK(1)"), "'=HYPERLINK(1)");
    }
}
