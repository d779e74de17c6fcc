//! The chain as a story that a clinician can follow: a line an event, then a table of who had control when.

use super::clock::parse_utc;
use super::record::{Event, Record, State};
use super::story::{clean, details, figures, person, sentence, set, who};
use super::verify::{Bad, read};
use std::fmt::Write as _;
use std::path::Path;

/// Text between two days, two runs, two parts.
const RULE: &str = "──";

/// The story of a chain; `path` is its file or the gate's store. What is shown was checked on the way: where a record is bad, the story ends
/// with the last good one, and the fault comes with it.
///
/// # Errors
/// The story up to there, and [`Bad`].
pub fn show(path: &Path) -> Result<String, (String, Bad)> {
    let mut story = Story::default();
    let result = read(path, |_, record| story.tell(&record));
    let text = story.end();
    match result {
        Ok(()) => Ok(text),
        Err(bad) => Err((text, bad)),
    }
}

/// One time in which an expert held.
struct Grant {
    began: String,
    tick: u64,
    expert: String,
    set: String,
    epoch: u64,
    consent: String,
    figures: Option<String>,
    ended: Option<(String, Option<u64>)>,
}

#[derive(Default)]
struct Story {
    text: String,
    day: String,
    /// The state and since when, of this run.
    since: Option<(State, u64)>,
    grants: Vec<Grant>,
    about: Option<String>,
}

impl Story {
    fn tell(&mut self, r: &Record) {
        self.head(r);
        // Within one run of the gate its own clock counts; the wall clock may have been set meanwhile.
        if r.event == Event::Started {
            self.since = None;
            self.close_grant("the gate stopped without a record of it", None);
        }
        let (day, time) = r.utc.split_once('T').unwrap_or(("", &r.utc));
        if day != self.day {
            self.day = clean(day);
            let _ = writeln!(self.text, "{RULE} {} (UTC) {RULE}", self.day);
        }
        let time: String = clean(time).chars().take(12).collect();
        let mut line = format!("{time}  {}", sentence(r));
        if r.event == Event::Change {
            line.push_str(&self.lasted(r));
        }
        let details = details(r);
        if !details.is_empty() {
            let _ = write!(line, ": {}", details.join("; "));
        }
        if names_actor(r) {
            let _ = write!(line, " [{}]", who(&r.actor));
        }
        self.text.push_str(&line);
        self.text.push('\n');
        self.note_grant(r);
    }

    /// Whose story it is, at the beginning and where it changes.
    fn head(&mut self, r: &Record) {
        let patients: Vec<_> =
            r.patient.iter().map(|p| format!("{} ({})", clean(&p.value), clean(&p.assigner))).collect();
        let patients = if patients.is_empty() { "not given".to_owned() } else { patients.join(", ") };
        let short: String = r.configuration.to_string().chars().take(12).collect();
        let about =
            format!("Session {}, patient {patients}. {}, configuration {short}.", r.session, clean(&r.software));
        if self.about.as_ref() != Some(&about) {
            let _ = writeln!(self.text, "{about}");
            self.about = Some(about);
        }
    }

    /// How long the former state lasted.
    fn lasted(&mut self, r: &Record) -> String {
        let Some(to) = r.to else { return String::new() };
        let before = self.since.replace((to, r.tick));
        match before {
            Some((state, tick)) if Some(state) == r.from && r.from != r.to => {
                format!(" (after {} of {})", duration(r.tick.saturating_sub(tick)), state_name(state))
            }
            _ => String::new(),
        }
    }

    fn note_grant(&mut self, r: &Record) {
        if r.event != Event::Change {
            return;
        }
        if r.to == Some(State::Remote) {
            self.grants.push(Grant {
                began: r.utc.clone(),
                tick: r.tick,
                expert: r.expert.as_ref().map(person).unwrap_or_default(),
                set: set(r),
                epoch: r.epoch.unwrap_or_default(),
                consent: r
                    .consent
                    .as_deref()
                    .and_then(|c| c.split(" sha256").next())
                    .map_or_else(|| "none".to_owned(), clean),
                figures: figures(r),
                ended: None,
            });
        } else if r.from == Some(State::Remote) {
            let why = r.reason.as_deref().map_or_else(|| "no reason given".to_owned(), clean);
            self.close_grant(&format!("{why} → {}", r.to.map_or("?", state_name)), Some(r.tick));
        }
    }

    fn close_grant(&mut self, why: &str, tick: Option<u64>) {
        if let Some(grant) = self.grants.last_mut().filter(|g| g.ended.is_none()) {
            let lasted = tick.map(|t| t.saturating_sub(grant.tick));
            grant.ended = Some((why.to_owned(), lasted));
        }
    }

    fn end(mut self) -> String {
        if self.text.is_empty() {
            return "The chain is empty.\n".to_owned();
        }
        if self.grants.is_empty() {
            self.text.push_str("\nNo expert had control.\n");
            return self.text;
        }
        let head = ["from (UTC)", "for", "expert", "what", "epoch", "consent", "ended by", "link at the grant"];
        let mut rows = vec![head.map(str::to_owned)];
        for g in &self.grants {
            let from = parse_utc(&g.began).map_or_else(|| clean(&g.began), super::clock::utc_seconds);
            let (why, lasted) = g.ended.clone().unwrap_or_else(|| ("still in control".to_owned(), None));
            let lasted = lasted.map_or_else(|| "?".to_owned(), duration);
            let figures = g.figures.clone().unwrap_or_else(|| "not measured".to_owned());
            let (epoch, consent) = (g.epoch.to_string(), g.consent.clone());
            rows.push([from, lasted, g.expert.clone(), g.set.clone(), epoch, consent, why, figures]);
        }
        self.text.push_str("\nExperts in control:\n");
        table(&rows, &mut self.text);
        self.text
    }
}

/// Where the sentence does not say already who acted.
fn names_actor(r: &Record) -> bool {
    matches!(r.event, Event::Change | Event::Intent)
}

/// Columns as wide as their widest cell, the last one as it is.
fn table<const N: usize>(rows: &[[String; N]], out: &mut String) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str("  ");
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
}

const fn state_name(state: State) -> &'static str {
    match state {
        State::Hold => "HOLD",
        State::Local => "LOCAL",
        State::Offered => "OFFERED",
        State::Ready => "READY",
        State::Granting => "GRANTING",
        State::Remote => "REMOTE",
        State::Estop => "ESTOP",
        State::Closed => "CLOSED",
    }
}

/// `3.4 s`, `2 min 5 s`, `1 h 2 min`.
fn duration(us: u64) -> String {
    let s = us / 1_000_000;
    match s {
        0 => format!("{} ms", us / 1_000),
        1..60 => format!("{s}.{} s", us % 1_000_000 / 100_000),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::{Hash, Outcome, Party, tests::blank};

    /// A chain in a file, from what a closure makes of blank records.
    fn chain(changes: &[&dyn Fn(&mut Record)]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let (mut text, mut previous) = (String::new(), Hash::NONE);
        for (n, change) in changes.iter().enumerate() {
            let mut record = blank(n as u64 + 1, previous);
            record.utc = format!("2026-03-01T10:20:{n:02}.250000Z");
            change(&mut record);
            let (line, hash) = record.line().unwrap();
            text.push_str(&line);
            previous = hash;
        }
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn changed(r: &mut Record, from: State, to: State, reason: &str) {
        r.from = Some(from);
        r.to = Some(to);
        r.reason = Some(reason.into());
        r.set = vec!["instruments".into()];
        r.epoch = Some(7);
        r.actor = Party { role: Some("local".into()), ..Party::default() };
        r.expert = Some(Party { user: Some("dr-sato".into()), realm: Some("north".into()), ..Party::default() });
    }

    #[test]
    fn a_handover_reads_like_a_story_and_ends_with_a_table_of_grants() {
        let (_dir, path) = chain(&[
            &|r| r.event = Event::Started,
            &|r| changed(r, State::Hold, State::Local, "act of local"),
            &|r| {
                changed(r, State::Local, State::Offered, "act of local");
                r.step = Some("suturing".into());
            },
            &|r| {
                changed(r, State::Offered, State::Ready, "act of the expert");
                r.actor = r.expert.clone().unwrap();
            },
            &|r| changed(r, State::Ready, State::Granting, "act of local"),
            &|r| {
                changed(r, State::Granting, State::Remote, "the grant is complete");
                r.actor.role = Some("gate".into());
                r.consent = Some("serial 3 sha256 00".into());
                (r.loop_age_p50_us, r.loop_age_p95_us, r.loss_ppm) = (Some(21_000), Some(32_500), Some(400));
            },
            &|r| {
                changed(r, State::Remote, State::Hold, "nothing valid heard from the expert for the lease");
                r.actor.role = Some("gate".into());
                r.tick += 120_000_000;
            },
        ]);
        let story = show(&path).unwrap();
        let want = "\
Session or-1, patient 0815 (urn:oid:1.2.3). trocar-gate 0.1.0, configuration 000000000000.
── 2026-03-01 (UTC) ──
10:20:00.250  the gate started
10:20:01.250  local has control: act of local [local]
10:20:02.250  local offered instruments to dr-sato (after 1.0 s of LOCAL): act of local; step \"suturing\" [local]
10:20:03.250  dr-sato accepted; link and alignment are measured (after 1.0 s of OFFERED): act of the expert [dr-sato of north]
10:20:04.250  local confirmed to dr-sato (after 1.0 s of READY): act of local [local]
10:20:05.250  dr-sato HAS CONTROL of instruments, motion stopped until re-clutched (after 1.0 s of GRANTING): the grant is complete; \
loop age 21.0 ms (p95 32.5 ms), loss 0.04 % [the gate]
10:20:06.250  dr-sato's control ended; nobody moves (HOLD) (after 2 min 1 s of REMOTE): nothing valid heard from the expert for the \
lease [the gate]

Experts in control:
  from (UTC)            for        expert   what         epoch  consent   ended by                                                  \
link at the grant
  2026-03-01T10:20:05Z  2 min 1 s  dr-sato  instruments  7      serial 3  nothing valid heard from the expert for the lease → HOLD  \
loop age 21.0 ms (p95 32.5 ms), loss 0.04 %
";
        assert_eq!(story, want);
    }

    #[test]
    fn a_gate_that_was_killed_while_an_expert_held_is_told_as_that() {
        let (_dir, path) = chain(&[&|r| changed(r, State::Granting, State::Remote, "the grant is complete"), &|r| {
            r.event = Event::Started
        }]);
        assert!(show(&path).unwrap().contains("the gate stopped without a record of it"));
        let (_dir, path) = chain(&[&|r| changed(r, State::Granting, State::Remote, "the grant is complete")]);
        assert!(show(&path).unwrap().contains("still in control"));
    }

    #[test]
    fn what_people_said_cannot_write_lines_or_colours_into_the_story() {
        let (_dir, path) = chain(&[&|r| {
            r.event = Event::Estop;
            r.actor = Party { user: Some("eve\n10:00 all well".into()), ..Party::default() };
            r.reason = Some("\u{1b}[2Jx\u{202e}y".into());
            r.outcome = Outcome::Shown;
        }]);
        let story = show(&path).unwrap();
        assert!(!story.contains('\u{1b}') && !story.contains('\u{202e}'), "{story:?}");
        assert_eq!(story.lines().count(), 5, "{story}");
    }

    #[test]
    fn a_story_ends_where_a_record_is_bad_and_says_so() {
        let (_dir, path) = chain(&[&|r| r.event = Event::Started, &|r| r.event = Event::Alarms]);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\"alarms\"", "\"estop\" ", 1)).unwrap();
        let (story, bad) = show(&path).unwrap_err();
        assert!(story.contains("the gate started"));
        assert_eq!(bad.line, 2);
    }
}
