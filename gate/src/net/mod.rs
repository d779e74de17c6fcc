//! Control connections to the relays and the channels in them: what comes in goes to the core's inbox, what the core wants sent goes
//! out, and neither ever waits for the other.
//!
//! - One task per relay keeps a control connection, for ever, with at most a second between attempts.
//! - One task per channel reads its messages; sealed datagrams are opened where they arrive.
//! - One thread looks at the trust list four times a second, and drops keys that ended.

mod channel;
mod config;
mod relay;
mod state;
mod watch;

#[cfg(test)]
mod tests;

pub use config::{InvalidRelayAddress, MAX_RELAYS, NetConfig, NetError, RelayAddress};
pub use state::{Counters, FOR_SIGNALING, MAX_CHANNELS, MAX_OF_ONE};

use crate::core::{Inbox, Network};
use crate::troubles::Troubles;
use state::Shared;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use trocar_control::token::{IssuerKey, TokenVerifier};
use trocar_control::trust::{Identity, Trust, TrustList};
use trocar_proto::handover::message::{Beacon, FromGate};
use trocar_proto::handover::types::ChannelId;

/// The channels, as the core drives them. Everything stops when it is dropped.
#[derive(Debug)]
pub struct Net {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
    trust: tokio::sync::watch::Receiver<Arc<Trust>>,
}

/// Starts to connect to the relays. Comes back at once; relays that cannot be reached are tried for ever. A trust list that cannot be read
/// any more is told as trouble: the former one stays in force for whoever is there, and nothing new is granted.
///
/// # Errors
/// [`NetError`] names the file or value that cannot be used.
pub fn start(config: &NetConfig, inbox: Inbox, troubles: Troubles, runtime: &Handle) -> Result<Net, NetError> {
    if !(1..=MAX_RELAYS).contains(&config.relays.len()) {
        return Err(NetError::Relays(config.relays.len()));
    }
    let identity = Identity::from_pem_files(&config.certificate, &config.key)?;
    if identity.name().role != "gate" {
        return Err(NetError::Role { file: config.certificate.clone(), got: identity.name().role.clone() });
    }
    let list = TrustList::load(&config.trust)?;
    let key = IssuerKey::from_file(&config.issuer_key)?;
    let tokens = TokenVerifier::new(&config.issuer, &key, config.session.clone());
    let shared = Arc::new(Shared::new(identity, list.current(), tokens, inbox, config.relays.len()));
    let trust = watch::start(list, Arc::downgrade(&shared), troubles)?;
    let mut tasks = Vec::new();
    for (number, address) in config.relays.iter().enumerate() {
        let work = relay::keep(Arc::clone(&shared), number, address.clone(), config.session.clone());
        // It never returns, which its type says.
        tasks.push(runtime.spawn(work).abort_handle());
    }
    Ok(Net { shared, tasks, trust })
}

impl Net {
    /// What the trust list says now, and each time that it changes: the same files are looked at once.
    #[must_use]
    pub fn trust(&self) -> tokio::sync::watch::Receiver<Arc<Trust>> {
        self.trust.clone()
    }

    /// What was dropped and refused, for the foot of the screen; stays good when `Net` is handed on.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }
}

impl Network for Net {
    fn send(&mut self, channel: ChannelId, message: &FromGate) {
        self.shared.send(channel, message);
    }

    fn seal(&mut self, channel: ChannelId, beacon: &Beacon) {
        self.shared.seal(channel, beacon);
    }

    fn close(&mut self, channel: ChannelId) {
        self.shared.close(channel);
    }

    fn mirror(&mut self, status: &FromGate) {
        self.shared.mirror(status);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.shared.close_all();
    }
}
