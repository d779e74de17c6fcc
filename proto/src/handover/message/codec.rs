//! Message to bytes and back. One byte version, one byte kind, for reliable messages an id of 64 bits, then the fields in the
//! order of their declaration.

use super::wire::{DecodeError, Reader, Wire};
use super::{
    Beacon, Command, Datagram, Figures, FromGate, Heartbeat, MAX_ANSWERS, Mode, Reason, Status, Timers, ToGate, VERSION,
};
use crate::handover::paths::Protection;
use crate::handover::types::{
    Binding, Clutch, Colour, Colours, Counter, Epoch, ExpertId, FrameRef, GrantedSet, Nonce, Oid,
};
use crate::session::role::Grade;

/// The bytes of a message to the gate; `id` is the sender's own count, the same on every tunnel (HO-C-006).
#[must_use]
pub fn encode_to_gate(id: u64, message: &ToGate) -> Vec<u8> {
    let kind = match message {
        ToGate::Hello { .. } => 0x01,
        ToGate::Probe { .. } => 0x02,
        ToGate::Request { .. } => 0x03,
        ToGate::Accept { .. } => 0x04,
        ToGate::Decline { .. } => 0x05,
        ToGate::Return { .. } => 0x06,
        ToGate::Estop { .. } => 0x07,
    };
    let mut out = head(kind);
    id.put(&mut out);
    match message {
        ToGate::Hello { capabilities, binds, token } => {
            capabilities.put(&mut out);
            binds.put(&mut out);
            token.put(&mut out);
        }
        ToGate::Probe { nonce } => nonce.put(&mut out),
        ToGate::Request { set, grade, reason } => {
            set.put(&mut out);
            grade.put(&mut out);
            reason.put(&mut out);
        }
        ToGate::Accept { oid, token } => {
            oid.put(&mut out);
            token.put(&mut out);
        }
        ToGate::Decline { oid, reason } => {
            oid.put(&mut out);
            reason.put(&mut out);
        }
        ToGate::Return { epoch } => epoch.put(&mut out),
        ToGate::Estop { person, reason } => {
            person.put(&mut out);
            reason.put(&mut out);
        }
    }
    out
}

/// A message to the gate, with its id.
///
/// # Errors
/// [`DecodeError`] for anything that [`encode_to_gate`] does not make.
pub fn decode_to_gate(bytes: &[u8]) -> Result<(u64, ToGate), DecodeError> {
    let (kind, mut from) = kind_of(bytes)?;
    if !(0x01..=0x07).contains(&kind) {
        return Err(DecodeError::Kind(kind));
    }
    let r = &mut from;
    let id = Wire::get(r, "id")?;
    let message = match kind {
        0x01 => ToGate::Hello {
            capabilities: Wire::get(r, "capabilities")?,
            binds: Wire::get(r, "binds")?,
            token: Wire::get(r, "token")?,
        },
        0x02 => ToGate::Probe { nonce: Wire::get(r, "nonce")? },
        0x03 => ToGate::Request {
            set: Wire::get(r, "set")?,
            grade: Wire::get(r, "grade")?,
            reason: Wire::get(r, "reason")?,
        },
        0x04 => ToGate::Accept { oid: Wire::get(r, "oid")?, token: Wire::get(r, "token")? },
        0x05 => ToGate::Decline { oid: Wire::get(r, "oid")?, reason: Wire::get(r, "reason")? },
        0x06 => ToGate::Return { epoch: Wire::get(r, "epoch")? },
        _ => ToGate::Estop { person: Wire::get(r, "person")?, reason: Wire::get(r, "reason")? },
    };
    from.end().map(|()| (id, message))
}

/// The bytes of a message from the gate; `id` is the gate's own count for this participant.
#[must_use]
pub fn encode_from_gate(id: u64, message: &FromGate) -> Vec<u8> {
    let kind = match message {
        FromGate::Status(_) => 0x26,
        FromGate::Offer { .. } => 0x22,
        FromGate::Withdraw { .. } => 0x23,
        FromGate::Grant { .. } => 0x24,
        FromGate::Nack { .. } => 0x25,
    };
    let mut out = head(kind);
    id.put(&mut out);
    match message {
        FromGate::Status(status) => status.put(&mut out),
        FromGate::Offer { oid, set, grade, step, expires_ms } => {
            oid.put(&mut out);
            set.put(&mut out);
            grade.put(&mut out);
            step.put(&mut out);
            expires_ms.put(&mut out);
        }
        FromGate::Withdraw { oid } => oid.put(&mut out),
        FromGate::Grant { holder, epoch, set, lease_ms } => {
            holder.put(&mut out);
            epoch.put(&mut out);
            set.put(&mut out);
            lease_ms.put(&mut out);
        }
        FromGate::Nack { reason, epoch } => {
            reason.put(&mut out);
            epoch.put(&mut out);
        }
    }
    out
}

/// A message from the gate, with its id.
///
/// # Errors
/// [`DecodeError`] for anything that [`encode_from_gate`] does not make.
pub fn decode_from_gate(bytes: &[u8]) -> Result<(u64, FromGate), DecodeError> {
    let (kind, mut from) = kind_of(bytes)?;
    if !(0x22..=0x26).contains(&kind) {
        return Err(DecodeError::Kind(kind));
    }
    let r = &mut from;
    let id = Wire::get(r, "id")?;
    let message = match kind {
        // 0x21 was STATUS without paths and timers; it is not spoken any more.
        0x26 => FromGate::Status(Wire::get(r, "status")?),
        0x22 => FromGate::Offer {
            oid: Wire::get(r, "oid")?,
            set: Wire::get(r, "set")?,
            grade: Wire::get(r, "grade")?,
            step: Wire::get(r, "step")?,
            expires_ms: Wire::get(r, "expires")?,
        },
        0x23 => FromGate::Withdraw { oid: Wire::get(r, "oid")? },
        0x24 => FromGate::Grant {
            holder: Wire::get(r, "holder")?,
            epoch: Wire::get(r, "epoch")?,
            set: Wire::get(r, "set")?,
            lease_ms: Wire::get(r, "lease")?,
        },
        _ => FromGate::Nack { reason: Wire::get(r, "reason")?, epoch: Wire::get(r, "epoch")? },
    };
    from.end().map(|()| (id, message))
}

/// The bytes of a datagram, to be sealed once (HO-C-008).
#[must_use]
pub fn encode_datagram(datagram: &Datagram) -> Vec<u8> {
    match datagram {
        Datagram::Heartbeat(hb) => with_head(0x41, hb),
        Datagram::Command(cmd) => with_head(0x42, cmd),
        Datagram::Beacon(beacon) => with_head(0x43, beacon),
    }
}

/// A datagram, after unsealing.
///
/// # Errors
/// [`DecodeError`] for anything that [`encode_datagram`] does not make.
pub fn decode_datagram(bytes: &[u8]) -> Result<Datagram, DecodeError> {
    let (kind, mut from) = kind_of(bytes)?;
    let datagram = match kind {
        0x41 => Datagram::Heartbeat(Wire::get(&mut from, "heartbeat")?),
        0x42 => Datagram::Command(Wire::get(&mut from, "command")?),
        0x43 => Datagram::Beacon(Wire::get(&mut from, "beacon")?),
        other => return Err(DecodeError::Kind(other)),
    };
    from.end().map(|()| datagram)
}

fn head(kind: u8) -> Vec<u8> {
    vec![VERSION, kind]
}

fn with_head(kind: u8, body: &impl Wire) -> Vec<u8> {
    let mut out = head(kind);
    body.put(&mut out);
    out
}

/// Checks the version (HO-C-001).
fn kind_of(bytes: &[u8]) -> Result<(u8, Reader<'_>), DecodeError> {
    let mut from = Reader::new(bytes);
    let version = u8::get(&mut from, "version")?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    Ok((u8::get(&mut from, "kind")?, from))
}

/// A type around one value.
macro_rules! wire_newtype {
    ($($name:ident),*) => {$(
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn get(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
                Wire::get(from, field).map(Self)
            }
        }
    )*};
}
wire_newtype!(Epoch, Oid, Nonce, Counter, ExpertId);

/// A choice without fields: one byte, the place in the list.
macro_rules! wire_choice {
    ($name:ident: $all:expr) => {
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                let place = $all.iter().position(|each| each == self).unwrap_or(usize::MAX);
                out.push(u8::try_from(place).unwrap_or(u8::MAX));
            }
            fn get(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
                let value = u8::get(from, field)?;
                $all.get(usize::from(value)).copied().ok_or(DecodeError::Value { field, value: value.into() })
            }
        }
    };
}
wire_choice!(Reason: Reason::ALL);
wire_choice!(Colour: [Colour::Unmeasured, Colour::Green, Colour::Amber, Colour::Red]);
wire_choice!(Protection: Protection::ALL);
wire_choice!(Clutch: [Clutch::Open, Clutch::Closed]);
wire_choice!(Grade: [Grade::Observe, Grade::Annotate, Grade::Camera, Grade::Instruments, Grade::Energy]);
wire_choice!(Mode: [
    Mode::Hold, Mode::Local, Mode::Offered, Mode::Ready, Mode::Granting, Mode::Remote, Mode::Estop, Mode::Closed
]);

/// The fields one after the other.
macro_rules! wire_struct {
    ($name:ident { $($field:ident),* }) => {
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn get(from: &mut Reader<'_>, _field: &'static str) -> Result<Self, DecodeError> {
                Ok(Self { $($field: Wire::get(from, stringify!($field))?),* })
            }
        }
    };
}
wire_struct!(FrameRef { source, view, frame, digest });
wire_struct!(Colours { loop_age, jitter, loss, frame_age });
wire_struct!(Figures { loop_p50, loop_p95, jitter_p95, loss_ppm, frame_age });
wire_struct!(Heartbeat { binding, counter, beat, nonce, echo, presence, pedal, pose });
wire_struct!(Command { epoch, counter, nonce, echo, clutch, payload });
wire_struct!(Beacon { binding, counter, nonce });
wire_struct!(Status { epoch, mode, expert, set, since_ms, stopped, alarms, colours, figures, answers, paths, timers });
wire_struct!(Timers { heartbeat, station_silence, status_age, ready_time, grant_time });

impl Wire for GrantedSet {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.bits());
    }
    fn get(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let bits = u8::get(from, field)?;
        Self::from_bits(bits).ok_or(DecodeError::Value { field, value: bits.into() }) // HO-C-005
    }
}

impl Wire for Binding {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Offer(oid) => {
                out.push(0);
                oid.put(out);
            }
            Self::Epoch(epoch) => {
                out.push(1);
                epoch.put(out);
            }
        }
    }
    fn get(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        match u8::get(from, field)? {
            0 => Wire::get(from, field).map(Self::Offer),
            1 => Wire::get(from, field).map(Self::Epoch),
            other => Err(DecodeError::Value { field, value: other.into() }),
        }
    }
}

impl Wire for Vec<Nonce> {
    fn put(&self, out: &mut Vec<u8>) {
        let kept = self.len().min(MAX_ANSWERS);
        out.push(u8::try_from(kept).unwrap_or(u8::MAX));
        self.iter().take(kept).for_each(|nonce| nonce.put(out));
    }
    fn get(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let len = usize::from(u8::get(from, field)?);
        if len > MAX_ANSWERS {
            return Err(DecodeError::Long { field, len, max: MAX_ANSWERS });
        }
        (0..len).map(|_| Wire::get(from, field)).collect()
    }
}
