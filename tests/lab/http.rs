//! A client for HTTP, as small as can be: one GET a connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::netns::Netns;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// `GET path` from `address`, asked from within `host`; `None` if nobody answers there.
pub(crate) fn get(host: &Netns, address: SocketAddr, path: &str, accept: &str) -> Option<Answer> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: lab\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    let text = host.enter(|| {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    })?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { joined(body)? } else { body.to_owned() };
    Some(Answer { status, body })
}

/// The same, of JSON.
pub(crate) fn json(host: &Netns, address: SocketAddr, path: &str) -> Option<Value> {
    serde_json::from_str(&get(host, address, path, "application/json")?.body).ok()
}

/// What chunks (RFC 9112 §7.1) make together.
fn joined(mut chunks: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (len, rest) = chunks.split_once("\r\n")?;
        let len = usize::from_str_radix(len.split(';').next()?.trim(), 16).ok()?;
        if len == 0 {
            return Some(body);
        }
        body.push_str(rest.get(..len)?);
        chunks = rest.get(len + 2..)?;
    }
}

/// Everything but letters and digits as `%XX`.
pub(crate) fn quoted(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
