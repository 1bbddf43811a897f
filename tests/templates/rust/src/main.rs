//! An app of one file, for the Rust template.

use std::env;
use std::io::{BufRead, BufReader, Result, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};

fn main() -> Result<()> {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(3000);
    for stream in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        answer(stream?).unwrap_or_else(|error| eprintln!("{error}"));
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("/");
    let (status, text) = match path.strip_prefix("/resolve/") {
        None => ("200 OK", "Hello\n".to_string()),
        Some(name) => match (name, 80).to_socket_addrs() {
            Ok(found) => ("200 OK", format!("{:?}\n", found.map(|one| one.ip()).collect::<Vec<_>>())),
            Err(error) => ("502 Bad Gateway", format!("{error}\n")),
        },
    };
    write!(stream, "HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}
