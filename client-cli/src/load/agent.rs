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
use super::figures::Sample;
use super::flags::{AgentArgs, RunArgs};
use super::machine::{Load, Meter, RelayFigures};
use super::scenario::{Inject, Scenario};
use super::shared::Shared;
use crate::net::address::Address;
use crate::net::events::{self, Events};
use crate::stop::Stop;
use anyhow::{Context as _, bail, ensure};
use futures_util::future::try_join_all;
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
use tokio::time::{MissedTickBehavior, timeout};
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

impl Word {
    const fn name(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Over { .. } => "over",
            Self::Part(_) => "part",
            Self::Failed(_) => "failed",
        }
    }
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
        let read = (&mut self.read).take(LONGEST).read_until(b'\n', &mut line).await;
        read.context("the other end is gone")?;
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
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = stop.requested() => return Ok(()),
        };
        let stream = match timeout(CONNECT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                eprintln!("{from} is refused: {error}");
                continue;
            }
            Err(_) => continue,
        };
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
    let own = engine.stop_publishing();
    let asked = finish_asked(lines, own.clone()).await;
    // Everybody is sent home, whether somebody wants to know what they counted or not.
    let part = engine.finish(asked.as_ref().map_or(own, Vec::clone)).await;
    clock.abort();
    drop(events);
    asked?;
    lines.say(&Word::Part(Box::new(part))).await
}

/// Says that the stages are over; the last frame of every feed, once all agents have said so.
async fn finish_asked(lines: &mut Lines, own: Vec<Option<u32>>) -> anyhow::Result<Vec<Option<u32>>> {
    lines.say(&Word::Over { last_frames: own }).await?;
    let Order::Finish { last_frames } = lines.hear().await? else { bail!("finish comes last") };
    Ok(last_frames)
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

/// Has the agents run the scenario together; what each counted. An agent that is lost ends the test: what the others measured was
/// another one.
pub(super) async fn coordinate(
    args: &RunArgs,
    scenario: &Scenario,
    run: u64,
    stop: &Stop,
) -> anyhow::Result<Vec<Part>> {
    let identity = args.identity.load()?;
    let relay = RelayFigures::new(args.relay_pid, args.metrics.as_ref(), &identity.trust)?;
    relay.check().await?;
    let together = async {
        let mut agents = Vec::new();
        for address in &args.agents {
            let lines = connect(&identity, address).await.with_context(|| format!("agent {address}"))?;
            agents.push(Agent { address, lines });
        }
        together(agents, args.inject, scenario, run, relay).await
    };
    tokio::select! {
        parts = together => parts,
        () = stop.requested() => bail!("ended early: the agents stop without figures"),
    }
}

async fn together(
    mut agents: Vec<Agent<'_>>,
    inject: Option<Inject>,
    scenario: &Scenario,
    run: u64,
    relay: RelayFigures,
) -> anyhow::Result<Vec<Part>> {
    let of = agents.len();
    for (index, agent) in agents.iter_mut().enumerate() {
        let (scenario, share) = (Box::new(scenario.clone()), Share { index, of });
        agent.say(&Order::Prepare { scenario, run, share, inject }).await?;
    }
    each(&mut agents, PREPARE, |word| matches!(word, Word::Ready).then_some(())).await?;
    let mut meter = Meter::new(relay).await;
    for agent in &mut agents {
        agent.say(&Order::Go).await?;
    }
    let long = Duration::from_secs_f64(scenario.seconds()) + FINISH;
    let over = each(&mut agents, long, |word| match word {
        Word::Over { last_frames } => Some(last_frames),
        _ => None,
    });
    let (over, relay) = watched(over, &mut meter).await;
    let mut last_frames = vec![None; scenario.feeds().len()];
    for own in over? {
        last_frames.iter_mut().zip(own).filter(|(_, own)| own.is_some()).for_each(|(all, own)| *all = own);
    }
    for agent in &mut agents {
        agent.say(&Order::Finish { last_frames: last_frames.clone() }).await?;
    }
    let parts = each(&mut agents, FINISH, |word| match word {
        Word::Part(part) => Some(part),
        _ => None,
    });
    let mut parts: Vec<Part> = parts.await?.into_iter().map(|part| *part).collect();
    for (part, agent) in parts.iter_mut().zip(&agents) {
        part.rows.iter_mut().for_each(|r| r.agent = agent.address.to_string());
    }
    parts.iter_mut().take(1).for_each(|part| note_relay(&mut part.samples, &relay));
    Ok(parts)
}

/// What the relay cost while something happened, a reading each second.
async fn watched<T>(what: impl Future<Output = T>, meter: &mut Meter) -> (T, Vec<Load>) {
    let mut loads = Vec::new();
    tokio::pin!(what);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        tokio::select! {
            done = &mut what => return (done, loads),
            _ = tick.tick() => loads.push(meter.read().await),
        }
    }
}

/// Puts the coordinator's readings of the relay beside the seconds that an agent counted, from its first stage on.
fn note_relay(samples: &mut [Sample], relay: &[Load]) {
    let staged = samples.iter_mut().skip_while(|s| s.stage.is_empty());
    for (sample, load) in staged.zip(relay) {
        (sample.relay_cpu, sample.relay_thread_cpu) = (load.relay, load.relay_thread);
        (sample.relay_drops, sample.relay_left_out) = (load.relay_drops, load.relay_left_out);
    }
}

/// One of the machines, as the coordinator sees it. What goes wrong there is told with its address.
struct Agent<'a> {
    address: &'a Address,
    lines: Lines,
}

impl Agent<'_> {
    async fn say(&mut self, order: &Order) -> anyhow::Result<()> {
        self.lines.say(order).await.with_context(|| format!("agent {}", self.address))
    }
}

/// The answers of all agents, in their order; the first one that is lost or says something else ends the waiting.
async fn each<T>(
    agents: &mut [Agent<'_>],
    within: Duration,
    wanted: impl Fn(Word) -> Option<T>,
) -> anyhow::Result<Vec<T>> {
    let of = async |agent: &mut Agent<'_>| {
        let word = answer(&mut agent.lines, within).await.with_context(|| format!("agent {}", agent.address))?;
        let name = word.name();
        wanted(word).with_context(|| format!("agent {}: {name} is not what comes next", agent.address))
    };
    try_join_all(agents.iter_mut().map(of)).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_relay_cost_stands_beside_the_seconds_of_the_stages() {
        let stage = |name: &str| Sample { stage: name.to_owned(), ..Sample::default() };
        let mut samples = ["", "", "ramp", "hold", "end"].map(stage).to_vec();
        note_relay(
            &mut samples,
            &[1.0, 2.0].map(|r| Load { relay: Some(r), relay_thread: Some(r / 2.0), ..Load::default() }),
        );
        let relay: Vec<Option<f64>> = samples.iter().map(|s| s.relay_cpu).collect();
        assert_eq!(relay, [None, None, Some(1.0), Some(2.0), None]);
        assert_eq!(samples[3].relay_thread_cpu, Some(1.0));
    }
}
