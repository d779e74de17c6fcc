//! Tunnels: two streams spliced, 16 KiB at a time, so that whoever does not read holds up nobody but whoever writes to it.

use super::core::Core;
use super::frame;
use super::tunnel_code::{GONE, MALFORMED, NO_SUCH_PARTY, STALLED};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;
use trocar_proto::control::{Index, TunnelFrom, TunnelTo};

/// Bytes taken from a stream at a time.
const CHUNK: usize = 16 << 10;

/// Takes the tunnels that a party opens, until its connection ends. QUIC bounds how many there are at a time.
pub(super) async fn accept(core: Rc<RefCell<Core>>, connection: quinn::Connection, from: Index) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        tokio::task::spawn_local(carry(Rc::clone(&core), from, send, recv));
    }
}

async fn carry(core: Rc<RefCell<Core>>, from: Index, mut send: SendStream, mut recv: RecvStream) {
    let (wait, stall) = (core.borrow().limits.connect, core.borrow().limits.stall);
    let refuse = |send: &mut SendStream, recv: &mut RecvStream, code: VarInt| {
        let _ = (send.reset(code), recv.stop(code));
    };
    let Ok(Ok(TunnelTo { to })) = timeout(wait, frame::read::<TunnelTo>(&mut recv)).await else {
        return refuse(&mut send, &mut recv, MALFORMED);
    };
    let opened = core.borrow_mut().open_tunnel(from, to);
    let (id, end, receiver) = match opened {
        Ok(opened) => opened,
        Err(code) => return refuse(&mut send, &mut recv, code),
    };
    match timeout(wait, open(&receiver, from)).await {
        Ok(Some((mut to_send, mut to_recv))) => {
            let both =
                async { tokio::join!(pass(&mut recv, &mut to_send, stall), pass(&mut to_recv, &mut send, stall)) };
            let ended = tokio::select! {
                _ = both => false,
                () = end.notified() => true,
            };
            if ended {
                refuse(&mut send, &mut recv, GONE);
                refuse(&mut to_send, &mut to_recv, GONE);
            }
        }
        Ok(None) => refuse(&mut send, &mut recv, NO_SUCH_PARTY),
        Err(_) => refuse(&mut send, &mut recv, STALLED),
    }
    core.borrow_mut().tunnels.remove(&id);
}

/// The other half of a tunnel, announced.
async fn open(receiver: &quinn::Connection, from: Index) -> Option<(SendStream, RecvStream)> {
    let (mut send, recv) = receiver.open_bi().await.ok()?;
    frame::write(&mut send, &TunnelFrom { from }).await.ok()?;
    Some((send, recv))
}

/// Passes bytes on until one side ends it, and tells the other how: an end as an end, a reset as the same reset, a stop as the same
/// stop. A receiver that does not take one chunk within `stall` ends it as well.
async fn pass(from: &mut RecvStream, to: &mut SendStream, stall: Duration) {
    let mut buffer = vec![0; CHUNK];
    let stopped = to.stopped();
    tokio::pin!(stopped);
    let code = loop {
        let read = tokio::select! {
            biased;
            read = from.read(&mut buffer) => read,
            stopped = &mut stopped => break stopped.ok().flatten().unwrap_or(GONE),
        };
        let length = match read {
            Ok(Some(length)) => length,
            Ok(None) => {
                let _ = to.finish();
                return;
            }
            Err(ReadError::Reset(code)) => break code,
            Err(_) => break GONE,
        };
        match timeout(stall, to.write_all(buffer.get(..length).unwrap_or_default())).await {
            Ok(Ok(())) => {}
            Ok(Err(WriteError::Stopped(code))) => break code,
            Ok(Err(_)) => break GONE,
            Err(_) => break STALLED,
        }
    };
    let _ = (to.reset(code), from.stop(code));
}
