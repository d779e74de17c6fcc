//! A camera that nobody logs in for.

use super::*;
use crate::audit::{Filter, search};
use crate::identity::Required;
use crate::tests::{Reply, World, config};
use crate::{Config, IdentityConfig, StoreAt};
use serde_json::{Value, json};
use std::path::Path;
use trocar_control::trust::Identity;
use trocar_proto::units::WallMicros;
use trocar_testpki::{Authority, Leaf};

/// Of every certificate here.
const SERIAL: u64 = 7;

/// A node that asks everybody for a login, and its authority.
struct Node {
    dir: tempfile::TempDir,
    authority: Authority,
    world: World,
}

impl Node {
    async fn new(trusts: bool) -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        let identity = IdentityConfig { required: Required::Always, ..IdentityConfig::default() };
        let (store, device_trust) = (StoreAt::File(dir.path().join("trocar.db")), trusts.then_some(ca));
        let world = World::with(Config { identity, store, device_trust, ..config() }).await;
        Self { dir, authority, world }
    }

    fn device(&self, name: &str) -> Identity {
        issue(&self.authority, self.dir.path(), name)
    }

    async fn invitation(&self, role: Role) -> String {
        self.world.app.invite(&self.world.session, role, 3_600, None).await.unwrap().invitation
    }

    async fn join(&self, invitation: &str, proof: &DeviceProof, cnf: &CertHash) -> Reply {
        let body = json!({"invitation": invitation, "cnf": cnf.to_string(), "name": "Somebody", "device": proof});
        self.world.post("/v1/join", None, &body).await
    }

    /// Joins with everything right but what is given.
    async fn join_as(&self, role: Role, device: &Identity) -> Reply {
        let invitation = self.invitation(role).await;
        let proof = joining::sign(&invitation, wall_clock(), device).unwrap();
        self.join(&invitation, &proof, &device.hash()).await
    }

    async fn details(&self, kind: &str) -> Vec<String> {
        self.world.app.settled().await.unwrap();
        let wanted = Filter { kind: Some(kind.to_owned()), ..Filter::default() };
        let rows = search(&self.dir.path().join("trocar.db"), &wanted).unwrap();
        rows.into_iter().map(|r| r.record.detail).collect()
    }
}

fn issue(authority: &Authority, dir: &Path, name: &str) -> Identity {
    let (certificate, key) = authority.issue(&Leaf::device(name).serial(SERIAL)).write(dir, "device");
    Identity::from_pem_files(&certificate, &key).unwrap()
}

#[tokio::test]
async fn a_camera_whose_certificate_is_trusted_publishes_where_everybody_else_has_to_log_in() {
    let node = Node::new(true).await;
    let invitation = node.invitation(Role::Publisher).await;
    let body = json!({"invitation": invitation, "name": "Somebody"});
    let nobody = node.world.post("/v1/join", None, &body).await;
    nobody.assert_problem(401, "identity-needed", "Authorization");

    let joined = node.join_as(Role::Publisher, &node.device("trocar://north/publisher/or-1")).await;
    assert_eq!(joined.status, 200, "{}", joined.text);
    let grant: Value = joined.json();
    assert_eq!(grant["name"], "or-1", "it is shown by the name that is vouched for");
    let token = grant["token"].as_str().unwrap();
    assert_eq!(node.world.publish(token, "scope").await.status, 201);
    let path = node.world.path("/invitations");
    let invites = node.world.post(&path, Some(token), &json!({"role": "local"})).await;
    invites.assert_problem(403, "verb-missing", "verbs");
    let views = node.world.post(&node.world.path("/feeds/scope/legs"), Some(token), &json!({"transport": "roq"})).await;
    views.assert_problem(403, "verb-missing", "verbs");
    assert!(node.details("joined").await.contains(&"device trocar://north/publisher/or-1".to_owned()));
}

#[tokio::test]
async fn no_other_role_is_opened_by_a_certificate() {
    let node = Node::new(true).await;
    let device = node.device("trocar://north/publisher/or-1");
    for role in Role::all().filter(|r| *r != Role::Publisher) {
        let refused = node.join_as(role, &device).await;
        refused.assert_problem(403, "device-refused", "device");
        assert!(refused.text.contains(role.name()), "{}", refused.text);
    }
    let mut told = node.details("denied").await;
    // Each refusal is recorded as well.
    told.retain(|t| t.starts_with("device trocar://north/publisher/or-1: "));
    assert_eq!(told.len(), Role::all().count() - 1, "{told:?}");
}

#[tokio::test]
async fn what_the_node_does_not_trust_is_refused_by_name_and_recorded() {
    let node = Node::new(true).await;
    let device = node.device("trocar://north/publisher/or-1");
    let invitation = node.invitation(Role::Publisher).await;
    let sign = |at: u64| joining::sign(&invitation, WallMicros(at), &device).unwrap();
    let now = wall_clock().0;
    let elsewhere = joining::sign(&node.invitation(Role::Publisher).await, WallMicros(now), &device).unwrap();
    let south = node.device("trocar://south/publisher/or-1");
    let stranger = issue(&Authority::new(), node.dir.path(), "trocar://north/publisher/or-1");
    let of = |d: &Identity| joining::sign(&invitation, WallMicros(now), d).unwrap();
    let tries = [
        (sign(now - 120_000_000), device.hash(), "s from now"),
        (sign(now), CertHash([7; 32]), "cnf"),
        (elsewhere, device.hash(), "does not fit"),
        (of(&south), south.hash(), "of another realm"),
        (of(&stranger), stranger.hash(), "no authority of the trust list"),
    ];
    for (proof, cnf, why) in &tries {
        let refused = node.join(&invitation, proof, cnf).await;
        refused.assert_problem(403, "device-refused", "device");
        assert!(refused.text.contains(why), "{why}: {}", refused.text);
    }
    let told = node.details("login-failed").await;
    assert!(tries.iter().all(|(_, _, why)| told.iter().any(|t| t.contains(why))), "{told:?}");

    // The same device with everything right, until it is taken back.
    assert_eq!(node.join(&invitation, &sign(now), &device.hash()).await.status, 200);
    std::fs::write(node.dir.path().join("crl.pem"), node.authority.revocation_list(&[SERIAL])).unwrap();
    let revoked = node.join(&invitation, &sign(now), &device.hash()).await;
    revoked.assert_problem(403, "device-refused", "device");
    assert!(revoked.text.contains("revoked"), "{}", revoked.text);
}

#[tokio::test]
async fn a_node_without_a_trust_list_takes_none() {
    let node = Node::new(false).await;
    let refused = node.join_as(Role::Publisher, &node.device("trocar://north/publisher/or-1")).await;
    refused.assert_problem(403, "device-refused", "device");
    assert!(refused.text.contains("takes no certificates"), "{}", refused.text);
}
