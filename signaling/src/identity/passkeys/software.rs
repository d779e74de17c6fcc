//! An authenticator in software, for tests: it does what it is asked, or what it is told to do wrong.

use crate::secret::SecretHash;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Somebody is there (WebAuthn section 6.1).
const PRESENT: u8 = 0x01;
/// It was verified who that is.
const VERIFIED: u8 = 0x04;
/// A new credential follows.
const ATTESTED: u8 = 0x40;

/// One credential.
pub(super) struct Software {
    pub(super) key: EcdsaKeyPair,
    pub(super) id: Vec<u8>,
    /// Sent and then counted up; 0 stays 0.
    pub(super) counter: u32,
    /// Whether it asks for a PIN.
    pub(super) verifies: bool,
    pub(super) origin: String,
    /// Whose it is, from the registration.
    pub(super) handle: String,
}

impl Software {
    pub(super) fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let id = SecretHash::of_bytes(key.public_key().as_ref()).0.to_vec();
        let origin = "https://trocar.example".to_owned();
        Self { key, id, counter: 1, verifies: true, origin, handle: String::new() }
    }

    /// Answers `navigator.credentials.create`.
    pub(super) fn create(&mut self, options: &Value) -> Value {
        assert_eq!(options["authenticatorSelection"]["residentKey"], "required", "{options}");
        assert_eq!(options["authenticatorSelection"]["userVerification"], "required", "{options}");
        self.handle = options["user"]["id"].as_str().unwrap().to_owned();
        let mut data = self.data(options["rp"]["id"].as_str().unwrap(), ATTESTED);
        data.extend([0; 16]);
        data.extend(u16::try_from(self.id.len()).unwrap().to_be_bytes());
        data.extend(&self.id);
        let point = self.key.public_key().as_ref();
        // COSE (RFC 9053): an EC2 key on P-256 for ES256.
        data.extend([0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20]);
        data.extend(&point[1..33]);
        data.extend([0x22, 0x58, 0x20]);
        data.extend(&point[33..]);
        let mut object = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58".to_vec();
        object.push(u8::try_from(data.len()).unwrap());
        object.extend(data);
        let client = self.client("webauthn.create", options);
        let response = json!({
            "attestationObject": URL_SAFE_NO_PAD.encode(object),
            "clientDataJSON": URL_SAFE_NO_PAD.encode(client),
        });
        self.answer(&response)
    }

    /// Answers `navigator.credentials.get`.
    pub(super) fn get(&mut self, options: &Value) -> Value {
        assert_eq!((&options["userVerification"], &options["allowCredentials"]), (&json!("required"), &json!([])));
        let mut signed = self.data(options["rpId"].as_str().unwrap(), 0);
        let data = URL_SAFE_NO_PAD.encode(&signed);
        let client = self.client("webauthn.get", options);
        signed.extend(SecretHash::of(&client).0);
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        let response = json!({
            "authenticatorData": data,
            "clientDataJSON": URL_SAFE_NO_PAD.encode(client),
            "signature": URL_SAFE_NO_PAD.encode(signature.as_ref()),
            "userHandle": self.handle,
        });
        self.answer(&response)
    }

    fn data(&mut self, name: &str, more: u8) -> Vec<u8> {
        let flags = PRESENT | if self.verifies { VERIFIED } else { 0 } | more;
        let mut data = SecretHash::of(name).0.to_vec();
        data.push(flags);
        data.extend(self.counter.to_be_bytes());
        self.counter += u32::from(self.counter > 0);
        data
    }

    fn client(&self, what: &str, options: &Value) -> String {
        json!({"type": what, "challenge": options["challenge"], "origin": self.origin, "crossOrigin": false})
            .to_string()
    }

    fn answer(&self, response: &Value) -> Value {
        let id = URL_SAFE_NO_PAD.encode(&self.id);
        json!({"id": id, "rawId": id, "type": "public-key", "response": response, "clientExtensionResults": {}})
    }
}
