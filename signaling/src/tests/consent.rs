//! Consent: without it nobody but the team sees anything, and what is withdrawn ends.

use super::*;
use crate::live::Closing;
use trocar_control::consent::{sign, withdrawal};
use trocar_control::trust::Identity;
use trocar_proto::handover::consent::{Document, Scope};
use trocar_proto::session::event::ControlInfo;
use trocar_proto::units::WallMicros;
use trocar_testpki::{Authority, Leaf};

/// A hospital with an authority, and a desk that signs consent.
struct Hospital {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Hospital {
    fn new() -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        Self { dir, authority }
    }

    fn config(&self) -> Config {
        Config {
            consent_trust: Some(self.dir.path().to_owned()),
            store: StoreAt::File(self.dir.path().join("trocar.db")),
            ..config()
        }
    }

    fn signer(&self, role: &str) -> Identity {
        let leaf = Leaf::device(format!("trocar://north/{role}/desk-1")).for_clients().serial(77);
        let own = self.authority.issue(&leaf);
        let key = own.key();
        Identity::new(vec![own.der], key).unwrap()
    }

    fn revoke(&self) {
        std::fs::write(self.dir.path().join("crl.pem"), self.authority.revocation_list(&[77])).unwrap();
    }
}

fn document(session: &SessionId, serial: u64) -> Document {
    let now = wall_clock().0;
    let scope = Scope { view: true, ..Scope::default() };
    let (from, until) = (WallMicros(now - 60_000_000), WallMicros(now + 3_600_000_000));
    Document { session: session.clone(), serial, scope, from, until, withdrawn: false }
}

impl World {
    async fn hand_in(&self, token: &str, text: String) -> Reply {
        let headers = [("Content-Type", "application/json")];
        self.ask(Method::PUT, &self.path("/consent"), Some(token), &headers, text).await
    }

    async fn view(&self, token: &str) -> Reply {
        self.post(&self.path("/feeds/scope/legs"), Some(token), &json!({})).await
    }

    pub(crate) fn operate(&self, mode: &str) {
        let said = ControlInfo { mode: mode.to_owned(), ..control_info() };
        self.app.live().control(&self.session, said);
    }
}

fn control_info() -> ControlInfo {
    serde_json::from_value(json!({
        "mode": "local", "epoch": 1, "participant": null, "expert": null,
        "set": {"camera": false, "instruments": false, "energy": false}, "since_ms": 0, "stopped": [], "alarms": [],
        "colours": ["green", "green", "green", "green"], "figures": [null, null, null, null, null], "answers": [],
        "paths": "single", "status_age_ms": 500
    }))
    .unwrap()
}

#[tokio::test]
async fn nobody_but_the_team_sees_anything_without_consent_and_a_withdrawal_ends_it() {
    let hospital = Hospital::new();
    let world = World::with(hospital.config()).await;
    let (local, expert, observer) =
        (world.join(Role::Local).await, world.join(Role::Expert).await, world.join(Role::Observer).await);
    assert_eq!(world.publish(&local.token, "scope").await.status, 201);
    world.view(&observer.token).await.assert_problem(403, "consent-missing", "session");
    world.view(&expert.token).await.assert_problem(403, "consent-missing", "session");
    assert_eq!(world.view(&local.token).await.status, 201, "the team is not others");

    let signer = hospital.signer("consent");
    let given = document(&world.session, 3);
    let text = sign(&given, &signer).unwrap();
    world.hand_in(&observer.token, text.clone()).await.assert_problem(403, "verb-missing", "verbs");
    let taken = world.hand_in(&local.token, text.clone()).await;
    assert_eq!((taken.status.as_u16(), taken.json()["view"].clone()), (200, json!(true)), "{}", taken.text);
    assert_eq!(world.view(&observer.token).await.status, 201);

    let away = sign(&withdrawal(&given), &signer).unwrap();
    let answer = world.hand_in(&local.token, away).await;
    assert_eq!((answer.json()["view"].clone(), answer.json()["withdrawn"].clone()), (json!(false), json!(true)));
    let closed = |w: &World| w.relay.asked.lock().unwrap().iter().filter(|a| a.starts_with("close_leg")).count();
    assert_eq!(closed(&world), 1, "the observer's leg, and not the team's");
    world.view(&observer.token).await.assert_problem(403, "consent-missing", "session");
    // The document of before is no consent any more.
    world.hand_in(&local.token, text.clone()).await.assert_problem(422, "consent-invalid", "serial");
    assert_eq!(world.get(&world.path("/consent"), &observer.token).await.json()["serial"], 4);
    world.app.store.stop().await;
    let StoreAt::File(db) = hospital.config().store else { unreachable!() };
    let all = crate::audit::search(&db, &crate::audit::Filter::default()).unwrap();
    let kinds: Vec<&str> = all.iter().map(|r| r.record.kind.as_str()).filter(|k| k.starts_with("consent")).collect();
    assert_eq!(kinds, ["consent-given", "consent-withdrawn"]);
}

#[tokio::test]
async fn an_expert_who_operates_is_not_blinded_and_sees_nothing_new() {
    let hospital = Hospital::new();
    let world = World::with(hospital.config()).await;
    let (local, expert, observer) =
        (world.join(Role::Local).await, world.join(Role::Expert).await, world.join(Role::Observer).await);
    assert_eq!(world.publish(&local.token, "scope").await.status, 201);
    let (signer, given) = (hospital.signer("consent"), document(&world.session, 1));
    assert_eq!(world.hand_in(&local.token, sign(&given, &signer).unwrap()).await.status, 200);
    assert_eq!(world.view(&expert.token).await.status, 201);
    assert_eq!(world.view(&observer.token).await.status, 201);
    world.operate("remote");
    assert_eq!(world.hand_in(&local.token, sign(&withdrawal(&given), &signer).unwrap()).await.status, 200);
    let closed = |w: &World| w.relay.asked.lock().unwrap().iter().filter(|a| a.starts_with("close_leg")).count();
    assert_eq!(closed(&world), 1, "the observer's");
    world.view(&expert.token).await.assert_problem(403, "consent-missing", "session");
    // While the gate is lost the expert may still be moving.
    world.app.live().control_gone(&world.session);
    world.app.sweep().await;
    assert_eq!(closed(&world), 1);
    world.operate("local");
    world.app.sweep().await;
    assert_eq!(closed(&world), 2, "once local has control, the picture ends");
}

#[tokio::test]
async fn what_does_not_count_is_refused_in_its_own_words() {
    let hospital = Hospital::new();
    let world = World::with(hospital.config()).await;
    let local = world.join(Role::Local).await;
    let good = document(&world.session, 1);
    let text = sign(&good, &hospital.signer("consent")).unwrap();
    let other = document(&SessionId::new("another").unwrap(), 1);
    let stranger = sign(&good, &Hospital::new().signer("consent")).unwrap();
    for (bad, field, word) in [
        (text.replace("\"view\": true", "\"view\": false"), "body", "signature does not fit"),
        (stranger, "body", "signer"),
        ("{}".to_owned(), "body", "form"),
        (sign(&other, &hospital.signer("consent")).unwrap(), "session", "another session"),
    ] {
        let refused = world.hand_in(&local.token, bad).await;
        refused.assert_problem(422, "consent-invalid", field);
        assert!(refused.json()["detail"].as_str().unwrap().contains(word), "{}", refused.text);
    }
    assert!(sign(&good, &hospital.signer("station")).is_err(), "only the role consent signs");
    let unasked = World::new().await;
    let local = unasked.join(Role::Local).await;
    unasked.hand_in(&local.token, text).await.assert_problem(404, "consent-unused", "session");
    assert_eq!(unasked.get(&unasked.path("/consent"), &local.token).await.json()["required"], false);
}

#[tokio::test]
async fn consent_survives_a_restart_and_ends_with_its_time_or_its_signer() {
    let hospital = Hospital::new();
    let first = World::with(hospital.config()).await;
    let local = first.join(Role::Local).await;
    let session = first.session.clone();
    let text = sign(&document(&session, 5), &hospital.signer("consent")).unwrap();
    assert_eq!(first.hand_in(&local.token, text).await.status, 200);
    first.app.store.stop().await;

    let again = World::with(Config { token_key_pkcs8: generate_token_key().unwrap(), ..hospital.config() }).await;
    let info = again.app.live().consent_info(wall_clock(), &session).unwrap();
    assert_eq!((info.serial, info.view), (5, true));
    let later = WallMicros(wall_clock().0 + 7_200_000_000);
    assert!(!again.app.live().consent_info(later, &session).unwrap().view, "its time is over");
    let old = document(&session, 4);
    assert!(again.app.live().check_consent(&session, &old).is_err(), "an older one counts again after a restart");
    hospital.revoke();
    again.app.sweep().await;
    assert!(!again.app.live().consent_info(wall_clock(), &session).unwrap().view, "the signer was revoked");
    assert!(again.app.live().end_without_consent(wall_clock()) == Vec::<Closing>::new());
    again.app.store.stop().await;
}
