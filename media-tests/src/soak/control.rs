//! What a soak must notice: somebody who comes each round and stays, and a process that keeps what it is sent.

use super::site::Rest;
use super::verdict::LOOKS;
use super::{Watched, report};
use crate::attack::{victim, ws};
use crate::stack::{PATIENCE, Stack};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What is sent to the victim each round.
const KEPT: usize = 1 << 20;

/// What is said of a node at which an event socket more is opened each round: by the looks at its process, and by its own count.
///
/// # Errors
/// Where one of the two says nothing.
pub fn left_open() -> anyhow::Result<(String, String)> {
    let stack = Stack::start()?;
    let page = stack.text("/page")?;
    let at: SocketAddr = page.trim_start_matches("http://").trim_end_matches('/').parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let rest = Rest::of(&stack).await?;
        let (mut watched, mut open) = (Watched::default(), Vec::new());
        for _ in 0..LOOKS {
            let body = json!({ "invitation": stack.text("/tokens/observer")?, "name": "Somebody" });
            let join = crate::http_client()?.post(format!("{page}v1/join")).json(&body);
            let grant: Value = join.send().await?.error_for_status()?.json().await?;
            let text = |name: &str| grant.get(name).and_then(Value::as_str).context("a grant lacks something");
            let mut socket = ws::Socket::open(at, text("session")?, text("token")?).await?;
            tokio::time::timeout(PATIENCE, socket.text(|t| t.contains("welcome"))).await.context("no welcome")??;
            open.push(socket);
            watched.look(&[("trocar up", &stack.up)])?;
        }
        let Err(grown) = report::flat(&watched) else { bail!("open sockets were not noticed") };
        let Err(counted) = rest.again(&stack, Duration::from_millis(300)).await else {
            bail!("sockets that are counted were not noticed")
        };
        Ok((format!("{grown:#}"), format!("{counted:#}")))
    })
}

/// What is said of a process that keeps a mebibyte more each round.
///
/// # Errors
/// Where nothing is.
pub fn kept() -> anyhow::Result<String> {
    let (victim, address) = victim::start()?;
    let mut watched = Watched::default();
    for _ in 0..LOOKS {
        // The connection is closed by the victim once it has read all of it.
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&vec![b'x'; KEPT])?;
        stream.shutdown(std::net::Shutdown::Write)?;
        std::io::copy(&mut stream, &mut std::io::sink())?;
        watched.look(&[("the victim", &victim)])?;
    }
    let Err(grown) = report::flat(&watched) else { bail!("what is kept was not noticed") };
    Ok(format!("{grown:#}"))
}
