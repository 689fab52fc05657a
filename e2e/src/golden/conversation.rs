//! Conversations: what the two ends of a connection do, and when.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use socket2::Socket;

/// Sends so many bytes from one end of a connection to the other.
pub(super) fn send(mut from: &Socket, mut to: &Socket, bytes: usize) -> Result<()> {
    let payload = vec![0x2e; bytes];
    thread::scope(|scope| {
        let sending = scope.spawn(move || from.write_all(&payload));
        let received = to.read_exact(&mut vec![0; bytes]);
        match sending.join() {
            Ok(sent) => sent.context("cannot send")?,
            Err(_) => bail!("the sending thread ended early"),
        }
        received.context("cannot receive")
    })
}

/// A request and a response.
pub(super) fn exchange(
    client: &Socket,
    server: &Socket,
    request: usize,
    response: usize,
) -> Result<()> {
    send(client, server, request)?;
    pause_ms(5);
    send(server, client, response)
}

/// Closes both ends, one after the other.
pub(super) fn close(first: Socket, second: Socket) -> Result<()> {
    first.shutdown(Shutdown::Write)?;
    see_end(&second)?;
    pause_ms(5);
    second.shutdown(Shutdown::Write)?;
    see_end(&first)?;
    // A pause for the last acknowledgment.
    pause_ms(50);
    Ok(())
}

/// Waits until the other end has closed.
pub(super) fn see_end(mut socket: &Socket) -> Result<()> {
    match socket.read(&mut [0; 1])? {
        0 => Ok(()),
        _ => bail!("there was more to read"),
    }
}

/// Ends a connection with a RST.
pub(super) fn reset(socket: Socket) -> Result<()> {
    socket.set_linger(Some(Duration::ZERO))?;
    drop(socket);
    pause_ms(50);
    Ok(())
}

/// Lets time pass.
pub(super) fn pause_ms(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// Lets time pass until it is so many milliseconds after a multiple of `every_s` seconds of the wall
/// clock, since that is what intervals are aligned to.
pub(super) fn until_ms(every_s: u64, offset_ms: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let every = every_s * 1_000;
    let past = now.as_millis() as u64 % every;
    pause_ms((offset_ms + every - past) % every);
}
