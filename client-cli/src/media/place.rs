//! Where pictures come from, as a person writes it.

use super::codec::Codec;
use super::error::MediaError;
use super::spec::Geometry;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use url::Url;

/// Pictures of `test` without a size.
const DEFAULT_TEST: Geometry = Geometry { width: 1920, height: 1080, fps: 60 };

/// Where the pictures come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceSpec {
    /// The synthetic operating field, drawn and encoded live.
    Test(Geometry),
    /// For tests: the same, which stands still after so many pictures, bit for bit, as behind a capture card that froze.
    Freezing {
        /// Size and rate.
        geometry: Geometry,
        /// Pictures before it stands.
        after: u32,
    },
    /// A recording, played in real time.
    File {
        /// Anything that GStreamer can demux.
        path: PathBuf,
        /// Begin again at the end.
        looped: bool,
        /// Forward the file's video as it is, without decoding or encoding.
        passthrough: bool,
    },
    /// A camera, card or screen: its pictures are encoded here.
    Capture(Device),
    /// What an encoder sends: forwarded without being decoded.
    Stream(Stream),
}

/// Something that gives pictures as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Device {
    /// Video4Linux: USB cameras, capture cards.
    V4l2(PathBuf),
    /// An input of a Blackmagic DeckLink card, by its number.
    Decklink(i32),
    /// The screen of an X session.
    Screen,
    /// GStreamer elements, as on the command line of `gst-launch-1.0`, that give `video/x-raw`.
    Elements(String),
}

/// An encoder's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stream {
    /// A camera or encoder that is asked for its stream.
    Rtsp(String),
    /// MPEG-TS over SRT, by the URI that GStreamer takes.
    Srt(String),
    /// What arrives at an address of this machine.
    Udp {
        /// The address to listen at, or the multicast group to join.
        host: IpAddr,
        /// The port.
        port: u16,
        /// What is in the datagrams.
        wrapping: Wrapping,
    },
}

/// What is in a UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// MPEG-TS packets.
    Ts,
    /// RTP with MPEG-TS in it (RFC 2250).
    RtpTs,
    /// RTP with a codec in it.
    Rtp(Codec),
}

impl SourceSpec {
    /// The same source with the command line's `--loop` and `--passthrough` applied; only a file has them.
    pub(crate) fn with_file_options(self, looped: bool, passthrough: bool) -> Self {
        match self {
            Self::File { path, .. } => Self::File { path, looped, passthrough },
            other => other,
        }
    }

    /// Whether it goes on for ever, so that its end is a failure.
    pub(crate) const fn is_live(&self) -> bool {
        !matches!(self, Self::File { .. })
    }

    /// Whether the pictures are encoded here.
    pub(crate) const fn is_encoded_here(&self) -> bool {
        !matches!(self, Self::Stream(_) | Self::File { passthrough: true, .. })
    }
}

/// As it may be logged: without user names, passwords and passphrases.
impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Test(geometry) => write!(f, "test:{geometry}"),
            Self::Freezing { geometry, after } => write!(f, "test:{geometry},freeze={after}"),
            Self::File { path, .. } => write!(f, "file:{}", path.display()),
            Self::Capture(Device::V4l2(path)) => write!(f, "v4l2:{}", path.display()),
            Self::Capture(Device::Decklink(number)) => write!(f, "decklink:{number}"),
            Self::Capture(Device::Screen) => f.write_str("screen"),
            Self::Capture(Device::Elements(line)) => write!(f, "gst:{line}"),
            Self::Stream(Stream::Rtsp(url)) => {
                let Ok(mut url) = Url::parse(url) else { return f.write_str("rtsp:") };
                let _ = (url.set_username(""), url.set_password(None));
                url.set_query(None);
                write!(f, "{url}")
            }
            Self::Stream(Stream::Srt(uri)) => f.write_str(uri.split('?').next().unwrap_or_default()),
            Self::Stream(Stream::Udp { host, port, .. }) => {
                write!(f, "udp://{}", std::net::SocketAddr::new(*host, *port))
            }
        }
    }
}

impl FromStr for SourceSpec {
    type Err = MediaError;

    /// `test`, `test:1920x1080@60`, `file:PATH` (looped, encoded again), `v4l2:DEVICE`, `decklink:NUMBER`, `screen`,
    /// `gst:ELEMENTS`, `rtsp://…`, `srt://…`, `udp://…`.
    fn from_str(s: &str) -> Result<Self, MediaError> {
        let bad = |reason| Err(MediaError::Spec { given: s.to_owned(), reason });
        let stream = |stream: Result<Stream, &'static str>| match stream {
            Ok(stream) => Ok(Self::Stream(stream)),
            // What was typed may have a password in it, so only its kind is repeated.
            Err(reason) => {
                Err(MediaError::Spec { given: format!("{}…", &s.split(':').next().unwrap_or("")), reason })
            }
        };
        match s.split_once(':') {
            None if s == "test" => Ok(Self::Test(DEFAULT_TEST)),
            None if s == "screen" => Ok(Self::Capture(Device::Screen)),
            Some(("test", size)) => match size.split_once(",freeze=") {
                None => size.parse().map(Self::Test),
                Some((size, after)) => match after.parse() {
                    Ok(after @ 1..) => Ok(Self::Freezing { geometry: size.parse()?, after }),
                    _ => bad("freeze is the number of pictures before the picture stands still, from 1"),
                },
            },
            Some(("file", "")) => bad("the path is empty"),
            Some(("file", path)) => Ok(Self::File { path: PathBuf::from(path), looped: true, passthrough: false }),
            None if s == "v4l2" => Ok(Self::Capture(Device::V4l2(PathBuf::from("/dev/video0")))),
            Some(("v4l2", path)) if path.starts_with('/') => Ok(Self::Capture(Device::V4l2(PathBuf::from(path)))),
            Some(("v4l2", _)) => bad("a camera is named by its device, v4l2:/dev/video0"),
            None if s == "decklink" => Ok(Self::Capture(Device::Decklink(0))),
            Some(("decklink", number)) => match number.parse() {
                Ok(number @ 0..=63) => Ok(Self::Capture(Device::Decklink(number))),
                _ => bad("an input of a DeckLink card has a number from 0 to 63"),
            },
            Some(("gst", "")) => bad("the elements are missing, gst:videotestsrc is-live=true"),
            Some(("gst", line)) => Ok(Self::Capture(Device::Elements(line.to_owned()))),
            Some(("rtsp" | "rtspt" | "rtspu" | "rtsps", _)) => stream(rtsp(s)),
            Some(("srt", _)) => stream(srt(s)),
            Some(("udp", _)) => stream(udp(s)),
            _ => bad("no such kind of source"),
        }
    }
}

fn rtsp(s: &str) -> Result<Stream, &'static str> {
    let url = Url::parse(s).ok().filter(|u| u.host_str().is_some_and(|h| !h.is_empty()));
    url.map(|_| Stream::Rtsp(s.to_owned())).ok_or("an RTSP address is rtsp://HOST/PATH")
}

fn srt(s: &str) -> Result<Stream, &'static str> {
    const RIGHT: &str =
        "an SRT address is srt://HOST:PORT to call an encoder, or srt://:PORT?mode=listener to be called";
    let (authority, query) = s.strip_prefix("srt://").map(|r| r.split_once('?').unwrap_or((r, ""))).ok_or(RIGHT)?;
    let (host, port) = authority.rsplit_once(':').ok_or(RIGHT)?;
    let port_is_right = port.parse::<u16>().is_ok_and(|p| p > 0);
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let listens = pairs.any(|(k, v)| k == "mode" && v == "listener");
    if !port_is_right || (host.is_empty() && !listens) {
        return Err(RIGHT);
    }
    Ok(Stream::Srt(s.to_owned()))
}

fn udp(s: &str) -> Result<Stream, &'static str> {
    const RIGHT: &str = "a UDP address is udp://ADDRESS:PORT with an address of this machine (0.0.0.0 for all) or a \
                         multicast group";
    const FORMAT: &str = "after the port comes nothing or ?format=ts for MPEG-TS, or ?format=rtp&codec=CODEC with h264, \
                          h265, vp8, vp9, av1 or mp2t";
    let url = Url::parse(s).map_err(|_| RIGHT)?;
    let host = url.host_str().map(|h| h.trim_matches(['[', ']'])).ok_or(RIGHT)?;
    let host = host.parse().map_err(|_| RIGHT)?;
    let port = url.port().filter(|p| *p > 0).ok_or(RIGHT)?;
    let (mut format, mut codec) = (None, None);
    for (key, value) in url.query_pairs() {
        match key.as_ref() {
            "format" => format = Some(value.into_owned()),
            "codec" => codec = Some(value.into_owned()),
            _ => return Err(FORMAT),
        }
    }
    let wrapping = match (format.as_deref(), codec.as_deref()) {
        (None | Some("ts"), None) => Wrapping::Ts,
        (Some("rtp"), Some("mp2t")) => Wrapping::RtpTs,
        (Some("rtp"), Some(name)) => Wrapping::Rtp(Codec::of_rtp(name).ok_or(FORMAT)?),
        _ => return Err(FORMAT),
    };
    Ok(Stream::Udp { host, port, wrapping })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(s: &str) -> SourceSpec {
        s.parse().unwrap()
    }

    #[test]
    fn sources_are_parsed() {
        assert_eq!(parsed("test"), SourceSpec::Test(DEFAULT_TEST));
        assert_eq!(parsed("test:1280x720@30"), SourceSpec::Test(Geometry { width: 1280, height: 720, fps: 30 }));
        let geometry = Geometry { width: 640, height: 360, fps: 25 };
        assert_eq!(parsed("test:640x360@25,freeze=50"), SourceSpec::Freezing { geometry, after: 50 });
        let file = parsed("file:/a/b:c.mp4");
        assert_eq!(file, SourceSpec::File { path: "/a/b:c.mp4".into(), looped: true, passthrough: false });
        let changed = SourceSpec::File { path: "/a/b:c.mp4".into(), looped: false, passthrough: true };
        assert_eq!(file.with_file_options(false, true), changed);
        assert_eq!(parsed("v4l2:/dev/video2"), SourceSpec::Capture(Device::V4l2("/dev/video2".into())));
        assert_eq!(parsed("decklink:1"), SourceSpec::Capture(Device::Decklink(1)));
        assert_eq!(parsed("screen"), SourceSpec::Capture(Device::Screen));
        assert_eq!(parsed("gst:videotestsrc"), SourceSpec::Capture(Device::Elements("videotestsrc".to_owned())));
    }

    #[test]
    fn network_sources_are_parsed() {
        let udp = |s| match parsed(s) {
            SourceSpec::Stream(Stream::Udp { host, port, wrapping }) => (host.to_string(), port, wrapping),
            other => unreachable!("{other:?}"),
        };
        assert_eq!(udp("udp://0.0.0.0:5004"), ("0.0.0.0".to_owned(), 5004, Wrapping::Ts));
        assert_eq!(udp("udp://[::]:5004?format=ts"), ("::".to_owned(), 5004, Wrapping::Ts));
        let rtp = udp("udp://239.1.1.1:5004?format=rtp&codec=H265");
        assert_eq!(rtp, ("239.1.1.1".to_owned(), 5004, Wrapping::Rtp(Codec::H265)));
        assert_eq!(udp("udp://0.0.0.0:5004?format=rtp&codec=mp2t").2, Wrapping::RtpTs);
        for right in ["rtsp://10.0.0.7/live", "srt://10.0.0.7:7001", "srt://:7001?mode=listener"] {
            assert!(matches!(parsed(right), SourceSpec::Stream(_)), "{right}");
        }
    }

    #[test]
    fn secrets_do_not_reach_a_log() {
        for s in ["rtsp://user:SECRET@10.0.0.7/live", "srt://10.0.0.7:7001?passphrase=SECRET", "rtsp://h/x?pw=SECRET"] {
            let shown = parsed(s).to_string();
            assert!(!shown.contains("SECRET") && shown.contains("://"), "{shown}");
        }
        for s in ["rtsp://user:SECRET@", "srt://host?passphrase=SECRET", "udp://SECRET@host"] {
            let error = s.parse::<SourceSpec>().unwrap_err().to_string();
            assert!(!error.contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn what_is_not_a_source_is_refused_with_the_reason() {
        for (given, reason) in [
            ("camera", "no such kind"),
            ("file:", "the path is empty"),
            ("test:1280", "WIDTHxHEIGHT@FPS"),
            ("test:1280x721@30", "even numbers"),
            ("test:1280x720@30,freeze=0", "before the picture stands still"),
            ("test:1280x720@0", "1 to 240"),
            ("test:99998x720@30", "7680x4320"),
            ("test:720x1280@30", "at least height"),
            ("v4l2:video0", "v4l2:/dev/video0"),
            ("decklink:x", "0 to 63"),
            ("gst:", "elements are missing"),
            ("rtsp:///x", "rtsp://HOST/PATH"),
            ("srt://host", "srt://HOST:PORT"),
            ("srt://:7001", "mode=listener"),
            ("udp://camera:5004", "an address of this machine"),
            ("udp://0.0.0.0", "udp://ADDRESS:PORT"),
            ("udp://0.0.0.0:5004?format=rtp", "codec=CODEC"),
            ("udp://0.0.0.0:5004?format=rtp&codec=raw", "codec=CODEC"),
            ("udp://0.0.0.0:5004?forma=rtp", "codec=CODEC"),
        ] {
            let error = given.parse::<SourceSpec>().unwrap_err().to_string();
            assert!(error.contains(reason), "{given}: {error}");
        }
    }
}
