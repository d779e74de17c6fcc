//! The means of remote operation: control connections and channels ([`net`]), and the listener for frames ([`frames`]). What cannot be
//! used at the start leaves the gate to local, with the reason on the console, and is tried again (HO-G-029); nobody starts a gate anew
//! in the middle of an operation because a certificate was late.

use crate::core::{Inbox, Network};
use crate::fail_stop::{self, Asked};
use crate::frames::{self, Frames, FramesConfig};
use crate::net::{self, Net, NetConfig, NetError};
use crate::troubles::Troubles;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use trocar_control::trust::Identity;
use trocar_proto::handover::message::{Beacon, FromGate};
use trocar_proto::handover::types::ChannelId;

/// Between two tries.
const EVERY: Duration = Duration::from_secs(1);
/// What the network side may lack, by the key of the configuration; one at a time is told.
const NET: [&str; 3] = ["identity", "trust.dir", "trust.issuer_key"];
/// The listener's key.
const LISTEN: &str = "frames.listen";

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Relays, certificates, whose tokens count.
    pub net: NetConfig,
    /// Where publishers report frames; nothing where there is no frame proof.
    pub frames: Option<FramesConfig>,
}

/// What stands of it, as the core drives it. Everything stops when it is dropped.
#[derive(Debug)]
pub struct Means(Arc<Shared>);

/// Reads the counters of what stands.
#[derive(Debug, Clone)]
pub struct Counters(Weak<Shared>);

#[derive(Debug)]
struct Shared {
    wanted: Wanted,
    inbox: Inbox,
    troubles: Troubles,
    runtime: Handle,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    net: Option<Net>,
    frames: Option<Frames>,
}

/// Starts what can be started, and a thread that starts the rest when that becomes possible.
///
/// # Errors
/// Where no thread can be started.
pub fn start(wanted: Wanted, inbox: Inbox, troubles: Troubles, runtime: Handle) -> io::Result<Means> {
    let shared = Arc::new(Shared { wanted, inbox, troubles, runtime, standing: Mutex::default() });
    if !shared.begin() {
        let weak = Arc::downgrade(&shared);
        fail_stop::spawn("trocar-means", move || Ok(try_again(&weak)))?;
    }
    Ok(Means(shared))
}

fn try_again(shared: &Weak<Shared>) -> Asked {
    loop {
        std::thread::sleep(EVERY);
        // Nobody wants it any more, or all of it stands.
        if shared.upgrade().is_none_or(|shared| shared.begin()) {
            return Asked;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what does not stand yet; true where all does. Files are read without the lock, which the core waits for as well.
    fn begin(&self) -> bool {
        if self.lock().net.is_none() {
            let trouble = match net::start(&self.wanted.net, self.inbox.clone(), self.troubles.clone(), &self.runtime) {
                Ok(net) => {
                    self.lock().net = Some(net);
                    None
                }
                Err(error) => Some((key_of(&error), error.to_string())),
            };
            self.troubles.set_one(&NET, trouble);
        }
        let Some(config) = &self.wanted.frames else { return self.lock().net.is_some() };
        let (trust, listens) = {
            let standing = self.lock();
            (standing.net.as_ref().map(Net::trust), standing.frames.is_some())
        };
        let Some(trust) = trust.filter(|_| !listens) else { return listens };
        let identity = Identity::from_pem_files(&self.wanted.net.certificate, &self.wanted.net.key);
        let started = identity.map_err(|e| e.to_string()).and_then(|identity| {
            let started = frames::start(config.clone(), Arc::new(identity), trust, self.inbox.clone());
            self.runtime.block_on(started).map_err(|e| format!("cannot listen on {}: {}", e.listen, e.cause))
        });
        match started {
            Ok(frames) => {
                self.lock().frames = Some(frames);
                self.troubles.set(LISTEN, None);
                true
            }
            Err(why) => {
                self.troubles.set(LISTEN, Some(why));
                false
            }
        }
    }
}

const fn key_of(error: &NetError) -> &'static str {
    match error {
        NetError::Identity(_) | NetError::Role { .. } | NetError::Relays(_) | NetError::Thread(_) => "identity",
        NetError::Trust(_) => "trust.dir",
        NetError::IssuerKey(_) => "trust.issuer_key",
    }
}

impl Means {
    /// For the foot of the screen; stays good when this is handed on.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters(Arc::downgrade(&self.0))
    }

    fn with_net(&self, act: impl FnOnce(&mut Net)) {
        if let Some(net) = &mut self.0.lock().net {
            act(net);
        }
    }
}

impl Counters {
    /// Those of what stands now.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let Some(shared) = self.0.upgrade() else { return Vec::new() };
        let standing = shared.lock();
        let net = standing.net.iter().flat_map(|net| net.counters().all());
        net.chain(standing.frames.iter().flat_map(Frames::counters)).collect()
    }
}

/// Without a network there is no channel that anything could be said by.
impl Network for Means {
    fn send(&mut self, channel: ChannelId, message: &FromGate) {
        self.with_net(|net| net.send(channel, message));
    }

    fn seal(&mut self, channel: ChannelId, beacon: &Beacon) {
        self.with_net(|net| net.seal(channel, beacon));
    }

    fn close(&mut self, channel: ChannelId) {
        self.with_net(|net| net.close(channel));
    }

    fn mirror(&mut self, status: &FromGate) {
        self.with_net(|net| net.mirror(status));
    }
}
