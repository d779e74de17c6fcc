//! Devices that join by themselves: their certificate's word ([`trocar_control::joining`]) in place of the login that an invitation asks for.
//!
//! The trust list is read for each join, so that a certificate that was taken back counts no more at once. As many come as may join
//! ([`crate::Limits::joins`]).

use crate::app::{App, wall_clock};
use crate::audit::Entry;
use crate::error::SessionError;
use crate::problem::{DEVICE_REFUSED, INTERNAL, Refusal};
use std::net::IpAddr;
use trocar_control::joining;
use trocar_control::trust::{CertName, TrustList};
use trocar_proto::session::api::DeviceProof;
use trocar_proto::session::ids::{CertHash, RealmId};
use trocar_proto::session::role::Role;

impl App {
    /// Which device has signed, that came by `realm`'s listener. That one was refused is in the audit chain.
    pub(crate) async fn device(
        &self,
        proof: DeviceProof,
        (invitation, cnf): (&str, Option<CertHash>),
        (realm, from): (&RealmId, IpAddr),
    ) -> Result<CertName, Refusal> {
        let refuse = |why: String| {
            self.record_denial("login-failed", &format!("a device: {why}, from {from}"));
            Err(Refusal::new(DEVICE_REFUSED, why).field("device"))
        };
        let Some(file) = self.device_trust.clone() else {
            return refuse("this node takes no certificates in place of a login".to_owned());
        };
        let invitation = invitation.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            let trust = TrustList::of_file(&file).map_err(|e| e.to_string())?.current();
            joining::read(&proof, &invitation, cnf, &trust, wall_clock()).map_err(|e| e.to_string())
        });
        let Ok(read) = read.await else { return Err(Refusal::new(INTERNAL, "the proof was not read").field("device")) };
        match read {
            Ok(name) if name.realm == *realm => Ok(name),
            Ok(name) => refuse(format!("{name} is of another realm than this listener, which is for {realm}")),
            Err(why) => refuse(why),
        }
    }

    /// Whether a device may take up `role`. That it was kept out is recorded by name.
    pub(crate) async fn admit_device(&self, device: &CertName, role: Role) -> Result<(), SessionError> {
        if role == Role::Publisher {
            return Ok(());
        }
        let refused = SessionError::DeviceRole(role);
        let entry = Entry { name: Some(device.name.clone()), role: Some(role), ..Entry::now("denied") };
        self.record(entry.saying(format!("device {device}: {refused}"))).await?;
        Err(refused)
    }
}

#[cfg(test)]
mod tests;
