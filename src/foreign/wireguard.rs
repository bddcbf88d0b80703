//! A configuration of wg-quick: addresses, networks and endpoints carry over; keys and ports do not.
//!
//! Each `[Peer]` becomes a file. Who is who is kept: the identity of each end is its WireGuard public key, as ID_KEY_ID, so that
//! both ends' files fit each other without asking. What proves it is a new pre-shared key, which has to be brought to the peer.

use core::net::IpAddr;
use std::path::Path;

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use super::draft::{Child, Draft, Item};
use super::selector::{except, subnet};
use super::{At, ForeignError, Host, Import, file_name};
use crate::crypto::dh;

#[derive(Default)]
struct Peer {
    at: Option<At>,
    public_key: Option<String>,
    networks: Vec<String>,
    endpoint: Option<(String, At)>,
    keepalive: Option<At>,
    psk: Option<At>,
}

/// Reads a configuration of wg-quick.
///
/// # Errors
/// If its text cannot be made out, or what it needs is not in it.
pub fn import(path: &Path, text: &str, host: &mut Host<'_>) -> Result<Import, ForeignError> {
    let mut import = Import::default();
    let mut addresses: Vec<String> = Vec::new();
    let mut private: Option<(Zeroizing<String>, At)> = None;
    let mut mtu = None;
    let mut routes = true;
    let mut peers: Vec<Peer> = Vec::new();
    let mut section = "";
    for (number, line) in text.lines().enumerate() {
        let at = At { file: path.to_owned(), line: number + 1 };
        let failed = |message: &str| ForeignError { at: at.clone(), message: message.to_owned() };
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.to_ascii_lowercase().as_str() {
            "" => continue,
            "[interface]" => {
                section = "interface";
                continue;
            }
            "[peer]" => {
                section = "peer";
                peers.push(Peer { at: Some(at), ..Peer::default() });
                continue;
            }
            _ => {}
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| failed("expected [Interface], [Peer] or `Key = value`"))?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        let list = || value.split(',').map(|it| it.trim().to_owned()).filter(|it| !it.is_empty());
        let peer = peers.last_mut();
        match (section, key.as_str(), peer) {
            ("interface", "address", _) => addresses.extend(list()),
            ("interface", "privatekey", _) => {
                private = Some((Zeroizing::new(value.to_owned()), at))
            }
            ("interface", "mtu", _) => mtu = value.parse::<u16>().ok(),
            ("interface", "listenport", _) => {
                import.note(&at, format!("ListenPort = {value}"), "IKE uses ports 500 and 4500");
            }
            ("interface", "dns", _) => import.note(
                &at,
                "DNS",
                "DNS servers come from the peer, with [local] virtual alone",
            ),
            // wg-quick(8): no routes at all.
            ("interface", "table", _) if value.eq_ignore_ascii_case("off") => routes = false,
            ("interface", "table", _) if value.eq_ignore_ascii_case("auto") => {}
            ("interface", "table" | "fwmark", _) => {
                import.note(
                    &at,
                    line,
                    "routes are set in a table of their own: [interface] routes",
                );
            }
            ("interface", "saveconfig", _) => {}
            ("interface", "preup" | "postup" | "predown" | "postdown", _) => {
                import.note(&at, line, "no script is run: firewall rules are yours");
            }
            ("peer", "publickey", Some(peer)) => peer.public_key = Some(value.to_owned()),
            ("peer", "allowedips", Some(peer)) => peer.networks.extend(list()),
            ("peer", "endpoint", Some(peer)) => peer.endpoint = Some((value.to_owned(), at)),
            ("peer", "persistentkeepalive", Some(peer)) => peer.keepalive = Some(at),
            ("peer", "presharedkey", Some(peer)) => peer.psk = Some(at),
            ("", ..) => return Err(failed("this stands before [Interface] and [Peer]")),
            _ => import.note(&at, line, "ipsecd has nothing like it"),
        }
    }
    let top = At { file: path.to_owned(), line: 1 };
    let failed =
        |at: &At, message: &str| ForeignError { at: at.clone(), message: message.to_owned() };
    let (private, at) = private
        .ok_or_else(|| failed(&top, "[Interface] has no PrivateKey: who we are is told by it"))?;
    let own =
        public_key(&private).ok_or_else(|| failed(&at, "PrivateKey is no 32 bytes in base64"))?;
    import.note(&at, "the keys", "WireGuard's cannot be IKE's: each peer has a new pre-shared key in its .psk, which has to be brought to it by a way you trust (or make certificates with ipsecd pki)");
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("wg");
    let hosts: Vec<IpAddr> = addresses
        .iter()
        .filter_map(|it| it.split('/').next().unwrap_or_default().parse().ok())
        .collect();
    if hosts.is_empty() {
        return Err(failed(&top, "[Interface] has no Address: it is our side of the tunnel"));
    }
    let count = peers.len();
    for (number, peer) in peers.into_iter().enumerate() {
        let name = if count == 1 { stem.to_owned() } else { format!("{stem}-{}", number + 1) };
        let at = peer.at.clone().unwrap_or_else(|| top.clone());
        let mut draft = Draft { name: file_name(&name), ..Draft::default() };
        draft.head.push(format!("From the peer on line {} of {stem}.conf.", at.line));
        draft.head.push(
            "Bring the key in the .psk file to the peer; the keys of WireGuard are not used."
                .to_owned(),
        );
        draft.local.text("id", format!("keyid:{own}"));
        let Some(theirs) =
            peer.public_key.filter(|key| Base64::decode_vec(key).is_ok_and(|it| it.len() == 32))
        else {
            import.leave_out(
                &at,
                format!("peer `{name}`"),
                "it has no PublicKey of 32 bytes in base64",
            );
            continue;
        };
        draft.peer.text("address", "any");
        if let Some((endpoint, at)) = &peer.endpoint {
            let (host, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, ""));
            let host = host.trim_matches(['[', ']']);
            draft.peer.text("address", host);
            import.note(
                at,
                format!("port {port} of {endpoint}"),
                "IKE uses ports 500 and 4500: let them through firewalls and NATs",
            );
        }
        draft.peer.text("id", format!("keyid:{theirs}"));
        let mut networks: Vec<String> = peer.networks.iter().filter_map(|it| subnet(it)).collect();
        let is_all = |net: &String| net.ends_with("/0");
        for own in &hosts {
            // An address is on one side; WireGuard takes the whole network as the peer's.
            networks = networks
                .iter()
                .flat_map(|it| if is_all(it) { vec![it.clone()] } else { except(it, *own) })
                .collect();
        }
        let versions = |v6: bool| networks.iter().any(|it| it.contains(':') == v6);
        let local: Vec<String> =
            hosts.iter().filter(|it| versions(it.is_ipv6())).map(ToString::to_string).collect();
        let has = |v6: bool| hosts.iter().any(|it| it.is_ipv6() == v6);
        networks.retain(|it| has(it.contains(':')));
        if networks.is_empty() || local.is_empty() {
            import.leave_out(
                &at,
                format!("peer `{name}`"),
                "it has no AllowedIPs of a version of which there is an Address",
            );
            continue;
        }
        if let Some(at) = peer.keepalive {
            import.note(
                &at,
                "PersistentKeepalive",
                "where a NAT is found, keepalives are sent by themselves",
            );
        }
        if let Some(at) = peer.psk {
            import.note(&at, "PresharedKey", "it is not used: a key is for one protocol");
        }
        let psk = (host.new_psk)();
        let file = import.add(&format!("{}.psk", draft.name), psk, true);
        draft.auth.set("psk", Item::File(file));
        let mut child = Child {
            name: name.clone(),
            local,
            peer: networks,
            at: Some(at.clone()),
            ..Child::default()
        };
        let known = !matches!(draft.peer.get("address"), Some(Item::Text(text)) if text == "any");
        child.kind.text("start", if known { "now" } else { "respond" });
        draft.children.push(child);
        draft.interface.list("addresses", hosts.iter().map(ToString::to_string).collect());
        if let Some(mtu) = mtu {
            draft.interface.plain("mtu", mtu);
        }
        if !routes {
            draft.interface.plain("routes", false);
        }
        import.add_peer(draft);
    }
    Ok(import)
}

/// The public key of a private one, in base64 as WireGuard has it.
fn public_key(private: &str) -> Option<String> {
    let bytes = Zeroizing::new(Base64::decode_vec(private).ok()?);
    let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.as_slice().try_into().ok()?);
    Some(Base64::encode_string(&dh::x25519_public(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_that_of_rfc_7748() {
        // RFC 7748 §6.1, Alice.
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        assert_eq!(
            public_key(private).as_deref(),
            Some("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=")
        );
        assert_eq!(public_key("AAAA"), None);
    }
}
