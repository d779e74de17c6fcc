//! The process that lets people in: sessions, invitations, participants, tokens and roles; feeds and legs as agreements
//! with the relay; WHIP and WHEP for browsers and encoders; the event WebSocket; webhooks.
//!
//! Signaling is never on the media or command path; with a gate it speaks as any other screen does (`control`). It asks the relay through [`Admission`], hears from it through a
//! bounded channel of [`trocar_proto::session::admission::RelayEvent`], and when it dies, running sessions go on.
//!
//! # Driving contract
//! [`Server::start`] binds, opens the store and spawns the tasks; [`ServerHandle`] is the only way in from the same process;
//! [`ServerHandle::shutdown`] ends it. Everything else comes over HTTP, whose errors are RFC 9457 problem documents that
//! name the field at fault.
//!
//! # How the parts hang together
//! `accept` takes connections and bounds them, `routes` answers requests, `events` keeps the WebSockets. All of them
//! change one value, `live::Live`, behind one mutex that is never held over an await. What must survive a restart is
//! written to `store` (SQLite, one writer thread) before it is answered.
#![forbid(unsafe_code)]

mod accept;
mod admission;
mod app;
pub mod audit;
mod break_glass;
mod config;
mod consent;
mod control;
mod devices;
#[doc(hidden)]
pub mod doors;
mod error;
mod events;
mod exchanges;
mod figures;
mod guard;
mod ice;
mod identity;
mod input;
mod link_tests;
mod live;
mod name;
mod outgoing;
mod page;
mod problem;
mod rate;
mod realms;
mod relays;
mod routes;
mod secret;
mod server;
mod store;
mod tls;
mod token;
mod traces;
mod webhooks;

#[cfg(test)]
mod tests;

pub use admission::{Admission, Answer};
pub use break_glass::{
    BreakGlassConfig, BreakGlassDesk, BreakGlassError, BreakGlassJoin, BreakGlassRefused, Review as BreakGlassReview,
};
pub use config::{Config, ConfigError, Ice, Limits, Rate, StoreAt, TlsIdentity, Turn, Webhook};
pub use control::ControlConfig;
pub use error::SessionError;
pub use identity::{
    Account, AccountError, AccountName, Accounts, ClientSecret, DEFAULT_AMR, Groups, IdentityConfig, IdentityNeed,
    IssuerConfig, ListedPasskey, NoPasskeys, Required as IdentityRequired, SecondFactor,
};
pub use link_tests::{LinkTests, NoLinkTest};
pub use realms::{RealmDoor, RealmPolicy, RealmVerb};
pub use relays::{RelayAt, Relays, RelaysError};
pub use server::{Server, ServerHandle, StartError, TokenCheck};
pub use store::StoreError;
pub use tls::TlsError;
pub use token::{TokenKeyError, generate_token_key, token_public_key};
pub use traces::TracesConfig;
pub use webhooks::WEBHOOK_EVENTS;
