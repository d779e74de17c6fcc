//! `make handover`: the failures of HANDOVER.md section 17 with real processes, as a table. `trocar-failures [F1 F3 …]`: those alone.

use anyhow::ensure;
use trocar_media_tests::failures::{ALL, run};
use trocar_media_tests::sentinel::Sentinel;

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let sentinel = Sentinel::start()?;
    let mut wrong = Vec::new();
    println!("| # | measured at the device | void trials |\n| --- | --- | --- |");
    for failure in ALL.iter().filter(|f| wanted.is_empty() || wanted.iter().any(|w| w == f.id)) {
        if let Err(error) = run(failure, &sentinel) {
            println!("| {} | FAILED, {}: {error:#} | |", failure.id, failure.name);
            wrong.push(failure.id);
        }
    }
    println!("\nload average {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    ensure!(wrong.is_empty(), "not as they should be: {}", wrong.join(", "));
    Ok(())
}
