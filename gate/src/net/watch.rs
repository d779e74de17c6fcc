//! The thread that looks at the trust list, for channels and for the frames' listener: a runtime that is busy does not delay a
//! revocation.

use super::state::Shared;
use crate::fail_stop::{self, Asked};
use crate::troubles::Troubles;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use trocar_control::trust::{Trust, TrustList};

/// Between looks at the files (HO-M-021: a revoked certificate ends REMOTE within 1 s after its list reached the gate).
const EVERY: Duration = Duration::from_millis(250);

/// Runs until nobody else holds what it watches for. What holds is told to `shared` and to whoever has the receiver.
pub(super) fn start(
    list: TrustList,
    shared: Weak<Shared>,
    troubles: Troubles,
) -> io::Result<watch::Receiver<Arc<Trust>>> {
    let (sender, receiver) = watch::channel(list.current());
    fail_stop::spawn("gate-trust", move || Ok(follow(list, &shared, &troubles, &sender))).map(|()| receiver)
}

fn follow(
    mut list: TrustList,
    shared: &Weak<Shared>,
    troubles: &Troubles,
    told_to: &watch::Sender<Arc<Trust>>,
) -> Asked {
    loop {
        std::thread::sleep(EVERY);
        let Some(shared) = shared.upgrade() else { return Asked };
        let trouble = match list.reload() {
            Ok(true) => {
                let trust = list.current();
                tracing::info!(revocation_lists = trust.revocation_lists(), "trust list loaded anew");
                told_to.send_replace(Arc::clone(&trust));
                shared.trust_changed(trust);
                None
            }
            Ok(false) => None,
            // HO-G-028: who is revoked meanwhile cannot be seen, so nothing new is granted.
            Err(e) => Some(format!("{e}; the former one stays in force")),
        };
        troubles.set("trust.dir", trouble);
        shared.tidy();
    }
}
