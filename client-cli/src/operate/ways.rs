//! The ways to the gate that are open, the keys of those that were, and what each brings.
//!
//! What is said goes by all of them: reliable messages under one id, datagrams sealed once (HO-C-006, HO-C-008). The keys are those of
//! the channel that carried the ACCEPT, and stay when that one is gone and another is there.

use super::acts::Path;
use super::view::PathView;
use trocar_control::seal::{SealError, SealKeys};
use trocar_proto::handover::message::{Datagram, Dedupe, ToGate};
use trocar_proto::handover::paths::{Copy, Paths, Protection};
use trocar_proto::handover::types::{Binding, ChannelId, Epoch, Oid};
use trocar_proto::units::Micros;

/// Keys of channels that are gone; the oldest is dropped.
const KEPT: usize = 4;
/// A gate that says nothing new for so long, while it is heard, counts its messages otherwise than we do.
const SILENT: u64 = 2_000_000;

#[derive(Debug)]
struct Way {
    channel: ChannelId,
    path: Path,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Ways {
    /// As many as the command line asks for.
    wanted: usize,
    /// In the order in which they were opened, which is the gate's order too.
    open: Vec<Way>,
    kept: Vec<(ChannelId, SealKeys)>,
    book: Paths,
    seen: Dedupe,
    channels: u32,
    next_id: u64,
    /// When the gate last said something new.
    news: Micros,
}

/// What became of a way that was opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// The only one: everything begins anew (HO-T-010).
    First(ChannelId),
    /// One more, to the same gate: HELLO binds it to this one.
    Another(ChannelId, u128),
    /// It leads to another gate, and was closed.
    Elsewhere,
}

/// What a datagram was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// For the machine: it opened with this channel's keys.
    New(ChannelId, Datagram),
    /// A copy of what another path brought.
    Copy,
    /// Nothing that our keys open.
    Nothing,
}

impl Ways {
    /// None yet. `first_id` is above those of a station that ran before with this certificate.
    pub(super) fn new(wanted: usize, first_id: u64, now: Micros) -> Self {
        Self {
            wanted,
            open: Vec::new(),
            kept: Vec::new(),
            book: Paths::default(),
            seen: Dedupe::default(),
            channels: 0,
            next_id: first_id,
            news: now,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// A way is open.
    pub(super) fn opened(&mut self, now: Micros, path: Path) -> Opened {
        if self.open.first().is_some_and(|way| way.path.certificate != path.certificate) {
            path.writer.close();
            return Opened::Elsewhere;
        }
        self.channels += 1;
        let channel = ChannelId(self.channels);
        let binds = self.open.first().map(|way| way.path.tunnel);
        if binds.is_none() {
            (self.book, self.seen) = (Paths::default(), Dedupe::default());
            self.kept.clear();
        }
        self.news = now;
        self.book.opened(now, channel.0);
        self.open.push(Way { channel, path });
        binds.map_or(Opened::First(channel), |tunnel| Opened::Another(channel, tunnel))
    }

    /// The way of that number is gone, if it was there.
    pub(super) fn gone(&mut self, number: usize) -> Option<ChannelId> {
        let at = self.open.iter().position(|way| way.path.number == number)?;
        let Way { channel, path } = self.open.remove(at);
        path.writer.close();
        self.book.gone(channel.0);
        if self.open.is_empty() {
            self.kept.clear();
        } else {
            if self.kept.len() >= KEPT {
                self.kept.remove(0);
            }
            self.kept.push((channel, path.keys));
        }
        Some(channel)
    }

    /// Whether a reliable message is no copy.
    pub(super) fn is_new(&mut self, now: Micros, number: usize, id: u64) -> bool {
        if let Some(way) = self.open.iter().find(|way| way.path.number == number) {
            self.book.heard(now, way.channel.0);
        }
        let new = self.seen.is_first(id);
        if new {
            self.news = now;
        }
        new
    }

    /// Reliably, by all ways; by one where it is HELLO.
    pub(super) fn send(&mut self, only: Option<ChannelId>, message: &ToGate) {
        let id = self.next_id;
        self.next_id += 1;
        if let ToGate::Accept { oid, .. } = message
            && !self.accept(*oid)
        {
            return;
        }
        for way in self.open.iter().filter(|way| only.is_none_or(|c| c == way.channel)) {
            if let Err(error) = way.path.writer.send(id, message) {
                tracing::warn!(%error, path = way.path.number + 1, "the channel is closed");
                way.path.writer.close();
            }
        }
    }

    /// Both ends take the first channel that is open.
    fn accept(&mut self, oid: Oid) -> bool {
        let Some(way) = self.open.first_mut() else { return false };
        if let Err(error) = way.path.keys.accept(oid) {
            tracing::warn!(%error, "no keys for this offer: the channel is opened anew");
            way.path.writer.close();
            return false;
        }
        true
    }

    /// The offer that a channel accepted became that epoch.
    pub(super) fn grant(&mut self, epoch: Epoch) {
        let is_of_offer = |keys: &&mut SealKeys| keys.bindings().iter().any(|b| matches!(b, Binding::Offer(_)));
        for keys in self.keys_mut().map(|(_, keys)| keys).filter(is_of_offer) {
            let _ = keys.grant(epoch); // again for the live one changes nothing
        }
    }

    fn keys_mut(&mut self) -> impl Iterator<Item = (ChannelId, &mut SealKeys)> {
        let open = self.open.iter_mut().map(|way| (way.channel, &mut way.path.keys));
        open.chain(self.kept.iter_mut().map(|(channel, keys)| (*channel, keys)))
    }

    /// Seals once and hands the same bytes to every way: how many took them, and how long they are.
    ///
    /// # Errors
    /// [`SealError`].
    pub(super) fn seal(&mut self, channel: ChannelId, datagram: &Datagram) -> Result<(usize, usize), SealError> {
        let keys = self.keys_mut().find(|(c, _)| *c == channel).map(|(_, keys)| keys).ok_or(SealError::NoKey)?;
        let sealed = keys.seal(datagram)?;
        let took = self.open.iter().filter(|way| way.path.connection.send_datagram(way.path.index, &sealed));
        Ok((took.count(), sealed.len()))
    }

    /// What a datagram that came by the way of that number is.
    pub(super) fn open(&mut self, now: Micros, number: usize, sealed: &[u8]) -> Came {
        let Some(by) = self.open.iter().find(|way| way.path.number == number).map(|way| way.channel) else {
            return Came::Nothing;
        };
        let opened = self.keys_mut().find_map(|(c, keys)| keys.open(sealed).ok().map(|datagram| (c, datagram)));
        let Some((channel, datagram)) = opened else { return Came::Nothing };
        match self.book.datagram(now, by.0, datagram.binding(), datagram.counter()) {
            Copy::Other => Came::Copy,
            Copy::First | Copy::Again => Came::New(channel, datagram),
        }
    }

    /// Closes all where the gate is heard and nothing that it says is new: it has forgotten that these ways belong together.
    pub(super) fn look(&mut self, now: Micros) {
        let heard = |way: &Way| self.book.is_live(now, way.channel.0);
        if now.since(self.news) > SILENT && self.open.iter().any(heard) {
            tracing::warn!("the gate says nothing new: its channels are opened anew");
            self.news = now;
            self.open.iter().for_each(|way| way.path.writer.close());
        }
    }

    /// Whether the loss of one path would be felt. Where two are wanted, one alone is an alarm from the start (HO-C-011).
    pub(super) fn protection(&mut self, now: Micros) -> Protection {
        match self.book.protection(now) {
            Protection::Single if self.wanted > 1 && !self.open.is_empty() => Protection::Unprotected,
            other => other,
        }
    }

    /// Name of the gate.
    pub(super) fn gate(&self) -> Option<String> {
        self.open.first().map(|way| way.path.gate.clone())
    }

    /// What the screen shows of each.
    pub(super) fn views(&self, now: Micros) -> Vec<PathView> {
        let view = |number| {
            let way = self.open.iter().find(|way| way.path.number == number);
            let figures = way.and_then(|way| self.book.figures(way.channel.0)).unwrap_or_default();
            PathView {
                live: way.is_some_and(|way| self.book.is_live(now, way.channel.0)),
                rtt: way.map(|way| way.path.connection.rtt()),
                figures,
            }
        };
        (0..self.wanted).map(view).collect()
    }
}
