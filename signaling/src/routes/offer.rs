//! A look at an SDP offer, for what signaling decides itself: which kinds it wants to send, how many voices it can take,
//! and whether it is one transport. The relay reads it in full.

use crate::problem::{Refusal, SDP_INVALID, SDP_UNPROCESSABLE};
use std::collections::BTreeSet;

/// Most voices that one connection carries.
const MAX_VOICES: usize = 12;

/// Most simulcast layers of one picture.
const MAX_LAYERS: usize = 3;

/// What an offer says about each of its m-lines.
#[derive(Debug, Default)]
pub(super) struct Offer<'a> {
    media: Vec<Media<'a>>,
    /// Media identifications in `a=group:BUNDLE` (RFC 9143).
    bundled: BTreeSet<&'a str>,
    direction: Option<&'a str>,
}

#[derive(Debug)]
struct Media<'a> {
    kind: &'a str,
    mid: Option<&'a str>,
    direction: Option<&'a str>,
    bundle_only: bool,
    /// Simulcast layers that it wants to send (RFC 8853).
    layers: usize,
    port: &'a str,
}

impl<'a> Offer<'a> {
    /// Looks at an offer.
    pub(super) fn look(text: &'a str) -> Result<Self, Refusal> {
        let mut lines = text.lines();
        if lines.next().map(str::trim_end) != Some("v=0") {
            return Err(Refusal::new(SDP_INVALID, "an SDP offer begins with the line v=0 (RFC 8866)").field("body"));
        }
        let mut offer = Self::default();
        for line in lines.map(str::trim_end) {
            if let Some(media) = line.strip_prefix("m=") {
                let mut words = media.split(' ');
                let (kind, port) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                offer.media.push(Media { kind, mid: None, direction: None, bundle_only: false, layers: 0, port });
            } else if let Some(attribute) = line.strip_prefix("a=") {
                offer.take_attribute(attribute);
            }
        }
        Ok(offer)
    }

    fn take_attribute(&mut self, attribute: &'a str) {
        let is_direction = matches!(attribute, "sendrecv" | "sendonly" | "recvonly" | "inactive");
        match (self.media.last_mut(), attribute) {
            (None, direction) if is_direction => self.direction = Some(direction),
            (None, group) => {
                if let Some(mids) = group.strip_prefix("group:BUNDLE ") {
                    self.bundled.extend(mids.split_ascii_whitespace());
                }
            }
            (Some(media), direction) if is_direction => media.direction = Some(direction),
            (Some(media), "bundle-only") => media.bundle_only = true,
            (Some(media), other) => {
                if let Some(mid) = other.strip_prefix("mid:") {
                    media.mid = Some(mid);
                } else if let Some(list) = other.strip_prefix("simulcast:send ") {
                    let sent = list.split(' ').next().unwrap_or_default();
                    media.layers = sent.split(';').count().min(MAX_LAYERS);
                }
            }
        }
    }

    /// The m-lines of a kind that are not turned off and go `one_way` or both ways.
    fn in_direction(&self, kind: &str, one_way: &str) -> Vec<&Media<'a>> {
        let goes = |m: &&Media<'_>| {
            let direction = m.direction.or(self.direction).unwrap_or("sendrecv");
            direction == one_way || direction == "sendrecv"
        };
        let wanted = |m: &&Media<'_>| m.kind == kind && (m.port != "0" || m.bundle_only);
        self.media.iter().filter(wanted).filter(goes).collect()
    }

    /// Whether it wants to send a picture and whether a sound, at most one of each and over one transport.
    pub(super) fn sends(&self) -> Result<(bool, bool), Refusal> {
        let (video, audio) = (self.in_direction("video", "sendonly"), self.in_direction("audio", "sendonly"));
        if video.is_empty() && audio.is_empty() {
            return Err(refusal("no m-line wants to send: a WHIP offer is sendonly (RFC 9725 section 4.2)"));
        }
        if video.len() > 1 || audio.len() > 1 {
            return Err(refusal("at most one video and one audio m-line may send; publish further ones by themselves"));
        }
        self.check_bundle(&[video.as_slice(), &audio].concat())?;
        Ok((!video.is_empty(), !audio.is_empty()))
    }

    /// How many layers of its picture it wants to send, at most [`MAX_LAYERS`]; one where it says nothing of layers.
    pub(super) fn layers(&self) -> usize {
        self.in_direction("video", "sendonly").first().map_or(1, |m| m.layers.max(1))
    }

    /// Checks that it can receive voices, over one transport.
    pub(super) fn check_voices(&self) -> Result<(), Refusal> {
        let audio = self.in_direction("audio", "recvonly");
        if !(1..=MAX_VOICES).contains(&audio.len()) {
            return Err(refusal(
                "1 to 12 audio m-lines that receive are right, one for each voice to be heard at once",
            ));
        }
        self.check_bundle(&audio)
    }

    /// One m-line is one transport; more of them are where they are all in one bundle.
    fn check_bundle(&self, media: &[&Media<'_>]) -> Result<(), Refusal> {
        if media.len() < 2 || media.iter().all(|m| m.mid.is_some_and(|mid| self.bundled.contains(mid))) {
            return Ok(());
        }
        Err(refusal("more than one m-line is sent over one transport only: a=group:BUNDLE has to name them all"))
    }
}

fn refusal(detail: &str) -> Refusal {
    Refusal::new(SDP_UNPROCESSABLE, detail).field("body")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "v=0\r\na=group:BUNDLE 0 1\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=sendonly\r\n\
                        m=audio 0 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=bundle-only\r\na=sendonly\r\n";

    fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
        result.unwrap_err().name()
    }

    #[test]
    fn what_an_offer_sends_is_seen() {
        assert_eq!(Offer::look(BOTH).unwrap().sends().unwrap(), (true, true));
        let audio_only = BOTH.replacen("sendonly", "recvonly", 1);
        assert_eq!(Offer::look(&audio_only).unwrap().sends().unwrap(), (false, true));
        let by_default = "v=0\nm=video 9 UDP/TLS/RTP/SAVPF 96\n";
        assert_eq!(Offer::look(by_default).unwrap().sends().unwrap(), (true, false));
        let turned_off = BOTH.replace("a=bundle-only\r\n", "");
        assert_eq!(Offer::look(&turned_off).unwrap().sends().unwrap(), (true, false));
    }

    #[test]
    fn what_cannot_be_served_is_told_apart_from_what_is_no_sdp() {
        for (offer, name) in [
            ("", "sdp-invalid"),
            ("m=video 9 x 96", "sdp-invalid"),
            ("v=0\r\n", "sdp-unprocessable"),
            ("v=0\r\na=recvonly\r\nm=video 9 x 96\r\n", "sdp-unprocessable"),
            ("v=0\r\nm=video 9 x 96\r\nm=video 9 x 96\r\n", "sdp-unprocessable"),
            (&BOTH.replace("a=group:BUNDLE 0 1\r\n", ""), "sdp-unprocessable"),
        ] {
            assert_eq!(refused(Offer::look(offer).and_then(|o| o.sends())), name, "{offer}");
        }
    }

    #[test]
    fn simulcast_layers_are_counted_and_bounded() {
        assert_eq!(Offer::look(BOTH).unwrap().layers(), 1);
        for (list, want) in [("f", 1), ("q;h", 2), ("q;~h,x;f recv a;b", 3), ("a;b;c;d;e", 3)] {
            let offer = BOTH.replacen("a=sendonly", &format!("a=simulcast:send {list}\r\na=sendonly"), 1);
            assert_eq!(Offer::look(&offer).unwrap().layers(), want, "{list}");
        }
        let received = BOTH.replacen("a=sendonly", "a=simulcast:recv a;b\r\na=sendonly", 1);
        assert_eq!(Offer::look(&received).unwrap().layers(), 1);
    }

    #[test]
    fn one_to_twelve_voices_are_heard() {
        let offer = |n: usize| {
            let mids: Vec<String> = (0..n).map(|i| i.to_string()).collect();
            let media: String =
                mids.iter().map(|mid| format!("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:{mid}\r\n")).collect();
            format!("v=0\r\na=group:BUNDLE {}\r\na=recvonly\r\n{media}", mids.join(" "))
        };
        for good in [1, 12] {
            Offer::look(&offer(good)).unwrap().check_voices().unwrap();
        }
        for bad in [0, 13] {
            assert_eq!(refused(Offer::look(&offer(bad)).unwrap().check_voices()), "sdp-unprocessable");
        }
    }
}
