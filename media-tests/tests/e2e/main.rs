//! End to end: real processes, a real browser, real packets. Each check has a negative control beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may stop the process: that is how it fails"
)]

mod attack;
mod audit;
mod audit_export;
mod bench;
mod break_glass;
mod browser;
mod certificates;
mod churn;
mod cluster;
mod cluster_paths;
mod codecs;
mod consultation;
mod control_bench;
mod flexfec;
mod foreign;
mod glass;
mod handover;
mod handover_gate;
mod ice_tcp;
mod identity;
mod impair;
mod install;
mod lines;
mod link;
mod link_apart;
mod link_net;
mod link_paths;
mod link_relay;
mod link_watch;
mod listeners;
mod load;
mod load_agents;
mod native;
mod oidc;
mod operating;
mod passkeys;
mod paths;
mod peers;
mod pinned;
mod readme;
mod realms;
mod refusals;
mod repair;
mod reports;
mod rtc;
mod screen;
mod simulcast;
mod slow;
mod soak;
mod sound;
mod terminal;
mod traces;
mod turn;
mod verbs;
mod windows;

use serde_json::Value;

/// A number by JSON pointer.
fn number(v: &Value, pointer: &str) -> f64 {
    v.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// The middle of some numbers; NaN of none.
fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The shorter of two measures, for every run of the tests; the longer one where `make soak` asks for it.
fn span<T>(short: T, full: T) -> T {
    if std::env::var_os("TROCAR_SOAK").is_some() { full } else { short }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
