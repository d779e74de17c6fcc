//! The key that gate and device have in common, and the tag that it makes.

use super::DeviceError;
use aws_lc_rs::{hmac, rand};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use trocar_proto::handover::device_wire::split_tag;

/// An HMAC-SHA-256 key of 32 bytes.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// From a file of 64 hexadecimal digits, or of 32 bytes, which nobody but its owner may read.
    ///
    /// # Errors
    /// [`DeviceError::KeyFile`], [`DeviceError::KeyMode`], [`DeviceError::Key`].
    pub fn load(path: &Path) -> Result<Self, DeviceError> {
        let failed = |source| DeviceError::KeyFile { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if is_too_open(path, mode, std::env::var_os("CREDENTIALS_DIRECTORY").as_deref()) {
            return Err(DeviceError::KeyMode { path: path.to_owned(), mode });
        }
        let content = zeroize::Zeroizing::new(fs::read(path).map_err(failed)?);
        let mut key = zeroize::Zeroizing::new([0; 32]);
        if content.len() == key.len() {
            key.copy_from_slice(&content);
        } else {
            hex::decode_to_slice(content.trim_ascii(), &mut *key)
                .map_err(|_| DeviceError::Key { path: path.to_owned() })?;
        }
        Ok(Self::new(&key))
    }

    /// Draws a key and writes it into a new file of mode 600.
    ///
    /// # Errors
    /// [`DeviceError::KeyFile`], also where the file exists.
    pub fn create(path: &Path) -> Result<Self, DeviceError> {
        let failed = |source| DeviceError::KeyFile { path: path.to_owned(), source };
        let mut key = zeroize::Zeroizing::new([0; 32]);
        rand::fill(&mut *key).map_err(|_| failed(io::Error::other("no random numbers")))?;
        let text = zeroize::Zeroizing::new(format!("{}\n", hex::encode(*key)));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(Self::new(&key))
    }

    /// From its bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Puts the tag behind the datagram.
    #[must_use]
    pub fn tagged(&self, mut datagram: Vec<u8>) -> Vec<u8> {
        let tag = hmac::sign(&self.0, &datagram);
        datagram.extend_from_slice(tag.as_ref());
        datagram
    }

    /// The datagram without its tag, where the tag is right.
    #[must_use]
    pub fn open<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (body, tag) = split_tag(datagram)?;
        hmac::verify(&self.0, body, tag).ok().map(|()| body)
    }
}

/// Whether others than the owner may read or write it. A credential that systemd hands over shows its access list's mask, which is the
/// service's own permission, where a file has its group's.
fn is_too_open(path: &Path, mode: u32, credentials: Option<&OsStr>) -> bool {
    let is_credential = credentials.is_some_and(|dir| path.starts_with(dir));
    mode & if is_credential { 0o037 } else { 0o077 } != 0
}

/// A random number for a run, never 0.
///
/// # Errors
/// The system has no random numbers.
pub(crate) fn draw_run() -> io::Result<u64> {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(u64::from_be_bytes(bytes).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_may_read_is_refused_and_a_credential_of_the_service_is_not() {
        let key = Path::new("/run/credentials/x.service/device.key");
        let credentials = Some(OsStr::new("/run/credentials/x.service"));
        let too_open = |mode, dir| is_too_open(key, mode, dir);
        assert!(!too_open(0o600, None) && too_open(0o440, None) && too_open(0o604, None));
        assert!(!too_open(0o440, credentials) && too_open(0o460, credentials) && too_open(0o444, credentials));
        assert!(too_open(0o440, Some(OsStr::new("/run/credentials/x"))), "a folder of another name");
    }

    #[test]
    fn what_was_created_loads_and_makes_the_same_tags() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        let (a, b) = (Key::create(&path).unwrap(), Key::load(&path).unwrap());
        let datagram = a.tagged(vec![7; 40]);
        assert_eq!(b.open(&datagram), Some(&[7; 40][..]));
        assert!(Key::create(&path).is_err(), "a key is never written over");
    }

    #[test]
    fn a_changed_bit_or_a_missing_byte_is_no_datagram() {
        let key = Key::new(&[1; 32]);
        let good = key.tagged(vec![7; 40]);
        for n in 0..good.len() {
            let mut bad = good.clone();
            bad[n] ^= 1;
            assert_eq!(key.open(&bad), None, "byte {n}");
            assert_eq!(key.open(&good[..n]), None, "{n} bytes");
        }
        assert_eq!(Key::new(&[2; 32]).open(&good), None);
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_is_refused_with_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        fs::write(&path, "00".repeat(32)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Key::load(&path).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Key::load(&path).is_ok());
        fs::write(&path, "short").unwrap();
        assert!(Key::load(&path).unwrap_err().to_string().contains("64 hexadecimal digits"));
    }
}
