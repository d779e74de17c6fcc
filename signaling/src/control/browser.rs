//! What browsers may say to the gate, and what they are answered where they may not.

use super::words::{checked_reason, cleaned_reason, person};
use super::{Ask, Unheard};
use crate::app::App;
use crate::config::Rate;
use crate::error::SessionError;
use trocar_proto::handover::types::GrantedSet;
use trocar_proto::session::event::ControlSet;
use trocar_proto::session::ids::{ParticipantId, SessionId};
use trocar_proto::session::role::Role;

/// Probes of one event socket. Loss policy: dropped and counted; the client then says "unknown", which is true.
pub(crate) const PROBE_RATE: Rate = Rate { burst: 10, per_second: 5 };

/// A probe's number, from 16 hexadecimal digits.
pub(crate) fn nonce(text: &str) -> Option<u64> {
    let is_right = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_right)
}

/// Asks local for control on behalf of an expert in a browser. In the inner result, why not.
pub(crate) fn request(
    app: &App,
    session: &SessionId,
    id: &ParticipantId,
    (set, reason): (ControlSet, &str),
) -> Result<Result<(), String>, SessionError> {
    let wanted = GrantedSet { camera: set.camera, instruments: set.instruments, energy: set.energy };
    let wanted = GrantedSet::from_bits(wanted.bits()).filter(|s| !s.is_empty());
    let Some(set) = wanted.filter(|s| s.grade() <= Role::Expert.highest_grade()) else {
        return Ok(Err("camera, instruments, or instruments with energy are right".to_owned()));
    };
    let Some(reason) = checked_reason(reason) else {
        return Ok(Err("a reason has at most 128 bytes and no control characters".to_owned()));
    };
    let name = match app.live().may_request(app.now(), session, id)? {
        Ok(name) => name,
        Err(why) => return Ok(Err(why)),
    };
    let ask = Ask::Request { participant: id.clone(), person: person(&name, id), set, reason };
    Ok(app.gates.act(session, ask).map_err(|e: Unheard| e.to_string()))
}

/// Stops, on behalf of anybody in the session. In the inner result, why not.
pub(crate) fn estop(
    app: &App,
    session: &SessionId,
    id: &ParticipantId,
    reason: &str,
) -> Result<Result<(), String>, SessionError> {
    let name = match app.live().may_estop(app.now(), session, id)? {
        Ok(name) => name,
        Err(why) => return Ok(Err(why)),
    };
    let ask = Ask::Estop { participant: id.clone(), person: person(&name, id), reason: cleaned_reason(reason) };
    // Noted ahead of the gate's task, which forgets it again where no gate takes it.
    app.live().note_estop(app.now(), session, id);
    let heard = app.gates.act(session, ask);
    if heard.is_err() {
        app.live().forget_estop(session, id);
    }
    Ok(heard.map_err(|e| e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_sixteen_digits_and_nothing_else() {
        assert_eq!(nonce("00000000000000ff"), Some(255));
        assert_eq!(nonce("FFFFFFFFFFFFFFFF"), Some(u64::MAX));
        for bad in ["", "ff", "0x000000000000ff", "+0000000000000ff", "00000000000000ff0", "000000000000 0ff"] {
            assert_eq!(nonce(bad), None, "{bad:?}");
        }
    }
}
