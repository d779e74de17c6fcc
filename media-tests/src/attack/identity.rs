//! Cases 12 to 19: tokens, certificates, other people's resources.

use super::arena::{Arena, join};
use super::beside::FEED;
use super::peer::Draft;
use super::{Played, ws};
use crate::bench::ends::{Participant, connect, identity};
use crate::process::Process;
use crate::stack::{PATIENCE, path};
use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use reqwest::Method;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use trocar_proto::media::roq::FlowPrefix;
use trocar_proto::media::rtcp::Builder;
use trocar_proto::session::api::RoqBinding;
use trocar_proto::units::Ssrc;
use trocar_relay::quic::{Identity, client_config};

/// The claims of a token of this stack.
fn claims(token: &str) -> anyhow::Result<Value> {
    Ok(jsonwebtoken::dangerous::insecure_decode::<Value>(token)?.claims)
}

fn own_key(a: &Arena) -> anyhow::Result<EncodingKey> {
    Ok(EncodingKey::from_ed_der(&std::fs::read(a.stack.dir.path().join("state/token.key"))?))
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// The status that the session answers to this token, and the problem's name.
async fn shown(a: &Arena, token: &str) -> anyhow::Result<(u16, String)> {
    let url = format!("{}v1/sessions/{}", a.base, a.session);
    let response = a.http.get(url).bearer_auth(token).send().await?;
    let code = response.status().as_u16();
    let body: Value = response.json().await.unwrap_or_default();
    Ok((code, body.get("type").and_then(Value::as_str).unwrap_or("").to_owned()))
}

async fn refused(a: &Arena, what: &str, token: &str, want: u16) -> anyhow::Result<()> {
    let (code, problem) = shown(a, token).await?;
    ensure!(code == want, "{what}: {code} {problem}");
    Ok(())
}

pub(super) fn bi_12_token_algorithms(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let good = claims(&a.tokens.observer)?;
        refused(
            a,
            "the control: the same claims signed again",
            &encode(&Header::new(Algorithm::EdDSA), &good, &own_key(a)?)?,
            200,
        )
        .await?;
        let public = std::fs::read_to_string(a.stack.text("/gate/issuer_key")?)?;
        let raw = URL_SAFE_NO_PAD.decode(public.trim())?;
        for alg in ["none", "None", "nOnE", ""] {
            let header = json!({ "alg": alg, "typ": "JWT" });
            refused(a, alg, &format!("{}.{}.", part(&header), part(&good)), 401).await?;
        }
        for secret in [raw.as_slice(), public.trim().as_bytes(), public.as_bytes(), b""] {
            let hs = encode(&Header::new(Algorithm::HS256), &good, &EncodingKey::from_secret(secret))?;
            refused(a, "HS256 with the public key", &hs, 401).await?;
            let (_, body) = hs.split_once('.').context("token")?;
            for alg in ["EdDSA", "RS256", "ES256"] {
                let header = json!({ "alg": alg, "typ": "JWT" });
                refused(a, "an HMAC under another name", &format!("{}.{body}", part(&header)), 401).await?;
            }
        }
        Ok("4 spellings of none, 4 HMAC keys under 4 names: 401; the control: 200".to_owned())
    })
}

pub(super) fn bi_13_token_times(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (good, key) = (claims(&a.tokens.observer)?, own_key(a)?);
        let mut count = 0;
        for claim in ["exp", "nbf", "iat"] {
            let number = good.get(claim).and_then(Value::as_u64).context("claim")?;
            let values = [
                json!(number.to_string()),
                json!(number as f64 + 0.5),
                json!(1e308),
                json!(-1),
                json!(null),
                json!([number]),
            ];
            for value in values.into_iter().map(Some).chain([None]) {
                let mut claims = good.clone();
                match (&value, claims.as_object_mut()) {
                    (Some(value), Some(all)) => drop(all.insert(claim.to_owned(), value.clone())),
                    (None, Some(all)) => drop(all.remove(claim)),
                    _ => bail!("no claims"),
                }
                let token = encode(&Header::new(Algorithm::EdDSA), &claims, &key)?;
                refused(a, &format!("{claim} = {value:?}"), &token, 401).await?;
                count += 1;
            }
        }
        let mut long = good.clone();
        long.as_object_mut().context("claims")?.insert("exp".to_owned(), json!(u64::MAX));
        refused(a, "for ever", &encode(&Header::new(Algorithm::EdDSA), &long, &key)?, 401).await?;
        Ok(format!("{count} times of another type, and one for ever: 401"))
    })
}

pub(super) fn bi_14_token_of_another(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (good, key) = (claims(&a.tokens.observer)?, own_key(a)?);
        for (claim, value, want) in [
            ("aud", json!(["relay.elsewhere"]), 401),
            ("aud", json!("signaling.elsewhere"), 401),
            ("iss", json!("signaling.elsewhere"), 401),
            ("session", json!("another"), 403),
            ("sub", json!("pnobody"), 403),
            ("verbs", json!(["view", "publish", "admin", "sudo"]), 401),
        ] {
            let mut claims = good.clone();
            claims.as_object_mut().context("claims")?.insert(claim.to_owned(), value);
            refused(a, claim, &encode(&Header::new(Algorithm::EdDSA), &claims, &key)?, want).await?;
        }
        let mut more = good;
        more.as_object_mut().context("claims")?.insert("verbs".to_owned(), json!(["view", "publish"]));
        let token = encode(&Header::new(Algorithm::EdDSA), &more, &key)?;
        for (token, who) in [(&token, "an observer whose token says more"), (&a.tokens.observer, "an observer")] {
            let draft = Draft::publisher("H264").await?;
            let (code, _, text) = a.offer("whip?feed=stolen", token, draft.sdp).await?;
            ensure!(code == 403, "{who} publishes: {code} {text}");
        }
        Ok("aud, iss and verbs: 401; another session, nobody and publishing as an observer: 403".to_owned())
    })
}

/// A certificate of this authority for another device.
async fn stranger(a: &Arena, name: &str) -> anyhow::Result<Identity> {
    let state = a.stack.dir.path().join("state");
    let mut issue =
        Process::trocar("trocar ca issue", &["ca", "issue", "--dir", path(&state)?, "--role", "station", name])?;
    ensure!(issue.wait(PATIENCE)?.success(), "{}", issue.stderr());
    let ca = std::path::PathBuf::from(a.stack.text("/ca_file")?);
    let mut me = identity(&ca)?;
    use rustls::pki_types::pem::PemObject as _;
    me.chain = CertificateDer::pem_file_iter(state.join(format!("{name}.pem")))?.collect::<Result<_, _>>()?;
    me.key = PrivateKeyDer::from_pem_file(state.join(format!("{name}.key")))?;
    Ok(me)
}

/// Within this a key frame of the feed beside comes, one a second: a viewer that joins late in a second gets nothing before it.
const KEY_FRAME: Duration = Duration::from_millis(1_500);

/// Tells a relay by this connection that the leg is here; how many datagrams come of it.
async fn claim(connection: &quinn::Connection, binding: &RoqBinding, time: Duration) -> anyhow::Result<u64> {
    let prefix = FlowPrefix::new(binding.rtcp_flow_id).context("flow")?;
    let report = Builder::default().receiver_report(Ssrc(1), None).finish();
    let (until, mut count) = (Instant::now() + time, 0);
    while Instant::now() < until {
        connection.send_datagram([prefix.as_bytes(), &report].concat().into())?;
        while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(50), connection.read_datagram()).await {
            count += 1;
            if Instant::now() > until {
                break;
            }
        }
    }
    Ok(count)
}

pub(super) fn bi_15_token_from_another_device(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let ca = std::path::PathBuf::from(a.stack.text("/ca_file")?);
        let owner = identity(&ca)?;
        let participant = Participant::join(&a.base, &a.stack.text("/tokens/observer")?, Some(&owner)).await?;
        let binding: RoqBinding = participant.post(&format!("feeds/{FEED}/legs"), None).await?;
        let unknown = "trocar_worker_unknown_flow_datagrams_total";
        let before = a.metric(unknown).await?;
        let (_kept, thief) = connect(stranger(a, "thief").await?, &binding).await?;
        let stolen = claim(&thief, &binding, KEY_FRAME).await?;
        ensure!(stolen == 0, "the thief got {stolen} packets");
        let counted = a.rises(unknown, before, 1.0).await?;
        let (_kept_too, rightful) = connect(owner, &binding).await?;
        let own = claim(&rightful, &binding, KEY_FRAME).await?;
        ensure!(own > 50, "the control: the owner of the certificate got {own} packets");
        Ok(format!("another certificate: 0 packets, {counted:.0} datagrams counted; the token's own: {own} packets"))
    })
}

pub(super) fn bi_16_removed_while_watching(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let token = join(&a.http, &a.stack, "observer").await?;
        let coordinator = join(&a.http, &a.stack, "coordinator").await?;
        let draft = Draft::viewer().await?;
        let (code, _, answer) = a.offer(&format!("feeds/{FEED}/whep"), &token, draft.sdp.clone()).await?;
        ensure!(code == 201, "{answer}");
        let mut peer = draft.answered(&answer)?;
        peer.connect().await?;
        peer.begin().await?;
        ensure!(peer.watch(Duration::from_millis(400)).await? > 50, "the control: media comes");
        let mut socket = ws::Socket::open(a.page, &a.session, &token).await?;
        let sub = claims(&token)?.get("sub").and_then(Value::as_str).context("sub")?.to_owned();
        let removed = a.request(Method::DELETE, &format!("participants/{sub}"), &coordinator).send().await?;
        ensure!(removed.status().is_success(), "{}", removed.status());
        let at = Instant::now();
        peer.watch(Duration::from_millis(700)).await?;
        let late = peer.watch(Duration::from_millis(300)).await?;
        let code = socket.close_code(Duration::from_millis(500)).await;
        ensure!(late == 0, "{late} packets came 0.7 s after the removal and later");
        ensure!(code == Some(4403), "the event socket was closed with {code:?}");
        refused(a, "the token of somebody who was removed", &token, 403).await?;
        Ok(format!(
            "no packet from 0.7 s on, event socket closed with 4403, within {:.1} s",
            at.elapsed().as_secs_f64()
        ))
    })
}

pub(super) fn bi_17_key_from_the_header(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let good = claims(&a.tokens.observer)?;
        let own = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let key = EncodingKey::from_ed_der(&own.serialize_der());
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}/jwks.json", listener.local_addr()?);
        let kids = ["../../token.key", "/dev/null", "' OR 1=1 --", url.as_str(), "\u{0}"];
        for kid in kids {
            let header = Header {
                kid: Some(kid.to_owned()),
                jku: Some(url.clone()),
                x5u: Some(url.clone()),
                ..Header::new(Algorithm::EdDSA)
            };
            refused(a, kid, &encode(&header, &good, &key)?, 401).await?;
        }
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(own.public_key_raw()) });
        let signed = encode(&Header::new(Algorithm::EdDSA), &good, &key)?;
        let header = part(&json!({ "alg": "EdDSA", "jwk": jwk, "crit": ["jwk"] }));
        let body = signed.split_once('.').context("token")?.1;
        refused(a, "jwk", &format!("{header}.{body}"), 401).await?;
        ensure!(listener.accept().is_err(), "a key was fetched from {url}");
        Ok(format!("{} kids, jku, x5u and jwk: 401, and nothing was fetched", kids.len()))
    })
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    Expired,
    NotYet,
    Usage,
    SelfSigned,
    Chain,
    OtherRealm,
}

/// A certificate that the stack's own authority signed, but for what is wrong.
fn certificate(a: &Arena, wrong: Wrong) -> anyhow::Result<Identity> {
    let state = a.stack.dir.path().join("state");
    let pem = std::fs::read_to_string(state.join("ca.pem"))?;
    let authority =
        Issuer::from_ca_cert_pem(&pem, KeyPair::from_pem(&std::fs::read_to_string(state.join("ca.key"))?)?)?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    let realm = if wrong == Wrong::OtherRealm { "elsewhere" } else { "local" };
    params.subject_alt_names.push(SanType::URI(format!("trocar://{realm}/station/attacker").as_str().try_into()?));
    let day = Duration::from_secs(86_400);
    let (from, to) = match wrong {
        Wrong::Expired => (SystemTime::now() - 2 * day, SystemTime::now() - day),
        Wrong::NotYet => (SystemTime::now() + day, SystemTime::now() + 2 * day),
        _ => (SystemTime::now() - day, SystemTime::now() + day),
    };
    (params.not_before, params.not_after) = (from.into(), to.into());
    let usage =
        if wrong == Wrong::Usage { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth };
    params.extended_key_usages = vec![usage];
    let mut chain = Vec::new();
    match wrong {
        Wrong::SelfSigned => chain.push(params.self_signed(&key)?.der().clone()),
        Wrong::Chain => {
            // A hundred authorities, each signed by the one before; the first by the stack's.
            let (mut issuer, mut all) = (authority, Vec::new());
            for n in 0..100 {
                let mut ca = CertificateParams::new(Vec::<String>::new())?;
                ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                ca.distinguished_name.push(rcgen::DnType::CommonName, format!("link {n}"));
                let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
                all.push(ca.signed_by(&key, &issuer)?.der().clone());
                issuer = Issuer::new(ca, key);
            }
            chain.push(params.signed_by(&key, &issuer)?.der().clone());
            chain.extend(all.into_iter().rev());
        }
        _ => chain.push(params.signed_by(&key, &authority)?.der().clone()),
    }
    use rustls::pki_types::pem::PemObject as _;
    let trust = CertificateDer::pem_file_iter(state.join("ca.pem"))?.collect::<Result<_, _>>()?;
    Ok(Identity { chain, key: PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?, trust })
}

/// Whether a connection with that certificate lives: TLS 1.3 tells a client only after it believes to be in.
async fn is_let_in(to: SocketAddr, me: Identity) -> anyhow::Result<bool> {
    let config = quinn::EndpointConfig::default();
    let socket = trocar_relay::quic::bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let endpoint = quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))?;
    let Ok(connection) = endpoint.connect_with(client_config(me)?, to, "localhost")?.await else { return Ok(false) };
    Ok(tokio::time::timeout(Duration::from_millis(400), connection.closed()).await.is_err())
}

pub(super) fn bi_18_client_certificates(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let quic: SocketAddr = a.stack.text("/relay/quic")?.parse()?;
        ensure!(
            is_let_in(quic, certificate(a, Wrong::Nothing)?).await?,
            "the control: a good certificate is not let in"
        );
        let all = [Wrong::Expired, Wrong::NotYet, Wrong::Usage, Wrong::SelfSigned, Wrong::Chain, Wrong::OtherRealm];
        for wrong in all {
            ensure!(!is_let_in(quic, certificate(a, wrong)?).await?, "{wrong:?} is let in");
        }
        Ok("expired, not yet valid, for servers, self-signed, 100 links, another realm: not let in; a good one is"
            .to_owned())
    })
}

pub(super) fn bi_19_resources_of_others(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let draft = Draft::viewer().await?;
        let (code, location, text) = a.offer(&format!("feeds/{FEED}/whep"), &a.tokens.observer, draft.sdp).await?;
        ensure!(code == 201, "{text}");
        let url = format!("{}{location}", a.base.trim_end_matches('/'));
        let other = format!("{url}x");
        let mut times = [Vec::new(), Vec::new()];
        for n in 0..15 {
            for (i, url) in [&url, &other].into_iter().enumerate() {
                for method in [Method::PATCH, Method::DELETE] {
                    let request = a.http.request(method.clone(), url).header("If-Match", "*");
                    let request =
                        request.header("Content-Type", "application/trickle-ice-sdpfrag").body("a=ice-ufrag:x\r\n");
                    let bare = request.try_clone().context("clone")?.send().await?.status().as_u16();
                    ensure!(bare == 401, "{method} without a token: {bare}");
                    if n % 3 != 0 {
                        continue;
                    }
                    let began = Instant::now();
                    let code = request.bearer_auth(&a.tokens.stranger).send().await?.status().as_u16();
                    if let Some(all) = times.get_mut(i) {
                        all.push(began.elapsed());
                    }
                    ensure!(code == 404, "{method} by a stranger: {code}");
                }
            }
        }
        let [there, nowhere] = times.map(|mut all| {
            all.sort_unstable();
            all.get(all.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e3
        });
        ensure!(
            (there - nowhere).abs() < 2.0,
            "what exists answers in {there:.2} ms, what does not in {nowhere:.2} ms"
        );
        a.hang_up(&location, &a.tokens.observer).await?;
        Ok(format!("401 without a token, 404 for a stranger, in {there:.2} ms and where nothing is in {nowhere:.2} ms"))
    })
}
