//! Packets down the road without sockets, for callgrind to count (`trocar_media_tests::bench::road`): `WAY PACKETS`. With
//! `count` alone, all ways are counted and printed as a budget.

use anyhow::{Context as _, bail};
use trocar_media_tests::bench::road::{Way, instructions_per_packet, run};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["count"] => {
            for (name, _) in Way::ALL {
                println!("{name} = {:.0}", instructions_per_packet(&std::env::current_exe()?, name)?);
            }
        }
        [name, packets] => {
            let way = Way::ALL.into_iter().find(|(n, _)| n == name).with_context(|| format!("no way {name}"))?.1;
            println!("{}", run(way, packets.parse()?)?);
        }
        _ => bail!("WAY PACKETS or count is right"),
    }
    Ok(())
}
