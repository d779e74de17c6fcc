//! Another website, another program, and the person in front of the page, each by raw HTTP against a real page (HO-X-021).

use super::guard::Refused;
use super::*;
use crate::console::fixture::{self, local, ready};
use crate::console::{Console, ConsoleConfig};
use crate::core::{Event, Inbox, Lane, View};
use std::io::Read as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;
use trocar_proto::handover::gate::{Act, Input};
use trocar_proto::handover::message::Reason;
use trocar_proto::handover::types::{ExpertId, GrantedSet, Oid};

/// A page in front of a core that is played by the test.
struct Site {
    console: Console,
    inbox: Inbox,
    view: watch::Sender<Arc<View>>,
    secret: String,
    withdrawn: Arc<AtomicUsize>,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Site {
    fn new(view: View) -> Self {
        let (to, view) = watch::channel(Arc::new(View { at: crate::core::now().plus(600_000_000), ..view }));
        let inbox = Inbox::default();
        let config = ConsoleConfig { page: Some("127.0.0.1:0".parse().unwrap()), ..ConsoleConfig::default() };
        let (withdrawal, withdrawn) = fixture::withdrawal();
        let console = crate::console::start(&config, inbox.clone(), withdrawal, view).unwrap();
        let secret = console.link().unwrap().split_once('#').unwrap().1.to_owned();
        Self { console, inbox, view: to, secret, withdrawn }
    }

    fn host(&self) -> String {
        self.console.page().unwrap().to_string()
    }

    fn stamp(&self) -> String {
        self.console.shared.model().stamp
    }

    /// The head as the page itself would send it, with some lines replaced or, where empty, left out.
    fn head(&self, line: &str, other: &[(&str, &str)]) -> String {
        let (host, secret) = (self.host(), self.secret.clone());
        let origin = format!("http://{host}");
        let mut lines = vec![
            ("Host", host.as_str()),
            ("Origin", origin.as_str()),
            ("Content-Type", "application/json"),
            ("X-Trocar-Console", secret.as_str()),
            ("Connection", "close"),
        ];
        for (name, value) in other {
            lines.retain(|(n, _)| n != name);
            if !value.is_empty() {
                lines.push((name, value));
            }
        }
        let lines: String = lines.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        format!("{line} HTTP/1.1\r\n{lines}")
    }

    fn ask(&self, line: &str, other: &[(&str, &str)], body: &str) -> Answer {
        let head = self.head(line, other);
        let mut stream = TcpStream::connect(self.console.page().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn post(&self, body: &str) -> Answer {
        self.ask("POST /act", &[], body)
    }

    fn of(&self, why: Refused) -> u64 {
        self.console.shared.refusals.of(why)
    }

    fn nothing_came(&self) {
        assert!(self.inbox.pop(Duration::ZERO).is_none());
    }
}

const TAKE: &str = r#"{"act":"take"}"#;

/// Plays the core for one act.
fn core(inbox: Inbox, answer: Result<(), Reason>) -> std::thread::JoinHandle<Act> {
    std::thread::spawn(move || match inbox.pop(Duration::from_secs(5)) {
        Some(Event::Act(act, Some(reply))) => {
            reply.send(answer).unwrap();
            act
        }
        other => panic!("no act: {other:?}"),
    })
}

#[test]
fn the_person_at_the_page_takes_and_hears_that_it_is_done() {
    let site = Site::new(local());
    let core = core(site.inbox.clone(), Ok(()));
    let answer = site.post(TAKE);
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"done":true,"text":"TAKE: done"}"#));
    assert_eq!(core.join().unwrap(), Act::Take);
    assert_eq!(site.console.refused(), 0);
}

#[test]
fn another_website_gets_nothing_and_is_counted() {
    // HO-X-021
    let site = Site::new(local());
    let host = site.host();
    let port = host.rsplit(':').next().unwrap();
    let rebound = format!("evil.example:{port}");
    let named = format!("localhost:{port}");
    let other_port = "http://127.0.0.1:1".to_owned();
    type Case<'a> = (Refused, &'a str, Vec<(&'a str, &'a str)>, u16);
    let cases: Vec<Case<'_>> = vec![
        (Refused::Host, "POST /act", vec![("Host", &rebound)], 421),
        (Refused::Host, "GET /", vec![("Host", &rebound)], 421),
        (Refused::Host, "POST /act", vec![("Host", &named)], 421),
        (Refused::Host, "GET /", vec![("Host", "127.0.0.1")], 421),
        (Refused::Origin, "POST /act", vec![("Origin", "https://evil.example")], 403),
        (Refused::Origin, "POST /act", vec![("Origin", "null")], 403),
        (Refused::Origin, "POST /act", vec![("Origin", "")], 403),
        (Refused::Origin, "POST /act", vec![("Origin", &other_port)], 403),
        (Refused::Origin, "POST /act", vec![("Sec-Fetch-Site", "cross-site")], 403),
        (Refused::Origin, "POST /act", vec![("Sec-Fetch-Site", "same-site")], 403),
        (Refused::Origin, "GET /live", vec![("Origin", "https://evil.example")], 403),
        (Refused::Secret, "POST /act", vec![("X-Trocar-Console", "")], 401),
        (Refused::Secret, "POST /act", vec![("X-Trocar-Console", "guess")], 401),
        (Refused::Method, "GET /act", vec![], 405),
        (Refused::Method, "GET /act?act=take", vec![], 405),
        (Refused::Method, "PUT /act", vec![], 405),
        (Refused::Method, "POST /", vec![], 405),
        (
            Refused::Preflight,
            "OPTIONS /act",
            vec![("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")],
            403,
        ),
        (Refused::Form, "POST /act", vec![("Content-Type", "application/x-www-form-urlencoded")], 415),
        (Refused::Form, "POST /act", vec![("Content-Type", "text/plain")], 415),
    ];
    let mut total = 0;
    for (why, line, other, status) in cases {
        let before = site.of(why);
        let answer = site.ask(line, &other, TAKE);
        total += 1;
        assert_eq!((answer.status, site.of(why)), (status, before + 1), "{line} {other:?}: {answer:?}");
        assert!(!answer.head.contains("access-control-"), "{answer:?}");
        assert!(!answer.body.contains(&site.secret));
        assert_eq!(site.console.refused(), total);
        site.nothing_came();
    }
    // And it is told on the screens.
    assert!(site.console.shared.model().counters.contains(&("page refused".to_owned(), total)));
}

#[test]
fn an_absolute_target_or_two_hosts_are_no_way_round() {
    let site = Site::new(local());
    let answer = site.ask("POST http://evil.example/act", &[], TAKE);
    assert_eq!((answer.status, site.of(Refused::Host)), (421, 1));
    let two = site.head("POST /act", &[]).replace("Origin:", "Host: evil.example\r\nOrigin:");
    let mut stream = TcpStream::connect(site.console.page().unwrap()).unwrap();
    write!(stream, "{two}Content-Length: {}\r\n\r\n{TAKE}", TAKE.len()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 421") || text.starts_with("HTTP/1.1 400"), "{text}");
    site.nothing_came();
}

#[test]
fn what_is_no_act_is_refused_by_field_and_nothing_comes() {
    let site = Site::new(local());
    for (body, status, part) in [
        ("", 400, "not an act"),
        ("[]", 400, "not an act"),
        (r#"{"act":"grant"}"#, 400, "unknown variant `grant`"),
        (r#"{"act":"take","now":1}"#, 400, "unknown field `now`"),
        (r#"{"act":"confirm"}"#, 409, "did not count"),
        (r#"{"act":"confirm","seen":"Ready-1-2"}"#, 409, "did not count"),
        (r#"{"act":"offer","seen":"STAMP"}"#, 400, "expert: is missing"),
        (r#"{"act":"offer","seen":"STAMP","expert":"xy","set":6}"#, 400, "expert: 64 hexadecimal digits"),
        (r#"{"act":"offer","seen":"STAMP","expert":"ID","set":4}"#, 400, "set: 1, 2, 3, 6 or 7"),
        (r#"{"act":"offer","seen":"STAMP","expert":"ID","set":6,"step":"LONG"}"#, 400, "step: at most 128 bytes"),
        (r#"{"act":"mute","seen":"STAMP","person":"Nobody"}"#, 400, "person: nobody of that name"),
    ] {
        let body =
            body.replace("STAMP", &site.stamp()).replace("ID", &"01".repeat(32)).replace("LONG", &"x".repeat(129));
        let answer = site.post(&body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.body.contains(part), "{body}: {answer:?}");
        site.nothing_came();
    }
    let deep = format!("{{\"act\":{}", "[".repeat(1_500));
    assert_eq!(site.post(&deep).status, 400);
    assert_eq!(site.post(&" ".repeat(100_000)).status, 413);
    site.nothing_came();
}

#[test]
fn an_offer_and_a_confirmation_count_for_the_state_that_was_seen() {
    let site = Site::new(local());
    let before = core(site.inbox.clone(), Ok(()));
    let body = format!(
        r#"{{"act":"offer","seen":"{}","expert":"{}","set":6,"step":" dissection "}}"#,
        site.stamp(),
        "01".repeat(32)
    );
    assert_eq!(site.post(&body).status, 200);
    let (expert, step) = (ExpertId([1; 32]), fixture::text("dissection"));
    assert_eq!(before.join().unwrap(), Act::Offer { oid: Oid(0), expert, set: GrantedSet::ENERGY, step });

    site.view.send_replace(Arc::new(View { at: crate::core::now().plus(600_000_000), ..ready() }));
    let confirm = format!(r#"{{"act":"confirm","seen":"{}"}}"#, site.stamp());
    let refusing = core(site.inbox.clone(), Err(Reason::NotAligned));
    let answer = site.post(&confirm);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (409, r#"{"done":false,"text":"CONFIRM REFUSED: not aligned: orientation, grip or motion"}"#)
    );
    refusing.join().unwrap();
    // The state goes on, and the same press comes to nothing.
    site.view.send_replace(Arc::new(View { at: crate::core::now().plus(600_000_000), ..fixture::hold() }));
    assert_eq!(site.post(&confirm).status, 409);
    site.nothing_came();
}

#[test]
fn consent_is_withdrawn_by_whoever_saw_the_state_and_nothing_goes_to_the_register() {
    let site = Site::new(local());
    let asked = |seen: &str| format!(r#"{{"act":"withdraw-consent","seen":"{seen}"}}"#);
    assert_eq!(site.post(&asked("another")).status, 409);
    assert_eq!(site.withdrawn.load(Ordering::Relaxed), 0);
    let answer = site.post(&asked(&site.stamp()));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("END CONSENT: done"), "{answer:?}");
    assert_eq!(site.withdrawn.load(Ordering::Relaxed), 1);
    site.nothing_came();
}

#[test]
fn a_core_that_does_not_run_is_told_to_the_person() {
    let site = Site::new(local());
    let answer = site.post(TAKE);
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("NO ANSWER from the gate. Use the hardware override"), "{answer:?}");
    while site.inbox.push(Lane::Local, Event::Shutdown).is_ok() {}
    let answer = site.post(TAKE);
    assert!(answer.status == 503 && answer.body.contains("NOT TAKEN"), "{answer:?}");
}

#[test]
fn the_page_comes_with_a_strict_policy_and_without_the_secret() {
    let site = Site::new(local());
    for (path, kind) in [
        ("/", "text/html"),
        ("/console.css", "text/css"),
        ("/console.js", "text/javascript"),
        ("/words.js", "text/javascript"),
    ] {
        let answer = site.ask(&format!("GET {path}"), &[("Origin", ""), ("X-Trocar-Console", "")], "");
        assert_eq!(answer.status, 200);
        for part in [
            kind,
            "default-src 'none'; script-src 'self'",
            "frame-ancestors 'none'",
            "nosniff",
            "no-store",
            "no-referrer",
        ] {
            assert!(answer.head.contains(part), "{path}: {part}: {}", answer.head);
        }
        assert!(!answer.head.contains("set-cookie") && !answer.body.contains(&site.secret));
    }
    assert_eq!(site.ask("GET /../../etc/passwd", &[], "").status, 404);
    assert!(INLINE.iter().all(|part| !include_str!("console.html").contains(part)));
}

/// What the policy forbids, and what would not work therefore.
const INLINE: [&str; 4] = ["style=", "onclick=", "<style", "javascript:"];

#[test]
fn the_link_is_written_for_this_user_only_and_a_new_run_has_a_new_secret() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link");
    std::fs::write(&path, "old").unwrap();
    let mut secrets = Vec::new();
    for _ in 0..2 {
        let page = Some("127.0.0.1:0".parse().unwrap());
        let config = ConsoleConfig { page, page_link: Some(path.clone()), ..ConsoleConfig::default() };
        let (_to, view) = watch::channel(Arc::new(local()));
        let console = crate::console::start(&config, Inbox::default(), fixture::withdrawal().0, view).unwrap();
        let link = std::fs::read_to_string(&path).unwrap();
        assert_eq!(Some(link.trim()), console.link());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        secrets.push(link.trim().split_once('#').unwrap().1.to_owned());
    }
    assert!(secrets[0] != secrets[1] && secrets.iter().all(|s| s.len() == 43));
    let lost = dir.path().join("no/where");
    let page = Some("127.0.0.1:0".parse().unwrap());
    let config = ConsoleConfig { page, page_link: Some(lost), ..ConsoleConfig::default() };
    let (_to, view) = watch::channel(Arc::new(local()));
    let error = crate::console::start(&config, Inbox::default(), fixture::withdrawal().0, view).unwrap_err();
    assert!(error.to_string().starts_with("console.page_link: cannot write"));
}

mod live {
    use super::*;
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

    type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

    async fn opened(site: &Site, first: &str) -> Socket {
        let mut request = format!("ws://{}/live", site.host()).into_client_request().unwrap();
        let origin = format!("http://{}", site.host()).parse().unwrap();
        request.headers_mut().insert("origin", origin);
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        socket.send(Message::text(first)).await.unwrap();
        socket
    }

    fn hello(site: &Site) -> String {
        format!(r#"{{"secret":"{}"}}"#, site.secret)
    }

    /// The next model; nothing where the page closed.
    async fn next(socket: &mut Socket) -> Option<serde_json::Value> {
        loop {
            match tokio::time::timeout(Duration::from_secs(5), socket.next()).await.expect("no answer") {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return None,
            }
        }
    }

    fn beats(site: &Site) -> usize {
        let mut n = 0;
        while let Some(event) = site.inbox.pop(Duration::ZERO) {
            assert!(matches!(event, Event::Input(Input::Console)));
            n += 1;
        }
        n
    }

    #[tokio::test]
    async fn a_sign_of_life_is_answered_and_counts_only_where_the_page_is_fresh() {
        let site = Site::new(local());
        let mut socket = opened(&site, &hello(&site)).await;
        let first = next(&mut socket).await.unwrap();
        assert_eq!((first["model"]["word"].as_str(), first["answers"].as_u64()), (Some("LOCAL"), Some(0)));
        assert_eq!(beats(&site), 0, "a picture that was sent is not one that was seen");
        for (n, fresh, expected) in [(1, false, 0), (2, true, 1)] {
            socket.send(Message::text(format!(r#"{{"alive":{n},"fresh":{fresh}}}"#))).await.unwrap();
            while next(&mut socket).await.unwrap()["answers"] != n {}
            assert_eq!(beats(&site), expected);
        }
        // A flood of them counts as a few.
        for n in 3..1_003 {
            socket.send(Message::text(format!(r#"{{"alive":{n},"fresh":true}}"#))).await.unwrap();
        }
        while next(&mut socket).await.unwrap()["answers"] != 1_002 {}
        assert!(beats(&site) < 50);
    }

    #[tokio::test]
    async fn while_the_core_is_silent_no_page_is_a_live_console() {
        let site = Site::new(local());
        site.view.send_replace(Arc::new(View { at: trocar_proto::units::Micros(0), ..local() }));
        let mut socket = opened(&site, &hello(&site)).await;
        socket.send(Message::text(r#"{"alive":1,"fresh":true}"#)).await.unwrap();
        let mut shown = next(&mut socket).await.unwrap();
        while shown["answers"] != 1 {
            shown = next(&mut socket).await.unwrap();
        }
        assert_eq!(shown["model"]["control"], "unknown");
        assert_eq!(beats(&site), 0);
    }

    #[tokio::test]
    async fn without_the_secret_nothing_is_shown() {
        let site = Site::new(local());
        for first in ["{}", r#"{"secret":"guess"}"#, r#"{"alive":1,"fresh":true}"#, "\u{0}"] {
            assert!(next(&mut opened(&site, first).await).await.is_none(), "{first}");
        }
        assert_eq!(site.of(Refused::Secret), 4);
        // And what is none after it ends the connection.
        let mut socket = opened(&site, &hello(&site)).await;
        socket.send(Message::text(r#"{"act":"take"}"#)).await.unwrap();
        while next(&mut socket).await.is_some() {}
        assert_eq!((site.of(Refused::Form), beats(&site)), (1, 0));
    }

    #[tokio::test]
    async fn more_pages_than_there_may_be_are_refused() {
        let site = Site::new(local());
        let mut open = Vec::new();
        for _ in 0..super::super::live::MOST {
            let mut socket = opened(&site, &hello(&site)).await;
            next(&mut socket).await.unwrap();
            open.push(socket);
        }
        let mut request = format!("ws://{}/live", site.host()).into_client_request().unwrap();
        request.headers_mut().insert("origin", format!("http://{}", site.host()).parse().unwrap());
        assert!(tokio_tungstenite::connect_async(request).await.is_err());
        assert_eq!(site.of(Refused::Full), 1);
    }
}
