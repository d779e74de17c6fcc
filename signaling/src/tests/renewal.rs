//! Certificates and keys that change while the server runs, and the listener for operators.

use super::serving::Running;
use super::*;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

fn identity(days: i64) -> TlsIdentity {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let now = std::time::SystemTime::now();
    let ends = |days: i64| {
        let by = Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { now - by } else { now + by }
    };
    (params.not_before, params.not_after) = (ends(-30).into(), ends(days).into());
    let key = rcgen::KeyPair::generate().unwrap();
    TlsIdentity {
        cert_chain_pem: params.self_signed(&key).unwrap().pem().into_bytes(),
        key_pem: key.serialize_pem().into_bytes(),
    }
}

/// A connection that trusts these certificates and nothing else.
async fn connect(to: std::net::SocketAddr, trusted: &[&TlsIdentity]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for each in trusted {
        roots.add(CertificateDer::from_pem_slice(&each.cert_chain_pem).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// One request; its status.
async fn get<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut S, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64 << 10];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_who_comes_and_who_is_there_goes_on_and_a_bad_one_changes_nothing() {
    let first = identity(30);
    let world = Running::with(|c| c.tls = first.clone()).await;
    let at = world.handle.https_addr();
    let mut before = connect(at, &[&first]).await.unwrap();
    assert_eq!(get(&mut before, "/healthz").await, "200");

    let over = identity(-1);
    let mixed = TlsIdentity { key_pem: over.key_pem.clone(), ..first.clone() };
    let none = TlsIdentity { cert_chain_pem: b"nothing".to_vec(), ..first.clone() };
    for (bad, want) in [(&over, "not good now"), (&mixed, "cannot be used"), (&none, "empty")] {
        let why = world.handle.renew_tls(bad).unwrap_err().to_string();
        assert!(why.contains(want), "{why}");
    }
    assert!(connect(at, &[&first]).await.is_ok(), "the former certificate is shown");

    let second = identity(30);
    assert!(connect(at, &[&second]).await.is_err(), "the control: it is another one");
    world.handle.renew_tls(&second).unwrap();
    let mut after = connect(at, &[&second]).await.unwrap();
    assert!(connect(at, &[&first]).await.is_err(), "nobody is shown the former");
    assert_eq!((get(&mut after, "/healthz").await, get(&mut before, "/healthz").await), ("200".into(), "200".into()));
}

#[tokio::test]
async fn tokens_of_the_former_key_are_taken_until_the_next_change_and_new_ones_are_of_the_new_key() {
    let world = World::new().await;
    let old = world.join(Role::Observer).await;
    let refresh = |token: String| {
        let world = &world;
        async move { world.post("/v1/token", Some(&token), &json!({})).await.status }
    };
    let key = generate_token_key().unwrap();
    world.app.tokens.renew(&key).unwrap();
    world.app.tokens.renew(&key).unwrap();
    assert_eq!(refresh(old.token.clone()).await, 200, "the same key again is no change");
    let new = world.join(Role::Observer).await;
    assert_eq!(refresh(new.token.clone()).await, 200);
    assert!(world.app.tokens.renew(b"no key").is_err());
    assert_eq!(refresh(new.token.clone()).await, 200, "a key that is none changes nothing");
    world.app.tokens.renew(&generate_token_key().unwrap()).unwrap();
    assert_eq!(refresh(new.token).await, 200);
    assert_eq!(refresh(old.token).await, 401, "two keys ago");
}

#[tokio::test]
async fn with_a_listener_for_operators_the_others_do_not_know_those_paths() {
    let world = Running::with(|c| c.admin_listen = Some("127.0.0.1:0".parse().unwrap())).await;
    let plain = Running::new().await;
    assert_eq!(plain.handle.admin_addr(), None);
    let admin = world.handle.admin_addr().unwrap();
    for path in ["/healthz", "/readyz", "/metrics"] {
        let asked = async |to| get(&mut TcpStream::connect(to).await.unwrap(), path).await;
        assert_eq!(asked(admin).await, "200", "{path}");
        assert_eq!(asked(world.handle.http_addr().unwrap()).await, "404", "{path}");
        assert_eq!(asked(plain.handle.http_addr().unwrap()).await, "200", "{path} without such a listener");
    }
    // The other way round: nothing of the API is there.
    let mut stream = TcpStream::connect(admin).await.unwrap();
    for path in ["/", "/v1/sessions/x", "/api"] {
        assert_eq!(get(&mut stream, path).await, "404", "{path}");
    }
}
