//! A relay to measure beside ours: `sealed`, `clear` or `str0m` (`trocar_media_tests::bench`).

use anyhow::bail;
use trocar_media_tests::bench::{floor, str0m_relay};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["sealed"] => floor::run(true, None),
        ["clear"] => floor::run(false, None),
        ["sealed", "--lose", n] => floor::run(true, Some(n.parse()?)),
        ["str0m"] => str0m_relay::run(),
        _ => bail!("sealed, clear, sealed --lose N, or str0m is right"),
    }
}
