//! `Link` headers with ICE servers (RFC 8288 section 3, RFC 9725 section 4.6).

use trocar_proto::session::api::IceServer;

/// ICE servers taken from one answer; more are left out.
const MAX_SERVERS: usize = 16;

/// The servers that `Link` headers name with `rel="ice-server"`. What cannot be read is passed over: without a server the
/// connection may still come about.
pub(super) fn ice_servers<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<IceServer> {
    headers.flat_map(links).filter_map(server).take(MAX_SERVERS).collect()
}

/// One link: its target and its parameters.
struct Link {
    target: String,
    parameters: Vec<(String, String)>,
}

fn server(link: Link) -> Option<IceServer> {
    let value = |name: &str| link.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let is_server = value("rel")?.split_ascii_whitespace().any(|r| r.eq_ignore_ascii_case("ice-server"));
    let scheme = link.target.split(':').next()?.to_ascii_lowercase();
    if !is_server || !matches!(scheme.as_str(), "stun" | "stuns" | "turn" | "turns") {
        return None;
    }
    Some(IceServer {
        username: value("username"),
        credential: value("credential"),
        urls: vec![link.target],
        expires: None,
    })
}

/// The links of one header, separated by commas outside of `<>` and quotes.
fn links(header: &str) -> Vec<Link> {
    let mut rest = header;
    let mut found = Vec::new();
    // Each turn takes at least a `<`, so there are no more turns than characters.
    while let Some((target, tail)) = rest.split_once('<').and_then(|(_, r)| r.split_once('>')) {
        let mut link = Link { target: target.trim().to_owned(), parameters: Vec::new() };
        rest = parameters(tail, &mut link.parameters);
        found.push(link);
    }
    found
}

/// Reads `; name=value` until the comma that ends the link; returns what follows it.
fn parameters<'a>(mut rest: &'a str, into: &mut Vec<(String, String)>) -> &'a str {
    loop {
        rest = rest.trim_start();
        let Some(tail) = rest.strip_prefix(';') else {
            return rest.strip_prefix(',').unwrap_or(rest);
        };
        let end = tail.find(['=', ';', ',']).unwrap_or(tail.len());
        let (name, tail) = tail.split_at(end);
        let name = name.trim().to_ascii_lowercase();
        let Some(tail) = tail.strip_prefix('=') else {
            into.push((name, String::new()));
            rest = tail;
            continue;
        };
        let (value, tail) = value(tail.trim_start());
        into.push((name, value));
        rest = tail;
    }
}

/// A token, or a quoted string without its quotes and escapes; and what follows.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, tail) = text.split_at(text.find([';', ',']).unwrap_or(text.len()));
        return (token.trim().to_owned(), tail);
    };
    let (mut out, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                out.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (out, quoted.get(at + 1..).unwrap_or_default()),
            _ => out.push(c),
        }
    }
    (out, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[&str]) -> Vec<IceServer> {
        ice_servers(headers.iter().copied())
    }

    #[test]
    fn servers_of_one_header_or_of_several_are_read_with_their_credentials() {
        let turn = r#"<turn:t.example:3478?transport=udp>; rel="ice-server"; username="17:p,1;x"; credential="a\"b\\"; credential-type="password""#;
        let stun = "<stun:s.example>;rel=ice-server";
        for headers in [vec![turn, stun], vec![&*format!("{turn}, {stun}")]] {
            let servers = read(&headers);
            assert_eq!(servers.len(), 2, "{headers:?}");
            assert_eq!(servers[0].urls, ["turn:t.example:3478?transport=udp"]);
            assert_eq!(servers[0].username.as_deref(), Some("17:p,1;x"));
            assert_eq!(servers[0].credential.as_deref(), Some(r#"a"b\"#));
            assert_eq!((servers[1].urls[0].as_str(), &servers[1].username), ("stun:s.example", &None));
        }
    }

    #[test]
    fn other_links_and_broken_ones_give_no_server() {
        for header in [
            "",
            "<",
            "<turn:x",
            "<turn:x>",
            "<turn:x>;",
            "<turn:x>; rel",
            "<turn:x>; rel=\"ice-server",
            "<https://x>; rel=ice-server",
            "<turn:x>; rel=next",
            ",,;=\"",
        ] {
            let expected = usize::from(header == "<turn:x>; rel=\"ice-server");
            assert_eq!(read(&[header]).len(), expected, "{header}");
        }
    }

    #[test]
    fn no_more_servers_are_taken_than_the_bound() {
        let many = "<stun:s>; rel=ice-server,".repeat(100);
        assert_eq!(read(&[&many]).len(), MAX_SERVERS);
    }
}
