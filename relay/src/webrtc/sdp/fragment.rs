//! Fragments of SDP that WHIP and WHEP exchange by PATCH: trickled candidates and ICE restarts (RFC 8840, RFC 9725
//! sections 4.3.2 and 4.3.3).

use super::answer::{CandidateAddress, render_candidates};
use super::parse;
use super::{MAX_CANDIDATES, SdpError};

/// A trickled fragment or an ICE restart: new credentials, where there are any, and candidates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    /// User fragment: the session's, else that of the first m-line that has one.
    pub ufrag: Option<String>,
    /// Password that goes with it.
    pub password: Option<String>,
    /// Values of `a=candidate` lines; at most [`MAX_CANDIDATES`].
    pub candidates: Vec<String>,
    session: Section,
    sections: Vec<Section>,
}

/// The credentials of the session or of one m-line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Section {
    mid: String,
    ufrag: Option<String>,
    password: Option<String>,
}

impl Section {
    fn credentials(&self) -> Option<(&str, &str)> {
        self.ufrag.as_deref().zip(self.password.as_deref())
    }
}

impl Fragment {
    /// Parses `application/trickle-ice-sdpfrag`.
    ///
    /// # Errors
    /// See [`SdpError`].
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        let mut out = Self::default();
        for (line, kind, value) in parse::lines(text)? {
            match kind {
                'a' => {
                    let (name, rest) = value.split_once(':').unwrap_or((value, ""));
                    let section = out.sections.last_mut().unwrap_or(&mut out.session);
                    match name {
                        "mid" => section.mid = parse::mid(rest, line)?,
                        "ice-ufrag" => parse::set_once(&mut section.ufrag, rest, line)?,
                        "ice-pwd" => parse::set_once(&mut section.password, rest, line)?,
                        "candidate" if out.candidates.len() < MAX_CANDIDATES => out.candidates.push(rest.to_owned()),
                        _ => {}
                    }
                }
                'm' => {
                    parse::check_media_count(out.sections.len())?;
                    out.sections.push(Section::default());
                }
                _ => {
                    return Err(SdpError::Line { line, expected: "a fragment has m= and a= lines only (RFC 8840)" });
                }
            }
        }
        let first = std::iter::once(&out.session).chain(&out.sections).find(|s| s.ufrag.is_some()).cloned();
        if let Some(Section { ufrag, password, .. }) = first {
            (out.ufrag, out.password) = (ufrag, password);
        }
        Ok(out)
    }

    /// The credentials that this fragment gives the transport of the m-line `mid`, checked. None where it gives none, or
    /// only those of other m-lines: a browser may use a different user fragment for each.
    ///
    /// # Errors
    /// [`SdpError::Unusable`] where a length is not that of RFC 8839 section 5.4.
    pub fn credentials(&self, mid: &str) -> Result<Option<(&str, &str)>, SdpError> {
        let own = self.sections.iter().find(|s| s.mid == mid || s.mid.is_empty());
        let given = own.and_then(Section::credentials).or(self.session.credentials());
        let Some((ufrag, password)) = given else { return Ok(None) };
        parse::check_credentials(ufrag, password)?;
        Ok(Some((ufrag, password)))
    }
}

/// The answer to an ICE restart.
#[derive(Debug, Clone, Copy)]
pub struct FragmentAnswer<'a> {
    /// Our new ICE user fragment.
    pub ufrag: &'a str,
    /// Our new ICE password.
    pub password: &'a str,
    /// Kind of the m-line that the transport belongs to.
    pub kind: &'a str,
    /// Its media identification; empty where it has none.
    pub mid: &'a str,
    /// Where we listen.
    pub candidates: &'a [CandidateAddress],
}

impl FragmentAnswer<'_> {
    /// The fragment as text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = format!(
            "a=ice-lite\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\nm={} 9 UDP/TLS/RTP/SAVPF 0\r\n",
            self.ufrag, self.password, self.kind
        );
        if !self.mid.is_empty() {
            out.push_str(&format!("a=mid:{}\r\n", self.mid));
        }
        render_candidates(&mut out, self.candidates);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "0123456789012345678901";

    #[test]
    fn fragments_carry_candidates_or_a_restart() {
        let text = format!(
            "a=group:BUNDLE 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:{PASSWORD}\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
             a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\na=candidate:2 1 tcp 1 x.local 9 typ host tcptype active\r\n\
             a=end-of-candidates\r\n"
        );
        let f = Fragment::parse(&text).unwrap();
        assert_eq!((f.ufrag.as_deref(), f.candidates.len()), (Some("abcd"), 2));
        assert_eq!(f.credentials("0").unwrap(), Some(("abcd", PASSWORD)));
        assert!(Fragment::parse("v=0\r\n").is_err());
        let short = text.replace(PASSWORD, "short");
        assert!(Fragment::parse(&short).unwrap().credentials("0").unwrap_err().to_string().contains("22 to 256"));
    }

    #[test]
    fn credentials_of_another_m_line_are_not_taken_for_a_restart() {
        let section = |mid: &str, ufrag: &str| {
            format!("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{mid}\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{PASSWORD}\r\n")
        };
        let other = Fragment::parse(&section("1", "efgh")).unwrap();
        assert_eq!(other.credentials("0").unwrap(), None);
        let both = Fragment::parse(&(section("1", "efgh") + &section("0", "abcd"))).unwrap();
        assert_eq!(both.credentials("0").unwrap(), Some(("abcd", PASSWORD)));
    }

    #[test]
    fn the_answer_to_a_restart_is_a_fragment_that_our_parser_reads() {
        let candidates = [
            CandidateAddress::udp("127.0.0.1:5000".parse().unwrap()),
            CandidateAddress::tcp("[::1]:443".parse().unwrap()),
        ];
        let text =
            FragmentAnswer { ufrag: "abcd", password: PASSWORD, kind: "audio", mid: "a", candidates: &candidates }
                .render();
        let f = Fragment::parse(&text).unwrap();
        assert_eq!(f.credentials("a").unwrap(), Some(("abcd", PASSWORD)));
        assert_eq!(f.candidates.len(), 2);
        assert!(text.contains("::1 443 typ host tcptype passive"), "{text}");
    }

    #[test]
    fn a_fragment_has_the_limits_of_an_offer() {
        let e = Fragment::parse(&"m=video 9 X 0\r\n".repeat(17)).unwrap_err();
        assert!(e.to_string().contains("m-lines"), "{e}");
        assert!(Fragment::parse(&"a=x\r\n".repeat(1_001)).is_err());
    }
}
