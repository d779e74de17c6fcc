//! The ends of the benchmark: `generator JSON` or `viewers JSON` (`trocar_media_tests::bench`).

use anyhow::bail;
use trocar_media_tests::bench::{generator, viewers};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["generator", settings] => generator::run(&serde_json::from_str(settings)?),
        ["viewers", settings] => viewers::run(&serde_json::from_str(settings)?),
        _ => bail!("generator SETTINGS or viewers SETTINGS is right, SETTINGS being JSON"),
    }
}
