//! Two hospitals whose networks have the same addresses work in one session by the two listeners of one node, and neither learns an address
//! of the other.

use crate::identity::run;
use crate::{number, runtime};
use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role::Client;
use trocar_media_tests::http_builder;
use trocar_media_tests::netns::{Hospital, Hospitals, inside};
use trocar_media_tests::process::{Process, binary, trocar};
use trocar_media_tests::sink::some_offer;
use trocar_media_tests::stack::{PATIENCE, path, summary};
use trocar_media_tests::story::Story;
use trocar_media_tests::theatre::{Talker, gate_config, write_device_key};

use Hospital::{North, South};

/// Waits for a packet that is not to come.
const SOON: Duration = Duration::from_millis(100);

/// A node in both networks.
struct Node {
    hospitals: Hospitals,
    report: Value,
    _up: Process,
    dir: TempDir,
}

impl Node {
    fn start(policy: &str) -> anyhow::Result<Self> {
        let (hospitals, dir) = (Hospitals::new()?, tempfile::tempdir()?);
        let (north, south) = (North.relay(), South.relay());
        let file = dir.path().join("node.toml");
        let text = format!(
            "realm = \"north\"\n[signaling]\nlisten = \"{north}:0\"\nloopback_http = \"127.0.0.1:0\"\n[relay]\nwebrtc = \"{north}:0\"\n\
             quic = \"{north}:0\"\ncontrol = \"{north}:0\"\n[[realms]]\nname = \"south\"\nlisten = \"{south}:0\"\n{policy}"
        );
        std::fs::write(&file, text)?;
        let state = dir.path().join("state");
        let words = ["up", "--json", "--dir", path(&state)?, "--config", path(&file)?];
        let mut up = start(&hospitals.between(), &words)?;
        let line = up.line(PATIENCE, |l| l.starts_with('{'))?;
        Ok(Self { hospitals, report: serde_json::from_str(&line)?, _up: up, dir })
    }

    fn text(&self, pointer: &str) -> anyhow::Result<&str> {
        self.report
            .pointer(pointer)
            .and_then(Value::as_str)
            .with_context(|| format!("{pointer} is not in {}", self.report))
    }

    /// Address of page and API in that network.
    fn https(&self, hospital: Hospital) -> anyhow::Result<&str> {
        self.text(match hospital {
            North => "/https",
            South => "/realms/south/https",
        })
    }

    fn link(&self, hospital: Hospital, role: &str) -> anyhow::Result<String> {
        Ok(format!("{}#invitation={}", self.https(hospital)?, self.text(&format!("/tokens/{role}"))?))
    }

    /// A certificate of that realm: the files of certificate and key.
    fn device(&self, hospital: Hospital) -> anyhow::Result<(PathBuf, PathBuf)> {
        let realm = if hospital == North { "north" } else { "south" };
        let (name, state) = (format!("viewer-{realm}"), self.dir.path().join("state"));
        run(&["ca", "issue", "--dir", path(&state)?, "--realm", realm, &name], "")?;
        Ok((state.join(format!("{name}.pem")), state.join(format!("{name}.key"))))
    }

    fn place(&self, hospital: Hospital, role: &str) -> anyhow::Result<Place> {
        Ok(Place {
            ca: std::fs::read(self.text("/ca_file")?)?,
            base: self.https(hospital)?.to_owned(),
            session: self.text("/session")?.to_owned(),
            secret: self.text(&format!("/tokens/{role}"))?.to_owned(),
        })
    }

    /// Watches the scope in that network for some seconds.
    fn watch(&self, hospital: Hospital, more: &[&str]) -> anyhow::Result<Process> {
        let (link, ca) = (self.link(hospital, "observer")?, self.text("/ca_file")?);
        let fixed = ["watch", "--invite", &link, "--ca", ca, "--headless", "--json", "--duration", "4"];
        start(&self.hospitals.of(hospital), &[&fixed[..], more].concat())
    }

    /// Whether what a station of the north sends to one of the south arrives there.
    fn is_routed(&self) -> anyhow::Result<bool> {
        let there = inside(&self.hospitals.of(South), || UdpSocket::bind((South.alone(), 0)))??;
        let here = inside(&self.hospitals.of(North), || UdpSocket::bind((North.alone(), 0)))??;
        there.set_read_timeout(Some(SOON))?;
        let to = there.local_addr()?;
        // Several: the first ones wait for the way to be found.
        for _ in 0..20 {
            // An answer that there is no way is an answer.
            let _ = here.send_to(b"across", to);
            if there.recv(&mut [0; 16]).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether that hospital's station can open a connection to that address.
    fn connects(&self, from: Hospital, to: &str) -> anyhow::Result<bool> {
        let to: SocketAddr = to.trim_start_matches("https://").trim_end_matches('/').parse()?;
        inside(&self.hospitals.of(from), || TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok())
    }
}

fn start(namespace: &str, words: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(trocar()?).args(words);
    Process::start(words.first().copied().unwrap_or_default(), &mut command)
}

/// Everything that an HTTP client was told: headers and bodies.
struct Told {
    http: reqwest::Client,
    base: String,
    all: String,
}

impl Told {
    async fn ask(&mut self, method: Method, to: &str, token: &str, body: Body) -> anyhow::Result<(u16, Value)> {
        let mut request = self.http.request(method, format!("{}{to}", self.base));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        let request = match body {
            Body::None => request,
            Body::Json(body) => request.json(&body),
            Body::Sdp(sdp) => request.header("Content-Type", "application/sdp").body(sdp),
        };
        let response: Response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), format!("{:?}", response.headers()));
        let info = response.extensions().get::<reqwest::tls::TlsInfo>().and_then(|i| i.peer_certificate());
        self.all += &addresses(info.context("no certificate")?);
        let text = response.text().await?;
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        // What a token says is told as well.
        let claims = body["token"].as_str().map(claims).transpose()?.unwrap_or_default();
        self.all += &format!("{headers}\n{text}\n{claims}\n");
        Ok((status, body))
    }

    /// What the event socket says at first: who and what is there.
    async fn listen(&mut self, session: &str, token: &str) -> anyhow::Result<()> {
        let request = self.http.get(format!("{}v1/sessions/{session}/events", self.base));
        let request = request.header("Connection", "Upgrade").header("Upgrade", "websocket");
        let request = request.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Protocol", "trocar.v1");
        let response = request.header("Sec-WebSocket-Key", "c29tZSBzaXh0ZWVuIGJ5dA==").send().await?;
        ensure!(response.status() == 101, "{response:?}");
        self.all += &format!("{:?}\n", response.headers());
        let mut socket = WebSocketStream::from_raw_socket(response.upgrade().await?, Client, None).await;
        socket.send(Message::text(json!({"type": "hello", "token": token}).to_string())).await?;
        let mut heard = String::new();
        while !heard.contains("\"welcome\"") {
            let message = tokio::time::timeout(PATIENCE, socket.next()).await.context("no welcome")?;
            let message = message.with_context(|| format!("closed after {}", self.all))??;
            ensure!(!message.is_close(), "closed: {message}");
            heard = message.to_string();
            self.all += &heard;
        }
        ensure!(heard.contains("scope"), "the feed is not in {heard}");
        Ok(())
    }
}

/// The IPv4 addresses that a certificate names, each on a line: 4 bytes with the tag 7 (RFC 5280 section 4.2.1.6).
fn addresses(certificate: &[u8]) -> String {
    let named = certificate.windows(6).filter(|w| w.starts_with(&[0x87, 4]));
    named.filter_map(|w| <[u8; 4]>::try_from(w.get(2..)?).ok()).map(|ip| format!("{}\n", Ipv4Addr::from(ip))).collect()
}

/// The claims of a token, as they are written in it.
fn claims(token: &str) -> anyhow::Result<String> {
    let body = token.split('.').nth(1).context("no token")?;
    Ok(String::from_utf8(URL_SAFE_NO_PAD.decode(body)?)?)
}

enum Body {
    None,
    Json(Value),
    Sdp(String),
}

/// What a station has to know to ask.
struct Place {
    ca: Vec<u8>,
    base: String,
    session: String,
    secret: String,
}

impl Place {
    fn told(&self) -> anyhow::Result<Told> {
        let http = http_builder().tls_certs_only([reqwest::Certificate::from_pem(&self.ca)?]).tls_info(true).build()?;
        Ok(Told { http, base: self.base.clone(), all: String::new() })
    }

    /// Everything that is said to an expert who joins, looks around, and asks for the scope in both ways.
    async fn look_around(self) -> anyhow::Result<String> {
        let mut told = self.told()?;
        let join = json!({"invitation": self.secret, "cnf": "07".repeat(32)});
        let (status, joined) = told.ask(Method::POST, "v1/join", "", Body::Json(join)).await?;
        ensure!(status == 200, "{joined}");
        let token = joined["token"].as_str().context("no token")?;
        told.listen(&self.session, token).await?;
        for (method, rest, body, wanted) in [
            (Method::GET, "", Body::None, 200),
            (Method::GET, "/feeds", Body::None, 200),
            (Method::GET, "/ice-servers", Body::None, 200),
            (Method::POST, "/feeds/scope/legs", Body::Json(json!({})), 201),
            (Method::POST, "/feeds/scope/whep", Body::Sdp(some_offer()), 201),
        ] {
            let to = format!("v1/sessions/{}{rest}", self.session);
            let (status, body) = told.ask(method, &to, token, body).await?;
            ensure!(status == wanted, "{rest}: {status} {body}");
        }
        Ok(told.all)
    }

    async fn join(self) -> anyhow::Result<(u16, Value)> {
        self.told()?.ask(Method::POST, "v1/join", "", Body::Json(json!({"invitation": self.secret}))).await
    }

    /// Status and problem where a leg is asked for with that token.
    async fn view(self, token: String) -> anyhow::Result<(u16, String)> {
        let to = format!("v1/sessions/{}/feeds/scope/legs", self.session);
        let (status, body) = self.told()?.ask(Method::POST, &to, &token, Body::Json(json!({}))).await?;
        Ok((status, body["type"].as_str().unwrap_or_default().replace("urn:trocar:problem:", "")))
    }
}

/// Whether a text names an address, and not only one that begins like it.
fn names(text: &str, address: &str) -> bool {
    text.match_indices(address).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + address.len()..].chars().next());
        !before.is_some_and(|c| c.is_ascii_digit() || c == '.') && !after.is_some_and(|c| c.is_ascii_digit())
    })
}

#[test]
fn two_hospitals_with_the_same_addresses_work_in_one_session_and_neither_learns_an_address_of_the_other()
-> anyhow::Result<()> {
    let node = Node::start("[[realm_policy]]\nfrom = \"south\"\nto = \"north\"\nverbs = [\"view\"]\n")?;
    let (link, ca) = (node.link(North, "local")?, node.text("/ca_file")?);
    let publish = ["publish", "--invite", &link, "--ca", ca, "--source", "test", "--size", "320x240@30"];
    let mut publisher = start(&node.hospitals.of(North), &publish)?;
    publisher.line(PATIENCE, |l| l.starts_with("publishing "))?;

    // Both at the same time, from the same address, natively; then the south as a browser does it.
    let (north, south) = (node.device(North)?, node.device(South)?);
    let files = |(cert, key): &(PathBuf, PathBuf)| anyhow::Ok([path(cert)?.to_owned(), path(key)?.to_owned()]);
    let [north, south] = [files(&north)?, files(&south)?];
    let mut watching = vec![
        node.watch(North, &["--cert", &north[0], "--key", &north[1]])?,
        node.watch(South, &["--cert", &south[0], "--key", &south[1]])?,
        node.watch(South, &["--transport", "webrtc"])?,
    ];
    for viewer in &mut watching {
        let s = summary(viewer, PATIENCE)?;
        ensure!(number(&s, "/frames") > 0.0, "no picture: {s}");
    }

    for (own, other) in [(North, South), (South, North)] {
        let place = node.place(own, "expert")?;
        let told = inside(&node.hospitals.of(own), || runtime().block_on(place.look_around()))??;
        ensure!(names(&told, own.relay()), "the check does not find what is there: {told}");
        for address in [other.relay(), other.alone(), Hospitals::STATION] {
            ensure!(!names(&told, address), "{own:?} is told {address}: {told}");
        }
        let planted = format!("{told}a=candidate:1 1 udp 1 {} 9 typ host\r\n", other.relay());
        ensure!(names(&planted, other.relay()), "the check does not find what was planted");
        ensure!(node.connects(own, node.https(own)?)?, "{own:?} does not reach its own listener");
        ensure!(!node.connects(own, node.https(other)?)?, "{own:?} reaches the listener of {other:?}");
        // Whoever means to sends there all the same; a rule of the node's firewall keeps it out, and nobody else.
        node.hospitals.reach_across(own, other)?;
        ensure!(node.connects(own, node.https(other)?)?, "the way round does not work: the next line shows nothing");
        node.hospitals.guard(true)?;
        ensure!(!node.connects(own, node.https(other)?)?, "{own:?} reaches the listener of {other:?} past the rule");
        ensure!(node.connects(own, node.https(own)?)?, "the rule keeps {own:?} from its own listener");
        node.hospitals.guard(false)?;
    }

    ensure!(!node.is_routed()?, "the node routes between the two networks");
    node.hospitals.forward(true)?;
    ensure!(node.is_routed()?, "the probe does not arrive where the kernel routes: it shows nothing");
    node.hospitals.forward(false)?;
    Ok(())
}

#[test]
fn what_no_policy_allows_is_refused_across_realms_and_the_record_says_so() -> anyhow::Result<()> {
    let node = Node::start("[[realm_policy]]\nfrom = \"south\"\nto = \"north\"\nverbs = [\"publish\"]\n")?;
    let join = |hospital, role: &str| {
        let place = node.place(hospital, role)?;
        inside(&node.hospitals.of(hospital), || runtime().block_on(place.join()))?
    };
    let view = |hospital, token: &str| {
        let (place, token) = (node.place(hospital, "expert")?, token.to_owned());
        inside(&node.hospitals.of(hospital), || runtime().block_on(place.view(token)))?
    };
    let (status, refused) = join(South, "observer")?;
    ensure!((status, refused["field"].as_str()) == (403, Some("realm_policy")), "{refused}");
    let (status, joined) = join(South, "expert")?;
    ensure!(status == 200 && joined["verbs"] == json!(["publish"]) && joined["realm"] == "south", "{joined}");
    let bearer = joined["token"].as_str().context("no token")?;
    let seen = view(South, bearer)?;
    ensure!(seen == (403, "verb-missing".into()), "{seen:?}");
    let carried = view(North, bearer)?;
    ensure!(carried == (403, "token-realm".into()), "{carried:?}");
    ensure!(join(North, "observer")?.0 == 200, "the node's own people need no policy");
    let db = node.dir.path().join("state/trocar.db");
    let story = Story::about(&db, "realm-denied")?.text;
    ensure!(story.contains("from south to north") && story.contains("observer"), "{story}");
    Ok(())
}

/// Gate and consent of the north, written into the node's folder: what the gate is started with.
fn gate(node: &Node) -> anyhow::Result<PathBuf> {
    let (dir, state) = (node.dir.path(), node.dir.path().join("state"));
    run(&["ca", "issue", "--dir", path(&state)?, "--realm", "north", "--role", "gate", "gate"], "")?;
    run(&["consent", "sign", "--dir", path(&state)?, "--realm", "north", "--session", node.text("/session")?], "")?;
    // Nothing is moved here: nobody answers at that address.
    let device = SocketAddr::from(([127, 0, 0, 1], 7001));
    let text = |pointer: &str| node.text(pointer).map(ToOwned::to_owned);
    let (relay, key) = (node.text("/relay/control")?.parse()?, write_device_key(dir)?);
    let (config, store) = (dir.join("gate.toml"), dir.join("gate-store"));
    std::fs::write(&config, gate_config(text, &state, &[relay], &store, (device, &key))?)?;
    Ok(config)
}

/// The station of an expert of the south.
fn station(node: &Node) -> anyhow::Result<Talker> {
    let (dir, state) = (node.dir.path(), node.dir.path().join("state"));
    run(&["ca", "issue", "--dir", path(&state)?, "--realm", "south", "--role", "station", "station"], "")?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &node.hospitals.of(South)]).arg(trocar()?);
    command.args(["operate", "--json", "--input", "stdin", "--invite", &node.link(South, "expert")?]);
    command.args(["--ca", node.text("/ca_file")?, "--control", node.text("/realms/south/control")?]);
    command.arg("--cert").arg(state.join("station.pem")).arg("--key").arg(state.join("station.key"));
    command.arg("--ledger").arg(dir.join("ledger")).arg("--echo-from").arg(dir.join("echo.sock"));
    Talker::start("trocar operate", &mut command)
}

#[test]
fn an_expert_of_another_hospital_stands_before_the_gate_where_the_policy_says_operate_and_only_there()
-> anyhow::Result<()> {
    for (verbs, is_let_in) in [("\"view\", \"operate\"", true), ("\"view\"", false)] {
        let node = Node::start(&format!("[[realm_policy]]\nfrom = \"south\"\nto = \"north\"\nverbs = [{verbs}]\n"))?;
        let config = gate(&node)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &node.hospitals.of(North)]).arg(binary("trocar-gate")?);
        command.arg("run").arg("--config").arg(config).args(["--console", "stdio"]);
        let mut gate = Talker::start("trocar-gate", &mut command)?;
        gate.until("the console", |v| v["type"] == "view")?;
        let mut station = station(&node)?;
        if is_let_in {
            let is_there = |v: &Value| {
                let mut connected = v["connected"].as_array().into_iter().flatten();
                connected.any(|c| c["certificate"] == "trocar://south/station/station" && c["person"].is_string())
            };
            gate.until("the expert", |v| v["type"] == "view" && is_there(v))?;
        } else {
            station.process.line(PATIENCE, |l| l.contains("no realm_policy lets people of realm south operate"))?;
        }
    }
    Ok(())
}
