//! Hostile input against the real processes: the cases that take about a second each, and what shows that the runner can fail. `make
//! attack` plays all of them.

use crate::runtime;
use anyhow::ensure;
use std::sync::atomic::Ordering;
use std::time::Duration;
use trocar_media_tests::attack::arena::judge;
use trocar_media_tests::attack::beside::Beside;
use trocar_media_tests::attack::{check, victim};
use trocar_media_tests::line::Line;
use trocar_media_tests::stack::Stack;

#[test]
fn bi_03_to_11_what_comes_over_http_and_websocket_is_refused_and_bounded() -> anyhow::Result<()> {
    check(&["bi_03", "bi_04", "bi_06", "bi_07", "bi_09", "bi_10", "bi_11"])
}

#[test]
fn bi_12_to_19_forged_tokens_and_certificates_and_other_peoples_resources_lead_nowhere() -> anyhow::Result<()> {
    check(&["bi_12", "bi_13", "bi_14", "bi_17", "bi_18", "bi_19"])
}

#[test]
fn bi_20_to_37_offers_dtls_rtp_and_rtcp_that_lie_leave_the_others_alone() -> anyhow::Result<()> {
    check(&["bi_20", "bi_21", "bi_23", "bi_34", "bi_35", "bi_36", "bi_37"])
}

#[test]
fn bi_40_to_45_quic_that_breaks_the_rules_is_closed_and_bounded() -> anyhow::Result<()> {
    check(&["bi_40", "bi_42", "bi_44", "bi_45"])
}

#[test]
fn a_listener_that_keeps_everything_and_one_that_panics_are_noticed() -> anyhow::Result<()> {
    let grown = victim::flooded()?;
    ensure!(grown.contains("memory grew by"), "{grown}");
    let panicked = victim::panicking()?;
    ensure!(panicked.contains("a panic") && panicked.contains("a peer said so"), "{panicked}");
    Ok(())
}

#[test]
fn a_packet_that_the_viewer_beside_misses_and_a_delay_are_noticed() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let line = Line::to(stack.text("/relay/quic")?.parse()?)?;
    let beside = Beside::start(&stack, Some(line.address))?;
    runtime().block_on(async {
        let phase = async || {
            let from = beside.mark();
            tokio::time::sleep(Duration::from_millis(600)).await;
            beside.phase(from, beside.mark()).await
        };
        let before = phase().await?;
        ensure!(before.native.lost == 0 && before.browser.lost == 0, "{before:?}");
        line.switches().delay.store(20_000, Ordering::SeqCst);
        let late = phase().await?;
        line.switches().delay.store(0, Ordering::SeqCst);
        let said = judge(before, late).err().map(|e| e.to_string()).unwrap_or_default();
        // A step of the delay may cost packets as well: the line's rate control takes it for a queue.
        let noticed = said.contains("moved by") || said.contains("lost");
        ensure!(
            noticed && late.native.p99_us > before.native.p99_us + 15_000,
            "20 ms more were not noticed: {late:?} {said:?}"
        );
        line.switches().loss.store(30_000, Ordering::SeqCst);
        let lossy = phase().await?;
        let said = judge(before, lossy).err().map(|e| e.to_string()).unwrap_or_default();
        ensure!(lossy.native.lost > 0 && said.contains("lost"), "losses were not noticed: {lossy:?} {said:?}");
        Ok(())
    })
}
