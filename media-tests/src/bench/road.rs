//! The road of a packet without sockets: feed, leg, header, copy, seal. Run under callgrind it says how many instructions a
//! packet takes, which, unlike time, is the same on a machine that is busy with other things.

use super::packet::{CLOCK_RATE, HEADER, Maker, PACKET, PAYLOAD_TYPE};
use anyhow::{Context as _, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use trocar_proto::media::bytes::put;
use trocar_proto::media::ext::ExtensionIds;
use trocar_proto::media::feed::{Feed, FeedConfig};
use trocar_proto::media::leg::{Leg, Next, Numbering};
use trocar_proto::media::rtp::{FIXED_HEADER, write_header};
use trocar_proto::units::{Micros, Ssrc, WallMicros};
use trocar_relay::srtp::{Profile, SendStream, Srtp};

/// Packets of a frame.
const FRAME: u32 = 100;
/// Packets between two key frames, and so the unit that runs are made of.
pub const UNIT: u64 = 60 * FRAME as u64;

/// How far packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Into the feed.
    Feed,
    /// Into the feed and out of a leg, header and payload written, and not sealed: what is ours alone.
    Leg,
    /// The same, sealed with AES-256-GCM.
    Gcm,
    /// The same with AES-CM and HMAC-SHA1.
    Cm,
    /// As [`Way::Leg`], with a copy of each packet that nobody needs: a change that a budget has to notice.
    WithCopy,
}

impl Way {
    /// All, with the names that budgets have.
    pub const ALL: [(&str, Self); 5] =
        [("feed", Self::Feed), ("leg", Self::Leg), ("gcm", Self::Gcm), ("cm", Self::Cm), ("with_copy", Self::WithCopy)];
}

/// A feed as the relay sets it up.
#[must_use]
pub fn feed() -> Feed {
    Feed::new(FeedConfig {
        clock_rate: CLOCK_RATE,
        payload_type: PAYLOAD_TYPE,
        extensions: ExtensionIds::OURS,
        slots: 8_192,
        slot_size: 1_500,
    })
}

/// The stream of a viewer, under keys that everybody knows.
///
/// # Errors
/// Never with keying material of the right length.
pub fn stream(profile: Profile, ssrc: Ssrc) -> anyhow::Result<SendStream> {
    Ok(Srtp::from_dtls(profile, &[7; 128], false)?.send.claim(ssrc)?)
}

/// Sends that many packets down the road; how many came out at its end.
///
/// # Errors
/// Where a packet is refused.
pub fn run(way: Way, packets: u64) -> anyhow::Result<u64> {
    let ssrc = Ssrc(9);
    let mut maker = Maker::new(FRAME);
    let mut feed = feed();
    let profile = if way == Way::Cm { Profile::Aes128CmSha1 } else { Profile::Aes256Gcm };
    let mut stream = stream(profile, ssrc)?;
    let numbering = Numbering::Own { ssrc, payload_type: 102, first_seq: 5 };
    let mut leg = Leg::new(numbering, &feed, Micros(0));
    let mut room = vec![0; 2_048];
    let mut out = 0;
    for n in 0..packets {
        let now = Micros(n * 167);
        feed.handle_packet(now, maker.next(n, WallMicros(1_790_000_000_000_000)))?;
        while way != Way::Feed
            && let Next::Send { index, header, seq } = leg.poll(&feed, true)
        {
            let (info, packet) = feed.ring().get(index).context("the packet is gone")?;
            if way == Way::WithCopy {
                std::hint::black_box(packet.to_vec());
            }
            let start = usize::from(info.payload_offset);
            let payload = packet.get(start..start + usize::from(info.payload_len)).context("payload")?;
            let len = FIXED_HEADER + payload.len() + stream.overhead();
            let sealed = room.get_mut(..len).context("room")?;
            write_header(sealed, header, &[])?;
            ensure!(put(sealed, FIXED_HEADER, payload), "room");
            if !matches!(way, Way::Leg | Way::WithCopy) {
                stream.seal(seq, sealed, FIXED_HEADER)?;
            }
            out += u64::from(std::hint::black_box(&room).len() > PACKET - HEADER);
        }
    }
    Ok(out)
}

/// What is allowed: `media-tests/bench/budget.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// How far a count may be from what is recorded, either way, in percent. One that fell is recorded anew.
    pub tolerance_percent: f64,
    /// Instructions per packet by the name of the way.
    pub instructions_per_packet: BTreeMap<String, f64>,
}

impl Budget {
    /// Reads the file.
    ///
    /// # Errors
    /// Where it is not there or is none.
    pub fn read() -> anyhow::Result<Self> {
        let path = crate::workspace().join("media-tests/bench/budget.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(toml::from_str(&text)?)
    }

    /// Whether a count is within the budget of that way.
    ///
    /// # Errors
    /// Says by how much it is not.
    pub fn check(&self, way: &str, counted: f64) -> anyhow::Result<()> {
        let allowed = *self.instructions_per_packet.get(way).with_context(|| format!("{way} has no budget"))?;
        let off = (counted / allowed - 1.0) * 100.0;
        ensure!(
            off.abs() <= self.tolerance_percent,
            "{way}: {counted:.0} instructions per packet are {off:+.1} % off the budget of {allowed:.0}"
        );
        Ok(())
    }
}

/// Instructions per packet of a way, counted by callgrind over two runs, so that what comes before the first packet is left
/// out.
///
/// # Errors
/// Where valgrind is not installed or says something else than a count.
pub fn instructions_per_packet(program: &Path, way: &str) -> anyhow::Result<f64> {
    let (one, two) = (count(program, way, UNIT)?, count(program, way, 2 * UNIT)?);
    Ok((two - one) / UNIT as f64)
}

fn count(program: &Path, way: &str, packets: u64) -> anyhow::Result<f64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).arg(way).arg(packets.to_string());
    let out = command.output().context("valgrind is missing: `make setup` installs it")?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(out.status.success(), "{said}");
    let counted = said.lines().find_map(|l| l.split_once("Collected : ")).context("no count")?.1.trim().to_owned();
    Ok(counted.parse()?)
}
