//! What the kernel grants a socket and what it drops. Bursts of a 4K key frame overrun the buffers that sockets have by
//! default; the gap shows downstream, but only the kernel knows that it was the one.

use crate::metrics::{self as m, LegFigures, Value};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use trocar_proto::session::ids::RealmId;

/// Asks for buffers of that size, reads back what was granted, and warns with the exact setting where it is less.
///
/// # Errors
/// Where the kernel does not say what it granted.
pub(crate) fn size_buffers(socket: &UdpSocket, address: SocketAddr, wanted: usize) -> io::Result<()> {
    let s = socket2::SockRef::from(socket);
    let _ = s.set_recv_buffer_size(wanted);
    let _ = s.set_send_buffer_size(wanted);
    for (name, limit, got) in
        [("receive", "net.core.rmem_max", s.recv_buffer_size()?), ("send", "net.core.wmem_max", s.send_buffer_size()?)]
    {
        if let Some(warning) = too_small(name, limit, got / 2, wanted) {
            tracing::warn!(%address, "{warning}");
        }
    }
    Ok(())
}

/// What to say about a buffer. Linux reports twice what may be used; `got` is what may be.
fn too_small(name: &str, limit: &str, got: usize, wanted: usize) -> Option<String> {
    let settle = format!("sysctl -w {limit}={wanted}");
    (got < wanted).then(|| format!("the socket's {name} buffer has {got} bytes, bursts may be lost: {settle}"))
}

/// A socket whose figures are shown.
pub(crate) struct Watched {
    labels: Vec<(&'static str, String)>,
    inode: u64,
    receive_buffer: usize,
    send_buffer: usize,
}

impl Watched {
    /// None where the system does not number its sockets.
    pub(crate) fn new(socket: &UdpSocket, realm: &RealmId, worker: usize, protocol: &str) -> Option<Self> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        let labels =
            vec![("listener", realm.to_string()), ("worker", worker.to_string()), ("protocol", protocol.to_owned())];
        let s = socket2::SockRef::from(socket);
        let (receive_buffer, send_buffer) = (s.recv_buffer_size().ok()? / 2, s.send_buffer_size().ok()? / 2);
        Some(Self { labels, inode, receive_buffer, send_buffer })
    }
}

/// The figures of these sockets now. Drops come from the kernel's list of sockets: what a receive call would tell
/// (`SO_RXQ_OVFL`) does not come through `quinn-udp`, and not at all on a socket that nobody gets to read.
pub(crate) fn figures(sockets: &[Watched]) -> Vec<LegFigures> {
    let drops = drops_by_inode();
    let rows = sockets.iter().flat_map(|s| {
        let buffer = |direction: &str, bytes: usize| {
            let mut labels = s.labels.clone();
            labels.push(("direction", direction.to_owned()));
            LegFigures { labels, values: vec![Value { metric: &m::SOCKET_BUFFER, value: bytes as f64 }] }
        };
        let drops = drops.get(&s.inode).map(|d| Value { metric: &m::SOCKET_DROPS, value: *d as f64 });
        let drops = LegFigures { labels: s.labels.clone(), values: drops.into_iter().collect() };
        [drops, buffer("receive", s.receive_buffer), buffer("send", s.send_buffer)]
    });
    rows.collect()
}

/// What the kernel dropped by socket, of all UDP sockets of this network namespace; nothing where it does not say so.
fn drops_by_inode() -> HashMap<u64, u64> {
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    tables.iter().flat_map(|t| t.lines().skip(1)).filter_map(inode_and_drops).collect()
}

/// A line of the table: the inode is its tenth column, drops are the last one.
fn inode_and_drops(line: &str) -> Option<(u64, u64)> {
    let mut columns = line.split_whitespace();
    let inode = columns.nth(9)?.parse().ok()?;
    Some((inode, columns.last()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overruns_a_sockets_buffer_is_counted_for_that_socket_alone() {
        let sockets = ["webrtc", "quic"].map(|name| (name, UdpSocket::bind("127.0.0.1:0").unwrap()));
        let realm = RealmId::new("north").unwrap();
        let watched = sockets.each_ref().map(|(name, s)| {
            socket2::SockRef::from(s).set_recv_buffer_size(8_192).unwrap();
            Watched::new(s, &realm, 1, name).unwrap()
        });
        let drops = |of: usize| {
            let rows = figures(&watched);
            let mine = rows.iter().filter(|r| r.labels == watched[of].labels).flat_map(|r| &r.values);
            let all: Vec<f64> =
                mine.filter(|v| std::ptr::eq(v.metric, &raw const m::SOCKET_DROPS)).map(|v| v.value).collect();
            assert_eq!(all.len(), 1);
            all[0] as u64
        };
        assert_eq!((drops(0), drops(1)), (0, 0));
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            from.send_to(&[0; 1_000], sockets[0].1.local_addr().unwrap()).unwrap();
        }
        // Loopback delivers within the send call: what is not in the buffer now was dropped.
        sockets[0].1.set_nonblocking(true).unwrap();
        let arrived = std::iter::from_fn(|| sockets[0].1.recv(&mut [0; 1_000]).ok()).count() as u64;
        assert!(arrived > 0 && arrived < 200, "{arrived}");
        assert_eq!((drops(0), drops(1)), (200 - arrived, 0));
    }

    #[test]
    fn a_buffer_that_is_too_small_is_said_with_the_exact_setting() {
        assert_eq!(too_small("send", "net.core.wmem_max", 4_194_304, 4_194_304), None);
        let said = too_small("send", "net.core.wmem_max", 212_992, 4_194_304).unwrap();
        assert!(said.contains("212992 bytes") && said.contains("sysctl -w net.core.wmem_max=4194304"), "{said}");
    }

    #[test]
    fn the_kernels_table_is_read_by_its_columns() {
        let line = " 1234: 0100007F:1F90 00000000:0000 07 00000000:00001A00 00:00000000 00000000     0        0 98765 2 0000000000000000 42";
        assert_eq!(inode_and_drops(line), Some((98_765, 42)));
        assert_eq!(inode_and_drops("1 2 3"), None);
    }
}
