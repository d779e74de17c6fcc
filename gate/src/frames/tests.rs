//! Publishers by real TLS connections.

use super::*;
use crate::core::Event;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trocar_proto::handover::frameproof::{ALPN, MARK_LEN, Mark, Report};
use trocar_proto::handover::gate::{FrameReport, Input};
use trocar_proto::handover::types::FrameRef;
use trocar_testpki::{Authority, Leaf};

struct Site(Authority);

impl Site {
    fn new() -> Self {
        Self(Authority::new())
    }

    fn trust(&self) -> Trust {
        Trust::from_pem(self.0.pem().as_bytes(), None).unwrap()
    }

    fn identity(&self, role: &str, name: &str) -> Identity {
        let own = self.0.issue(&Leaf::device(format!("trocar://local/{role}/{name}")).for_clients());
        let key = own.key();
        Identity::new(vec![own.der], key).unwrap()
    }

    /// A listener, and what it tells the core.
    async fn listen(&self, publishers: &[&str], max_lag: Duration) -> (Frames, Inbox, watch::Sender<Arc<Trust>>) {
        let publishers = publishers.iter().map(|p| p.parse().unwrap()).collect();
        let config = FramesConfig { listen: ([127, 0, 0, 1], 0).into(), publishers, max_lag };
        let (tell, trust) = watch::channel(Arc::new(self.trust()));
        let inbox = Inbox::default();
        let gate = Arc::new(self.identity("gate", "or1"));
        (start(config, gate, trust, inbox.clone()).await.unwrap(), inbox, tell)
    }

    async fn publisher(&self, frames: &Frames, identity: &Identity) -> Publisher {
        let config = self.trust().device_client_config(identity, ALPN).unwrap();
        let tcp = TcpStream::connect(frames.address()).await.unwrap();
        let nobody = ServerName::try_from("trocar.invalid").unwrap();
        Publisher(TlsConnector::from(Arc::new(config)).connect(nobody, tcp).await.unwrap())
    }
}

struct Publisher(TlsStream<TcpStream>);

impl Publisher {
    /// The next mark; none where the gate closed the line.
    async fn mark(&mut self) -> Option<Mark> {
        let mut bytes = [0; MARK_LEN];
        let read = timeout(Duration::from_secs(5), self.0.read_exact(&mut bytes)).await.expect("in time");
        read.ok().map(|_| Mark::decode(&bytes).unwrap())
    }

    async fn report(&mut self, mark: Mark, source: u16, frame: u32) -> FrameReport {
        let frame = FrameReport { frame: FrameRef { source, view: 0, frame, digest: 5 }, raw: 6 };
        // A line that was closed is seen when it is read.
        let _ = self.0.write_all(&Report { mark, frame }.encode()).await;
        let _ = self.0.flush().await;
        frame
    }

    async fn is_cut_off(&mut self) -> bool {
        for _ in 0..200 {
            if self.mark().await.is_none() {
                return true;
            }
        }
        false
    }
}

async fn next_frame(inbox: &Inbox) -> Option<FrameReport> {
    for _ in 0..500 {
        if let Some(event) = inbox.pop(Duration::ZERO) {
            let Event::Input(Input::Frame(report)) = event else { panic!("{event:?}") };
            return Some(report);
        }
        sleep(Duration::from_millis(10)).await;
    }
    None
}

fn counted(frames: &Frames, name: &str) -> u64 {
    frames.counters().into_iter().find(|(n, _)| *n == name).unwrap().1
}

async fn until_counted(frames: &Frames, name: &str, n: u64) {
    for _ in 0..500 {
        if counted(frames, name) == n {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} is {}, not {n}", counted(frames, name));
}

#[tokio::test]
async fn a_report_becomes_an_input_and_one_with_a_mark_that_was_never_sent_ends_the_line() {
    // HO-F-001
    let site = Site::new();
    let (frames, inbox, _trust) = site.listen(&[], Duration::from_secs(1)).await;
    let mut publisher = site.publisher(&frames, &site.identity("station", "or")).await;
    let mark = publisher.mark().await.unwrap();
    let report = publisher.report(mark, 1, 7).await;
    assert_eq!(next_frame(&inbox).await, Some(report));
    publisher.report(Mark(mark.0 + 1_000_000), 1, 8).await;
    assert!(publisher.is_cut_off().await);
    until_counted(&frames, "publishers malformed", 1).await;
    assert!(inbox.pop(Duration::ZERO).is_none());
}

#[tokio::test]
async fn a_host_that_connects_and_says_nothing_keeps_no_publisher_out() {
    let site = Site::new();
    let (frames, inbox, _trust) = site.listen(&[], Duration::from_secs(5)).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        silent.push(socket.connect(frames.address()).await.unwrap());
    }
    // Eighteen are dropped at once, two wait for a handshake.
    for _ in 0..500 {
        if counted(&frames, "publishers refused") >= 18 {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
    let mut publisher = site.publisher(&frames, &site.identity("station", "or")).await;
    let mark = publisher.mark().await.unwrap();
    let report = publisher.report(mark, 1, 7).await;
    assert_eq!(next_frame(&inbox).await, Some(report));
    // The two are given up soon.
    until_counted(&frames, "publishers refused", 20).await;
}

#[tokio::test]
async fn a_report_that_was_held_up_is_left_out() {
    let site = Site::new();
    let (frames, inbox, _trust) = site.listen(&[], Duration::from_millis(100)).await;
    let mut publisher = site.publisher(&frames, &site.identity("station", "or")).await;
    let old = publisher.mark().await.unwrap();
    sleep(Duration::from_millis(150)).await;
    publisher.report(old, 1, 1).await;
    until_counted(&frames, "frames late", 1).await;
    assert!(inbox.pop(Duration::ZERO).is_none());
}

#[tokio::test]
async fn who_is_not_named_or_has_another_role_reports_nothing() {
    let site = Site::new();
    let (frames, inbox, _trust) = site.listen(&["trocar://local/station/or"], Duration::from_secs(1)).await;
    for (n, (role, name)) in [("station", "expert"), ("gate", "or"), ("signaling", "or")].into_iter().enumerate() {
        let mut stranger = site.publisher(&frames, &site.identity(role, name)).await;
        stranger.report(Mark(1), 1, 1).await;
        assert!(stranger.is_cut_off().await, "{role} {name}");
        until_counted(&frames, "publishers refused", n as u64 + 1).await;
    }
    // Of another authority altogether: the gate's trust list decides.
    let elsewhere = Site::new().identity("station", "or");
    let mut stranger = site.publisher(&frames, &elsewhere).await;
    assert!(stranger.is_cut_off().await);
    until_counted(&frames, "publishers refused", 4).await;
    assert!(inbox.pop(Duration::ZERO).is_none());
    // Negative control.
    let mut publisher = site.publisher(&frames, &site.identity("station", "or")).await;
    let mark = publisher.mark().await.unwrap();
    let report = publisher.report(mark, 1, 1).await;
    assert_eq!(next_frame(&inbox).await, Some(report));
}

#[tokio::test]
async fn a_source_has_one_publisher_and_its_newest_connection_counts() {
    let site = Site::new();
    let (frames, inbox, _trust) = site.listen(&[], Duration::from_secs(1)).await;
    let or = site.identity("station", "or");
    let mut first = site.publisher(&frames, &or).await;
    let mark = first.mark().await.unwrap();
    first.report(mark, 1, 1).await;
    assert!(next_frame(&inbox).await.is_some());
    let mut other = site.publisher(&frames, &site.identity("station", "other")).await;
    let mark = other.mark().await.unwrap();
    other.report(mark, 1, 2).await;
    assert!(other.is_cut_off().await);
    let mut again = site.publisher(&frames, &or).await;
    let mark = again.mark().await.unwrap();
    let report = again.report(mark, 1, 3).await;
    assert_eq!(next_frame(&inbox).await, Some(report));
    assert!(first.is_cut_off().await);
}

#[tokio::test]
async fn a_flood_is_cut_to_a_rate_and_a_publisher_that_is_not_trusted_any_more_is_cut_off() {
    // HO-P-001's like for frames; HO-M-021's for publishers.
    let site = Site::new();
    let (frames, inbox, trust) = site.listen(&[], Duration::from_secs(5)).await;
    let mut publisher = site.publisher(&frames, &site.identity("station", "or")).await;
    let mark = publisher.mark().await.unwrap();
    for n in 0..1_000 {
        publisher.report(mark, 1, n).await;
    }
    until_counted_together(&frames, 1_000).await;
    assert!(counted(&frames, "frames too fast") >= 100, "{:?}", frames.counters());
    drop(inbox);
    trust.send_replace(Arc::new(Site::new().trust()));
    assert!(publisher.is_cut_off().await);
}

async fn until_counted_together(frames: &Frames, n: u64) {
    for _ in 0..500 {
        if counted(frames, "frames taken") + counted(frames, "frames too fast") == n {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", frames.counters());
}
