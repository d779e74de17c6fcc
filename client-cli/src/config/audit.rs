//! `[audit]` of the configuration: where audit records are sent, and how long they are kept.

use anyhow::{Context, bail};
use serde::Deserialize;
use std::path::PathBuf;

/// What becomes of audit records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Audit {
    /// The audit repository; none where left out.
    pub(crate) export: Option<Export>,
    /// How long records are kept.
    pub(crate) retention: Retention,
}

/// An audit repository: DICOM audit messages in syslog over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Export {
    /// `HOST:PORT`.
    address: String,
    /// The name in its certificate; the host of `address` where left out.
    server_name: Option<String>,
    /// PEM file with the authorities that may vouch for it.
    ca: PathBuf,
    /// This node's certificate chain for it, PEM.
    cert: Option<PathBuf>,
    /// Key of `cert`; others may not read the file.
    key: Option<PathBuf>,
    /// Whether to send without a certificate of this node.
    #[serde(default)]
    without_certificate: bool,
    /// Syslog facility, 0 to 23.
    #[serde(default = "authpriv")]
    facility: u8,
    /// Syslog APP-NAME.
    #[serde(default = "app_name")]
    app_name: String,
}

/// Days that records are kept, by class; what is left out is kept for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retention {
    /// Who saw or published what of whom, who was there, sessions.
    access_days: Option<u32>,
    /// Who was refused.
    denial_days: Option<u32>,
    /// Consent.
    consent_days: Option<u32>,
    /// Starts, stops, accounts, and whatever is none of the others.
    system_days: Option<u32>,
}

const fn authpriv() -> u8 {
    10
}

fn app_name() -> String {
    "trocar".to_owned()
}

impl Audit {
    /// What the types do not say.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let Some(e) = &self.export else { return Ok(()) };
        match (&e.cert, &e.key, e.without_certificate) {
            (Some(_), Some(_), false) | (None, None, true) => Ok(()),
            (None, None, false) => {
                bail!(
                    "audit.export.cert and audit.export.key: both, or without_certificate = true where the repository wants none"
                )
            }
            (_, _, true) => bail!("audit.export.without_certificate: without cert and key"),
            _ => bail!("audit.export.cert and audit.export.key: either both or neither"),
        }
    }

    /// Where signaling sends records.
    ///
    /// # Errors
    /// Names the key file that others can read.
    pub(crate) fn repository(&self) -> anyhow::Result<Option<trocar_signaling::audit::Repository>> {
        let Some(e) = &self.export else { return Ok(None) };
        if let Some(key) = &e.key {
            let found = std::fs::metadata(key).with_context(|| format!("cannot read {}", key.display()));
            found.and_then(|found| super::check_secret(key, &found)).context("audit.export.key")?;
        }
        Ok(Some(trocar_signaling::audit::Repository {
            address: e.address.clone(),
            server_name: e.server_name.clone(),
            ca: e.ca.clone(),
            identity: e.cert.clone().zip(e.key.clone()),
            facility: e.facility,
            app_name: e.app_name.clone(),
        }))
    }

    /// How long signaling keeps them.
    pub(crate) fn retention(&self) -> trocar_signaling::audit::Retention {
        let Retention { access_days, denial_days, consent_days, system_days } = self.retention;
        trocar_signaling::audit::Retention { access_days, denial_days, consent_days, system_days }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const EXPORT: &str = "[export]\naddress = 'audit.example:6514'\nca = 'ca.pem'\n";

    fn parse(text: &str) -> anyhow::Result<Audit> {
        let audit: Audit = toml::from_str(text)?;
        audit.check()?;
        Ok(audit)
    }

    #[test]
    fn a_repository_is_given_a_certificate_unless_it_is_said_that_it_wants_none() {
        let bare = format!("{:#}", parse(EXPORT).unwrap_err());
        assert!(bare.contains("without_certificate"), "{bare}");
        let half = format!("{:#}", parse(&format!("{EXPORT}cert = 'c'")).unwrap_err());
        assert!(half.contains("either both or neither"), "{half}");
        let open = parse(&format!("{EXPORT}without_certificate = true")).unwrap().repository().unwrap().unwrap();
        assert_eq!((open.identity, open.facility, open.app_name.as_str()), (None, 10, "trocar"));
        assert!(parse(&format!("{EXPORT}without_certificate = true\ncert = 'c'\nkey = 'k'")).is_err());
        let unknown = format!("{:#}", parse("[retention]\nview_days = 3").unwrap_err());
        assert!(unknown.contains("unknown field `view_days`"), "{unknown}");
        let kept = parse("[retention]\naccess_days = 1825").unwrap().retention();
        assert_eq!((kept.access_days, kept.system_days), (Some(1825), None));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let key = tempfile::NamedTempFile::new().unwrap();
        let text = format!("{EXPORT}cert = 'c'\nkey = {:?}", key.path());
        std::fs::set_permissions(key.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = format!("{:#}", parse(&text).unwrap().repository().unwrap_err());
        assert!(error.contains("audit.export.key") && error.contains("chmod o="), "{error}");
        std::fs::set_permissions(key.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(parse(&text).unwrap().repository().is_ok());
    }
}
