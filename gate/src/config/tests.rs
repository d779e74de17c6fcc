use super::*;

const LEAST: &str = r#"
[session]
id = "or-1"
[identity]
cert = "gate.pem"
key = "gate.key"
[trust]
dir = "trust"
issuer = "https://trocar.hospital.example"
issuer_key = "token-key.pub"
[[relay]]
address = "127.0.0.1:4434"
[store]
dir = "var/gate"
[device]
kind = "udp"
address = "127.0.0.1:7000"
key_file = "device.key"
"#;

#[test]
fn the_least_file_is_the_default_of_all_that_it_leaves_out() {
    let config = Config::parse(LEAST).unwrap();
    assert_eq!(config.timers, handover::config::Config::default());
    assert_eq!(config.session.id.as_str(), "or-1");
    assert!(config.consent.is_none() && config.frames.is_none());
    let net = config.net();
    assert_eq!(net.relays, config.relays);
    assert_eq!((net.certificate, net.key), (PathBuf::from("gate.pem"), PathBuf::from("gate.key")));
}

#[test]
fn the_shipped_file_is_right_and_shows_every_timer_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/gate.toml");
    let config = Config::read(&path).unwrap();
    assert_eq!(config.timers, handover::config::Config::default());
    let text = std::fs::read_to_string(path).unwrap();
    for key in timers::KEYS {
        assert!(text.lines().any(|l| l.starts_with(&format!("{key} = "))), "{key} is not shown");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_line_or_value_and_what_would_be_right() {
    let with = |more: &str| format!("{LEAST}{more}\n");
    let without = |line: &str| LEAST.replacen(line, "", 1);
    let instead = |a: &str, b: &str| LEAST.replacen(a, b, 1);
    for (text, want) in [
        (with("[sesion]"), "unknown field `sesion`"),
        (with("[timers]\nlease = 4"), "line 20, timers.lease (lease = 4): unknown field `lease`"),
        (with("[timers]\nlease_ms = \"4\""), "line 20, timers.lease_ms (lease_ms = \"4\"): invalid type: string \"4\""),
        (with("[timers]\nlease_ms = 4"), "timers.station_silence_ms = 250: must be below lease"),
        (without("id = \"or-1\"\n"), "session: missing field `id`"),
        (instead("or-1", "or 1"), "line 3, session.id (id = \"or 1\"): a session is 1 to 64 characters"),
        (without("[[relay]]\naddress = \"127.0.0.1:4434\"\n"), "[[relay]] = 0 of them: 1 to 4 are right"),
        (with(&"[[relay]]\naddress = \"a:1\"\n".repeat(4)), "[[relay]] = 5 of them: 1 to 4 are right"),
        (
            with("[[relay]]\naddress = \"127.0.0.1:4434\""),
            "relay[1].address = \"127.0.0.1:4434\": each relay once is right",
        ),
        (instead("127.0.0.1:4434", "here"), "relay[0].address = \"here\": a relay's control address is HOST:PORT"),
        (instead("\"udp\"", "\"usb\""), "unknown variant `usb`"),
        (without("issuer = \"https://trocar.hospital.example\"\n"), "trust: missing field `issuer`"),
        (instead("https://trocar.hospital.example", ""), "trust.issuer = \"\""),
        (
            instead("id = \"or-1\"", "id = \"or-1\"\npatient = [{assigner = \"x\", value = \"\"}]"),
            "session.patient[0].value = \"\"",
        ),
        (instead("id = \"or-1\"", "id = \"or-1\"\npatient = [{assigner = \"x\"}]"), "missing field `value`"),
        (with("[frames]\nlisten = \"127.0.0.1:1\"\npublishers = [\"x\"]"), "frames.publishers[0] = \"x\": trocar://"),
        (with("[frames]\nlisten = \"127.0.0.1:1\"\nmax_lag_ms = 0"), "frames.max_lag_ms = 0: 1 to 1000 is right"),
        (with("[frames]\nlisten = \"127.0.0.1:1\""), "frames.publishers = []: the names of those that publish"),
        (with("[console]\npage = \"0.0.0.0:7070\""), "console.page: must be a loopback address"),
        (with("[log]\nfilter = \"a=b=c\""), "log.filter = \"a=b=c\""),
        (with("[consent]\nfile = 3"), "consent.file (file = 3): invalid type"),
        ("x = = 1".to_owned(), "line 1"),
    ] {
        let error = Config::parse(&text).expect_err(want).to_string();
        assert!(error.contains(want), "{want:?} is not in {error:?}");
    }
    let none = Config::read(Path::new("/no/such/gate.toml")).unwrap_err().to_string();
    assert!(none.starts_with("cannot read /no/such/gate.toml: "), "{none}");
}

#[test]
fn the_hash_is_that_of_the_values_and_not_of_the_text() {
    let hash = |text: &str| Config::parse(text).unwrap().hash;
    let plain = hash(LEAST);
    assert_eq!(hash(&format!("# a comment\n{LEAST}")), plain);
    let moved = LEAST.replacen("cert = \"gate.pem\"\nkey = \"gate.key\"", "key = \"gate.key\"\ncert = \"gate.pem\"", 1);
    assert_eq!(hash(&moved), plain);
    for other in [
        LEAST.replacen("or-1", "or-2", 1),
        LEAST.replacen("7000", "7001", 1),
        format!("{LEAST}[timers]\nlease_ms = 499\n"),
        format!("{LEAST}[console]\nterminal = false\n"),
    ] {
        assert_ne!(hash(&other), plain, "{other}");
    }
}
