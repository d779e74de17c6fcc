//! DTLS 1.2 as a server, by one of two libraries: `dimpl` for a peer that offers AES-GCM for SRTP, as browsers do, and
//! `rtc-dtls` for one that offers AES-CM alone. Such a peer is an older encoder whose certificate is often RSA, and `dimpl`
//! asks for ECDSA only. Which it is stands in the ClientHello, so nothing begins before that is there.
//!
//! Driving contract: change one thing ([`Dtls::handle_packet`], [`Dtls::handle_timeout`]), then drain [`Dtls::poll`].

mod by_dimpl;
mod by_rtc;
mod wire;

use super::transport::{CloseReason, HANDSHAKE_TIMEOUT};
use crate::srtp::Profile;
use by_dimpl::ByDimpl;
use by_rtc::ByRtc;
use dimpl::DtlsCertificate;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use wire::{Assembler, CLIENT_HELLO, HANDSHAKE};
use zeroize::Zeroizing;

/// Datagrams of a ClientHello that are kept until it is whole. Loss policy: the oldest is dropped; the client sends its
/// flight again.
const MAX_HELD: usize = 8;
/// Bytes of each that are kept at most.
const MAX_DATAGRAM: usize = 2_048;

/// What comes out.
pub(super) enum Output {
    /// A datagram to send.
    Packet(Vec<u8>),
    /// The certificate that the peer has proved to own the key of, DER. Before [`Self::Keys`].
    Certificate(Vec<u8>),
    /// The handshake is complete; the exporter's bytes (RFC 5764 section 4.2).
    Keys(Profile, Zeroizing<Vec<u8>>),
    /// Nothing more will come of it.
    Closed(CloseReason),
}

/// One association.
pub(super) struct Dtls {
    config: Arc<dimpl::Config>,
    certificate: DtlsCertificate,
    stage: Stage,
    /// When the first piece of a ClientHello came.
    began: Option<Instant>,
    connected: bool,
    out: VecDeque<Output>,
}

enum Stage {
    Hello(Box<Hello>),
    Dimpl(Box<ByDimpl>),
    Rtc(Box<ByRtc>),
    Closed,
}

/// Waiting for a whole ClientHello.
#[derive(Default)]
struct Hello {
    assembler: Assembler,
    held: VecDeque<Vec<u8>>,
    /// A whole one came and had no profile that the relay has. It is not the end: it may have been forged.
    no_profile: bool,
}

impl Dtls {
    pub(super) fn new(config: Arc<dimpl::Config>, certificate: DtlsCertificate) -> Self {
        let stage = Stage::Hello(Box::default());
        Self { config, certificate, stage, began: None, connected: false, out: VecDeque::new() }
    }

    /// Takes a datagram. What is wrong with it is its own matter: a forged record must not end a session.
    pub(super) fn handle_packet(&mut self, now: Instant, datagram: &[u8]) {
        match &mut self.stage {
            Stage::Hello(hello) => {
                if let Some(chosen) = hello.handle_packet(now, datagram, &mut self.began) {
                    let held = std::mem::take(&mut hello.held);
                    self.stage = self.begin(chosen, now);
                    for datagram in held {
                        self.feed(now, &datagram);
                    }
                }
            }
            _ => self.feed(now, datagram),
        }
        self.drain(now);
    }

    fn feed(&mut self, now: Instant, datagram: &[u8]) {
        match &mut self.stage {
            Stage::Dimpl(machine) => machine.handle_packet(now, datagram),
            Stage::Rtc(machine) => machine.handle_packet(now, datagram),
            Stage::Hello(_) | Stage::Closed => {}
        }
    }

    fn begin(&mut self, chosen: Chosen, now: Instant) -> Stage {
        tracing::debug!(target: "trocar::dtls", library = ?chosen, "handshake begins");
        match chosen {
            Chosen::Dimpl => {
                Stage::Dimpl(Box::new(ByDimpl::new(Arc::clone(&self.config), self.certificate.clone(), now)))
            }
            Chosen::Rtc => match ByRtc::new(&self.certificate) {
                Ok(machine) => Stage::Rtc(Box::new(machine)),
                Err(error) => {
                    tracing::warn!(%error, "DTLS for AES-CM cannot begin");
                    self.out.push_back(Output::Closed(CloseReason::Handshake));
                    Stage::Closed
                }
            },
        }
    }

    /// Lets time pass.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let late = self.began.is_some_and(|t| now.saturating_duration_since(t) > HANDSHAKE_TIMEOUT);
        let failed = match &mut self.stage {
            Stage::Dimpl(machine) => machine.handle_timeout(now).is_err(),
            Stage::Rtc(machine) => {
                machine.handle_timeout(now);
                false
            }
            Stage::Hello(_) | Stage::Closed => false,
        };
        if !self.connected && (late || failed) {
            let reason = match &self.stage {
                Stage::Hello(hello) if hello.no_profile => CloseReason::Profile,
                _ => CloseReason::Handshake,
            };
            self.close(reason);
        }
        self.drain(now);
    }

    /// What comes out next.
    pub(super) fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn drain(&mut self, now: Instant) {
        let out = match &mut self.stage {
            Stage::Dimpl(machine) => machine.drain(now),
            Stage::Rtc(machine) => machine.drain(),
            Stage::Hello(_) | Stage::Closed => return,
        };
        self.connected |= out.iter().any(|o| matches!(o, Output::Keys(..)));
        self.out.extend(out);
    }

    fn close(&mut self, reason: CloseReason) {
        if !matches!(self.stage, Stage::Closed) {
            self.stage = Stage::Closed;
            self.out.push_back(Output::Closed(reason));
        }
    }
}

#[derive(Debug)]
enum Chosen {
    Dimpl,
    Rtc,
}

impl Hello {
    /// Looks for a whole ClientHello, and keeps the datagrams that it came in.
    fn handle_packet(&mut self, now: Instant, datagram: &[u8], began: &mut Option<Instant>) -> Option<Chosen> {
        if datagram.len() > MAX_DATAGRAM {
            return None;
        }
        let plain = wire::records(datagram).filter(|r| r.kind == HANDSHAKE && r.epoch == 0);
        let pieces = plain.flat_map(|r| wire::fragments(r.body)).filter(|f| f.kind == CLIENT_HELLO && f.number == 0);
        let (mut any, mut offered) = (false, None);
        for piece in pieces {
            any = true;
            if let Some(hello) = self.assembler.handle_fragment(&piece) {
                offered = wire::offered(&hello.body);
            }
        }
        if !any {
            return None;
        }
        began.get_or_insert(now);
        if self.held.len() >= MAX_HELD {
            self.held.pop_front();
        }
        self.held.push_back(datagram.to_vec());
        let offered = offered?;
        if offered.gcm {
            return Some(Chosen::Dimpl);
        } else if offered.cm {
            return Some(Chosen::Rtc);
        }
        self.no_profile = true;
        self.held.clear();
        None
    }
}

#[cfg(test)]
mod tests;
