//! From text to an [`Offer`]. Every step is bounded: length, lines, m-lines, and what is kept of each.

use super::{
    Codec, Feedback, Fingerprint, MAX_CANDIDATES, MAX_EXTENSIONS, MAX_LINES, MAX_MEDIA, MAX_RIDS, MAX_SDP_LEN,
    MAX_SSRCS, Media, Offer, PeerTransport, SdpError, printable,
};
use trocar_proto::units::Ssrc;

/// Checks limits and yields `(number, type, value)` of each line.
pub(super) fn lines(sdp: &str) -> Result<Vec<(usize, char, &str)>, SdpError> {
    if sdp.len() > MAX_SDP_LEN {
        return Err(SdpError::TooLarge { what: "a length", got: sdp.len(), limit: MAX_SDP_LEN });
    }
    let mut out = Vec::new();
    for (i, raw) in sdp.lines().enumerate() {
        if i >= MAX_LINES {
            return Err(SdpError::TooLarge { what: "a number of lines", got: i + 1, limit: MAX_LINES });
        }
        let line = raw.trim_end_matches('\r');
        if line.is_empty() {
            continue;
        }
        let bad = SdpError::Line {
            line: i + 1,
            expected: "a line is one letter, '=', and a value without control characters",
        };
        let Some((kind, value)) = line.split_once('=') else { return Err(bad) };
        let mut letters = kind.chars();
        match (letters.next(), letters.next()) {
            (Some(c), None) if c.is_ascii_lowercase() && !value.chars().any(char::is_control) => {
                out.push((i + 1, c, value));
            }
            _ => return Err(bad),
        }
    }
    Ok(out)
}

/// One m-line more.
pub(super) fn check_media_count(have: usize) -> Result<(), SdpError> {
    if have >= MAX_MEDIA {
        return Err(SdpError::TooLarge { what: "a number of m-lines", got: have + 1, limit: MAX_MEDIA });
    }
    Ok(())
}

/// A media identification. It is written into the answer and found again in packets (RFC 9143 section 15), so it is short.
pub(super) fn mid(rest: &str, line: usize) -> Result<String, SdpError> {
    let ok = (1..=32).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if ok {
        Ok(rest.to_owned())
    } else {
        Err(SdpError::Line { line, expected: "a=mid with 1 to 32 letters, digits, '-', '_' or '.'" })
    }
}

/// A second, different value within one section means two identities.
pub(super) fn set_once(slot: &mut Option<String>, value: &str, line: usize) -> Result<(), SdpError> {
    match slot {
        Some(have) if have != value => {
            Err(SdpError::Line { line, expected: "the same value as before in this section" })
        }
        _ => {
            *slot = Some(value.to_owned());
            Ok(())
        }
    }
}

/// RFC 8839 section 5.4.
pub(super) fn check_credentials(ufrag: &str, password: &str) -> Result<(), SdpError> {
    let ok = |s: &str, min: usize| {
        (min..=256).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/-_=".contains(&b))
    };
    if ok(ufrag, 4) && ok(password, 22) {
        return Ok(());
    }
    let limits =
        "a=ice-ufrag has 4 to 256 characters, a=ice-pwd 22 to 256: letters, digits, '+' and '/' (RFC 8839 section 5.4)";
    Err(SdpError::Unusable(limits.to_owned()))
}

/// Parses an offer.
pub(super) fn offer(sdp: &str) -> Result<Offer, SdpError> {
    let lines = lines(sdp)?;
    if lines.first().is_none_or(|l| l.1 != 'v' || l.2 != "0") {
        return Err(SdpError::Missing { what: "the first line v=0" });
    }
    let mut draft = Draft::default();
    for (number, kind, value) in lines {
        match kind {
            'm' => draft.media_line(number, value)?,
            'a' => draft.attribute(number, value)?,
            _ => {}
        }
    }
    draft.finish()
}

/// Attributes that stand in the session or in an m-line, and count for the m-line.
#[derive(Default)]
struct Section {
    ufrag: Option<String>,
    password: Option<String>,
    setup: Option<String>,
    fingerprints: Vec<Fingerprint>,
    /// A hash function that was named and is not accepted.
    weak: Option<String>,
    bundle_only: bool,
}

impl Section {
    fn attribute(&mut self, name: &str, rest: &str, line: usize) -> Result<(), SdpError> {
        match name {
            "ice-ufrag" => set_once(&mut self.ufrag, rest, line),
            "ice-pwd" => set_once(&mut self.password, rest, line),
            "setup" => set_once(&mut self.setup, rest, line),
            "fingerprint" => self.fingerprint(rest, line),
            "ice-lite" => Err(SdpError::Unusable(
                "a=ice-lite cannot be used: the relay is ICE-lite itself, so the offerer must send the checks"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Several hash functions may stand side by side (RFC 8122 section 5), one value for each.
    fn fingerprint(&mut self, rest: &str, line: usize) -> Result<(), SdpError> {
        let bad = SdpError::Line {
            line,
            expected: "a=fingerprint:sha-256 (or sha-384, sha-512) and its bytes in hex with colons",
        };
        let (algorithm, hex) = rest.split_once(' ').ok_or(bad.clone())?;
        let algorithm = algorithm.to_ascii_lowercase();
        let Some(len) = hash_len(&algorithm) else {
            self.weak = Some(printable(&algorithm));
            return Ok(());
        };
        let byte = |b: &str| u8::from_str_radix(b, 16).ok().filter(|_| b.len() == 2);
        let value: Option<Vec<u8>> = hex.trim().split(':').take(len + 1).map(byte).collect();
        let value = value.filter(|v| v.len() == len).ok_or(bad)?;
        match self.fingerprints.iter().find(|f| f.algorithm == algorithm) {
            Some(have) if have.value != value => {
                Err(SdpError::Line { line, expected: "one fingerprint for each hash function" })
            }
            Some(_) => Ok(()),
            None => {
                self.fingerprints.push(Fingerprint { algorithm, value });
                Ok(())
            }
        }
    }

    /// What is not said here counts from `general`. None where something is missing.
    fn transport(&self, general: &Self) -> Result<Option<PeerTransport>, SdpError> {
        let own = !self.fingerprints.is_empty() || self.weak.is_some();
        let from = if own { self } else { general };
        if from.fingerprints.is_empty()
            && let Some(weak) = &from.weak
        {
            return Err(SdpError::Unusable(format!(
                "a=fingerprint:{weak} is not accepted: sha-256, sha-384 or sha-512 is right (RFC 8122)"
            )));
        }
        let text = |own: &Option<String>, general: &Option<String>| own.clone().or_else(|| general.clone());
        // User fragment and password go together.
        let ice = if self.ufrag.is_some() || self.password.is_some() { self } else { general };
        let parts = (
            ice.ufrag.clone(),
            ice.password.clone(),
            from.fingerprints.iter().max_by_key(|f| f.value.len()).cloned(),
            text(&self.setup, &general.setup),
        );
        let (Some(ufrag), Some(password), Some(fingerprint), Some(setup)) = parts else { return Ok(None) };
        check_credentials(&ufrag, &password)?;
        if !matches!(setup.as_str(), "actpass" | "active") {
            return Err(SdpError::Unusable(format!(
                "a=setup:{} cannot be used: the relay is the DTLS server, so actpass or active is right",
                printable(&setup)
            )));
        }
        Ok(Some(PeerTransport { ufrag, password, fingerprint, setup }))
    }

    /// The first of ICE and DTLS that is said neither here nor in `general`.
    fn lacks(&self, general: &Self) -> &'static str {
        if self.ufrag.is_none() && general.ufrag.is_none() {
            "a=ice-ufrag"
        } else if self.password.is_none() && general.password.is_none() {
            "a=ice-pwd"
        } else if self.fingerprints.is_empty() && general.fingerprints.is_empty() {
            "a=fingerprint"
        } else if self.setup.is_none() && general.setup.is_none() {
            "a=setup"
        } else {
            "a=ice-ufrag and a=ice-pwd in one section"
        }
    }
}

fn hash_len(algorithm: &str) -> Option<usize> {
    match algorithm {
        "sha-256" => Some(32),
        "sha-384" => Some(48),
        "sha-512" => Some(64),
        _ => None,
    }
}

#[derive(Default)]
struct Draft {
    session: Section,
    sections: Vec<Section>,
    media: Vec<Media>,
    direction: Option<String>,
    bundle: Option<Vec<String>>,
    extmap_allow_mixed: bool,
    trickle: bool,
    candidates: Vec<String>,
}

impl Draft {
    fn media_line(&mut self, line: usize, value: &str) -> Result<(), SdpError> {
        check_media_count(self.media.len())?;
        let expected = "m=<media> <port> <protocol> <different payload types 0 to 127>";
        let bad = SdpError::Line { line, expected };
        let mut words = value.split(' ');
        let (Some(kind), Some(port), Some(protocol), Some(format)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad);
        };
        let port = port.split('/').next().and_then(|p| p.parse::<u16>().ok()).ok_or(bad.clone())?;
        let token = |s: &str| (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic());
        if ![kind, protocol, format].into_iter().all(token) {
            return Err(bad);
        }
        let mut media = Media {
            kind: kind.to_owned(),
            protocol: protocol.to_owned(),
            format: format.to_owned(),
            disabled: port == 0,
            direction: self.direction.clone().unwrap_or_else(|| "sendrecv".to_owned()),
            ..Media::default()
        };
        if protocol.contains("RTP/") {
            for word in std::iter::once(format).chain(words) {
                let payload_type = word.parse::<u8>().ok().filter(|p| *p < 128).ok_or(bad.clone())?;
                if media.codec(payload_type).is_some() {
                    return Err(bad);
                }
                media.codecs.push(static_codec(kind, payload_type));
            }
        }
        self.media.push(media);
        self.sections.push(Section::default());
        Ok(())
    }

    fn attribute(&mut self, line: usize, value: &str) -> Result<(), SdpError> {
        let (name, rest) = value.split_once(':').unwrap_or((value, ""));
        if name == "candidate" {
            if self.candidates.len() < MAX_CANDIDATES {
                self.candidates.push(rest.to_owned());
            }
            return Ok(());
        }
        if name == "ice-options" {
            self.trickle |= rest.split(' ').any(|o| o == "trickle");
        }
        if let (Some(media), Some(section)) = (self.media.last_mut(), self.sections.last_mut()) {
            section.attribute(name, rest, line)?;
            section.bundle_only |= name == "bundle-only";
            return media_attribute(media, name, rest, line);
        }
        match name {
            "group" => self.group(line, rest)?,
            "extmap-allow-mixed" => self.extmap_allow_mixed = true,
            "sendrecv" | "recvonly" | "sendonly" | "inactive" => self.direction = Some(name.to_owned()),
            _ => self.session.attribute(name, rest, line)?,
        }
        Ok(())
    }

    /// One BUNDLE group: the relay gives a peer one transport. Of several, the first counts.
    fn group(&mut self, line: usize, rest: &str) -> Result<(), SdpError> {
        let mut words = rest.split(' ').filter(|w| !w.is_empty());
        if words.next() != Some("BUNDLE") || self.bundle.is_some() {
            return Ok(());
        }
        let mids: Result<Vec<String>, SdpError> = words.take(MAX_MEDIA + 1).map(|m| mid(m, line)).collect();
        self.bundle = Some(mids?);
        Ok(())
    }

    fn finish(mut self) -> Result<Offer, SdpError> {
        if self.media.is_empty() {
            return Err(SdpError::Missing { what: "an m-line" });
        }
        for (i, m) in self.media.iter().enumerate() {
            if !m.mid.is_empty() && self.media.iter().skip(i + 1).any(|o| o.mid == m.mid) {
                return Err(SdpError::Unusable(format!("a=mid:{} stands twice", printable(&m.mid))));
            }
        }
        let bundle = self.resolve_bundle()?;
        for (m, s) in self.media.iter_mut().zip(&self.sections) {
            let Media { simulcast, rids, .. } = m;
            simulcast.retain(|rid| rids.contains(rid));
            m.disabled &= !s.bundle_only;
            if !m.disabled {
                m.transport = s.transport(&self.session)?;
            }
        }
        self.share_within(&bundle);
        one_identity_per_ufrag(&self.media)?;
        if self.media.iter().all(|m| m.transport.is_none()) {
            let section = self.sections.first().unwrap_or(&self.session);
            return Err(SdpError::Missing { what: section.lacks(&self.session) });
        }
        Ok(Offer {
            media: self.media,
            bundle,
            extmap_allow_mixed: self.extmap_allow_mixed,
            trickle: self.trickle,
            candidates: self.candidates,
        })
    }

    fn resolve_bundle(&self) -> Result<Vec<usize>, SdpError> {
        let mut out = Vec::new();
        for mid in self.bundle.iter().flatten() {
            let index = self.media.iter().position(|m| m.mid == *mid);
            match index.filter(|i| !out.contains(i)) {
                Some(i) => out.push(i),
                None => {
                    let mid = printable(mid);
                    return Err(SdpError::Unusable(format!("a=group:BUNDLE names a=mid:{mid}, which stands not once")));
                }
            }
        }
        Ok(out)
    }

    /// Only the tagged m-line needs to say the transport of its group (RFC 9143 section 7.1.3).
    fn share_within(&mut self, bundle: &[usize]) {
        let tagged = bundle.iter().find_map(|i| self.media.get(*i)?.transport.clone());
        for i in bundle {
            if let Some(m) = self.media.get_mut(*i).filter(|m| m.transport.is_none() && !m.disabled) {
                m.transport.clone_from(&tagged);
            }
        }
    }
}

/// Checks find a peer by its user fragment, so two peers must not share one.
fn one_identity_per_ufrag(media: &[Media]) -> Result<(), SdpError> {
    for (i, a) in media.iter().enumerate() {
        let Some(a) = &a.transport else { continue };
        for b in media.iter().skip(i + 1).filter_map(|m| m.transport.as_ref()) {
            if a.ufrag == b.ufrag && (a.password != b.password || a.fingerprint != b.fingerprint) {
                return Err(SdpError::Unusable(format!(
                    "a=ice-ufrag:{} stands with two passwords or fingerprints",
                    printable(&a.ufrag)
                )));
            }
        }
    }
    Ok(())
}

/// What a payload type means without an rtpmap (RFC 3551 section 6), as far as somebody still offers it.
fn static_codec(kind: &str, payload_type: u8) -> Codec {
    let (name, clock_rate) = match (kind, payload_type) {
        ("audio", 0) => ("PCMU", 8_000),
        ("audio", 8) => ("PCMA", 8_000),
        ("audio", 9) => ("G722", 8_000),
        ("audio", 13) => ("CN", 8_000),
        _ => ("", 0),
    };
    Codec { payload_type, name: name.to_owned(), clock_rate, ..Codec::default() }
}

fn media_attribute(media: &mut Media, name: &str, rest: &str, line: usize) -> Result<(), SdpError> {
    match name {
        "mid" => media.mid = mid(rest, line)?,
        "sendrecv" | "recvonly" | "sendonly" | "inactive" => name.clone_into(&mut media.direction),
        "rtcp-mux" => media.rtcp_mux = true,
        "rtcp-rsize" => media.rtcp_rsize = true,
        "extmap-allow-mixed" => media.extmap_allow_mixed = true,
        "ptime" | "maxptime" if rest.parse::<u16>().is_err() => {
            return Err(SdpError::Line { line, expected: "a time in milliseconds, 0 to 65535" });
        }
        "rtpmap" | "fmtp" | "rtcp-fb" => codec_attribute(media, name, rest),
        "extmap" => extension(media, rest),
        "msid" if media.msid.is_none() => {
            let (stream, track) = rest.split_once(' ').unwrap_or((rest, ""));
            media.msid = Some((stream.to_owned(), track.to_owned()));
        }
        "rid" => {
            let mut words = rest.split(' ');
            if let (Some(id), Some("send")) = (words.next(), words.next())
                && media.rids.len() < MAX_RIDS
                && mid(id, line).is_ok()
            {
                media.rids.push(id.to_owned());
            }
        }
        "simulcast" if media.simulcast.is_empty() => media.simulcast = simulcast(rest),
        "ssrc" => {
            let ssrc = rest.split(' ').next().and_then(|s| s.parse().ok()).map(Ssrc);
            if let Some(ssrc) = ssrc.filter(|s| media.ssrcs.len() < MAX_SSRCS && !media.ssrcs.contains(s)) {
                media.ssrcs.push(ssrc);
            }
        }
        "ssrc-group" => {
            let numbers = rest.strip_prefix("FID ").and_then(|r| r.split_once(' '));
            if let Some((Ok(a), Ok(b))) = numbers.map(|(a, b)| (a.parse(), b.parse()))
                && media.rtx_ssrcs.len() < MAX_SSRCS
            {
                media.rtx_ssrcs.push((Ssrc(a), Ssrc(b)));
            }
        }
        _ => {}
    }
    Ok(())
}

/// What `a=simulcast:send f;h,h2;~q` names; a tilde says that a layer is paused at first. Bounded by [`MAX_RIDS`].
fn simulcast(rest: &str) -> Vec<String> {
    let mut words = rest.split(' ');
    let sent = loop {
        match (words.next(), words.next()) {
            (Some("send"), Some(list)) => break list,
            (Some(_), Some(_)) => {}
            _ => return Vec::new(),
        }
    };
    let first = |layer: &str| layer.split(',').next().unwrap_or("").trim_start_matches('~').to_owned();
    sent.split(';').take(MAX_RIDS).map(first).collect()
}

/// Attributes of a payload type; one that the m-line does not list is passed over.
fn codec_attribute(media: &mut Media, name: &str, rest: &str) {
    let Some((pt, tail)) = rest.split_once(' ') else { return };
    if name == "rtcp-fb" {
        let Some(feedback) = Feedback::parse(tail) else { return };
        for c in &mut media.codecs {
            if (pt == "*" || pt.parse() == Ok(c.payload_type)) && !c.feedback.contains(&feedback) {
                c.feedback.push(feedback);
            }
        }
        return;
    }
    let Ok(pt) = pt.parse::<u8>() else { return };
    let Some(c) = media.codecs.iter_mut().find(|c| c.payload_type == pt) else { return };
    if name == "fmtp" {
        tail.trim().clone_into(&mut c.fmtp);
        return;
    }
    let mut parts = tail.trim_end().split('/');
    parts.next().unwrap_or("").clone_into(&mut c.name);
    c.clock_rate = parts.next().and_then(|r| r.parse().ok()).unwrap_or(0);
    c.channels = parts.next().and_then(|r| r.parse().ok());
}

/// `a=extmap:<id>[/<direction>] <uri> [<attributes>]` (RFC 8285 section 5). Ids above 255 are placeholders that cannot be used.
fn extension(media: &mut Media, rest: &str) {
    let mut words = rest.split(' ');
    let id = words.next().and_then(|w| w.split('/').next()).and_then(|i| i.parse::<u8>().ok());
    if let (Some(id @ 1..), Some(uri)) = (id, words.next())
        && media.extensions.len() < MAX_EXTENSIONS
        && !media.extensions.iter().any(|(i, _)| *i == id)
    {
        media.extensions.push((id, uri.to_owned()));
    }
}
