//! Bytes of the device wire: big endian, fixed places, one encoding for one value. Each table is also in docs/DEVICES.md.

use super::{
    Actuated, DecodeError, HEAD, Head, MAGIC, MAX_STATE, Refusal, Refused, Report, State, TAG, ToDevice, VERSION,
};
use crate::handover::gate::{DeviceAct, DeviceReport};
use crate::handover::message::{MAX_PAYLOAD, Payload};
use crate::handover::types::{BootId, Counter, Epoch, GrantedSet, Selection};

const HELLO: u8 = 0x01;
const KEEP_ALIVE: u8 = 0x02;
const SELECT: u8 = 0x03;
const HOLD: u8 = 0x04;
const ENERGY_OFF: u8 = 0x05;
const COMMAND: u8 = 0x06;
const REPORT: u8 = 0x81;

const SELECTIONS: [Selection; 3] = [Selection::Nobody, Selection::Local, Selection::Remote];

/// Bits of a report's flags.
const LATCHED: u8 = 1;
const OVERRIDDEN: u8 = 2;
const OWNED: u8 = 4;
const ENERGY: u8 = 8;
const MOVING: u8 = 16;
const HAS_ACTUATED: u8 = 32;
const HELD: u8 = 64;
const RIVAL: u8 = 128;

/// The bytes of what a gate says, without the tag.
#[must_use]
pub fn encode_to_device(head: &Head, message: &ToDevice) -> Vec<u8> {
    match message {
        ToDevice::Hello => begin(HELLO, head),
        ToDevice::Act(DeviceAct::KeepAlive { boot, fence }) => {
            let mut out = begin(KEEP_ALIVE, head);
            out.extend(boot.0.to_be_bytes());
            out.extend(fence.0.to_be_bytes());
            out
        }
        ToDevice::Act(DeviceAct::Select { boot, to, fence, sequence }) => {
            let mut out = begin(SELECT, head);
            out.extend(boot.0.to_be_bytes());
            out.extend(fence.0.to_be_bytes());
            out.extend(sequence.to_be_bytes());
            out.push(selection_byte(*to));
            out
        }
        ToDevice::Act(DeviceAct::Hold { fence, sequence }) => stop(HOLD, head, *fence, *sequence),
        ToDevice::Act(DeviceAct::EnergyOff { fence, sequence }) => stop(ENERGY_OFF, head, *fence, *sequence),
        ToDevice::Act(DeviceAct::Command { fence, sequence, counter, set, energy, payload }) => {
            let mut out = stop(COMMAND, head, *fence, *sequence);
            out.extend(counter.0.to_be_bytes());
            out.push(set.bits());
            out.push(u8::from(*energy));
            put_counted(payload.as_bytes(), &mut out);
            out
        }
    }
}

/// What a gate says; `bytes` are without the tag, which was checked before.
///
/// # Errors
/// [`DecodeError`] for anything that [`encode_to_device`] does not make.
pub fn decode_to_device(bytes: &[u8]) -> Result<(Head, ToDevice), DecodeError> {
    let (kind, head, mut from) = open(bytes)?;
    let r = &mut from;
    let message = match kind {
        HELLO => ToDevice::Hello,
        KEEP_ALIVE => ToDevice::Act(DeviceAct::KeepAlive { boot: BootId(r.u128("boot")?), fence: r.fence()? }),
        SELECT => {
            let (boot, fence, sequence) = (BootId(r.u128("boot")?), r.fence()?, r.u64("sequence")?);
            ToDevice::Act(DeviceAct::Select { boot, to: r.selection()?, fence, sequence })
        }
        HOLD => ToDevice::Act(DeviceAct::Hold { fence: r.fence()?, sequence: r.u64("sequence")? }),
        ENERGY_OFF => ToDevice::Act(DeviceAct::EnergyOff { fence: r.fence()?, sequence: r.u64("sequence")? }),
        COMMAND => ToDevice::Act(r.command()?),
        other => return Err(DecodeError::Kind(other)),
    };
    from.end()?;
    Ok((head, message))
}

/// The bytes of a report, without the tag.
#[must_use]
pub fn encode_report(head: &Head, report: &Report) -> Vec<u8> {
    let device = &report.device;
    let flag = |bit: u8, set: bool| if set { bit } else { 0 };
    let mut out = begin(REPORT, head);
    out.extend(report.echo.to_be_bytes());
    out.extend(device.highest.0.to_be_bytes());
    out.extend(device.owner.map_or(0, |boot| boot.0).to_be_bytes());
    out.extend(device.sequence.to_be_bytes());
    out.push(selection_byte(device.selected));
    out.push(
        flag(LATCHED, device.latched)
            | flag(OVERRIDDEN, device.overridden)
            | flag(OWNED, device.owner.is_some())
            | flag(ENERGY, device.energy)
            | flag(MOVING, report.moving)
            | flag(HAS_ACTUATED, report.actuated.is_some())
            | flag(HELD, device.held)
            | flag(RIVAL, device.rival),
    );
    out.extend(report.watchdog.to_be_bytes());
    out.extend(report.camera_moves.to_be_bytes());
    out.extend(report.actuated.map_or(0, |a| a.fence.0).to_be_bytes());
    out.extend(report.actuated.map_or(0, |a| a.sequence).to_be_bytes());
    out.extend(report.refusals.to_be_bytes());
    out.push(report.refused.map_or(0, |r| reason_byte(r.reason)));
    out.extend(report.refused.map_or(0, |r| r.counter).to_be_bytes());
    put_counted(report.state.as_bytes(), &mut out);
    out
}

/// A report; `bytes` are without the tag, which was checked before.
///
/// # Errors
/// [`DecodeError`] for anything that [`encode_report`] does not make.
pub fn decode_report(bytes: &[u8]) -> Result<(Head, Report), DecodeError> {
    let (kind, head, mut from) = open(bytes)?;
    if kind != REPORT {
        return Err(DecodeError::Kind(kind));
    }
    let report = from.report()?;
    from.end()?;
    Ok((head, report))
}

/// What is authenticated, and the tag behind it; nothing where the datagram is too short to have one.
#[must_use]
pub fn split_tag(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let body = datagram.len().checked_sub(TAG).filter(|body| *body >= HEAD)?;
    datagram.split_at_checked(body)
}

fn begin(kind: u8, head: &Head) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend(MAGIC);
    out.push(VERSION);
    out.push(kind);
    out.extend(head.sender.to_be_bytes());
    out.extend(head.counter.to_be_bytes());
    out.extend(head.peer.to_be_bytes());
    out
}

/// Kinds that begin with fence and sequence.
fn stop(kind: u8, head: &Head, fence: Epoch, sequence: u64) -> Vec<u8> {
    let mut out = begin(kind, head);
    out.extend(fence.0.to_be_bytes());
    out.extend(sequence.to_be_bytes());
    out
}

fn put_counted(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

const fn selection_byte(selection: Selection) -> u8 {
    match selection {
        Selection::Nobody => 0,
        Selection::Local => 1,
        Selection::Remote => 2,
    }
}

fn reason_byte(reason: Refused) -> u8 {
    let place = Refused::ALL.iter().position(|each| *each == reason).unwrap_or(usize::MAX);
    u8::try_from(place.saturating_add(1)).unwrap_or(u8::MAX)
}

/// Checks magic and version; gives kind, head and what follows.
fn open(bytes: &[u8]) -> Result<(u8, Head, Reader<'_>), DecodeError> {
    let mut from = Reader(bytes);
    let magic: [u8; 4] = from.array("magic")?;
    if magic != MAGIC {
        return Err(DecodeError::Value { field: "magic", value: u32::from_be_bytes(magic).into() });
    }
    let version = from.u8("version")?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let kind = from.u8("kind")?;
    let head = Head { sender: from.u64("sender")?, counter: from.u64("counter")?, peer: from.u64("peer")? };
    for (field, value) in [("sender", head.sender), ("counter", head.counter)] {
        if value == 0 {
            return Err(DecodeError::Value { field, value });
        }
    }
    Ok((kind, head, from))
}

/// What is still to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short { field })?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(u8::from_be_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    fn u128(&mut self, field: &'static str) -> Result<u128, DecodeError> {
        self.array(field).map(u128::from_be_bytes)
    }

    fn fence(&mut self) -> Result<Epoch, DecodeError> {
        self.u64("fence").map(Epoch)
    }

    fn selection(&mut self) -> Result<Selection, DecodeError> {
        let value = self.u8("selection")?;
        SELECTIONS
            .get(usize::from(value))
            .copied()
            .ok_or(DecodeError::Value { field: "selection", value: value.into() })
    }

    /// A length of 16 bits, then so many bytes, at most `max`.
    fn counted(&mut self, max: usize, field: &'static str) -> Result<Vec<u8>, DecodeError> {
        let len = usize::from(self.array(field).map(u16::from_be_bytes)?);
        if len > max {
            return Err(DecodeError::Long { field, len, max });
        }
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Short { field })?;
        self.0 = rest;
        Ok(bytes.to_vec())
    }

    fn command(&mut self) -> Result<DeviceAct, DecodeError> {
        let (fence, sequence, counter) = (self.fence()?, self.u64("sequence")?, Counter(self.u64("command")?));
        let bits = self.u8("set")?;
        let set = GrantedSet::from_bits(bits).ok_or(DecodeError::Value { field: "set", value: bits.into() })?;
        let energy = match self.u8("energy")? {
            0 => false,
            1 => true,
            other => return Err(DecodeError::Value { field: "energy", value: other.into() }),
        };
        let payload = Payload::new(self.counted(MAX_PAYLOAD, "payload")?).map_err(|e| long("payload", e))?;
        Ok(DeviceAct::Command { fence, sequence, counter, set, energy, payload })
    }

    fn report(&mut self) -> Result<Report, DecodeError> {
        let (echo, highest) = (self.u64("echo")?, Epoch(self.u64("highest")?));
        let (owner, sequence, selected) = (self.u128("owner")?, self.u64("sequence")?, self.selection()?);
        let flags = self.u8("flags")?;
        let has = |bit: u8| flags & bit != 0;
        if !has(OWNED) && owner != 0 {
            return Err(DecodeError::Value { field: "owner", value: 1 });
        }
        let device = DeviceReport {
            highest,
            owner: has(OWNED).then_some(BootId(owner)),
            selected,
            sequence,
            latched: has(LATCHED),
            overridden: has(OVERRIDDEN),
            energy: has(ENERGY),
            held: has(HELD),
            rival: has(RIVAL),
        };
        let (watchdog, camera_moves) = (self.u32("watchdog")?, self.u32("camera moves")?);
        let actuated = Actuated { fence: Epoch(self.u64("actuated fence")?), sequence: self.u64("actuated sequence")? };
        if !has(HAS_ACTUATED) && (actuated.fence.0 != 0 || actuated.sequence != 0) {
            return Err(DecodeError::Value { field: "actuated", value: actuated.sequence });
        }
        Ok(Report {
            device,
            moving: has(MOVING),
            watchdog,
            camera_moves,
            echo,
            actuated: has(HAS_ACTUATED).then_some(actuated),
            refusals: self.u32("refusals")?,
            refused: self.refusal()?,
            state: State::new(self.counted(MAX_STATE, "state")?).map_err(|e| long("state", e))?,
        })
    }

    fn refusal(&mut self) -> Result<Option<Refusal>, DecodeError> {
        let (byte, counter) = (self.u8("reason")?, self.u64("refused counter")?);
        let wrong = |field, value| Err(DecodeError::Value { field, value });
        let Some(place) = usize::from(byte).checked_sub(1) else {
            return if counter == 0 { Ok(None) } else { wrong("refused counter", counter) };
        };
        match Refused::ALL.get(place) {
            Some(&reason) => Ok(Some(Refusal { counter, reason })),
            None => wrong("reason", byte.into()),
        }
    }

    const fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.0.len())) }
    }
}

const fn long(field: &'static str, error: crate::handover::message::TooLong) -> DecodeError {
    DecodeError::Long { field, len: error.len, max: error.max }
}
