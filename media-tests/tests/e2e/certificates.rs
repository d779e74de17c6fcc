//! Certificates that change under a running picture: made anew, and taken back.

use crate::{number, runtime};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use trocar_control::trust::{Identity, cert_hash};
use trocar_media_tests::http_builder;
use trocar_media_tests::process::Process;
use trocar_media_tests::stack::{PATIENCE, Stack, path, summary};
use trocar_media_tests::story::Story;
use trocar_proto::session::ids::CertHash;

const PICTURE: [&str; 2] = ["--source", "test:1280x720@30"];

/// Runs `trocar` to its end; what it printed.
fn run(words: &[&str]) -> anyhow::Result<String> {
    let mut process = Process::trocar(&words.join(" "), words)?;
    ensure!(process.wait(PATIENCE)?.success(), "{words:?}: {}", process.stderr());
    Ok(process.rest().join("\n"))
}

/// The leaf in a file.
fn in_file(state: &Path, name: &str) -> anyhow::Result<CertHash> {
    let at = |end: &str| state.join(format!("{name}.{end}"));
    Ok(Identity::from_pem_files(&at("pem"), &at("key"))?.hash())
}

/// What whoever connects now is shown by the QUIC listener.
async fn shown_by_quic(stack: &Stack, state: &Path) -> anyhow::Result<CertHash> {
    use rustls::pki_types::pem::PemObject as _;
    let device = Identity::from_pem_files(&state.join("device.pem"), &state.join("device.key"))?;
    let trust = vec![rustls::pki_types::CertificateDer::from_pem_file(state.join("ca.pem"))?];
    let (chain, key) = (device.chain.clone(), device.key.clone_key());
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
    endpoint.set_default_client_config(trocar_relay::quic::client_config(trocar_relay::quic::Identity {
        chain,
        key,
        trust,
    })?);
    let connection = endpoint.connect(stack.text("/relay/quic")?.parse()?, "localhost")?.await?;
    let chain = connection.peer_identity().context("no certificate")?;
    let chain = chain.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok().context("no chain")?;
    Ok(cert_hash(chain.first().context("no leaf")?))
}

/// The same by the HTTPS listener.
async fn shown_by_https(stack: &Stack, state: &Path) -> anyhow::Result<CertHash> {
    let ca = reqwest::Certificate::from_pem(&std::fs::read(state.join("ca.pem"))?)?;
    let client = http_builder().tls_certs_only([ca]).tls_info(true).build()?;
    let response = client.get(format!("{}healthz", stack.text("/https")?)).send().await?.error_for_status()?;
    let info = response.extensions().get::<reqwest::tls::TlsInfo>().context("no TLS")?;
    Ok(cert_hash(info.peer_certificate().context("no certificate")?))
}

/// Waits until both listeners show what is in the files.
fn until_shown(stack: &Stack, state: &Path) -> anyhow::Result<Duration> {
    let (relay, signaling) = (in_file(state, "relay")?, in_file(state, "signaling")?);
    let began = Instant::now();
    runtime().block_on(async {
        loop {
            let shown = (shown_by_quic(stack, state).await?, shown_by_https(stack, state).await?);
            if shown == (relay, signaling) {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < PATIENCE, "{shown:?} is shown, not {relay} and {signaling}");
            // A listener has no event that could be waited for.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

fn runs(viewer: &mut Process) -> anyhow::Result<()> {
    viewer.line(PATIENCE, |l| serde_json::from_str::<Value>(l).is_ok_and(|v| number(&v, "/frames") > 30.0)).map(drop)
}

/// The records of that kind, as JSON lines.
fn records(state: &Path, kind: &str) -> anyhow::Result<String> {
    Ok(Story::about(&state.join("trocar.db"), kind)?.text)
}

#[test]
fn certificates_that_are_made_anew_under_a_picture_are_shown_to_who_comes_and_no_packet_is_missing()
-> anyhow::Result<()> {
    let stack = Stack::start()?;
    let state = stack.dir.path().join("state");
    let mut publisher = stack.publish(&PICTURE)?;
    let mut before = stack.watch(&["--duration", "7"])?;
    runs(&mut before)?;
    let former = [in_file(&state, "relay")?, in_file(&state, "signaling")?];
    until_shown(&stack, &state)?;
    run(&["ca", "renew", "--dir", path(&state)?, "relay", "signaling"])?;
    let new = [in_file(&state, "relay")?, in_file(&state, "signaling")?];
    ensure!(former.iter().zip(&new).all(|(a, b)| a != b), "the control: nothing was made anew");
    println!("both listeners show the new certificates after {:?}", until_shown(&stack, &state)?);
    // Half a file: nobody notices, and it is said.
    std::fs::write(state.join("signaling.pem"), "-----BEGIN CERTIFICATE-----\nMIIB")?;
    runtime().block_on(until_metric(&stack, "trocar_signaling_certificates_unusable", 1.0))?;
    let mut after = stack.watch(&["--frames", "60"])?;
    ensure!(number(&summary(&mut after, PATIENCE)?, "/frames") == 60.0, "nobody can view with the new certificates");
    let s = summary(&mut before, PATIENCE)?;
    println!("{s}");
    ensure!(number(&s, "/packets_missing") == 0.0 && number(&s, "/frames_lost") == 0.0, "{s}");
    ensure!(number(&s, "/frames") > 6.0 * 29.0, "{s}");
    publisher.stop()?;
    let renewed = records(&state, "certificates-renewed")?;
    ensure!(renewed.contains(&new[0].to_string()) && renewed.contains("HTTPS"), "{renewed}");
    let unusable = records(&state, "certificates-unusable")?;
    ensure!(unusable.contains("signaling.pem"), "{unusable}");
    Ok(())
}

async fn until_metric(stack: &Stack, name: &str, wanted: f64) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let value = stack.metric(name).await?;
        if value >= wanted {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{name} is {value}, not {wanted}");
        // A page of figures has no event that could be waited for.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_viewer_whose_certificate_is_taken_back_is_out_and_stays_out_and_the_others_miss_nothing() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let state = stack.dir.path().join("state");
    for name in ["good", "lost"] {
        run(&["ca", "issue", "--dir", path(&state)?, name])?;
    }
    let watch = |name: &str| {
        let (cert, key) = (state.join(format!("{name}.pem")), state.join(format!("{name}.key")));
        stack.watch(&["--duration", "7", "--cert", path(&cert)?, "--key", path(&key)?])
    };
    let mut publisher = stack.publish(&PICTURE)?;
    let (mut good, mut lost) = (watch("good")?, watch("lost")?);
    runs(&mut good)?;
    runs(&mut lost)?;
    ensure!(runtime().block_on(stack.metric("trocar_certificates_revoked_total"))? == 0.0, "the control");
    run(&["ca", "revoke", "--dir", path(&state)?, "lost"])?;
    let began = Instant::now();
    runtime().block_on(until_metric(&stack, "trocar_certificates_revoked_total", 1.0))?;
    println!("out after {:?}, by figures that are taken twice a second", began.elapsed());
    // It tries again, and is refused.
    runtime().block_on(until_metric(&stack, "trocar_certificates_refused_total", 1.0))?;
    let s = summary(&mut good, PATIENCE)?;
    println!("{s}");
    ensure!(number(&s, "/packets_missing") == 0.0 && number(&s, "/frames_lost") == 0.0, "{s}");
    ensure!(number(&s, "/frames") > 6.0 * 29.0, "{s}");
    publisher.stop()?;
    for (kind, others) in [("certificate-revoked", "trocar://local/station/good"), ("certificate-refused", "good")] {
        let told = records(&state, kind)?;
        ensure!(told.contains("trocar://local/station/lost") && !told.contains(others), "{kind}: {told}");
    }
    Ok(())
}
