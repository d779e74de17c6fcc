//! A live source, its reports and a gate's listener.

use super::*;
use crate::ca::{Authority, Subject, Use};
use crate::media::{self, EncodeSettings, SourceSpec};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use trocar_gate::core::{Event, Inbox};
use trocar_gate::frames::{self, FramesConfig};
use trocar_proto::handover::gate::Input;
use trocar_proto::session::ids::RealmId;

/// A device's certificate by the authority in `dir`.
fn files(dir: &Path, role: &str) -> IdentityArgs {
    let realm = RealmId::new("local").unwrap();
    let subject = Subject { realm: &realm, role, name: "or1", hosts: &[] };
    let files = Authority::open_or_create(dir, &realm).unwrap().identity(role, &subject, Use::Device).unwrap();
    IdentityArgs { ca: dir.join("ca.pem"), cert: Some(files.cert), key: Some(files.key) }
}

fn identity(files: &IdentityArgs) -> Identity {
    let loaded = files.load().unwrap();
    Identity::new(loaded.chain, loaded.key).unwrap()
}

/// What the gate was told of the frames of a source, and what the frames were; one after the other, in time.
async fn reported(source: &str, frames: usize) -> (Vec<FrameReport>, Vec<(u32, u128)>) {
    let dir = tempfile::tempdir().unwrap();
    let (gate, or) = (identity(&files(dir.path(), "gate")), files(dir.path(), "station"));
    let config = FramesConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        publishers: vec!["trocar://local/station/or1".parse().unwrap()],
        // The point here is what is said, not how soon on a busy machine.
        max_lag: Duration::from_secs(5),
    };
    let trust = TrustList::of_file(&or.ca).unwrap().current();
    let (_tell, trust) = watch::channel(trust);
    let inbox = Inbox::default();
    let listener = frames::start(config, Arc::new(gate), trust, inbox.clone()).await.unwrap();
    let proof = Proof { gate: listener.address().to_string().parse().unwrap(), source: 1 };
    let mut tasks = JoinSet::new();
    let tap = start(&proof, "scope", &or, &mut tasks).unwrap();
    let began = Instant::now();
    while tap.state().marks.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "no mark");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let settings = EncodeSettings { bitrate_bps: 2_000_000, raw_digests: true, ..EncodeSettings::default() };
    let spec: SourceSpec = source.parse().unwrap();
    let (tell, made) = std::sync::mpsc::sync_channel(1_024);
    let out = Arc::clone(&tap);
    let sink = move |frame: Frame| {
        out.note(frame.frame_id, &frame);
        let payloads = frame.packets.iter().map(|p| Header::parse(p).map_or(&[][..], |h| h.payload(p)));
        let _ = tell.try_send((frame.frame_id, frame_digest(payloads)));
    };
    let mut running = media::prepare(&spec, &settings).unwrap().start(Box::new(sink)).unwrap();
    let (mut told, mut sent) = (Vec::new(), Vec::new());
    while told.len() < frames {
        assert!(began.elapsed() < Duration::from_secs(60), "{} of {frames} frames, {:?}", told.len(), tap.counts());
        match inbox.pop(Duration::ZERO) {
            Some(Event::Input(Input::Frame(report))) => told.push(report),
            Some(other) => panic!("{other:?}"),
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    while let Ok(frame) = made.try_recv() {
        sent.push(frame);
    }
    (told, sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_is_told_of_each_frame_what_the_frame_is_and_a_frozen_picture_shows_by_its_raw_digest() {
    // HO-F-001, HO-F-003, HO-X-015
    const LIVE: u32 = 10;
    let (told, sent) = reported(&format!("test:320x180@25,freeze={LIVE}"), 25).await;
    for report in &told {
        let frame = report.frame;
        assert_eq!((frame.source, frame.view), (1, 0));
        assert!(sent.contains(&(frame.frame, frame.digest)), "frame {}", frame.frame);
    }
    let raw = |of: &dyn Fn(u32) -> bool| {
        let frames = told.iter().filter(|r| of(r.frame.frame));
        frames.map(|r| r.raw).collect::<BTreeSet<_>>()
    };
    let frozen = raw(&|frame| frame + 1 >= LIVE);
    assert_eq!(frozen.len(), 1, "frames from {} on are one picture", LIVE - 1);
    // Negative control: before, every picture is another.
    let live = told.iter().filter(|r| r.frame.frame + 1 < LIVE).count();
    assert_eq!(raw(&|frame| frame + 1 < LIVE).len(), live);
    assert!(frozen.is_disjoint(&raw(&|frame| frame + 1 < LIVE)));
}

#[tokio::test]
async fn a_gate_with_the_certificate_of_another_role_is_told_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (impostor, or) = (identity(&files(dir.path(), "signaling")), files(dir.path(), "station"));
    let (_tell, trust) = watch::channel(TrustList::of_file(&or.ca).unwrap().current());
    let config = FramesConfig { listen: ([127, 0, 0, 1], 0).into(), publishers: Vec::new(), max_lag: frames::MAX_LAG };
    let listener = frames::start(config, Arc::new(impostor), trust, Inbox::default()).await.unwrap();
    let proof = Proof { gate: listener.address().to_string().parse().unwrap(), source: 1 };
    let mut tasks = JoinSet::new();
    let tap = start(&proof, "scope", &or, &mut tasks).unwrap();
    let connected = || listener.counters().into_iter().find(|(n, _)| *n == "publishers connected").unwrap().1;
    let began = Instant::now();
    while connected() < 2 {
        assert!(began.elapsed() < Duration::from_secs(10), "it is tried again and again");
        assert!(tap.state().marks.is_empty());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
