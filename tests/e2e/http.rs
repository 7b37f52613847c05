//! HTTP/1.0, as much as it takes to read `/metrics` and `/readyz`, and to ask the API.

use super::wait::PATIENCE;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Status and body of a GET.
pub fn get(addr: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    ask(addr, "GET", path, "", "")
}

/// Status and body; `headers` are whole lines.
pub fn ask(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, answer.clone());
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
    Ok((status, body.to_owned()))
}
