//! Simulcast (RFC 8853): which layer a publisher's packet belongs to, and which layer is the largest.
//!
//! The first packets of a source carry the id of their layer in a header extension (RFC 8852); once the publisher knows
//! that its SSRC was learnt, it leaves the extension out. A layer has one SSRC for its media and one for its repair: the
//! newest counts, so that nothing that a peer sends makes this grow.

use trocar_proto::media::rtp::Header;
use trocar_proto::units::Ssrc;

/// Longest layer id that is looked at, in bytes: what fits an extension element of the one-byte form.
const MAX_RID_LEN: usize = 16;

/// One layer, or an m-line without layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Payload type of the media. Layers of one m-line share it.
    pub payload_type: u8,
    /// Payload type of repair (RFC 4588).
    pub rtx_payload_type: Option<u8>,
    /// Id of the layer; none where the m-line has no layers.
    pub rid: Option<String>,
    media: Option<Ssrc>,
    rtx: Option<Ssrc>,
}

impl Lane {
    /// A lane that nothing has come by yet.
    #[must_use]
    pub const fn new(payload_type: u8, rtx_payload_type: Option<u8>, rid: Option<String>) -> Self {
        Self { payload_type, rtx_payload_type, rid, media: None, rtx: None }
    }
}

/// Where a packet belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belongs {
    /// It is media of the lane of that index.
    Media {
        /// The lane.
        lane: usize,
        /// Its SSRC is another one than that of the lane's packets before.
        another: bool,
    },
    /// It repairs the lane of that index.
    Repair {
        /// The lane.
        lane: usize,
    },
}

/// The lanes of one connection.
#[derive(Debug, Default)]
pub struct Demux {
    lanes: Vec<Lane>,
    /// Id of the rtp-stream-id extension; 0 where it was not agreed.
    rid_id: u8,
    /// Id of the repaired-rtp-stream-id extension; 0 where it was not agreed.
    repaired_id: u8,
    unrouted: u64,
}

impl Demux {
    /// Adds a lane and returns its index. `rid_id` and `repaired_id` are extension ids, the same in a whole connection (RFC
    /// 9143 section 9.2); 0 leaves what was agreed before.
    pub fn add(&mut self, lane: Lane, rid_id: u8, repaired_id: u8) -> usize {
        self.rid_id = if rid_id == 0 { self.rid_id } else { rid_id };
        self.repaired_id = if repaired_id == 0 { self.repaired_id } else { repaired_id };
        self.lanes.push(lane);
        self.lanes.len() - 1
    }

    /// Where a packet belongs; none where nothing says it. A layer id in the packet counts more than what was learnt.
    pub fn find(&mut self, h: &Header, packet: &[u8]) -> Option<Belongs> {
        let found = self.place(h, packet).and_then(|(lane, is_repair)| self.bind(lane, is_repair, h.ssrc));
        self.unrouted += u64::from(found.is_none());
        found
    }

    fn place(&self, h: &Header, packet: &[u8]) -> Option<(usize, bool)> {
        let is_repair = |l: &Lane| l.rtx_payload_type == Some(h.payload_type);
        let fits = |l: &Lane| l.payload_type == h.payload_type || is_repair(l);
        let first = self.lanes.iter().find(|l| fits(l))?;
        let repairs = is_repair(first);
        let id = if repairs { self.repaired_id } else { self.rid_id };
        let by = |wanted: &dyn Fn(&Lane) -> bool| self.lanes.iter().position(|l| fits(l) && wanted(l));
        let lane = match layer_id(h, packet, id) {
            Some(rid) if first.rid.is_some() => by(&|l| l.rid.as_deref() == Some(rid)),
            _ => {
                let known = by(&|l| if repairs { l.rtx == Some(h.ssrc) } else { l.media == Some(h.ssrc) });
                known.or_else(|| by(&|l| l.rid.is_none()))
            }
        };
        Some((lane?, repairs))
    }

    /// Whether an SSRC is another stream's: of another m-line, or media where this is repair. In one connection every stream has
    /// one of its own (RFC 3550 section 8, RFC 8843 section 9.2): SRTP keeps one window of numbers for it.
    fn is_anothers(&self, index: usize, is_repair: bool, ssrc: Ssrc) -> bool {
        let of_line = self.lanes.get(index).map(|l| l.payload_type);
        self.lanes.iter().any(|l| {
            let (same, other) = if is_repair { (l.rtx, l.media) } else { (l.media, l.rtx) };
            other == Some(ssrc) || (same == Some(ssrc) && Some(l.payload_type) != of_line)
        })
    }

    fn bind(&mut self, index: usize, is_repair: bool, ssrc: Ssrc) -> Option<Belongs> {
        if self.is_anothers(index, is_repair, ssrc) {
            return None;
        }
        let lane = self.lanes.get_mut(index)?;
        let own = if is_repair { &mut lane.rtx } else { &mut lane.media };
        let before = own.replace(ssrc);
        if before != Some(ssrc) {
            // An SSRC that moves to another layer leaves the one before.
            for (_, other) in self.lanes.iter_mut().enumerate().filter(|(i, _)| *i != index) {
                let held = if is_repair { &mut other.rtx } else { &mut other.media };
                *held = held.filter(|s| *s != ssrc);
            }
        }
        let another = before.is_some_and(|b| b != ssrc);
        Some(if is_repair { Belongs::Repair { lane: index } } else { Belongs::Media { lane: index, another } })
    }

    /// The lane of that index.
    #[must_use]
    pub fn lane(&self, index: usize) -> Option<&Lane> {
        self.lanes.get(index)
    }

    /// SSRC of a lane's media, once a packet came.
    #[must_use]
    pub fn media(&self, index: usize) -> Option<Ssrc> {
        self.lanes.get(index)?.media
    }

    /// The lane whose media has that SSRC.
    #[must_use]
    pub fn lane_of(&self, ssrc: Ssrc) -> Option<usize> {
        self.lanes.iter().position(|l| l.media == Some(ssrc))
    }

    /// Packets that belonged nowhere so far.
    #[must_use]
    pub const fn unrouted(&self) -> u64 {
        self.unrouted
    }
}

fn layer_id<'a>(h: &Header, packet: &'a [u8], id: u8) -> Option<&'a str> {
    let (_, data) = h.extensions(packet).find(|(i, _)| *i == id && id != 0)?;
    std::str::from_utf8(data).ok().filter(|t| (1..=MAX_RID_LEN).contains(&t.len()))
}

/// Names that pages give to layers, the largest first.
const LADDERS: [&[&str]; 6] = [
    &["f", "h", "q"],
    &["h", "m", "l"],
    &["hi", "mid", "lo"],
    &["high", "medium", "low"],
    &["high", "mid", "low"],
    &["full", "half", "quarter"],
];

/// The layers in the order of their size, the largest first, as indexes into `rids`. Names that are known say it; else the
/// last is the largest, as it is where a page gives no scales (W3C WebRTC section 5.1, `addTransceiver`).
#[must_use]
pub fn by_size(rids: &[String]) -> Vec<usize> {
    let ladder = LADDERS.iter().find(|l| rids.iter().all(|r| l.contains(&r.as_str())));
    let mut order: Vec<usize> = (0..rids.len()).rev().collect();
    if let Some(ladder) = ladder {
        order.sort_by_key(|i| rids.get(*i).and_then(|r| ladder.iter().position(|l| l == r)));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::link::rng::Rng;
    use trocar_proto::media::rtp::{HeaderFields, write_header};

    const RID: u8 = 10;
    const REPAIRED: u8 = 11;

    fn demux(rids: &[&str]) -> Demux {
        let mut d = Demux::default();
        for rid in rids {
            d.add(Lane::new(96, Some(97), Some((*rid).to_owned())), RID, REPAIRED);
        }
        d.add(Lane::new(111, None, None), 0, 0);
        d
    }

    fn packet(payload_type: u8, ssrc: u32, element: Option<(u8, &str)>) -> Vec<u8> {
        let mut b = vec![0; 64];
        let fields = HeaderFields { marker: false, payload_type, seq: 1, timestamp: 2, ssrc: Ssrc(ssrc) };
        let elements: Vec<(u8, &[u8])> = element.iter().map(|(id, t)| (*id, t.as_bytes())).collect();
        let n = write_header(&mut b, fields, &elements).unwrap();
        b.truncate(n);
        b
    }

    fn find(d: &mut Demux, payload_type: u8, ssrc: u32, element: Option<(u8, &str)>) -> Option<Belongs> {
        let p = packet(payload_type, ssrc, element);
        d.find(&Header::parse(&p).unwrap(), &p)
    }

    const fn media(lane: usize, another: bool) -> Option<Belongs> {
        Some(Belongs::Media { lane, another })
    }

    #[test]
    fn the_first_packets_of_a_layer_name_it_and_later_ones_are_known_by_their_ssrc() {
        let mut d = demux(&["q", "h", "f"]);
        assert_eq!(find(&mut d, 96, 1, None), None, "nothing says which layer");
        for (lane, rid) in ["q", "h", "f"].into_iter().enumerate() {
            let ssrc = lane as u32 + 1;
            assert_eq!(find(&mut d, 96, ssrc, Some((RID, rid))), media(lane, false));
            assert_eq!(find(&mut d, 96, ssrc, None), media(lane, false));
            assert_eq!(d.lane_of(Ssrc(ssrc)), Some(lane));
            let repair = Some(Belongs::Repair { lane });
            assert_eq!(find(&mut d, 97, 100 + ssrc, None), None);
            assert_eq!(find(&mut d, 97, 100 + ssrc, Some((REPAIRED, rid))), repair);
            assert_eq!(find(&mut d, 97, 100 + ssrc, None), repair);
        }
        assert_eq!(find(&mut d, 111, 50, None), media(3, false), "sound has no layers");
        assert_eq!(d.unrouted(), 4);
    }

    #[test]
    fn unknown_layers_and_lying_extensions_belong_nowhere_and_change_nothing() {
        let mut d = demux(&["h", "f"]);
        find(&mut d, 96, 1, Some((RID, "h")));
        for bad in ["x", "hh", "H", "abcdefghijklmnop", "\u{7f}"] {
            assert_eq!(find(&mut d, 96, 9, Some((RID, bad))), None, "{bad}");
        }
        // The wrong extension for the payload type, and a payload type that nobody agreed to.
        assert_eq!(find(&mut d, 96, 9, Some((REPAIRED, "h"))), None);
        assert_eq!(find(&mut d, 97, 9, Some((RID, "h"))), None);
        assert_eq!(find(&mut d, 50, 1, Some((RID, "h"))), None);
        assert_eq!(find(&mut d, 97, 1, None), None, "an SSRC of media repairs nothing");
        assert_eq!(find(&mut d, 96, 1, None), media(0, false), "the honest source goes on");
    }

    #[test]
    fn a_layer_that_gets_another_source_says_so_and_an_ssrc_that_moves_leaves_its_old_layer() {
        let mut d = demux(&["h", "f"]);
        assert_eq!(find(&mut d, 96, 1, Some((RID, "h"))), media(0, false));
        assert_eq!(find(&mut d, 96, 2, Some((RID, "h"))), media(0, true));
        assert_eq!(find(&mut d, 96, 1, None), None, "the old source is forgotten");
        assert_eq!(find(&mut d, 96, 2, Some((RID, "f"))), media(1, false));
        assert_eq!(d.media(0), None);
        assert_eq!(find(&mut d, 96, 2, None), media(1, false));
    }

    #[test]
    fn an_ssrc_of_another_m_line_or_of_the_other_kind_of_stream_belongs_nowhere_and_takes_nothing_away() {
        let mut d = demux(&["h", "f"]);
        find(&mut d, 96, 1, Some((RID, "h")));
        find(&mut d, 96, 2, Some((RID, "f")));
        find(&mut d, 97, 3, Some((REPAIRED, "h")));
        find(&mut d, 111, 4, None);
        let before = d.unrouted();
        assert_eq!(find(&mut d, 111, 1, None), None, "sound under a picture's SSRC");
        assert_eq!(find(&mut d, 96, 4, Some((RID, "h"))), None, "a picture under the sound's");
        assert_eq!(find(&mut d, 97, 2, Some((REPAIRED, "h"))), None, "repair under the SSRC of another layer");
        assert_eq!(find(&mut d, 97, 1, Some((REPAIRED, "h"))), None, "and under that of its own");
        assert_eq!(find(&mut d, 96, 3, Some((RID, "f"))), None, "a layer under the SSRC of another one's repair");
        assert_eq!(d.unrouted() - before, 5);
        assert_eq!([1, 2, 4].map(|s| d.lane_of(Ssrc(s))), [Some(0), Some(1), Some(2)], "all are what they were");
        assert_eq!(find(&mut d, 96, 1, None), media(0, false));
        assert_eq!(find(&mut d, 97, 3, None), Some(Belongs::Repair { lane: 0 }));
        // The control: layers of one m-line are told apart by their ids, also under one SSRC: the newest id counts.
        assert_eq!(find(&mut d, 96, 1, Some((RID, "f"))), media(1, true));
        assert_eq!(d.media(0), None);
    }

    #[test]
    fn a_plain_line_takes_whatever_source_comes() {
        let mut d = demux(&[]);
        assert_eq!(find(&mut d, 111, 1, None), media(0, false));
        assert_eq!(find(&mut d, 111, 2, None), media(0, true));
        assert_eq!(find(&mut d, 111, 2, Some((RID, "f"))), media(0, false), "an extension that nobody agreed to");
    }

    #[test]
    fn a_flood_of_sources_leaves_one_for_media_and_one_for_repair_in_each_lane() {
        let mut d = demux(&["q", "h", "f"]);
        let mut rng = Rng::new(4);
        for _ in 0..20_000 {
            let rid = ["q", "h", "f", "x", ""][rng.below(5) as usize];
            let payload_type = [96, 97, 111, 3][rng.below(4) as usize];
            let id = [RID, REPAIRED, 5][rng.below(3) as usize];
            find(&mut d, payload_type, rng.next_u64() as u32, Some((id, rid)).filter(|_| !rid.is_empty()));
        }
        assert_eq!(d.lanes.len(), 4);
        let known: std::collections::BTreeSet<_> = d.lanes.iter().filter_map(|l| l.media).collect();
        assert_eq!(known.len(), 4, "no source is in two lanes");
    }

    #[test]
    fn layers_are_ordered_by_well_known_names_and_else_by_place() {
        let order = |rids: &[&str]| by_size(&rids.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>());
        assert_eq!(order(&["f", "h", "q"]), [0, 1, 2]);
        assert_eq!(order(&["q", "h", "f"]), [2, 1, 0]);
        assert_eq!(order(&["h", "m", "l"]), [0, 1, 2]);
        assert_eq!(order(&["h", "f"]), [1, 0]);
        assert_eq!(order(&["0", "1", "2"]), [2, 1, 0]);
        assert_eq!(order(&[]), Vec::<usize>::new());
    }
}
