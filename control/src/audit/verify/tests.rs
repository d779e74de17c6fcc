use super::*;
use crate::audit::record::tests::blank;

/// A store with a chain of so many records, its copy and its head.
struct Store {
    dir: tempfile::TempDir,
    lines: Vec<String>,
    links: Vec<Link>,
}

const MOST: u64 = 20;

impl Store {
    fn new() -> Self {
        let (mut lines, mut links) = (Vec::new(), vec![Link::START]);
        for seq in 1..=MOST {
            let before = links[links.len() - 1];
            let mut record = blank(seq, before.hash);
            if seq % 5 == 0 {
                // As an intent does.
                record.durable = Some(links[links.len() - 2]);
            }
            let (line, hash) = record.line().unwrap();
            lines.push(line);
            links.push(Link { seq, hash });
        }
        let store = Self { dir: tempfile::tempdir().unwrap(), lines, links };
        let head = *store.links.last().unwrap();
        store.put(CHAIN, &store.lines.concat());
        store.put(COPY, &store.lines.concat());
        store.note(head);
        store
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn note(&self, head: Link) {
        let bytes = sector::encode(Kind::HEAD, head.seq, &Head(head).encode()).unwrap();
        for name in HEADS {
            std::fs::write(self.dir.path().join(name), &bytes).unwrap();
        }
    }

    fn chain(&self, lines: &[String]) -> &Self {
        self.put(CHAIN, &lines.concat());
        self
    }

    /// The chain's file alone, as somebody has it who was sent it.
    fn file(&self) -> Result<Verified, Bad> {
        verify(&self.dir.path().join(CHAIN))
    }

    fn store(&self) -> Result<Verified, Bad> {
        verify(self.dir.path())
    }
}

/// The line at fault, and what is wrong.
fn fault(result: Result<Verified, Bad>) -> (u64, Why) {
    let bad = result.expect_err("nothing was found");
    (bad.line, bad.why)
}

#[test]
fn a_good_chain_is_good_and_its_head_is_named() {
    // HO-E-010; the negative control of all tests below.
    let store = Store::new();
    let verified = store.store().unwrap();
    assert_eq!((verified.records, verified.head), (MOST, store.links[20]));
    assert!(verified.has_copy && verified.has_head);
    let file = store.file().unwrap();
    assert!(!file.has_copy && !file.has_head);
    store.put(CHAIN, "");
    assert_eq!(store.file().unwrap().records, 0);
}

#[test]
fn a_changed_byte_is_found_at_its_line() {
    let store = Store::new();
    for at in 0..store.lines.len() {
        for byte in [0, 40, 300, store.lines[at].len() / 2, store.lines[at].len() - 10] {
            let mut text = store.lines.clone();
            let mut bytes = text[at].clone().into_bytes();
            bytes[byte] ^= 1;
            text[at] = String::from_utf8(bytes).unwrap();
            let (line, why) = fault(store.chain(&text).file());
            assert_eq!(line, at as u64 + 1, "byte {byte}: {why}");
            assert!(matches!(why, Why::Line(_)), "{why}");
        }
    }
}

#[test]
fn a_removed_line_is_found_where_it_was() {
    let store = Store::new();
    for at in 0..store.lines.len() - 1 {
        let mut lines = store.lines.clone();
        lines.remove(at);
        let (line, why) = fault(store.chain(&lines).file());
        let n = at as u64 + 1;
        assert_eq!(line, n);
        assert!(matches!(why, Why::Missing { first, last } if (first, last) == (n, n)), "{why}");
    }
}

#[test]
fn swapped_and_repeated_lines_are_found_at_the_first_of_them() {
    let store = Store::new();
    let mut lines = store.lines.clone();
    lines.swap(6, 12);
    assert!(matches!(fault(store.chain(&lines).file()), (7, Why::Missing { first: 7, last: 12 })));
    let mut lines = store.lines.clone();
    lines.insert(9, lines[3].clone());
    assert!(matches!(fault(store.chain(&lines).file()), (10, Why::Moved { expected: 10 })));
}

#[test]
fn a_record_that_was_replaced_by_one_with_a_fitting_hash_is_found() {
    let store = Store::new();
    let mut lines = store.lines.clone();
    let mut forged = Record::read(lines[8].trim_end().as_bytes()).unwrap().0;
    forged.reason = Some("all well".to_owned());
    lines[8] = forged.line().unwrap().0;
    let bad = store.chain(&lines).file().unwrap_err();
    assert_eq!((bad.line, bad.record), (9, Some(9)));
    assert!(matches!(bad.why, Why::Replaced));
    // The last one has nothing behind it: the head and the copy find it.
    let mut lines = store.lines.clone();
    let mut forged = Record::read(lines[19].trim_end().as_bytes()).unwrap().0;
    forged.reason = Some("all well".to_owned());
    lines[19] = forged.line().unwrap().0;
    store.chain(&lines).file().unwrap();
    assert!(matches!(fault(store.store()), (21, Why::Cut { seq: 20, .. })));
    for head in HEADS {
        std::fs::remove_file(store.dir.path().join(head)).unwrap();
    }
    assert!(matches!(fault(store.store()), (20, Why::Copies)));
}

#[test]
fn a_cut_tail_is_found_by_the_head_the_copy_and_the_next_intent() {
    // HO-U-007
    let store = Store::new();
    let (line, why) = fault(store.chain(&store.lines[..15]).store());
    assert_eq!(line, 16);
    assert_eq!(
        why.to_string(),
        "audit.head.a says that record 20 was on disk: the end of the chain was cut off or replaced"
    );
    store.chain(&store.lines).put(COPY, &store.lines[..15].concat());
    let bad = store.store().unwrap_err();
    assert!(bad.file.ends_with(COPY) && bad.line == 16, "{bad}");
    // Without either, the chain goes on as if nothing had been; but its next intent remembers.
    let mut lines = store.lines[..15].to_vec();
    let mut next = blank(16, store.links[15].hash);
    next.durable = Some(store.links[18]);
    lines.push(next.line().unwrap().0);
    assert!(matches!(fault(store.chain(&lines).file()), (16, Why::Cut { seq: 18, .. })));
    next.durable = Some(Link { hash: Hash([9; 32]), ..store.links[14] });
    lines[15] = next.line().unwrap().0;
    assert!(matches!(fault(store.chain(&lines).file()), (16, Why::Cut { seq: 14, .. })));
    next.durable = Some(store.links[14]);
    lines[15] = next.line().unwrap().0;
    store.chain(&lines).file().unwrap();
}

#[test]
fn a_torn_and_an_endless_last_line_are_found() {
    let store = Store::new();
    let mut lines = store.lines.clone();
    lines[19].pop();
    assert!(matches!(fault(store.chain(&lines).file()), (20, Why::Torn)));
    lines[19] = "x".repeat(MAX_LINE + 1);
    assert!(matches!(fault(store.chain(&lines).file()), (20, Why::TooLong)));
    lines[19] = "\n".to_owned();
    assert!(matches!(fault(store.chain(&lines).file()), (20, Why::Line(LineError::NoHash))));
}

#[test]
fn a_fault_is_told_with_file_line_and_record() {
    let store = Store::new();
    let mut lines = store.lines.clone();
    lines[2] = lines[2].replacen("or-1", "or-2", 1);
    let bad = store.chain(&lines).file().unwrap_err().to_string();
    assert!(
        bad.ends_with("audit.jsonl, line 3 (record 3): was changed after it was written: its hash does not fit"),
        "{bad}"
    );
    std::fs::remove_file(store.dir.path().join(CHAIN)).unwrap();
    assert!(matches!(fault(store.store()), (1, Why::Io(_))));
}
