//! The checks of the wire itself, docs/DEVICES.md: what is forged, recorded or addressed to another run has no effect.

use super::Hands;
use super::bench::{Bench, Gate, Wrong, must, seen};
use super::checks::{Entry, Seen};
use trocar_proto::handover::device_wire::{Report, ToDevice};
use trocar_proto::handover::gate::DeviceAct;
use trocar_proto::handover::types::{Epoch, Selection};

/// Longest time between two reports, in microseconds: half of what the gate takes for silence.
const REPORTS: u64 = 250_000;

/// The device is watched, not asked, while datagrams that must not count are sent.
pub(super) const ALL: &[Entry] = &[
    ("wire", "a keep-alive with a wrong tag is none", forged),
    ("wire", "a keep-alive that comes again is none", replayed),
    ("wire", "who addresses another run of the device has no effect", stranger),
    ("wire", "reports come at least every 250 ms", reports),
];

fn forged(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    held_despite(bench, |a, fence| {
        let boot = a.boot;
        let mut bytes = a.next_datagram(&ToDevice::Act(DeviceAct::KeepAlive { boot, fence }), None);
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        a.send_bytes(&bytes);
    })
}

fn replayed(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    let mut recorded: Option<Vec<u8>> = None;
    held_despite(bench, |a, fence| {
        let boot = a.boot;
        let bytes =
            recorded.get_or_insert_with(|| a.next_datagram(&ToDevice::Act(DeviceAct::KeepAlive { boot, fence }), None));
        a.send_bytes(bytes);
    })
}

/// The watchdog must hold although `noise` is sent all the time.
fn held_despite(bench: &mut Bench, mut noise: impl FnMut(&mut Gate, Epoch)) -> Seen {
    bench.remote()?;
    let fence = bench.fence;
    bench.a.keep_alive(fence);
    let mut sent = 0_u32;
    let held = bench.a.until(
        2 * bench.latest(),
        |report| report.device.latched,
        |a| {
            noise(a, fence);
            sent += 1;
        },
    );
    let (report, _) = held.ok_or_else(|| format!("{sent} of them kept the device from holding"))?;
    Ok(Some(format!("{sent} of them; the watchdog held: {}", seen(&report))))
}

fn stranger(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    let before = bench.select_anew(Selection::Nobody)?;
    let boot = bench.a.boot;
    let fence = Epoch(bench.fence.0.saturating_add(1));
    for peer in [0, 0x5eed_5eed_5eed_5eed] {
        let act = DeviceAct::Select { boot, to: Selection::Remote, fence, sequence: 1 };
        let bytes = bench.a.next_datagram(&ToDevice::Act(act), Some(peer));
        bench.a.send_bytes(&bytes);
        let after = bench.a.ask(1_000_000)?;
        let unchanged = |of: &Report| (of.device.selected, of.device.highest);
        must(unchanged(&before) == unchanged(&after), || format!("peer {peer:#x} was obeyed: {}", seen(&after)))?;
    }
    Ok(Some("no number and a wrong number: nothing selected".into()))
}

fn reports(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.select_anew(Selection::Nobody)?;
    let (mut longest, mut last, mut count) = (0, crate::core::now(), 0_u32);
    let until = last.plus(4 * REPORTS);
    while crate::core::now() < until {
        let heard: Result<(), Wrong> = bench.a.until(REPORTS * 2, |_| true, |_| ()).map(|_| ()).ok_or_else(String::new);
        let now = crate::core::now();
        longest = longest.max(now.since(last));
        last = now;
        count += u32::from(heard.is_ok());
    }
    let seen = format!("{count} in 1 s, the longest wait {} ms", longest / 1_000);
    must(longest <= REPORTS, || seen.clone())?;
    Ok(Some(seen))
}
