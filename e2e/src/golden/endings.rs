//! How connections end: by FIN one way or the other, by RST from either end, and what comes late.

use std::io::Write;
use std::net::Shutdown;

use anyhow::Result;
use socket2::Socket;

use super::Case;
use super::conversation::{close, exchange, pause_ms, reset, see_end, send, until_ms};
use super::stage::{ETH0, PORT, Path, SERVER, Stage};
use super::wire::{after_ms, at_once, lost};

pub(super) const CASES: &[Case] = &[
    Case::new("normal", Path::Wire, normal),
    Case::new("simultaneous_close", Path::Wire, simultaneous_close),
    Case::new("half_close", Path::Wire, half_close),
    Case::new("resets", Path::Wire, resets),
    Case::new("late_acks", Path::Wire, late_acks),
    Case::new("late_syn", Path::Wire, late_syn),
    Case::new("lost_fin", Path::Wire, lost_fin),
];

/// Interval that every capture begins in the same second of.
const INTERVAL_S: u64 = 10;

/// Records at the client's interface while a connection lives.
fn with_connection(
    stage: &Stage,
    name: &str,
    live: impl FnOnce(Socket, Socket) -> Result<()>,
) -> Result<()> {
    let listener = stage.listen((SERVER, PORT).into())?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), name, &["tcp"])?;
    let (client, server) = stage.connect(40_001, (SERVER, PORT).into(), &listener)?;
    live(client, server)?;
    recording.stop()
}

/// A request, a response, and the client closes.
fn normal(stage: &Stage) -> Result<()> {
    with_connection(stage, "normal", |client, server| {
        exchange(&client, &server, 300, 5_000)?;
        close(client, server)
    })
}

/// Both ends close while the other's FIN is on its way.
fn simultaneous_close(stage: &Stage) -> Result<()> {
    stage.wire()?.set(|_| after_ms(40));
    with_connection(stage, "simultaneous_close", |client, server| {
        exchange(&client, &server, 100, 200)?;
        pause_ms(100);
        client.shutdown(Shutdown::Write)?;
        server.shutdown(Shutdown::Write)?;
        see_end(&client)?;
        see_end(&server)?;
        pause_ms(150);
        Ok(())
    })
}

/// The client closes its half, and the server goes on into the next interval.
fn half_close(stage: &Stage) -> Result<()> {
    with_connection(stage, "half_close", |client, server| {
        send(&client, &server, 200)?;
        client.shutdown(Shutdown::Write)?;
        see_end(&server)?;
        send(&server, &client, 1_000)?;
        until_ms(INTERVAL_S, 3_000);
        send(&server, &client, 1_000)?;
        until_ms(INTERVAL_S, 1_000);
        send(&server, &client, 1_000)?;
        drop(server);
        see_end(&client)?;
        pause_ms(50);
        Ok(())
    })
}

/// A RST of each kind, each on a connection of its own.
fn resets(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "resets", &["tcp"])?;

    // The client's.
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    reset(client)?;
    drop(server);

    // The server's.
    let (client, server) = stage.connect(40_002, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    reset(server)?;
    drop(client);

    // The server closes with a request unread.
    let (client, server) = stage.connect(40_003, to, &listener)?;
    (&client).write_all(&[0x2e; 500])?;
    pause_ms(20);
    drop(server);
    pause_ms(20);
    drop(client);

    // The client has closed its half, and does not wait for the rest: its kernel resets.
    let (client, server) = stage.connect(40_004, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    drop(client);
    see_end(&server)?;
    (&server).write_all(&[0x2e; 700])?;
    pause_ms(50);
    drop(server);

    // Right after the handshake, without a byte of payload.
    let (client, server) = stage.connect(40_005, to, &listener)?;
    reset(client)?;
    drop(server);
    recording.stop()
}

/// The server's FIN comes again 300 ms after the close, and once more in the next interval; the client
/// acknowledges it each time.
fn late_acks(stage: &Stage) -> Result<()> {
    stage.wire()?.set(|frame| {
        if frame.tcp.fin && !frame.to_server {
            [0, 300, 9_000].into_iter().flat_map(after_ms).collect()
        } else {
            at_once()
        }
    });
    with_connection(stage, "late_acks", |client, server| {
        exchange(&client, &server, 300, 500)?;
        close(client, server)?;
        pause_ms(9_200);
        Ok(())
    })
}

/// A copy of the client's SYN comes two seconds after the close, at the server's interface; the server
/// answers it, and is answered by what the client remembers.
fn late_syn(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    stage.wire()?.set(|frame| match frame.tcp.syn && frame.to_server {
        true => [0, 2_000].into_iter().flat_map(after_ms).collect(),
        false => at_once(),
    });
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.server, ETH0), "late_syn", &["tcp"])?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    close(client, server)?;
    pause_ms(2_500);
    recording.stop()
}

/// The client's FIN is lost, and sent again.
fn lost_fin(stage: &Stage) -> Result<()> {
    let mut fins = 0;
    stage.wire()?.set(move |frame| {
        fins += u32::from(frame.tcp.fin && frame.to_server);
        match frame.tcp.fin && frame.to_server && fins == 1 {
            true => lost(),
            false => at_once(),
        }
    });
    with_connection(stage, "lost_fin", |client, server| {
        exchange(&client, &server, 100, 200)?;
        close(client, server)
    })
}
