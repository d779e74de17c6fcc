//! Where attacks are played: one stack, one healthy session, and what is asserted of every case.

use super::beside::{Beside, Phase};
use super::{Case, Play, Row, Verdict};
use crate::bench::ends::identity;
use crate::process::Process;
use crate::stack::Stack;
use crate::vitals::resident_kib;
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trocar_control::trust::cert_hash;
use trocar_proto::session::ids::CertHash;

/// Memory that a process may gain by one attacking peer, and by all that is played in one arena, in KiB.
const PEER_KIB: u64 = 8 << 10;
const TOTAL_KIB: u64 = 64 << 10;
/// The p99 age of the session beside may move by less than this, in microseconds.
const AGE_MOVE_US: u32 = 5_000;
/// Where the floor itself moved by this much, the machine was late and the trial says nothing.
const FLOOR_MOVE_US: u32 = 1_500;
/// Trials of a case at most, all but the last of which were void, or one of which found the session beside late.
const TRIALS: usize = 4;
/// A phase is at least so long, so that its p99 is of some hundreds of packets.
const PHASE: Duration = Duration::from_millis(500);
/// The phase before all attacks.
const BEFORE: Duration = Duration::from_millis(1_500);
/// No case takes longer.
const PATIENCE: Duration = Duration::from_secs(40);
/// Lines that a process may log in a case beyond one per attacker and second: what a healthy one says now and then.
const SPARE_LINES: u64 = 10;

/// Bounds that differ from the defaults, so that cases that wait for one are short.
const CONFIGURATION: &str = "[limits]\nwrite_stall_ms = 2000\n";

/// A stack under attack, and the session beside.
pub struct Arena {
    /// Relay and signaling.
    pub stack: Stack,
    beside: Beside,
    before: Phase,
    /// Resident memory when all began, KiB.
    rss: u64,
    spent: Cell<u64>,
    void: Cell<usize>,
    /// For requests that are well formed.
    pub http: reqwest::Client,
    /// Address of the plain listener.
    pub page: SocketAddr,
    /// Its URL, with a slash at the end.
    pub base: String,
    /// The session's name.
    pub session: String,
    /// Tokens of participants that joined at the start.
    pub tokens: Tokens,
}

/// One participant of each kind that cases need.
pub struct Tokens {
    /// May view.
    pub observer: String,
    /// Another one.
    pub stranger: String,
    /// May publish.
    pub local: String,
    /// The same, bound to the device's certificate: may announce native feeds.
    pub bound: String,
}

impl Arena {
    /// Starts the stack and the session beside, and looks at it undisturbed.
    ///
    /// # Errors
    /// What did not come up.
    pub fn start() -> anyhow::Result<Self> {
        let stack = Stack::start_with(CONFIGURATION)?;
        let beside = Beside::start(&stack, None)?;
        let base = stack.text("/page")?;
        let page: SocketAddr = base.trim_end_matches('/').trim_start_matches("http://").parse()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let http = crate::http_builder().timeout(Duration::from_secs(10)).pool_max_idle_per_host(0).build()?;
        let chain = identity(&PathBuf::from(stack.text("/ca_file")?))?.chain;
        let device = chain.first().map(|leaf| cert_hash(leaf)).context("the device has no certificate")?;
        let (tokens, before) = runtime.block_on(async {
            let tokens = Tokens {
                observer: join(&http, &stack, "observer").await?,
                stranger: join(&http, &stack, "observer").await?,
                local: join(&http, &stack, "local").await?,
                bound: join_as(&http, &stack, "local", Some(device)).await?,
            };
            tokio::time::sleep(Duration::from_millis(300)).await;
            let from = beside.mark();
            tokio::time::sleep(BEFORE).await;
            anyhow::Ok((tokens, beside.phase(from, beside.mark()).await?))
        })?;
        ensure!(before.native.lost == 0 && before.browser.lost == 0, "undisturbed, and yet: {before:?}");
        let rss = resident_kib(&stack.up)?;
        let session = stack.text("/session")?;
        let (spent, void) = (Cell::new(0), Cell::new(0));
        Ok(Self { stack, beside, before, rss, spent, void, http, page, base, session, tokens })
    }

    /// Plays one case and judges it.
    pub async fn run(&self, case: &Case, peers: u64, play: Play) -> Row {
        let mut seen = String::new();
        let mut verdict = Verdict::Failed;
        let mut was_late = false;
        for trial in 1..=TRIALS {
            match self.trial(peers, play).await {
                Ok(Trial::Void(why)) if trial < TRIALS => {
                    self.void.set(self.void.get() + 1);
                    eprintln!("{}: {why}, once more", case.name);
                    continue;
                }
                Ok(Trial::Void(why)) => seen = format!("the machine was late in every trial: {why}"),
                Ok(Trial::Held(what)) => (seen, verdict) = (what, Verdict::Held),
                // What the attack does it does again; what the machine did to the relay alone, hardly at once.
                Err(error) if !was_late && trial < TRIALS && is_lateness(&error) => {
                    was_late = true;
                    self.void.set(self.void.get() + 1);
                    eprintln!("{}: {error}, once more", case.name);
                    continue;
                }
                Err(error) => seen = format!("{error:#}"),
            }
            break;
        }
        Row { name: case.name, expected: case.expected, seen, verdict }
    }

    async fn trial(&self, peers: u64, play: Play) -> anyhow::Result<Trial> {
        let (rss, lines, from, began) =
            (resident_kib(&self.stack.up)?, self.stack.up.error_lines(), self.beside.mark(), Instant::now());
        let played = tokio::time::timeout(PATIENCE, play(self)).await;
        tokio::time::sleep(PHASE.saturating_sub(began.elapsed())).await;
        let phase = self.beside.phase(from, self.beside.mark()).await?;
        let seen = played.context("the case did not end")?;
        // What else is wrong is worth more than what the case says.
        healthy(&self.stack.up)?;
        let seen = seen?;
        let grown = check_memory(&self.stack.up, rss, peers)?;
        let total = resident_kib(&self.stack.up)?.saturating_sub(self.rss);
        ensure!(total <= TOTAL_KIB, "memory grew by {total} KiB since the beginning");
        self.spent.set(self.spent.get().max(total));
        let said = self.stack.up.error_lines() - lines;
        let may = SPARE_LINES + peers * (1 + began.elapsed().as_secs());
        ensure!(said <= may, "{said} lines in the log, {may} are bearable:\n{}", self.stack.up.stderr());
        Ok(match judge(self.before, phase)? {
            None => {
                let (p99, took) = (phase.native.p99_us.max(phase.browser.p99_us), began.elapsed().as_secs_f64());
                Trial::Held(format!("{seen}; {took:.1} s, +{grown} KiB, p99 {p99} µs"))
            }
            Some(why) => Trial::Void(why),
        })
    }

    /// What came of all cases together.
    #[must_use]
    pub fn summary(&self) -> String {
        let (b, spent, void) = (self.before, self.spent.get(), self.void.get());
        let p99 = (b.native.p99_us, b.browser.p99_us, b.floor.p99_us);
        format!("undisturbed p99 in µs (QUIC, WebRTC, plain socket): {p99:?}; at most +{spent} KiB; {void} trials void")
    }

    /// A request with a token to a path of the session.
    pub fn request(&self, method: reqwest::Method, path: &str, token: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}v1/sessions/{}/{path}", self.base, self.session)).bearer_auth(token)
    }

    /// An SDP offer to a path of the session: status, `Location` and body.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn offer(&self, path: &str, token: &str, sdp: String) -> anyhow::Result<(u16, String, String)> {
        let request = self.request(reqwest::Method::POST, path, token).header("Content-Type", "application/sdp");
        let response = request.body(sdp).send().await?;
        let location = response.headers().get("location").and_then(|l| l.to_str().ok()).unwrap_or("").to_owned();
        Ok((response.status().as_u16(), location, response.text().await?))
    }

    /// Hangs up.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn hang_up(&self, location: &str, token: &str) -> anyhow::Result<()> {
        let url = format!("{}{location}", self.base.trim_end_matches('/'));
        self.http.delete(url).bearer_auth(token).send().await?.error_for_status()?;
        Ok(())
    }

    /// A figure of `/metrics`: the sum over its label sets.
    ///
    /// # Errors
    /// Where it is not there.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        self.stack.metric(name).await
    }

    /// Waits until a figure has risen by so much since it was `before`.
    ///
    /// # Errors
    /// Where it does not within three seconds.
    pub async fn rises(&self, name: &str, before: f64, by: f64) -> anyhow::Result<f64> {
        let until = Instant::now() + Duration::from_secs(3);
        loop {
            let now = self.metric(name).await? - before;
            if now >= by {
                return Ok(now);
            }
            ensure!(Instant::now() < until, "{name} rose by {now} only, by {by} at least is right");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What an attack did to the session beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disturbed {
    /// So many packets are missing, by that way.
    Lost(u64, &'static str),
    /// Its p99 age by that way moved by so many microseconds, and that of a plain socket by so many.
    Late(&'static str, u32, u32),
}

impl std::fmt::Display for Disturbed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(count, way) => write!(f, "the viewer beside lost {count} packets by {way}"),
            Self::Late(way, by, floor) => {
                write!(f, "the p99 age by {way} moved by {by} µs, that of a plain socket by {floor} µs")
            }
        }
    }
}

impl std::error::Error for Disturbed {}

fn is_lateness(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Disturbed::Late(..)))
}

enum Trial {
    Held(String),
    Void(String),
}

/// A token of a new participant.
pub(super) async fn join(http: &reqwest::Client, stack: &Stack, role: &str) -> anyhow::Result<String> {
    join_as(http, stack, role, None).await
}

async fn join_as(http: &reqwest::Client, stack: &Stack, role: &str, cnf: Option<CertHash>) -> anyhow::Result<String> {
    let body = json!({ "invitation": stack.text(&format!("/tokens/{role}"))?, "name": "Somebody", "cnf": cnf });
    let url = format!("{}v1/join", stack.text("/page")?);
    let grant: Value = http.post(url).json(&body).send().await?.error_for_status()?.json().await?;
    Ok(grant.get("token").and_then(Value::as_str).context("no token")?.to_owned())
}

/// Whether the session beside was undisturbed: a text where nobody can know.
///
/// # Errors
/// Says what it lost, or by how much it was late.
pub fn judge(before: Phase, phase: Phase) -> Result<Option<String>, Disturbed> {
    let moved = |a: super::beside::Ages, b: super::beside::Ages| b.p99_us.saturating_sub(a.p99_us);
    for (name, was, is) in [("QUIC", before.native, phase.native), ("WebRTC", before.browser, phase.browser)] {
        if is.lost > 0 {
            return Err(Disturbed::Lost(is.lost, name));
        }
        let (by, floor) = (moved(was, is), moved(before.floor, phase.floor));
        if by >= AGE_MOVE_US {
            let late = Disturbed::Late(name, by, floor);
            return if floor >= FLOOR_MOVE_US { Ok(Some(late.to_string())) } else { Err(late) };
        }
    }
    Ok(None)
}

/// How much a process has grown since it had so much.
///
/// # Errors
/// Where that is more than so many peers may cost.
pub(super) fn check_memory(process: &Process, before_kib: u64, peers: u64) -> anyhow::Result<u64> {
    let grown = resident_kib(process)?.saturating_sub(before_kib);
    ensure!(grown <= PEER_KIB * peers, "memory grew by {grown} KiB by {peers} peers");
    Ok(grown)
}

/// Alive, and nothing panicked.
///
/// # Errors
/// Where it is not so.
pub(super) fn healthy(process: &Process) -> anyhow::Result<()> {
    let said = process.stderr();
    ensure!(!said.contains("panicked"), "a panic:\n{said}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    ensure!(status.contains("State:") && !status.contains("State:\tZ"), "the process has ended:\n{said}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_trial_is_played_once_more_and_one_with_a_loss_is_not() {
        let late = anyhow::Error::from(Disturbed::Late("QUIC", 6_000, 10));
        assert!(is_lateness(&late) && late.to_string().contains("moved by 6000"), "{late}");
        assert!(!is_lateness(&Disturbed::Lost(1, "QUIC").into()));
        assert!(!is_lateness(&anyhow::anyhow!("the p99 age by QUIC moved by 6000 µs")));
    }
}
