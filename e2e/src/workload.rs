//! The programs of the lab: a server, and a client that asks it, over real TCP. They count what they
//! transfer, so that Flowtrail's numbers can be held against theirs.
//!
//! A request is 16 bytes of header (lengths of request and response, big-endian u64), then the
//! request's payload; the answer is the response's payload.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

const HEADER_BYTES: u64 = 16;
/// Largest payload of either direction: a guard against a header that is not ours.
const MAX_PAYLOAD_BYTES: u64 = 64 << 20;
/// Time to connect before an attempt counts as failed: two SYNs are sent in it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A server that answers every request.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// Address to listen on.
    #[arg(long)]
    pub listen: SocketAddr,
}

/// A client that asks until it is told to stop.
#[derive(Args, Clone, Debug)]
pub struct Call {
    /// Server to ask.
    #[arg(long)]
    pub to: SocketAddr,
    /// Payload of a request in bytes, without its header.
    #[arg(long, default_value_t = 200)]
    pub request: u64,
    /// Payload of a response in bytes.
    #[arg(long, default_value_t = 2_000)]
    pub response: u64,
    /// Pause between requests.
    #[arg(long, default_value_t = 200)]
    pub pause_ms: u64,
    /// Attempts at most.
    #[arg(long, default_value_t = u64::MAX)]
    pub attempts: u64,
    /// Keep one connection open for all requests, and after the last.
    #[arg(long)]
    pub keep_open: bool,
}

/// What a client did: printed as one JSON line when it stops asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transferred {
    /// Connections made.
    pub connections: u64,
    /// Attempts that were refused or not answered.
    pub failed: u64,
    /// Bytes written to the server: TCP payload.
    pub sent: u64,
    /// Bytes read from the server: TCP payload.
    pub received: u64,
}

/// Serves until standard input closes: with whoever started it.
///
/// # Errors
/// If the address cannot be listened on.
pub fn serve(serve: &Serve) -> Result<()> {
    let listener = TcpListener::bind(serve.listen)
        .with_context(|| format!("cannot listen on {}", serve.listen))?;
    let commands = commands();
    thread::spawn(move || {
        while commands.recv().is_ok() {}
        std::process::exit(0);
    });
    for client in listener.incoming() {
        let client = client?;
        // A client that goes away in the middle ends its own thread and nothing else.
        thread::spawn(move || while let Ok(true) = answer(&client) {});
    }
    Ok(())
}

/// Answers one request; false when the client has closed.
fn answer(mut client: &TcpStream) -> Result<bool> {
    let mut header = [0; HEADER_BYTES as usize];
    match client.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    let [request, response] = lengths(&header);
    if request > MAX_PAYLOAD_BYTES || response > MAX_PAYLOAD_BYTES {
        bail!("not a request");
    }
    read_payload(client, request)?;
    client.write_all(&payload(response))?;
    Ok(true)
}

/// Asks until standard input says `stop` or closes, prints what was transferred, and then keeps its
/// connection (if it is to) until standard input closes.
///
/// # Errors
/// If a connection that was made breaks; a failed attempt is counted instead.
pub fn call(call: &Call) -> Result<()> {
    let commands = commands();
    let mut done = Transferred::default();
    let mut open: Option<TcpStream> = None;
    for _ in 0..call.attempts {
        match open.take().map_or_else(|| TcpStream::connect_timeout(&call.to, CONNECT_TIMEOUT), Ok)
        {
            Ok(server) => {
                let new = done.connections == 0 || !call.keep_open;
                done.connections += u64::from(new);
                ask(&server, call, &mut done)?;
                open = call.keep_open.then_some(server);
            }
            Err(_) => done.failed += 1,
        }
        match commands.recv_timeout(Duration::from_millis(call.pause_ms)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    println!("{}", serde_json::to_string(&done)?);
    while commands.recv().is_ok() {}
    drop(open);
    Ok(())
}

fn ask(mut server: &TcpStream, call: &Call, done: &mut Transferred) -> Result<()> {
    let mut request = Vec::new();
    request.extend(call.request.to_be_bytes());
    request.extend(call.response.to_be_bytes());
    request.extend(payload(call.request));
    server.write_all(&request)?;
    done.sent += HEADER_BYTES + call.request;
    read_payload(server, call.response)?;
    done.received += call.response;
    Ok(())
}

fn lengths(header: &[u8; HEADER_BYTES as usize]) -> [u64; 2] {
    let value = u128::from_be_bytes(*header);
    [(value >> 64) as u64, value as u64]
}

fn payload(length: u64) -> Vec<u8> {
    vec![b'.'; length as usize]
}

fn read_payload(from: &TcpStream, length: u64) -> io::Result<()> {
    let read = io::copy(&mut from.take(length), &mut io::sink())?;
    if read < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Lines on standard input, as events; the channel closes with it.
fn commands() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if line.is_err() || sender.send(()).is_err() {
                break;
            }
        }
    });
    receiver
}
