//! What the harness must notice: a listener without any bound, which a flood makes grow and a word makes panic.

use super::arena::{check_memory, healthy};
use crate::process::{Process, binary};
use crate::stack::PATIENCE;
use crate::vitals::resident_kib;
use anyhow::{Context as _, bail};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where it panics.
const WORD: &[u8] = b"PANIC";
/// Keeps so much of a peer at most: as much as the machine of a test bears.
const KEPT: usize = 64 << 20;

/// The victim itself: `trocar-attack --victim`.
///
/// # Errors
/// Where it cannot listen.
#[allow(clippy::panic, reason = "that is what it is for")]
pub fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let mut kept = Vec::new();
    for stream in listener.incoming() {
        let mut all = Vec::new();
        stream?.take(KEPT as u64).read_to_end(&mut all)?;
        if all.starts_with(WORD) {
            panic!("a peer said so");
        }
        kept.push(all);
    }
    Ok(())
}

/// A victim that runs.
///
/// # Errors
/// Where it does not come up.
pub fn start() -> anyhow::Result<(Process, SocketAddr)> {
    let mut process = Process::start("the victim", Command::new(binary("trocar-attack")?).arg("--victim"))?;
    let address = process.line(PATIENCE, |l| l.contains(':'))?.parse()?;
    Ok((process, address))
}

/// What the harness says of a victim that is sent 40 MB.
///
/// # Errors
/// Where it does not grow.
pub fn flooded() -> anyhow::Result<String> {
    let (process, address) = start()?;
    let before = resident_kib(&process)?;
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&vec![b'x'; 40 << 20])?;
    drop(stream);
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if let Err(found) = check_memory(&process, before, 1) {
            return Ok(format!("{found:#}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("40 MB that are kept were not noticed")
}

/// What the harness says of a victim that panics.
///
/// # Errors
/// Where it notices nothing.
pub fn panicking() -> anyhow::Result<String> {
    let (process, address) = start()?;
    healthy(&process).context("before")?;
    TcpStream::connect(address)?.write_all(WORD)?;
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if let Err(found) = healthy(&process) {
            return Ok(format!("{found:#}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("a panic was not noticed")
}
