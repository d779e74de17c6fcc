//! QUIC Initial packets by hand (RFC 9000, RFC 9001): what a well-behaved library does not let anybody send.

use anyhow::{Context as _, bail, ensure};
use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Keys, Version};
use std::sync::Arc;
use trocar_proto::media::roq;
use trocar_relay::quic::Identity;

/// A datagram with an Initial has at least this many bytes (RFC 9000 section 14.1).
const MIN_INITIAL: usize = 1_200;
/// `CONNECTION_CLOSE` of QUIC itself.
const CLOSE: u8 = 0x1c;

/// A client that has sent nothing yet.
pub(super) struct Client {
    keys: Keys,
    destination: [u8; 8],
    source: [u8; 8],
    next: u32,
    /// TLS bytes of the ClientHello.
    pub(super) hello: Vec<u8>,
}

impl Client {
    /// With these transport parameters, encoded.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub(super) fn new(me: &Identity, parameters: Vec<u8>, number: u64) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        for c in &me.trust {
            roots.add(c.clone())?;
        }
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![roq::ALPN.to_vec()];
        let name = ServerName::try_from("localhost")?;
        let mut tls = ClientConnection::new(Arc::new(config), Version::V1, name, parameters)?;
        let mut hello = Vec::new();
        let _ = tls.write_hs(&mut hello);
        let mut destination = [0xd0; 8];
        destination.copy_from_slice(&(number | 0xd0 << 56).to_be_bytes());
        let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().context("suite")?;
        let algorithm = suite.quic.context("no QUIC in this build")?;
        let keys = Keys::initial(Version::V1, suite, algorithm, &destination, rustls::Side::Client);
        Ok(Self { keys, destination, source: number.to_be_bytes(), next: 0, hello })
    }

    /// The ClientHello as a CRYPTO frame.
    pub(super) fn crypto(&self) -> Vec<u8> {
        let mut frame = vec![6, 0];
        frame.extend(varint(self.hello.len() as u64));
        frame.extend(&self.hello);
        frame
    }

    /// A whole datagram with one Initial of these frames. What fills it up stands before them, so that a frame that is cut off ends
    /// where the packet does.
    ///
    /// # Errors
    /// Where it cannot be encrypted.
    pub(super) fn initial(&mut self, frames: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut head = vec![0xc3, 0, 0, 0, 1, 8];
        head.extend(self.destination);
        head.push(8);
        head.extend(self.source);
        head.push(0);
        let fixed = head.len() + 2 + 4 + 16;
        let mut payload = vec![0; MIN_INITIAL.saturating_sub(fixed + frames.len())];
        payload.extend(frames);
        let length = (payload.len() + 4 + 16) as u16;
        head.extend((length | 0x4000).to_be_bytes());
        let number_at = head.len();
        let number = self.next;
        self.next += 1;
        head.extend(number.to_be_bytes());
        let tag = self.keys.local.packet.encrypt_in_place(number.into(), &head, &mut payload)?;
        let mut out = [head, payload, tag.as_ref().to_vec()].concat();
        let (front, rest) = out.split_at_mut(number_at + 4);
        let sample = rest.get(..16).context("sample")?;
        let (first, numbers) = front.split_at_mut(number_at);
        let first = first.first_mut().context("first byte")?;
        self.keys.local.header.encrypt_in_place(sample, first, numbers)?;
        Ok(out)
    }

    /// The error code of a `CONNECTION_CLOSE` in an Initial that came; none where it is something else.
    ///
    /// # Errors
    /// Where it is no Initial for this client.
    pub(super) fn close_code(&self, datagram: &[u8]) -> anyhow::Result<Option<u64>> {
        let mut bytes = datagram.to_vec();
        ensure!(bytes.first().is_some_and(|b| b & 0xf0 == 0xc0), "no Initial");
        let mut at = 5;
        for _ in 0..2 {
            at += 1 + usize::from(*bytes.get(at).context("id")?);
        }
        let (token, len) = read_varint(&bytes, at)?;
        at += len + usize::try_from(token)?;
        let (length, len) = read_varint(&bytes, at)?;
        at += len;
        let end = at + usize::try_from(length)?;
        let sample = bytes.get(at + 4..at + 20).context("sample")?.to_vec();
        let (front, _) = bytes.split_at_mut(at + 4);
        let (head, numbers) = front.split_at_mut(at);
        let first = head.first_mut().context("first byte")?;
        self.keys.remote.header.decrypt_in_place(&sample, first, numbers)?;
        let number_len = usize::from(*first & 3) + 1;
        let number = bytes.get(at..at + number_len).context("number")?.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let head = bytes.get(..at + number_len).context("head")?.to_vec();
        let mut payload = bytes.get(at + number_len..end).context("payload")?.to_vec();
        let plain = self.keys.remote.packet.decrypt_in_place(number, &head, &mut payload)?;
        find_close(plain)
    }
}

/// Walks the frames that a server may put into an Initial.
fn find_close(plain: &[u8]) -> anyhow::Result<Option<u64>> {
    let mut at = 0;
    while let Some(kind) = plain.get(at) {
        at += 1;
        match kind {
            0 | 1 => {}
            2 => {
                let mut counts = [0; 4];
                for count in &mut counts {
                    let (value, len) = read_varint(plain, at)?;
                    (*count, at) = (value, at + len);
                }
                for _ in 0..2 * counts[2] {
                    at += read_varint(plain, at)?.1;
                }
            }
            6 => {
                at += read_varint(plain, at)?.1;
                let (length, len) = read_varint(plain, at)?;
                at += len + usize::try_from(length)?;
            }
            &CLOSE => return Ok(Some(read_varint(plain, at)?.0)),
            other => bail!("frame {other}"),
        }
    }
    Ok(None)
}

/// RFC 9000 section 16.
pub(super) fn varint(n: u64) -> Vec<u8> {
    match n {
        0..=0x3f => vec![n as u8],
        0x40..=0x3fff => (n as u16 | 0x4000).to_be_bytes().to_vec(),
        0x4000..=0x3fff_ffff => (n as u32 | 0x8000_0000).to_be_bytes().to_vec(),
        _ => (n | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
    }
}

fn read_varint(bytes: &[u8], at: usize) -> anyhow::Result<(u64, usize)> {
    let first = *bytes.get(at).context("truncated")?;
    let len = 1_usize << (first >> 6);
    let rest = bytes.get(at + 1..at + len).context("truncated")?;
    Ok((rest.iter().fold(u64::from(first & 0x3f), |n, b| n << 8 | u64::from(*b)), len))
}
