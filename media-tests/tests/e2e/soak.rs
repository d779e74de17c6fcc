//! A site that works for three minutes (an hour by `make soak`, `trocar-soak`), and what shows that growth would be found.

use anyhow::ensure;
use trocar_media_tests::soak::{Plan, control, report, run};

#[test]
fn three_minutes_of_work_leave_memory_descriptors_and_threads_as_they_were_and_viewers_undisturbed()
-> anyhow::Result<()> {
    let outcome = run(Plan::minutes(3), |_, _| ())?;
    println!("{}\n{}", report::table(&outcome)?, report::csv(&outcome.watched));
    report::judge(&outcome)
}

#[test]
fn whoever_stays_each_round_is_found_by_the_nodes_descriptors_and_by_its_own_count() -> anyhow::Result<()> {
    let (grown, counted) = control::left_open()?;
    println!("{grown}\n{counted}");
    ensure!(grown.contains("descriptors of trocar up grew by"), "{grown}");
    ensure!(counted.contains("trocar_signaling_event_sockets 9") && counted.contains("not 0"), "{counted}");
    Ok(())
}

#[test]
fn a_process_that_keeps_what_it_is_sent_is_found_by_its_memory() -> anyhow::Result<()> {
    let grown = control::kept()?;
    println!("{grown}");
    ensure!(grown.contains("memory of the victim grew by") && !grown.contains("descriptors"), "{grown}");
    Ok(())
}
