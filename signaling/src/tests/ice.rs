//! ICE servers: what participants are told, and that a real TURN server takes the credentials.

use super::whip::{OFFER, SDP};
use super::*;
use crate::{Ice, Turn};
use std::net::UdpSocket;
use std::process::Stdio;
use tokio::process::{Child, Command};
use trocar_proto::session::api::IceServer;

const SECRET: &str = "north-and-south-16";

fn with_turn(urls: &[&str]) -> Config {
    let turn = Turn {
        urls: urls.iter().map(|u| (*u).to_owned()).collect(),
        secret: SECRET.into(),
        lifetime: Duration::from_secs(600),
    };
    Config { ice: Ice { stun: vec!["stun:stun.example:3478".into()], turn: Some(turn) }, ..config() }
}

#[tokio::test]
async fn any_participant_gets_credentials_of_its_own_that_end() {
    let world = World::with(with_turn(&["turn:t.example:3478", "turns:t.example:443?transport=tcp"])).await;
    let viewer = world.join_with(Role::Observer, None).await;
    let reply = world.get(&world.path("/ice-servers"), &viewer.token).await;
    let servers: Vec<IceServer> = serde_json::from_str(&reply.text).unwrap();
    assert_eq!(
        servers[0],
        IceServer { urls: vec!["stun:stun.example:3478".into()], username: None, credential: None, expires: None }
    );
    let (ends, who) = servers[1].username.as_ref().unwrap().split_once(':').unwrap();
    assert_eq!(who, viewer.participant.as_str());
    let left = ends.parse::<u64>().unwrap() - wall_clock().0 / 1_000_000;
    assert!((598..=600).contains(&left), "{left} s");
    assert_eq!(reply.header("cache-control"), "no-store");
    let path = world.path("/ice-servers");
    world.ask(Method::GET, &path, None, &[], "").await.assert_problem(401, "token-missing", "Authorization");
    let world = World::new().await;
    let viewer = world.join(Role::Observer).await;
    assert_eq!(world.get(&world.path("/ice-servers"), &viewer.token).await.text, "[]");
}

#[tokio::test]
async fn resources_and_asked_options_link_to_the_servers() {
    let world = World::with(with_turn(&["turn:t.example:3478", "turns:t.example:443?transport=tcp"])).await;
    let token = world.join(Role::Local).await.token;
    let path = world.path("/whip");
    for reply in [
        world.ask(Method::POST, &path, Some(&token), &[SDP], OFFER).await,
        world.ask(Method::OPTIONS, &path, Some(&token), &[], "").await,
    ] {
        let links: Vec<&str> = reply.headers.get_all("link").iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(links[0], "<stun:stun.example:3478>; rel=\"ice-server\"");
        for (link, url) in links[1..].iter().zip(["turn:t.example:3478", "turns:t.example:443?transport=tcp"]) {
            assert!(link.starts_with(&format!("<{url}>; rel=\"ice-server\"; username=\"")), "{link}");
            assert!(link.ends_with("; credential-type=\"password\"") && link.contains("; credential=\""), "{link}");
        }
        assert_eq!(links.len(), 3);
    }
}

#[test]
fn servers_that_cannot_work_are_refused_by_name() {
    for (url, secret, lifetime, field) in [
        ("stun:x", SECRET, 600, "ice.turn.urls"),
        ("turn:x", "short", 600, "ice.turn.secret"),
        ("turn:x", SECRET, 3_601, "ice.turn.lifetime"),
    ] {
        let turn = Turn { urls: vec![url.into()], secret: secret.into(), lifetime: Duration::from_secs(lifetime) };
        let config = Config { ice: Ice { stun: vec![], turn: Some(turn) }, ..config() };
        assert_eq!(config.check().unwrap_err().field, field);
    }
}

/// A coturn on a loopback port of its own, with our secret.
async fn coturn(dir: &std::path::Path) -> (Child, u16) {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = dir.join("turnserver.conf");
    let lines = format!(
        "listening-ip=127.0.0.1\nrelay-ip=127.0.0.1\nlistening-port={port}\nuse-auth-secret\n\
         static-auth-secret={SECRET}\nrealm=north\nno-tls\nno-dtls\nno-cli\nallow-loopback-peers\nsimple-log\n\
         log-file=stdout\nuserdb={0}/turndb\npidfile={0}/pid\n",
        dir.display()
    );
    std::fs::write(&config, lines).unwrap();
    let server = Command::new("turnserver")
        .arg("-c")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("turnserver is missing: install the Debian package coturn, or run `make setup`");
    // It is up when it answers a STUN binding request (RFC 8489 section 5).
    let probe = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    probe.connect(("127.0.0.1", port)).await.unwrap();
    let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    for _ in 0..100 {
        let _ = probe.send(&request).await;
        let mut answer = [0; 256];
        let heard = tokio::time::timeout(Duration::from_millis(50), probe.recv(&mut answer)).await;
        match heard {
            Ok(Ok(_)) => return (server, port),
            // Nobody listens yet: the system says so at once.
            Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(_) => {}
        }
    }
    panic!("coturn did not come up");
}

/// Whether coturn's own client can allocate and send through the server with these credentials.
async fn allocates(port: u16, username: &str, credential: &str) -> bool {
    let port = port.to_string();
    let arguments =
        ["-y", "-c", "-n", "1", "-m", "1", "-p", port.as_str(), "-u", username, "-w", credential, "127.0.0.1"];
    let client = Command::new("turnutils_uclient").args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(20), client).await.expect("the client hangs").unwrap();
    output.status.success()
}

#[tokio::test]
async fn a_real_turn_server_takes_our_credentials_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, port) = coturn(dir.path()).await;
    let world = World::with(with_turn(&[&format!("turn:127.0.0.1:{port}")])).await;
    let viewer = world.join(Role::Observer).await;
    let servers = world.get(&world.path("/ice-servers"), &viewer.token).await.json();
    let (username, credential) = (servers[1]["username"].as_str().unwrap(), servers[1]["credential"].as_str().unwrap());
    assert!(allocates(port, username, credential).await, "the credential was refused");
    assert!(!allocates(port, username, "d3JvbmcgcGFzc3dvcmQgaGVyZQ==").await, "a wrong password was taken");
    let someone_else = username.replace(viewer.participant.as_str(), "p-someone-else");
    assert!(!allocates(port, &someone_else, credential).await, "another name was taken");
}
