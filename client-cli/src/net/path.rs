//! A path to the relay, as `--path` and the file of an operating room name it.

use super::address::Address;
use anyhow::bail;
use std::net::IpAddr;
use std::str::FromStr;
use trocar_proto::session::api::MAX_PATHS;

/// A local address that a connection to the relay leaves by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathSpec {
    /// The local address; none leaves it to the kernel.
    pub(crate) local: Option<IpAddr>,
    /// The relay's address on this path, where it is another than the one that signaling names.
    pub(crate) relay: Option<Address>,
}

impl FromStr for PathSpec {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (local, relay) = s.split_once('=').map_or((s, None), |(l, r)| (l, Some(r)));
        let wrong = |_| format!("{local:?} is no address of this machine: LOCAL_IP is right, or LOCAL_IP=HOST:PORT");
        let local = local.parse().map_err(wrong)?;
        Ok(Self {
            local: Some(local),
            relay: relay.map(str::parse).transpose().map_err(|e: super::address::InvalidAddress| e.to_string())?,
        })
    }
}

/// The paths to use: what was named, else one that the kernel chooses.
///
/// # Errors
/// Where there are too many, or one twice; `option` is the name in the message.
pub(crate) fn paths(named: &[PathSpec], option: &str) -> anyhow::Result<Vec<PathSpec>> {
    if named.len() > MAX_PATHS {
        bail!("{option} is there {} times: at most {MAX_PATHS} is right", named.len());
    }
    if let [a, b] = named
        && a == b
    {
        bail!("{option} names the same path twice: two paths that fail apart are right");
    }
    Ok(if named.is_empty() { vec![PathSpec { local: None, relay: None }] } else { named.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_an_address_of_this_machine_and_may_name_the_relays() {
        let plain: PathSpec = "10.0.1.2".parse().unwrap();
        assert_eq!((plain.local, plain.relay), (Some([10, 0, 1, 2].into()), None));
        let other: PathSpec = "10.0.2.2=10.9.0.1:4433".parse().unwrap();
        assert_eq!(other.relay.as_ref().map(ToString::to_string).as_deref(), Some("10.9.0.1:4433"));
        assert!("fd00::2=[fd00::1]:4433".parse::<PathSpec>().is_ok());
        for bad in ["", "eth0", "10.0.0.300", "=h:1", "10.0.0.1=", "10.0.0.1=h"] {
            assert!(bad.parse::<PathSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn there_are_two_paths_at_most_and_they_differ() {
        let p = |s: &str| s.parse::<PathSpec>().unwrap();
        assert_eq!(paths(&[], "--path").unwrap().len(), 1);
        assert_eq!(paths(&[p("10.0.0.1"), p("10.0.1.1")], "--path").unwrap().len(), 2);
        // One address, two ways through the network.
        assert!(paths(&[p("127.0.0.1=127.0.0.1:1"), p("127.0.0.1=127.0.0.1:2")], "--path").is_ok());
        let e = paths(&[p("10.0.0.1"), p("10.0.0.1")], "--path").unwrap_err().to_string();
        assert!(e.contains("--path names the same path twice"), "{e}");
        let e = paths(&[p("10.0.0.1"), p("10.0.0.2"), p("10.0.0.3")], "paths").unwrap_err().to_string();
        assert!(e.contains("paths is there 3 times: at most 2"), "{e}");
    }
}
