//! One test by several machines: each agent runs a share of the feeds and viewers, the coordinator adds up what they counted.
//!
//! Both ends show a certificate of the same authority (TLS 1.3), the agent one that is good for its address. Over that go lines of
//! JSON:
//!
//! ```text
//! coordinator                    agent
//!   prepare (scenario, share) ─►   joins, publishes
//!                             ◄─ ready
//!   go ─►                          all stages
//!                             ◄─ over (the last frame of each feed of its own)
//!   finish (of all feeds) ─►       waits for what is under way
//!                             ◄─ part
//! ```
//!
//! The clock of the test is signaling's: each agent asks for it by the exchange of the event socket.

use super::access::Access;
use super::engine::{Engine, Part, Share};
use super::flags::{AgentArgs, RunArgs};
use super::machine::RelayFigures;
use super::scenario::{Inject, Scenario};
use super::shared::Shared;
use crate::net::address::Address;
use crate::net::events::{self, Events};
use crate::stop::Stop;
use anyhow::{Context as _, bail, ensure};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use trocar_relay::quic::Identity;

/// Connecting and the handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// Joining and publishing.
const PREPARE: Duration = Duration::from_secs(120);
/// From the end of the stages to the figures.
const FINISH: Duration = Duration::from_secs(60);
/// The clock is known by then, or the agent is of no use.
const CLOCK: Duration = Duration::from_secs(10);
/// How often the clock of the test is set.
const FOLLOW: Duration = Duration::from_millis(500);
/// Longest line in bytes: figures of thousands of viewers fit.
const LONGEST: u64 = 256 << 20;

/// What the coordinator says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    Prepare { scenario: Box<Scenario>, run: u64, share: Share, inject: Option<Inject> },
    Go,
    Finish { last_frames: Vec<Option<u32>> },
}

/// What an agent says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Ready,
    Over { last_frames: Vec<Option<u32>> },
    Part(Box<Part>),
    Failed(String),
}

/// Anything that carries bytes both ways.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Lines of JSON, both ways.
struct Lines {
    read: BufReader<ReadHalf<Box<dyn Stream>>>,
    write: WriteHalf<Box<dyn Stream>>,
}

impl Lines {
    fn new(stream: Box<dyn Stream>) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self { read: BufReader::new(read), write }
    }

    async fn say<T: Serialize + Sync>(&mut self, what: &T) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.write.write_all(&line).await?;
        Ok(self.write.flush().await?)
    }

    async fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = Vec::new();
        (&mut self.read).take(LONGEST).read_until(b'\n', &mut line).await?;
        ensure!(line.last() == Some(&b'\n'), "the other end is gone");
        Ok(serde_json::from_slice(&line)?)
    }
}

fn roots(trust: &[CertificateDer<'static>]) -> anyhow::Result<Arc<RootCertStore>> {
    let mut store = RootCertStore::empty();
    for c in trust {
        store.add(c.clone())?;
    }
    Ok(Arc::new(store))
}

/// Waits for coordinators, one after the other, until it is told to stop.
pub(super) async fn serve(args: AgentArgs) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    let identity = args.identity.load()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(&identity.trust)?, Arc::clone(&provider)).build()?;
    let own = identity.duplicate();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own.chain, own.key)
        .context("--cert")?;
    // Each coordinator shows its certificate.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("--listen {}", args.listen))?;
    println!("waiting at {}", listener.local_addr()?);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            () = stop.requested() => return Ok(()),
        };
        let Ok(Ok(stream)) = timeout(CONNECT, acceptor.accept(stream)).await else { continue };
        let mut lines = Lines::new(Box::new(stream));
        tokio::select! {
            done = test(&mut lines, &args, &identity) => if let Err(error) = done {
                eprintln!("{error:#}");
                // It may be the connection that failed.
                let _ = lines.say(&Word::Failed(format!("{error:#}"))).await;
            },
            () = stop.requested() => return Ok(()),
        }
    }
}

/// Takes part in one test.
async fn test(lines: &mut Lines, args: &AgentArgs, identity: &Identity) -> anyhow::Result<()> {
    let Order::Prepare { scenario, run, share, inject } = lines.hear().await? else { bail!("prepare comes first") };
    scenario.check()?;
    let size = (scenario.feeds().len(), scenario.viewers().len());
    let access = Access::new(args.invite.clone(), identity, &args.path, args.ports, size)?;
    let api = access.publisher(0).await?;
    let events = events::open(api, identity.trust.clone(), false);
    let mut engine = Engine::prepare(*scenario, (run, share), access, RelayFigures::default(), inject).await?;
    let clock = follow(&events, Arc::clone(&engine.shared)).await?;
    lines.say(&Word::Ready).await?;
    let Order::Go = lines.hear().await? else { bail!("go comes next") };
    // A coordinator that is gone ends the stages.
    let Lines { read, .. } = lines;
    engine.run(async { drop(read.fill_buf().await) }).await;
    let last_frames = engine.stop_publishing();
    lines.say(&Word::Over { last_frames }).await?;
    let Order::Finish { last_frames } = lines.hear().await? else { bail!("finish comes last") };
    let part = engine.finish(last_frames).await;
    clock.abort();
    drop(events);
    lines.say(&Word::Part(Box::new(part))).await
}

/// Sets the clock of the test again and again, once it is known.
async fn follow(events: &Events, shared: Arc<Shared>) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let mut clock = events.clock.clone();
    let known = timeout(CLOCK, clock.wait_for(Option::is_some)).await;
    known.ok().and_then(Result::ok).context("the clock of signaling is not known")?;
    let set = move |clock: &tokio::sync::watch::Receiver<_>| {
        let offset: Option<trocar_proto::session::clock::Offset> = *clock.borrow();
        if let Some(o) = offset {
            shared.clock.follow(o.offset_us, o.uncertainty_us);
        }
    };
    set(&clock);
    Ok(tokio::spawn(async move {
        loop {
            tokio::time::sleep(FOLLOW).await;
            set(&clock);
        }
    }))
}

/// Has the agents run the scenario together; what each counted.
pub(super) async fn coordinate(
    args: &RunArgs,
    scenario: &Scenario,
    run: u64,
    stop: &Stop,
) -> anyhow::Result<Vec<Part>> {
    let identity = args.identity.load()?;
    let mut agents = Vec::new();
    for (index, address) in args.agents.iter().enumerate() {
        let mut lines = connect(&identity, address).await.with_context(|| format!("agent {address}"))?;
        let share = Share { index, of: args.agents.len() };
        lines.say(&Order::Prepare { scenario: Box::new(scenario.clone()), run, share, inject: args.inject }).await?;
        agents.push((address, lines));
    }
    for (address, lines) in &mut agents {
        match answer(lines, PREPARE).await.with_context(|| format!("agent {address}"))? {
            Word::Ready => {}
            other => bail!("agent {address}: {other:?} instead of ready"),
        }
    }
    for (_, lines) in &mut agents {
        lines.say(&Order::Go).await?;
    }
    let mut last_frames = vec![None; scenario.feeds().len()];
    let long = Duration::from_secs_f64(scenario.seconds()) + FINISH;
    for (address, lines) in &mut agents {
        let over = tokio::select! {
            over = answer(lines, long) => over.with_context(|| format!("agent {address}"))?,
            () = stop.requested() => bail!("ended early: the agents stop without figures"),
        };
        let Word::Over { last_frames: own } = over else { bail!("agent {address}: {over:?} instead of over") };
        last_frames.iter_mut().zip(own).filter(|(_, own)| own.is_some()).for_each(|(all, own)| *all = own);
    }
    for (_, lines) in &mut agents {
        lines.say(&Order::Finish { last_frames: last_frames.clone() }).await?;
    }
    let mut parts = Vec::new();
    for (address, lines) in &mut agents {
        let Word::Part(mut part) = answer(lines, FINISH).await.with_context(|| format!("agent {address}"))? else {
            bail!("agent {address}: no figures");
        };
        part.rows.iter_mut().for_each(|r| r.agent = address.to_string());
        parts.push(*part);
    }
    Ok(parts)
}

async fn answer(lines: &mut Lines, within: Duration) -> anyhow::Result<Word> {
    match timeout(within, lines.hear()).await {
        Ok(Ok(Word::Failed(why))) => bail!("{why}"),
        Ok(word) => word,
        Err(_) => bail!("no answer within {} s", within.as_secs()),
    }
}

async fn connect(identity: &Identity, to: &Address) -> anyhow::Result<Lines> {
    let own = identity.duplicate();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(&identity.trust)?)
        .with_client_auth_cert(own.chain, own.key)?;
    let name = ServerName::try_from(to.host().to_owned())?;
    let connecting = async {
        let stream = TcpStream::connect(to.resolve().await?).await?;
        anyhow::Ok(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    };
    let stream = timeout(CONNECT, connecting).await.context("no answer")??;
    Ok(Lines::new(Box::new(stream)))
}
