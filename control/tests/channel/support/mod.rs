//! What tests of the channel share: an authority with a revocation list, and a relay that is no more than a splice.
#![allow(dead_code, reason = "the gate's tests share this and use another part of it")]

mod pki;
mod relay;

pub(crate) use pki::Pki;
pub(crate) use relay::{Fault, Relay};
