//! What a soak must notice: somebody who comes each round and stays, and a process that keeps what it is sent.

use super::site::Rest;
use super::verdict::LOOKS;
use super::{Watched, report};
use crate::attack::victim;
use crate::sink::Viewer;
use crate::stack::Stack;
use anyhow::bail;
use std::io::Write as _;
use std::net::TcpStream;
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let rest = Rest::of(&stack).await?;
        let (mut watched, mut open) = (Watched::default(), Vec::new());
        for _ in 0..LOOKS {
            open.push(Viewer::join(&page, &stack.text("/tokens/observer")?).await?.events().await?);
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
