//! Packets from one worker to another: one ring of bytes for each ordered pair, with one sender and one receiver.
//!
//! The ring itself is `rtrb`, whose indices are its only shared state; it is wait-free, and what it lets the receiver see
//! was written before (its authors test it under Miri and ThreadSanitizer as well). Nothing here adds shared state to it: a record
//! is its head and its packet, written one after the other, and the receiver takes neither before both are there. Threads
//! hammer it in the tests below. The wake-up beside it is a protocol of ours ([`super::wake`]), whose interleavings are tried by a
//! model checker.

use rtrb::{Consumer, Producer, RingBuffer};
use trocar_proto::units::Micros;

/// Bytes of a ring: 40 ms at 400 Mbit/s. Loss policy: see [`Sender::push`].
pub(crate) const RING_BYTES: usize = 2 << 20;
/// Largest packet: a slot of a feed's ring.
pub(crate) const MAX_PACKET: usize = 2_048;
/// Bytes that go before each packet.
const HEAD: usize = 20;

/// Which mirror a packet is for: its index on the receiving worker, and a serial number, for indices are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) index: u32,
    pub(crate) serial: u32,
}

/// The sending worker's end.
pub(crate) struct Sender(Producer<u8>);

/// The receiving worker's end.
pub(crate) struct Receiver {
    ring: Consumer<u8>,
    /// Where a packet is put together that lies across the ring's end.
    scratch: Box<[u8; MAX_PACKET]>,
}

/// A ring of so many bytes, allocated once.
pub(crate) fn ring(bytes: usize) -> (Sender, Receiver) {
    let (producer, consumer) = RingBuffer::new(bytes);
    (Sender(producer), Receiver { ring: consumer, scratch: Box::new([0; MAX_PACKET]) })
}

impl Sender {
    /// Puts a packet into the ring. Loss policy: where there is no room it is left out, and false says so; the sender never
    /// waits.
    pub(crate) fn push(&mut self, to: Place, arrived: Micros, packet: &[u8]) -> bool {
        let Some(len) = u32::try_from(packet.len()).ok().filter(|_| packet.len() <= MAX_PACKET) else { return false };
        if self.0.slots() < HEAD + packet.len() {
            return false;
        }
        let mut head = [0; HEAD];
        let (index, serial, at) = (to.index.to_be_bytes(), to.serial.to_be_bytes(), arrived.0.to_be_bytes());
        let len = len.to_be_bytes();
        let bytes = index.iter().chain(&serial).chain(&at).chain(&len);
        head.iter_mut().zip(bytes).for_each(|(h, b)| *h = *b);
        self.0.push_entire_slice(&head).is_ok() && self.0.push_entire_slice(packet).is_ok()
    }
}

impl Receiver {
    /// Gives the oldest packet to `take` and makes its room free; false where no packet is there whole.
    pub(crate) fn pop(&mut self, take: impl FnOnce(Place, Micros, &[u8])) -> bool {
        let Some((place, arrived, len)) = self.head() else { return false };
        let Ok(chunk) = self.ring.read_chunk(HEAD + len) else { return false };
        let (front, back) = chunk.as_slices();
        match (front.get(HEAD..), back) {
            (Some(packet), []) => take(place, arrived, packet),
            (None, back) => take(place, arrived, back.get(back.len() - len..).unwrap_or(&[])),
            (Some(first), rest) => {
                let both = first.iter().chain(rest);
                self.scratch.iter_mut().zip(both).for_each(|(s, b)| *s = *b);
                take(place, arrived, self.scratch.get(..len).unwrap_or(&[]));
            }
        }
        chunk.commit_all();
        true
    }

    fn head(&mut self) -> Option<(Place, Micros, usize)> {
        let chunk = self.ring.read_chunk(HEAD).ok()?;
        let mut head = [0; HEAD];
        let (front, back) = chunk.as_slices();
        head.iter_mut().zip(front.iter().chain(back)).for_each(|(h, b)| *h = *b);
        // The chunk is not committed: the head is read again with its packet.
        let (index, rest) = head.split_first_chunk()?;
        let (serial, rest) = rest.split_first_chunk()?;
        let (arrived, rest) = rest.split_first_chunk()?;
        let (len, _) = rest.split_first_chunk()?;
        let place = Place { index: u32::from_be_bytes(*index), serial: u32::from_be_bytes(*serial) };
        Some((place, Micros(u64::from_be_bytes(*arrived)), u32::from_be_bytes(*len) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    const AT: Place = Place { index: 7, serial: 9 };

    /// A packet that says its own number in each of its bytes, of a length that runs through all remainders.
    fn packet(n: u64) -> Vec<u8> {
        let len = 40 + (n * 37 % 1_200) as usize;
        n.to_be_bytes().iter().copied().cycle().take(len).collect()
    }

    #[test]
    fn packets_come_out_as_they_went_in_wherever_the_ring_ends() {
        let (mut tx, mut rx) = ring(4_000);
        for n in 0..10_000_u64 {
            let p = packet(n);
            assert!(tx.push(AT, Micros(n), &p));
            let mut taken = 0;
            assert!(rx.pop(|place, arrived, bytes| {
                assert_eq!((place, arrived, bytes), (AT, Micros(n), &p[..]));
                taken += 1;
            }));
            assert_eq!(taken, 1);
            assert!(!rx.pop(|_, _, _| unreachable!("there is no other")));
        }
    }

    #[test]
    fn a_full_ring_takes_nothing_and_what_is_in_it_stays_whole() {
        let (mut tx, mut rx) = ring(4_000);
        let taken = (0..100).take_while(|n| tx.push(AT, Micros(*n), &[*n as u8; 380])).count();
        assert_eq!(taken, 10, "each takes 400 bytes");
        assert!(!tx.push(AT, Micros(0), &[0; 1]), "not even a small one");
        assert!(!tx.push(AT, Micros(0), &[0; MAX_PACKET + 1]));
        for n in 0..10_u64 {
            assert!(rx.pop(|_, at, bytes| assert_eq!((at, bytes), (Micros(n), &[n as u8; 380][..]))));
        }
        assert!(!rx.pop(|_, _, _| unreachable!("there is no other")));
        assert!(tx.push(AT, Micros(0), &[0; 380]), "there is room again");
    }

    /// A thread pushes as fast as it can in batches with one wake-up each, another one takes what comes.
    #[test]
    fn between_two_threads_order_is_kept_each_loss_is_counted_and_no_wake_up_is_lost() {
        const PACKETS: u64 = 400_000;
        let (mut tx, mut rx) = ring(64 << 10);
        let woken = Arc::new(tokio::sync::Notify::new());
        let (ring_bell, done) = (Arc::clone(&woken), Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&done);
        let sender = std::thread::spawn(move || {
            let mut dropped = 0;
            for n in 0..PACKETS {
                dropped += u64::from(!tx.push(AT, Micros(n), &packet(n)));
                if n % 16 == 15 {
                    ring_bell.notify_one();
                }
                if n % 4_096 == 0 {
                    // The receiver runs dry now and then, so that it is woken from its sleep as well.
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            over.store(true, Ordering::Release);
            ring_bell.notify_one();
            dropped
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (taken, sleeps) = runtime.block_on(async {
            let (mut taken, mut next, mut sleeps) = (0_u64, 0, 0_u64);
            loop {
                // Nothing else rings: a lost wake-up would end here.
                tokio::time::timeout(Duration::from_secs(20), woken.notified()).await.expect("a wake-up was lost");
                sleeps += 1;
                let last = done.load(Ordering::Acquire);
                while rx.pop(|place, at, bytes| {
                    assert!(place == AT && at.0 >= next, "{at:?} after {next}");
                    assert_eq!(bytes, packet(at.0));
                    next = at.0 + 1;
                }) {
                    taken += 1;
                }
                if last {
                    break (taken, sleeps);
                }
            }
        });
        let dropped = sender.join().unwrap();
        assert_eq!(taken + dropped, PACKETS);
        assert!(taken > PACKETS / 100 && sleeps > 10, "{taken} taken, {dropped} dropped, woken {sleeps} times");
    }
}
