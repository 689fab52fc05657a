//! How connections begin, or do not.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use socket2::Socket;

use super::Case;
use super::conversation::{close, exchange, pause_ms, send, until_ms};
use super::recording::Recording;
use super::stage::{CLIENT, ETH0, PORT, Path, SERVER, Stage, crafted};
use super::wire::{after_ms, at_once, lost};

pub(super) const CASES: &[Case] = &[
    Case::new("refused", Path::Wire, refused),
    Case::new("unanswered", Path::Wire, unanswered),
    Case::new("answered_late", Path::Wire, answered_late),
    Case::new("syn_retransmission", Path::Wire, syn_retransmission),
    Case::new("synack_retransmission", Path::Wire, synack_retransmission),
    Case::new("syn_at_interval_end", Path::Wire, syn_at_interval_end),
    Case::new("simultaneous_open", Path::Wire, simultaneous_open),
    Case::new("half_open_scan", Path::Wire, half_open_scan),
    Case::new("stray_rst", Path::Wire, stray_rst),
    Case::new("fast_open", Path::Wire, fast_open),
    Case::new("refused_again", Path::Wire, refused_again),
];

const INTERVAL_S: u64 = 10;

/// A port that nobody listens on.
const CLOSED_PORT: u16 = 81;

/// Whether an attempt to connect fails, as it should.
fn must_fail(socket: &Socket, to: SocketAddr) -> Result<()> {
    match socket.connect(&to.into()) {
        Ok(()) => bail!("{to} answers"),
        Err(_) => Ok(()),
    }
}

/// Two attempts at a closed port.
fn refused(stage: &Stage) -> Result<()> {
    let to = (SERVER, CLOSED_PORT).into();
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "refused", &["tcp"])?;
    must_fail(&stage.socket(40_001, to)?, to)?;
    pause_ms(200);
    must_fail(&stage.socket(40_002, to)?, to)?;
    recording.stop()
}

/// An attempt that the path swallows, and in a later interval a connection that lets time pass.
fn unanswered(stage: &Stage) -> Result<()> {
    let (to, hidden) = ((SERVER, PORT).into(), (SERVER, CLOSED_PORT).into());
    stage.client.sysctl("net.ipv4.tcp_syn_retries", "2")?;
    let listener = stage.listen(to)?;
    stage.wire()?.set(|frame| match frame.tcp.destination_port {
        CLOSED_PORT => lost(),
        _ => at_once(),
    });
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "unanswered", &["tcp"])?;
    must_fail(&stage.socket(40_001, hidden)?, hidden)?;
    until_ms(INTERVAL_S, 2_000);
    until_ms(INTERVAL_S, 1_000);
    let (client, server) = stage.connect(40_002, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    close(client, server)?;
    recording.stop()
}

/// The path swallows a client's SYNs for so long that the attempt counts as failed; the last is
/// answered.
fn answered_late(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    // 0, 1, 3, 7, 15 and 31 s: the last one comes 16 s after the one before.
    stage.client.sysctl("net.ipv4.tcp_syn_linear_timeouts", "0")?;
    let listener = stage.listen(to)?;
    stage.wire()?.lose(|frame| frame.to_server && frame.number < 6);
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "answered_late", &["tcp"])?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    close(client, server)?;
    recording.stop()
}

/// The first SYN is lost behind the observation point.
fn syn_retransmission(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    stage.wire()?.lose(|frame| frame.to_server && frame.number == 1);
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "syn_retransmission", &["tcp"])?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    close(client, server)?;
    recording.stop()
}

/// The first SYN-ACK is lost behind the observation point, which is the server's interface.
fn synack_retransmission(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    stage.wire()?.lose(|frame| !frame.to_server && frame.number == 1);
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.server, ETH0), "synack_retransmission", &["tcp"])?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    close(client, server)?;
    recording.stop()
}

/// Two SYNs at the end of an interval are answered in the next: one before the interval is cut, half a
/// second after its end, and one when it has been.
fn syn_at_interval_end(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    stage.client.sysctl("net.ipv4.tcp_syn_retries", "1")?;
    let listener = stage.listen(to)?;
    stage.wire()?.set(|frame| match (frame.to_server && frame.tcp.syn, frame.tcp.source_port) {
        (true, 40_001) => after_ms(350),
        (true, 40_002) => after_ms(850),
        _ => at_once(),
    });
    until_ms(INTERVAL_S, 9_000);
    let recording = stage.record((&stage.client, ETH0), "syn_at_interval_end", &["tcp"])?;
    until_ms(INTERVAL_S, 9_850);
    let clients = [stage.socket(40_001, to)?, stage.socket(40_002, to)?];
    let [first, second] = thread::scope(|scope| {
        let connecting = clients.each_ref().map(|client| {
            let connecting = scope.spawn(move || client.connect(&to.into()));
            pause_ms(30);
            connecting
        });
        connecting.map(std::thread::ScopedJoinHandle::join)
    });
    for connected in [first, second] {
        match connected {
            Ok(connected) => connected?,
            Err(_) => bail!("a thread that connects ended early"),
        }
    }
    for client in clients {
        let (server, _) = listener.accept()?;
        exchange(&client, &server, 100, 200)?;
        close(client, server)?;
    }
    recording.stop()
}

/// Both ends call each other at once; seen at both.
fn simultaneous_open(stage: &Stage) -> Result<()> {
    const PORTS: [u16; 2] = [40_001, 40_002];
    let low: SocketAddr = (CLIENT, PORTS[0]).into();
    let high: SocketAddr = (SERVER, PORTS[1]).into();
    stage.wire()?.set(|_| after_ms(60));
    let ends = [(stage.socket(PORTS[0], high)?, high), (stage.server_socket(high)?, low)];
    until_ms(INTERVAL_S, 2_000);
    let recordings = [
        stage.record((&stage.client, ETH0), "simultaneous_open_low", &["tcp"])?,
        stage.record((&stage.server, ETH0), "simultaneous_open_high", &["tcp"])?,
    ];
    thread::scope(|scope| {
        let calls = ends.each_ref().map(|(socket, to)| {
            scope.spawn(move || socket.connect_timeout(&(*to).into(), Duration::from_secs(5)))
        });
        for call in calls {
            match call.join() {
                Ok(connected) => connected?,
                Err(_) => bail!("a thread that connects ended early"),
            }
        }
        Ok(())
    })?;
    let [(low, _), (high, _)] = ends;
    pause_ms(200);
    exchange(&high, &low, 100, 200)?;
    pause_ms(100);
    close(high, low)?;
    pause_ms(150);
    recordings.into_iter().try_for_each(Recording::stop)
}

/// A scanner: a SYN of nobody's, so that the kernel answers the SYN-ACK with a RST.
fn half_open_scan(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let _listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "half_open_scan", &["tcp"])?;
    stage.say(crafted(true, 0x1000_0000).syn(), 0)?;
    pause_ms(100);
    recording.stop()
}

/// A RST that does not acknowledge the SYN, left over from another connection, comes before the answer.
/// All packets are crafted.
fn stray_rst(stage: &Stage) -> Result<()> {
    const ISN: [u32; 2] = [5_000_000, 6_000_000];
    let up = |offset: u32| crafted(true, ISN[0] + offset);
    let down = |offset: u32| crafted(false, ISN[1] + offset);
    stage.silence()?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "stray_rst", &["tcp"])?;
    stage.say(up(0).syn(), 0)?;
    stage.say(crafted(false, 0).rst().ack(4_000_000), 0)?;
    stage.say(down(0).syn().ack(ISN[0] + 1), 0)?;
    stage.say(up(1).ack(ISN[1] + 1), 0)?;
    stage.say(up(1).ack(ISN[1] + 1), 100)?;
    stage.say(down(1).ack(ISN[0] + 101), 200)?;
    stage.say(up(101).fin().ack(ISN[1] + 201), 0)?;
    stage.say(down(201).fin().ack(ISN[0] + 102), 0)?;
    stage.say(up(102).ack(ISN[1] + 202), 0)?;
    recording.stop()
}

/// The request is in the SYN (TCP Fast Open, RFC 7413), without a cookie.
fn fast_open(stage: &Stage) -> Result<()> {
    const MSG_FASTOPEN: i32 = 0x2000_0000;
    let to = (SERVER, PORT).into();
    // Bits of ip-sysctl: a client's, without cookie; a server's, without cookie, at all listeners.
    stage.client.sysctl("net.ipv4.tcp_fastopen", "5")?;
    stage.server.sysctl("net.ipv4.tcp_fastopen", "1538")?;
    let listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "fast_open", &["tcp"])?;
    let client = stage.socket(40_001, to)?;
    client.send_to_with_flags(&[0x2e; 100], &to.into(), MSG_FASTOPEN)?;
    let (server, _) = listener.accept()?;
    std::io::Read::read_exact(&mut &server, &mut [0; 100])?;
    pause_ms(20);
    send(&server, &client, 200)?;
    close(client, server)?;
    recording.stop()
}

/// Two attempts from one port.
fn refused_again(stage: &Stage) -> Result<()> {
    let to = (SERVER, CLOSED_PORT).into();
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "refused_again", &["tcp"])?;
    must_fail(&stage.socket(40_001, to)?, to)?;
    pause_ms(500);
    must_fail(&stage.socket(40_001, to)?, to)?;
    recording.stop()
}
