//! The audit chain at a repository with the real binary, configured as docs/AUDIT.md says, by its commands.

use anyhow::{Context, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use trocar_control::audit::{Hash, Record};
use trocar_media_tests::process::trocar;
use trocar_media_tests::stack::{PATIENCE, Stack, path};
use trocar_media_tests::workspace;

/// A process that does not outlive the test.
struct Repository(Child);

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The indented block of the document that begins with that line.
fn block(document: &str, first: &str) -> anyhow::Result<String> {
    let lines = document.lines().skip_while(|l| l.trim() != first && !l.trim().starts_with(first));
    let block: Vec<&str> = lines.map_while(|l| l.strip_prefix("    ")).collect();
    ensure!(!block.is_empty(), "the document has no block that begins with {first}");
    Ok(block.join("\n") + "\n")
}

/// Certificates of one authority: `server` and `client`.
fn certificates(dir: &Path) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "audit authority");
    std::fs::write(dir.join("ca.pem"), authority.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(authority, key);
    for name in ["server", "client"] {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec!["localhost".to_owned()])?;
        std::fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &issuer)?.pem())?;
        let file = dir.join(format!("{name}.key"));
        std::fs::write(&file, key.serialize_pem())?;
        let status = Command::new("chmod").arg("600").arg(&file).status()?;
        ensure!(status.success());
    }
    Ok(())
}

/// rsyslog as the document configures it, with other paths.
fn repository(document: &str, dir: &Path, port: u16) -> anyhow::Result<Repository> {
    let at = path(dir)?;
    let configuration = block(document, "global(workDirectory")?
        .replace("/var/spool/rsyslog", at)
        .replace("/etc/rsyslog/ca.pem", &format!("{at}/ca.pem"))
        .replace("/etc/rsyslog/cert.pem", &format!("{at}/server.pem"))
        .replace("/etc/rsyslog/key.pem", &format!("{at}/server.key"))
        .replace("/var/log/trocar-audit", &format!("{at}/kept"))
        .replace("port=\"6514\"", &format!("address=\"127.0.0.1\" port=\"{port}\""));
    std::fs::write(dir.join("rsyslog.conf"), configuration)?;
    let mut command = Command::new("/usr/sbin/rsyslogd");
    command.arg("-n").arg("-f").arg(dir.join("rsyslog.conf")).arg("-i").arg(dir.join("pid"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut repository = Repository(child.context("rsyslogd is of the packages rsyslog and rsyslog-openssl")?);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(repository.0.try_wait()?.is_none() && Instant::now() < deadline, "rsyslogd does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(repository)
}

/// A port that the kernel gives to nobody by itself, so that nobody has it between here and rsyslog.
fn free_port() -> anyhow::Result<u16> {
    let first = std::process::id().wrapping_mul(41);
    let mut ports = (0..1_000).filter_map(|n| u16::try_from(20_000 + first.wrapping_add(n) % 12_000).ok());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("no port is free")
}

/// A command of the document with our files in the places of its own: whether it succeeded, and what it said.
fn command(line: &str, kept: &Path, db: &Path) -> anyhow::Result<(bool, String)> {
    let words = line.split_whitespace().skip(1).map(|word| match word {
        "KEPT" => path(kept),
        "var/trocar/trocar.db" => path(db),
        "signaling.north" => Ok("signaling.local"),
        word => Ok(word),
    });
    let words: Vec<&str> = words.collect::<anyhow::Result<_>>()?;
    let out = Command::new(trocar()?).args(words).stdin(Stdio::null()).output()?;
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Ok((out.status.success(), text(&out.stdout) + &text(&out.stderr)))
}

#[test]
fn records_reach_a_repository_configured_as_the_document_says_and_lost_ones_are_found_and_sent_again()
-> anyhow::Result<()> {
    let document = std::fs::read_to_string(workspace().join("docs/AUDIT.md"))?;
    let dir = tempfile::tempdir()?;
    certificates(dir.path())?;
    let port = free_port()?;
    let at = path(dir.path())?;
    let export = block(&document, "[audit.export]")?
        .replace("audit.hospital.example:6514", &format!("localhost:{port}"))
        .replace("/etc/trocar/audit/ca.pem", &format!("{at}/ca.pem"))
        .replace("/etc/trocar/audit/cert.pem", &format!("{at}/client.pem"))
        .replace("/etc/trocar/audit/key.pem", &format!("{at}/client.key"));
    let retention = block(&document, "[audit.retention]")?;
    // The repository comes later than the records.
    let mut stack = Stack::start_with(&format!("{export}\n{retention}"))?;
    let _repository = repository(&document, dir.path(), port)?;
    let (kept, db) = (dir.path().join("kept"), stack.dir.path().join("state/trocar.db"));
    let commands = block(&document, "trocar audit reconcile KEPT --store")?;
    let commands: Vec<&str> = commands.lines().collect();
    ensure!(commands.len() == 3, "{commands:?}");
    let whole = |least: u64| -> anyhow::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (ok, said) = if kept.exists() { command(commands[0], &kept, &db)? } else { (false, String::new()) };
            let up_to = said.lines().find_map(|l| l.strip_prefix("believed to be there: up to record "));
            if ok && up_to.and_then(|n| n.parse().ok()).is_some_and(|n: u64| n >= least) {
                return Ok(said);
            }
            ensure!(Instant::now() < deadline, "not everything arrives: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let said = whole(5)?;
    println!("{said}");
    let (ok, said) = command(commands[1], &kept, &db)?;
    ensure!(ok, "compared with one another: {said}");
    // Two lines go: the command names them, and has them sent again.
    let text = std::fs::read_to_string(&kept)?;
    let lines: Vec<&str> = text.lines().collect();
    let fewer = [&lines[..1], &lines[3..]].concat().join("\n") + "\n";
    std::fs::write(&kept, fewer)?;
    let (ok, said) = command(commands[0], &kept, &db)?;
    ensure!(!ok && said.contains("these are lost: 2-3"), "two lost records go unnoticed: {said}");
    let (ok, said) = command(commands[1], &kept, &db)?;
    ensure!(!ok && said.contains("these are lost: 2-3"), "compared with one another: {said}");
    let (_, said) = command(commands[2], &kept, &db)?;
    ensure!(said.contains("records from 2 on are sent again"), "{said}");
    println!("{}", whole(5)?);
    stack.up.stop()?;
    Ok(())
}

/// The file of a gate with so many records.
fn gates_chain(n: u64) -> anyhow::Result<String> {
    let (mut text, mut previous) = (String::new(), Hash::NONE);
    for seq in 1..=n {
        let record = json!({
            "format": 1, "seq": seq, "previous": previous, "id": format!("{seq:032x}"), "utc": "2026-03-01T10:20:30.000000Z",
            "tick": seq, "session": "or-1", "patient": [], "event": "request", "set": [], "actor": {}, "lost": 0,
            "configuration": Hash::NONE, "software": "trocar-gate", "outcome": "done"
        });
        let (line, hash) = serde_json::from_value::<Record>(record)?.line()?;
        text.push_str(&line);
        previous = hash;
    }
    Ok(text)
}

#[test]
fn a_gates_chain_is_sealed_taken_and_shown_by_the_commands_of_the_document() -> anyhow::Result<()> {
    let document = std::fs::read_to_string(workspace().join("docs/AUDIT.md"))?;
    let mut stack = Stack::start()?;
    let (state, dir) = (stack.dir.path().join("state"), tempfile::tempdir()?);
    let issued =
        Command::new(trocar()?).args(["ca", "issue", "--dir", path(&state)?, "--role", "gate", "or-1"]).output()?;
    ensure!(issued.status.success(), "{}", String::from_utf8_lossy(&issued.stderr));
    let chain = dir.path().join("audit.jsonl");
    std::fs::write(&chain, gates_chain(5)?)?;
    let trust = stack.text("/gate/trust")?;
    let run = |line: &str| -> anyhow::Result<(bool, String)> {
        let words = line.split_whitespace().skip(1).map(|word| match word {
            "STORE" | "audit.jsonl" => chain.clone(),
            "var/trocar/trocar.db" => state.join("trocar.db"),
            "gate.pem" => state.join("or-1.pem"),
            "gate.key" => state.join("or-1.key"),
            "audit.seal" => dir.path().join("audit.seal"),
            "gate-trust" => trust.clone().into(),
            word => word.into(),
        });
        let words: Vec<PathBuf> = words.collect();
        let out = Command::new(trocar()?).args(words).stdin(Stdio::null()).output()?;
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Ok((out.status.success(), text(&out.stdout) + &text(&out.stderr)))
    };
    let commands = block(&document, "trocar audit seal STORE")?;
    let commands: Vec<&str> = commands.lines().collect();
    ensure!(commands.len() == 3, "{commands:?}");
    let (ok, said) = run(commands[0])?;
    ensure!(ok && said.contains("sealed by trocar://local/gate/or-1"), "{said}");
    let (ok, said) = run(commands[1])?;
    ensure!(ok && said.contains("5 new records, up to record 5"), "{said}");
    // The server takes it into its own chain, and from then on vouches for it.
    let deadline = Instant::now() + PATIENCE;
    while !run("trocar audit verify var/trocar/trocar.db")?.1.contains("signaling's chain vouches up to record 5") {
        ensure!(Instant::now() < deadline, "{}", run("trocar audit verify var/trocar/trocar.db")?.1);
        std::thread::sleep(Duration::from_millis(50));
    }
    let (ok, story) = run(commands[2])?;
    ensure!(ok && story.matches("gate.request").count() == 5 && story.contains("gate-audit "), "{story}");
    // Another file with the same seal is not taken, and that is in the chain.
    let other = gates_chain(5)?.replace("2026-03-01", "2026-03-02");
    std::fs::write(&chain, other)?;
    let (ok, said) = run(commands[1])?;
    ensure!(!ok, "a changed file was taken: {said}");
    while !run(commands[2])?.1.contains("gate-audit-alarm") {
        ensure!(Instant::now() < deadline, "the alarm is not in the chain");
        std::thread::sleep(Duration::from_millis(50));
    }
    stack.up.stop()
}
