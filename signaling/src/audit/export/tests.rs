//! Messages, and what is found in what a repository has kept. The way there is proved against rsyslog, end to end.

use super::message::{MAX_MESSAGE, Sender};
use super::*;
use crate::audit::chain::hash_of;
use crate::audit::{FORMAT, Record};

fn sender() -> Sender {
    let repository = Repository {
        address: "localhost:6514".into(),
        server_name: None,
        ca: "ca.pem".into(),
        identity: None,
        facility: 10,
        app_name: "trocar".into(),
    };
    Sender::new(&repository, "signaling.north", "north")
}

/// A chain of `n` records, the details by their number.
fn chain(n: u64, detail: impl Fn(u64) -> String) -> Vec<Waiting> {
    let mut previous = "0".repeat(64);
    (1..=n)
        .map(|seq| {
            let record = Record {
                format: FORMAT,
                seq,
                previous: previous.clone(),
                utc_us: 1_770_000_000_000_000 + seq,
                clock_offset_us: None,
                kind: "view-started".into(),
                session: Some("or-1".into()),
                patient: Some("NORTH|4711".into()),
                participant: Some("p-1".into()),
                name: Some("Dr. <Sato> & \"Tanaka\" 佐藤".into()),
                role: Some("observer".into()),
                realm: Some("north".into()),
                feed: Some("scope".into()),
                leg: None,
                duration_us: None,
                detail: detail(seq),
                lost: 0,
            };
            let text = serde_json::to_string(&record).unwrap();
            let hash = hex::encode(hash_of(&text));
            previous.clone_from(&hash);
            Waiting { seq, at: WallMicros(record.utc_us), record, text, hash }
        })
        .collect()
}

fn lines(sender: &Sender, records: &[&Waiting]) -> Vec<u8> {
    records.iter().flat_map(|r| [sender.message(r), b"\n".to_vec()].concat()).collect()
}

fn found(bytes: &[u8]) -> Found {
    reconcile(&Received::read(bytes, None).unwrap(), None).unwrap()
}

#[test]
fn a_message_is_one_line_of_syslog_with_the_record_in_it_and_everything_escaped() {
    let nasty = "</AuditMessage> \u{1b}[2J \r\n]]> \u{fffe} & \"'";
    let records = chain(1, |_| nasty.to_owned());
    let bytes = sender().message(&records[0]);
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with("<85>1 2026-02-02T02:40:00.000001Z "), "{text}");
    assert!(text.contains(" trocar ") && text.contains(" DICOM+RFC3881 - \u{feff}<?xml version=\"1.0\""), "{text}");
    assert!(!text.contains(char::is_control), "{text}");
    assert_eq!(text.matches("</AuditMessage>").count(), 1);
    assert!(text.contains("UserName=\"Dr. &lt;Sato&gt; &amp; &quot;Tanaka&quot; 佐藤\""), "{text}");
    let found = found(text.as_bytes());
    assert!(found.is_whole() && found.records == 1, "{found:?}");
}

#[test]
fn a_large_record_goes_whole_and_one_that_is_too_large_by_its_hash() {
    for (size, whole) in [(20_000, true), (40_000, true), (60_000, false)] {
        let records = chain(1, |_| "x".repeat(size));
        let message = sender().message(&records[0]);
        assert!(message.len() <= MAX_MESSAGE, "{size}: {}", message.len());
        let has_record = String::from_utf8(message.clone()).unwrap().contains("trocar-record");
        assert_eq!(has_record, whole, "{size}");
        assert_eq!(found(&message).records, 1, "{size}");
    }
}

#[test]
fn what_is_lost_doubled_or_changed_is_found_without_the_store() {
    let (sender, records) = (sender(), chain(9, |seq| format!("the {seq}th")));
    let all: Vec<&Waiting> = records.iter().collect();
    let whole = found(&lines(&sender, &all));
    assert!(whole.is_whole() && whole.records == 9 && whole.doubled == 0, "{whole:?}");
    // Moved, doubled, and three that are missing.
    let some: Vec<&Waiting> = [8, 0, 1, 1, 5, 8].iter().map(|i| &records[*i]).collect();
    let partly = found(&lines(&sender, &some));
    assert_eq!((partly.records, partly.doubled), (4, 2), "{partly:?}");
    assert_eq!(partly.lost, [3..=5, 7..=8]);
    assert!(partly.changed.is_empty());
    // Another record of the same number, with a hash that fits it.
    let other = chain(9, |seq| format!("not the {seq}th"));
    let forged = found(&lines(&sender, &[&records[0], &other[1], &records[2]]));
    assert_eq!(forged.changed, [2, 3], "{forged:?}");
    // And bytes that are not what the hash says.
    let lied = Waiting { text: records[3].text.replace("4th", "5th"), ..records[3].clone() };
    assert_eq!(found(&lines(&sender, &[&records[2], &lied])).changed, [4]);
    // A line that was cut is counted, and the record is not there.
    let mut cut = lines(&sender, &all[..2]);
    cut.truncate(cut.len() - 30);
    let torn = Received::read(&*cut, None).unwrap();
    assert_eq!((torn.unread, found(&cut).records), (1, 1));
}

#[test]
fn two_nodes_in_one_file_have_to_be_told_apart() {
    let records = chain(1, |_| String::new());
    let other = Sender::new(
        &Repository {
            address: "x:1".into(),
            server_name: None,
            ca: "ca".into(),
            identity: None,
            facility: 10,
            app_name: "trocar".into(),
        },
        "signaling.south",
        "south",
    );
    let both = [lines(&sender(), &[&records[0]]), lines(&other, &[&records[0]])].concat();
    let error = Received::read(&*both, None).unwrap_err().to_string();
    assert!(error.contains("signaling.north, signaling.south"), "{error}");
    assert_eq!(found(&lines(&sender(), &[&records[0]])).records, 1);
    assert!(Received::read(&*both, Some("signaling.south")).is_ok());
}

#[test]
fn an_emergency_is_told_by_the_codes_that_the_standard_has_for_it() {
    let told = |kind: &str| {
        let mut records = chain(1, |_| "why".to_owned());
        records[0].record.kind = kind.to_owned();
        String::from_utf8(sender().message(&records[0])).unwrap()
    };
    for (kind, code, meaning) in [
        ("break-glass-joined", "110127", "Emergency Override Started"),
        ("break-glass-ended", "110138", "Emergency Override Stopped"),
    ] {
        let text = told(kind);
        let coded = format!("<EventTypeCode csd-code=\"{code}\" codeSystemName=\"DCM\" originalText=\"{meaning}\"/>");
        assert!(text.contains("<EventID csd-code=\"110113\"") && text.contains(&coded), "{text}");
        assert!(!told("joined").contains(code), "whoever logs in claims no emergency");
    }
}
