//! A relay as the other end: what the link of an engineer's invitation gives, and the ways that the relay's media can take from here.

use super::ice::{Reached, Remote};
use super::ladder::{AS_LINE, DETOUR, TCP, TCP_DETOUR, offered};
use super::turn::{By, Server, Turn};
use super::wire::{Framing, Udp, Wire, tcp};
use crate::net::api::{Api, Refused};
use crate::net::link::InvitationLink;
use crate::net::tls::read_chain;
use crate::rtc::Offered;
use anyhow::{Context as _, bail};
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;
use tokio::runtime::Runtime;
use trocar_link::result::{NOT_OFFERED, Rung};
use trocar_proto::session::link_test::LinkTestGrant;

/// How the participant is shown.
const NAME: &str = "Link test";

/// A relay that lets us measure.
pub(super) struct Relay {
    runtime: Runtime,
    api: Api,
    trust: Vec<CertificateDer<'static>>,
    /// Which one, where several run apart.
    name: Option<String>,
    /// What it gives; why it does not, where it answers no measurements at all.
    pub(super) granted: Result<LinkTestGrant, String>,
}

impl Relay {
    /// Joins with the invitation and asks; for the relay of that name, where several run apart.
    ///
    /// # Errors
    /// What signaling says no to: the invitation, the role, or that somebody operates.
    pub(super) fn join(link: &InvitationLink, ca: Option<&Path>, name: Option<&str>) -> anyhow::Result<Self> {
        let trust = match ca {
            Some(file) => read_chain(file).context("--ca")?,
            None if link.base.scheme() == "https" => {
                bail!("{} is https: --ca names the certificate of the authority that signed the relay's", link.base)
            }
            None => Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (api, granted) = runtime.block_on(async {
            let api = Api::join(link.clone(), &trust, None, NAME).await?;
            let granted = match api.link_test(name).await {
                Ok(granted) => Ok(granted),
                Err(error) => {
                    let problem = error.downcast_ref::<Refused>().map_or("", |r| r.0.kind.as_str());
                    match problem.rsplit(':').next() {
                        Some("link-tests-unused") => Err(format!("{error:#}")),
                        Some("verb-missing") => {
                            bail!("this invitation is for another role: that of an engineer is right")
                        }
                        _ => return Err(error),
                    }
                }
            };
            anyhow::Ok((api, granted))
        })?;
        let measured = granted.as_ref().ok().and_then(|g: &LinkTestGrant| g.relay.clone());
        let name = name.map(ToOwned::to_owned).or(measured);
        Ok(Self { runtime, api, trust, name, granted })
    }

    /// That it is this relay, as reports and people are told.
    pub(super) fn in_words(&self) -> String {
        self.name.as_ref().map(|name| format!(", relay {name}")).unwrap_or_default()
    }

    /// Leaves the session.
    pub(super) fn leave(&self) {
        let me = self.api.grant().participant;
        if let Err(error) = self.runtime.block_on(self.api.remove_participant(&me)) {
            tracing::debug!(error = format!("{error:#}"), "the session was not left");
        }
    }

    /// Tries every way at once. What is not tried stands beside, with the reason.
    pub(super) fn ladder(&self) -> (Vec<Rung>, Vec<(String, String)>) {
        let mut why_not = Vec::new();
        let mut ways: Vec<Way<'_>> = Vec::new();
        match &self.granted {
            Ok(grant) => ways.extend(grant.quic.first().map(|to| Way::quic(*to))),
            Err(why) => why_not.push(("ladder.quic-udp".to_owned(), why.clone())),
        }
        let offered = self.runtime.block_on(Offered::voices(&self.api, &self.trust, self.name.as_deref()));
        let offered = match offered {
            Ok(offered) => offered,
            Err(error) => {
                why_not.push(("ladder.webrtc-udp".to_owned(), format!("the relay makes no leg: {error:#}")));
                return (try_all(&ways), why_not);
            }
        };
        match Remote::read(offered.answer()) {
            Ok(remote) => ways.extend(webrtc_ways(&offered, &remote, &self.trust)),
            Err(error) => why_not.push(("ladder.webrtc-udp".to_owned(), format!("{error:#}"))),
        }
        let rungs = try_all(&ways);
        self.runtime.block_on(offered.take_back());
        (rungs, why_not)
    }
}

/// How its wire is laid.
type Open = Box<dyn Fn() -> anyhow::Result<Box<dyn Wire>> + Sync>;
/// What one rung tries.
type Try<'a> = Box<dyn Fn() -> anyhow::Result<Reached> + Sync + 'a>;

struct Way<'a> {
    name: &'static str,
    class: &'static str,
    detail: String,
    /// None: the relay does not offer it.
    reach: Option<Try<'a>>,
}

impl Way<'_> {
    fn quic(to: SocketAddr) -> Self {
        let reach = move || super::quic::knock(to);
        let detail = format!("the relay's media port for QUIC, {to}");
        Way { name: "quic-udp", class: AS_LINE, detail, reach: Some(Box::new(reach)) }
    }

    fn missing(name: &'static str, why: &str) -> Self {
        Way { name, class: NOT_OFFERED, detail: why.to_owned(), reach: None }
    }
}

fn try_all(ways: &[Way<'_>]) -> Vec<Rung> {
    std::thread::scope(|scope| {
        let all: Vec<_> = ways.iter().map(|way| scope.spawn(|| way.reach.as_ref().map(|reach| reach()))).collect();
        let came = all.into_iter().map(|t| t.join().unwrap_or_else(|_| Some(Err(anyhow::anyhow!("it stopped")))));
        ways.iter().zip(came).map(|(w, reached)| offered(w.name, w.class, &w.detail, reached)).collect()
    })
}

fn webrtc_ways(offered: &Offered, remote: &Remote, trust: &[CertificateDer<'static>]) -> Vec<Way<'static>> {
    let mut ways = Vec::new();
    let local = offered.user_fragment.clone();
    let check = |open: Open| -> Option<Try<'static>> {
        let (remote, local) = (remote.clone(), local.clone());
        Some(Box::new(move || {
            let began = Instant::now();
            remote.reach(open()?.as_mut(), &local, began)
        }))
    };
    match remote.udp.first().copied() {
        Some(to) => ways.push(Way {
            name: "webrtc-udp",
            class: AS_LINE,
            detail: format!("checks of ICE to {to}"),
            reach: check(Box::new(move || Ok(Box::new(Udp::connect(to)?)))),
        }),
        None => ways.push(Way::missing("webrtc-udp", "the relay's answer has no UDP candidate")),
    }
    match remote.tcp.first().copied() {
        Some(to) => ways.push(Way {
            name: "ice-tcp",
            class: TCP,
            detail: format!("checks of ICE over TCP to {to}"),
            reach: check(Box::new(move || Ok(Box::new(tcp(to, Framing::Length)?)))),
        }),
        None => ways.push(Way::missing("ice-tcp", "the relay's answer has no TCP candidate")),
    }
    let peer = remote.udp.first().copied();
    let mut by = Vec::new();
    for server in offered.ice_servers() {
        let (Some(user), Some(password), Some(peer)) = (&server.username, &server.credential, peer) else { continue };
        for turn in server.urls.iter().filter_map(|u| Server::read(u)) {
            by.push(turn.by);
            let (user, password, trust) = (user.clone(), password.clone(), trust.to_vec());
            let (name, class) = match turn.by {
                By::Udp => ("turn-udp", DETOUR),
                By::Tcp => ("turn-tcp", TCP_DETOUR),
                By::Tls if turn.port == 443 => ("turn-tls-443", TCP_DETOUR),
                By::Tls => ("turn-tls", TCP_DETOUR),
            };
            let detail = format!("checks of ICE through TURN at {turn} to {peer}");
            let open = move || -> anyhow::Result<Box<dyn Wire>> {
                Ok(Box::new(Turn::open(&turn, &trust, (&user, &password), peer)?))
            };
            ways.push(Way { name, class, detail, reach: check(Box::new(open)) });
        }
    }
    for (kind, name) in [(By::Udp, "turn-udp"), (By::Tls, "turn-tls-443")] {
        if !by.contains(&kind) {
            ways.push(Way::missing(name, "the relay names no such TURN server: [turn] of its configuration"));
        }
    }
    ways
}
