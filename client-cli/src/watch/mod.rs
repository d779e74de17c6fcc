//! `trocar watch`: a feed of a session over RoQ or WebRTC, with figures of what really came and how old it was, and its
//! picture in a window.

pub(crate) mod origin;
pub(crate) mod roq;
pub(crate) mod screen;
pub(crate) mod sink;
mod window;

use crate::echo::Echo;
use crate::net::link::InvitationLink;
use crate::net::path::PathSpec;
use crate::net::tls::{IdentityArgs, read_chain};
use crate::publish::plan::RoqModeArg;
use crate::rtc;
use crate::stop::Stop;
use anyhow::{Context, bail};
use rustls::pki_types::CertificateDer;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trocar_proto::session::ids::FeedId;
use url::Url;

/// Watch a feed and measure it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WatchArgs {
    /// Invitation link.
    #[arg(long, value_name = "LINK", required_unless_present = "whep", conflicts_with = "whep")]
    pub(crate) invite: Option<InvitationLink>,
    /// Address of a WHEP resource, of this relay or of another server; instead of an invitation link.
    #[arg(long, value_name = "URL", value_parser = web_address)]
    pub(crate) whep: Option<Url>,
    /// Bearer token for --whep: an access token, or an invitation's secret.
    #[arg(long, value_name = "SECRET", requires = "whep", conflicts_with = "invite")]
    pub(crate) token: Option<String>,
    /// How the pictures come: RTP over QUIC, or WebRTC by WHEP.
    #[arg(long, value_enum, default_value = "roq")]
    pub(crate) transport: Transport,
    /// Trust list: the certificate of the authority that signed the servers.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// This device's certificate; `device.pem` beside the trust list where left out. For RTP over QUIC only.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// This device's private key; `device.key` beside the trust list where left out. For RTP over QUIC only.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Name of the feed; waits for it where it is not published yet.
    #[arg(long, default_value = "scope")]
    pub(crate) feed: FeedId,
    /// How packets come by RTP over QUIC: one per datagram, or a stream per frame, reset at the frame's deadline.
    #[arg(long, value_enum, default_value = "datagram")]
    pub(crate) roq_mode: RoqModeArg,
    /// Local address that the packets come to, as LOCAL_IP, or LOCAL_IP=HOST:PORT for another address of the relay. Given twice,
    /// every packet comes by both, and nothing is lost when one path fails. For RTP over QUIC.
    #[arg(long, value_name = "LOCAL_IP", requires = "invite")]
    pub(crate) path: Vec<PathSpec>,
    /// Show figures only, no window.
    #[arg(long)]
    headless: bool,
    /// JSON lines instead of text.
    #[arg(long)]
    json: bool,
    /// Stop after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_hyphen_values = true)]
    duration: Option<Duration>,
    /// Stop after so many complete frames.
    #[arg(long, value_name = "N")]
    frames: Option<u64>,
    /// How the viewer is called in the session.
    #[arg(long, default_value = "Native viewer")]
    pub(crate) name: String,
    /// Write one JSON line per complete frame: frame id, SHA-256 of its RTP payloads, when it could be shown and how old it was then,
    /// in microseconds. Over WebRTC frames carry no id: they are counted from 0.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Write one JSON line for each picture that the window has shown and whose pixels carry the mark of a live `test` source: its
    /// number, when it was drawn, and when it was shown.
    #[arg(long, value_name = "FILE", conflicts_with = "headless")]
    marks: Option<PathBuf>,
    /// Tell the expert's station (`trocar operate --echo-from SOCKET`) which frame is on the screen: a Unix datagram for each one that
    /// the window has shown. For RTP over QUIC.
    #[arg(long, value_name = "SOCKET", requires = "invite")]
    echo_to: Option<PathBuf>,
    /// With --headless: count a frame as shown when it is complete. For tests, and for screens that another program drives: nobody
    /// knows then whether somebody saw it.
    #[arg(long, requires_all = ["echo_to", "headless"])]
    echo_complete: bool,
    /// The number of the source for the gate, where its control_source is another than 1.
    #[arg(long, value_name = "N", requires = "echo_to", default_value_t = 1, hide_default_value = true)]
    echo_source: u16,
}

/// How the pictures come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    /// RTP over QUIC.
    Roq,
    /// WebRTC, by WHEP.
    Webrtc,
}

/// Longest `--duration`.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3_600);

/// What `--duration` may say.
pub(crate) fn seconds(s: &str) -> Result<Duration, String> {
    let parsed = s.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    parsed
        .filter(|d| !d.is_zero() && *d <= LONGEST)
        .ok_or_else(|| format!("seconds above 0 and at most {} (30 days) are right", LONGEST.as_secs()))
}

/// What a WHIP or WHEP address may be.
pub(crate) fn web_address(s: &str) -> Result<Url, String> {
    let url = Url::parse(s).ok().filter(|u| matches!(u.scheme(), "https" | "http") && u.host().is_some());
    url.ok_or_else(|| "an address like https://HOST:PORT/v1/sessions/SESSION/feeds/FEED/whep is right".to_owned())
}

/// When a watching ends by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until(Option<Instant>);

impl Until {
    /// Returns at the deadline; never where there is none.
    pub(crate) async fn reached(self) {
        match self.0 {
            Some(t) => tokio::time::sleep_until(t.into()).await,
            None => std::future::pending().await,
        }
    }
}

/// Watches until a signal, until the window is closed, or until what `--duration` and `--frames` say.
pub(crate) async fn run(args: WatchArgs) -> anyhow::Result<()> {
    let echo = args.echo()?;
    if args.transport != Transport::Roq && (!args.path.is_empty() || args.roq_mode != RoqModeArg::Datagram) {
        bail!("--path and --roq-mode go with --transport roq");
    }
    let marks = args.marks.as_deref().map(window::marks::Marks::create).transpose()?;
    let window = if args.headless { None } else { Some(window::Display::find(marks)?) };
    let stop = Stop::on_signals()?;
    let after = |d| Instant::now().checked_add(d).context("--duration ends later than this machine can count");
    let until = Until(args.duration.map(after).transpose()?);
    let name = match &args.whep {
        Some(url) => feed_of(url),
        None => args.feed.to_string(),
    };
    let mut sink = sink::Sink::new(&name, args.json, args.ledger.as_deref(), args.frames, window, echo)?;
    let result = match (&args.whep, &args.invite, args.transport) {
        (Some(url), ..) => {
            let bearer = args.token.clone().map_or(rtc::Bearer::None, rtc::Bearer::Fixed);
            let endpoint = rtc::Endpoint::new(url.clone(), bearer, &args.trust()?)?;
            rtc::watch::by_address(&endpoint, &mut sink, until, &stop).await
        }
        (None, Some(link), Transport::Webrtc) => {
            let trust = args.trust()?;
            rtc::watch::by_invitation(&args, link.clone(), trust, &mut sink, until, &stop).await
        }
        (None, Some(link), Transport::Roq) => roq::watch(&args, link.clone(), &mut sink, until, &stop).await,
        (None, None, _) => bail!("--invite LINK or --whep URL is needed"),
    };
    sink.finish();
    result
}

impl WatchArgs {
    /// Who is told what is shown.
    fn echo(&self) -> anyhow::Result<Option<Echo>> {
        let Some(path) = &self.echo_to else { return Ok(None) };
        if self.transport != Transport::Roq {
            bail!("--echo-to goes with --transport roq: over WebRTC frames carry no id that the gate knows");
        }
        if self.headless && !self.echo_complete {
            bail!(
                "--echo-to needs a window: without one nothing is shown; --echo-complete counts complete frames as shown"
            );
        }
        Echo::to(path, self.echo_source).map(Some)
    }

    /// The authorities of `--ca`; none where it was left out.
    fn trust(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        Ok(self.ca.as_deref().map(read_chain).transpose().context("--ca")?.unwrap_or_default())
    }

    /// What QUIC needs.
    fn identity(&self) -> anyhow::Result<IdentityArgs> {
        let ca = self.ca.clone();
        let ca = ca.context("--ca FILE is needed for RTP over QUIC; --transport webrtc does without on loopback")?;
        Ok(IdentityArgs { ca, cert: self.cert.clone(), key: self.key.clone() })
    }
}

/// What a WHEP address calls the feed: of a Trocar relay its name, else the address.
fn feed_of(url: &Url) -> String {
    let mut segments = url.path_segments().map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    match (segments.pop(), segments.pop(), segments.pop()) {
        (Some("whep"), Some(feed), Some("feeds")) => feed.to_owned(),
        _ => format!("{}{}", url.authority(), url.path()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        watch: WatchArgs,
    }

    fn parse(args: &[&str]) -> Result<WatchArgs, String> {
        let all = std::iter::once(&"t").chain(args);
        Line::try_parse_from(all).map(|l| l.watch).map_err(|e| e.to_string())
    }

    #[test]
    fn a_duration_is_above_zero_and_at_most_thirty_days_and_what_is_not_is_told_what_would_be() {
        let secret = "x".repeat(43);
        let invite = format!("https://127.0.0.1:8000/#invitation={secret}");
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("2592000"), Ok(LONGEST));
        for bad in ["-1", "-0", "0", "nan", "inf", "-inf", "1e30", "1e-30", "2592001", "", "1s"] {
            let e = parse(&["--invite", &invite, "--duration", bad]).unwrap_err();
            assert!(e.contains("above 0 and at most 2592000 (30 days)"), "{bad}: {e}");
        }
    }

    #[test]
    fn a_link_or_an_address_is_needed_but_not_both_and_a_token_goes_with_an_address() {
        let invite = format!("https://h/#invitation={}", "x".repeat(43));
        let whep = "http://127.0.0.1:1/v1/sessions/s/feeds/scope/whep";
        assert!(parse(&["--whep", whep, "--token", "t"]).is_ok());
        assert!(parse(&["--invite", &invite, "--transport", "webrtc"]).is_ok());
        assert!(parse(&[]).unwrap_err().contains("--invite"));
        assert!(parse(&["--invite", &invite, "--whep", whep]).unwrap_err().contains("cannot be used with"));
        assert!(parse(&["--invite", &invite, "--token", "t"]).is_err());
        for bad in ["", "whep", "ftp://h/x", "http:/"] {
            assert!(parse(&["--whep", bad]).unwrap_err().contains("HOST:PORT"), "{bad}");
        }
        let quic = parse(&["--invite", &invite]).unwrap().identity().unwrap_err().to_string();
        assert!(quic.contains("--ca"), "{quic}");
    }

    #[test]
    fn an_echo_goes_with_a_window_or_with_an_explicit_word_and_never_with_webrtc() {
        // HO-T-009
        let invite = format!("https://h/#invitation={}", "x".repeat(43));
        let echo = |more: &[&str]| {
            let args = [&["--invite", &invite, "--echo-to", "/tmp/echo"], more].concat();
            parse(&args).and_then(|a| a.echo().map(|e| e.is_some()).map_err(|e| e.to_string()))
        };
        assert_eq!(echo(&[]), Ok(true));
        assert_eq!(echo(&["--headless", "--echo-complete"]), Ok(true));
        assert!(echo(&["--headless"]).unwrap_err().contains("--echo-complete"));
        assert!(echo(&["--echo-complete"]).unwrap_err().contains("--headless"));
        assert!(echo(&["--transport", "webrtc"]).unwrap_err().contains("--transport roq"));
        assert!(parse(&["--invite", &invite, "--echo-source", "2"]).unwrap_err().contains("--echo-to"));
    }

    #[test]
    fn a_whep_address_of_a_relay_names_its_feed() {
        let name = |s: &str| feed_of(&s.parse().unwrap());
        assert_eq!(name("https://h:1/v1/sessions/s/feeds/scope/whep"), "scope");
        assert_eq!(name("https://h:1/live/whep/x?y"), "h:1/live/whep/x");
    }
}
