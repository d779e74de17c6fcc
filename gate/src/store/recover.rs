//! Finding the end of the audit chain when the gate starts, and making both copies equal again.

use super::chain::Chain;
use super::layer::{Layer, Name};
use super::pair::{self, Pair};
use std::io;
use trocar_control::audit::record::{Event, Link, MAX_LINE, Record, State};
use trocar_control::audit::sector::{Head, Kind};

/// How much of the end of a copy is read and checked at the start: a start takes the same time however long the chain is. The whole chain is
/// checked by `trocar audit verify`.
const WINDOW: u64 = 1 << 20;

/// The chain, ready to be continued.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) chain: Chain,
    /// The newest epoch that was granted, or was to be.
    pub(super) last_epoch: Option<u64>,
}

/// Finds the last good record and makes both copies end there. Whatever lies behind it is kept aside, and told in `found`.
///
/// # Errors
/// Why there is no chain that could be continued, for people.
pub(super) fn recover(layer: &mut dyn Layer, found: &mut Vec<String>) -> Result<Recovered, String> {
    let (head_pair, head) = match pair::load(layer, Kind::HEAD, Name::HEAD) {
        Ok(Some((pair, content))) => (pair, Some(Head::decode(&content).map_err(|e| format!("audit.head.a {e}"))?.0)),
        Ok(None) => (Pair::new(Kind::HEAD, Name::HEAD), Some(Link::START)),
        // The head only helps to find a cut tail; the chain speaks for itself.
        Err(e) => {
            found.push(format!("{e}: a tail that was cut off the audit chain would not be noticed"));
            (Pair::new(Kind::HEAD, Name::HEAD), None)
        }
    };
    let mut ends = Vec::with_capacity(2);
    for name in Name::CHAINS {
        let end = End::find(layer, name).map_err(|e| format!("{name}: cannot be read: {e}"))?;
        ends.push((name, end));
    }
    let best = ends.iter().filter_map(|(_, end)| end.as_ref()).filter(|end| end.last.is_some()).max_by_key(|e| e.seq());
    let Some(best) = best.cloned() else { return restart(layer, &ends, head_pair, head, found) };
    let (last, length) = (best.last.unwrap_or(Link::START), best.good);
    for (name, end) in &ends {
        make_equal(layer, *name, end.as_ref(), &best, found).map_err(|e| format!("{name}: cannot be repaired: {e}"))?;
    }
    let last = missing(last, head, found);
    Ok(Recovered { chain: Chain::new(last, [length; 2], head_pair), last_epoch: best.epoch })
}

/// There is no good record in either copy: right for a new store, and for one whose chain was moved away on purpose.
fn restart(
    layer: &mut dyn Layer,
    ends: &[(Name, Option<End>)],
    head_pair: Pair,
    head: Option<Link>,
    found: &mut Vec<String>,
) -> Result<Recovered, String> {
    let damaged = |end: &&(Name, Option<End>)| end.1.as_ref().is_some_and(|e| e.length > 0);
    // The very first write was torn by a crash; nothing was durable yet.
    let is_first = head == Some(Link::START) && ends.iter().filter_map(|(_, e)| e.as_ref()).all(|e| e.length <= WINDOW);
    if let Some((name, end)) = ends.iter().find(damaged)
        && !is_first
    {
        let why = end.as_ref().map_or("", |e| e.wrong.as_str());
        return Err(format!(
            "{name} and its copy have no good record at their ends ({why}); move both to a safe place, the chain then goes on where its \
             head is"
        ));
    }
    for (name, end) in ends {
        if let Some(end) = end.as_ref().filter(|e| e.length > 0) {
            cut_behind(layer, *name, end, found).map_err(|e| format!("{name}: cannot be repaired: {e}"))?;
        }
    }
    let last = missing(Link::START, head, found);
    Ok(Recovered { chain: Chain::new(last, [0; 2], head_pair), last_epoch: None })
}

/// Where the head knows of later records than the files have, the chain goes on behind those: the gap stays visible.
fn missing(last: Link, head: Option<Link>, found: &mut Vec<String>) -> Link {
    if let Some(head) = head.filter(|head| head.seq > last.seq) {
        let (first, newest) = (last.seq + 1, head.seq);
        found.push(format!(
            "the audit chain ends with record {}: records {first} to {newest} were on disk and are missing",
            last.seq
        ));
        head
    } else {
        last
    }
}

/// Makes a copy end as the best one does.
fn make_equal(
    layer: &mut dyn Layer,
    name: Name,
    end: Option<&End>,
    best: &End,
    found: &mut Vec<String>,
) -> io::Result<()> {
    if let Some(end) = end
        && let Some(from) = best.behind(end.last)
        && from == end.good
    {
        if end.length > end.good {
            cut_behind(layer, name, end, found)?;
        }
        return copy(layer, best.name, name, from, best.good);
    }
    if end.is_some() {
        let kept = layer.set_aside(name)?;
        found.push(format!("{name} did not fit its copy and was made anew; the old one is {kept}"));
    } else {
        found.push(format!("{name} was missing and was made anew from its copy"));
    }
    copy(layer, best.name, name, 0, best.good)
}

/// Cuts what lies behind the last good line, and keeps it.
fn cut_behind(layer: &mut dyn Layer, name: Name, end: &End, found: &mut Vec<String>) -> io::Result<()> {
    let bytes = layer.read(name, end.good, usize::try_from(end.length - end.good).unwrap_or(usize::MAX))?;
    let kept = layer.keep(&bytes)?;
    layer.cut(name, end.good)?;
    layer.sync(name)?;
    let record = end.seq();
    found.push(format!("{name}: {} bytes behind record {record} ({}) were kept in {kept}", bytes.len(), end.wrong));
    Ok(())
}

fn copy(layer: &mut dyn Layer, from: Name, to: Name, start: u64, end: u64) -> io::Result<()> {
    let mut at = start;
    while at < end {
        let piece = layer.read(from, at, usize::try_from(WINDOW.min(end - at)).unwrap_or(0))?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        layer.write(to, at, &piece)?;
        at += piece.len() as u64;
    }
    // Also where nothing was to be copied: a run that was killed may have left what is not flushed.
    layer.sync(to)
}

/// The end of one copy.
#[derive(Debug, Clone)]
struct End {
    name: Name,
    length: u64,
    /// Where the last good line ends.
    good: u64,
    last: Option<Link>,
    epoch: Option<u64>,
    /// The good lines of the window: where each ends.
    lines: Vec<(Link, u64)>,
    /// What is wrong with the first bytes behind the last good line.
    wrong: String,
}

impl End {
    fn find(layer: &mut dyn Layer, name: Name) -> io::Result<Option<Self>> {
        let Some(length) = layer.length(name)? else { return Ok(None) };
        let window = length.min(WINDOW);
        let bytes = layer.read(name, length - window, usize::try_from(window).unwrap_or(usize::MAX))?;
        let mut end = Self {
            name,
            length,
            good: length - window,
            last: None,
            epoch: None,
            lines: Vec::new(),
            wrong: "no whole line".to_owned(),
        };
        if window < length {
            // The window begins somewhere within a line.
            end.good += bytes.iter().position(|b| *b == b'\n').map_or(window, |n| n as u64 + 1);
        } else {
            end.last = Some(Link::START);
        }
        let skip = usize::try_from(end.good - (length - window)).unwrap_or(usize::MAX);
        for line in bytes.get(skip..).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
            if let Err(why) = end.take(line) {
                end.wrong = why;
                break;
            }
        }
        // A file without any good record gives no place to go on from.
        if end.lines.is_empty() {
            end.last = None;
        }
        Ok(Some(end))
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let body = line.strip_suffix(b"\n").filter(|b| b.len() < MAX_LINE).ok_or("a line that is not whole")?;
        let (record, hash) = Record::read(body).map_err(|e| format!("a line that {e}"))?;
        let fits = |last: Link| record.seq == last.seq + 1 && record.previous == last.hash;
        // Behind a tail that was cut, the chain goes on with a gap that the record itself tells of.
        let is_gap = |last: Link| record.seq > last.seq && record.durable.is_some_and(|d| d.hash == record.previous);
        if self.last.is_some_and(|last| !fits(last) && !is_gap(last)) {
            return Err("a record that does not belong there".to_owned());
        }
        let link = Link { seq: record.seq, hash };
        self.good += line.len() as u64;
        // Other epochs may be the device's: those of a gate that could not rely on its store (HO-E-006).
        if record.event == Event::Intent || record.to == Some(State::Remote) {
            self.epoch = record.epoch.max(self.epoch);
        }
        self.last = Some(link);
        self.lines.push((link, self.good));
        Ok(())
    }

    fn seq(&self) -> u64 {
        self.last.map_or(0, |l| l.seq)
    }

    /// Where this copy goes on behind that record, where the window shows it.
    fn behind(&self, last: Option<Link>) -> Option<u64> {
        match last {
            None => None,
            Some(last) => self.lines.iter().find(|(link, _)| *link == last).map(|(_, end)| *end),
        }
    }
}
