//! What connections live through: being met midstream, silence, full windows, and the end of those
//! whose tuple another takes.

use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use socket2::TcpKeepalive;

use super::Case;
use super::conversation::{close, exchange, pause_ms, reset, send, until_ms};
use super::stage::{ETH0, PORT, Path, SERVER, Stage, crafted};

pub(super) const CASES: &[Case] = &[
    Case::new("midstream", Path::Wire, midstream),
    Case::new("midstream_listener", Path::Wire, midstream_listener),
    Case::new("keepalive", Path::Wire, keepalive),
    Case::new("heartbeat", Path::Wire, heartbeat),
    Case::new("idle", Path::Wire, idle),
    Case::new("server_speaks_first", Path::Wire, server_speaks_first),
    Case::new("sequence_wrap", Path::Wire, sequence_wrap),
    Case::new("zero_window", Path::Wire, zero_window),
    Case::new("port_reuse", Path::Wire, port_reuse),
    Case::new("port_reuse_after_crash", Path::Wire, port_reuse_after_crash),
    Case::new("port_reuse_unanswered", Path::Wire, port_reuse_unanswered),
    Case::new("superseded", Path::Wire, superseded),
];

const INTERVAL_S: u64 = 10;
const MINUTE_S: u64 = 60;

/// The handshake was not recorded.
fn midstream(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "midstream", &["tcp"])?;
    exchange(&client, &server, 100, 200)?;
    until_ms(INTERVAL_S, 1_000);
    exchange(&client, &server, 100, 200)?;
    close(client, server)?;
    recording.stop()
}

/// The same, but the server's port is the higher one; a second connection shows that it listens.
fn midstream_listener(stage: &Stage) -> Result<()> {
    let to = (SERVER, 50_000).into();
    let listener = stage.listen(to)?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "midstream_listener", &["tcp"])?;
    let (other_client, other_server) = stage.connect(40_002, to, &listener)?;
    exchange(&other_client, &other_server, 100, 200)?;
    close(other_client, other_server)?;
    exchange(&client, &server, 100, 200)?;
    close(client, server)?;
    recording.stop()
}

/// No payload but a first request: keepalive probes alone, over two ends of intervals.
fn keepalive(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 8_000);
    let recording = stage.record((&stage.client, ETH0), "keepalive", &["tcp"])?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    let every = Duration::from_secs(3);
    client.set_tcp_keepalive(&TcpKeepalive::new().with_time(every).with_interval(every))?;
    send(&client, &server, 10)?;
    until_ms(INTERVAL_S, 7_000);
    until_ms(INTERVAL_S, 1_000);
    recording.stop()
}

/// Silent for two intervals, of which the first begins a minute.
fn heartbeat(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    until_ms(MINUTE_S, 55_000);
    let recording = stage.record((&stage.client, ETH0), "heartbeat", &["tcp"])?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    until_ms(MINUTE_S, 21_000);
    exchange(&client, &server, 100, 200)?;
    close(client, server)?;
    recording.stop()
}

/// Silent for longer than the idle timeout, and back after it. The second part of the capture is dated
/// 16 minutes later than it was.
fn idle(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "idle", &["tcp"])?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    let back = SystemTime::now() + Duration::from_millis(500);
    pause_ms(1_000);
    exchange(&client, &server, 100, 200)?;
    close(client, server)?;
    recording.stop_and_postpone(back, Duration::from_mins(16))
}

/// The server sends before it is asked, so that there is no response to measure.
fn server_speaks_first(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "server_speaks_first", &["tcp"])?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    send(&server, &client, 50)?;
    exchange(&client, &server, 100, 200)?;
    close(client, server)?;
    recording.stop()
}

/// Both ends' sequence numbers pass 2^32, and segments about there are sent again. All packets are
/// crafted.
fn sequence_wrap(stage: &Stage) -> Result<()> {
    const CLIENT_ISN: u32 = u32::MAX - 150;
    const SERVER_ISN: u32 = u32::MAX;
    let up = |offset: u32| crafted(true, CLIENT_ISN.wrapping_add(offset));
    let down = |offset: u32| crafted(false, SERVER_ISN.wrapping_add(offset));
    let up_to = |offset: u32| CLIENT_ISN.wrapping_add(offset);
    let down_to = |offset: u32| SERVER_ISN.wrapping_add(offset);
    stage.silence()?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "sequence_wrap", &["tcp"])?;
    let say = |packet, payload| stage.say(packet, payload);
    say(up(0).syn(), 0)?;
    say(down(0).syn().ack(up_to(1)), 0)?;
    say(up(1).ack(down_to(1)), 100)?;
    say(up(101).ack(down_to(1)), 100)?;
    say(up(101).ack(down_to(1)), 100)?;
    say(down(1).ack(up_to(201)), 200)?;
    say(down(1).ack(up_to(201)), 200)?;
    say(up(1).ack(down_to(201)), 200)?;
    say(up(201).fin().ack(down_to(201)), 0)?;
    say(down(201).fin().ack(up_to(202)), 0)?;
    say(up(202).ack(down_to(202)), 0)?;
    recording.stop()
}

/// The server does not read until its window is full and the client has probed it.
fn zero_window(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    listener.set_recv_buffer_size(4_096)?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "zero_window", &["-s", "96", "tcp"])?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    std::thread::scope(|scope| {
        let client = &client;
        let sending =
            scope.spawn(move || std::io::Write::write_all(&mut &*client, &[0x2e; 20_000]));
        pause_ms(1_500);
        std::io::Read::read_exact(&mut &server, &mut [0; 20_000])?;
        sending.join().unwrap_or_else(|_| Err(std::io::Error::other("ended early")))
    })?;
    close(client, server)?;
    recording.stop()
}

/// Two connections of one tuple, the second soon after the first has ended. The server closes first, so
/// that it is the server that remembers the first.
fn port_reuse(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "port_reuse", &["tcp"])?;
    for (request, response) in [(100, 200), (300, 400)] {
        let (client, server) = stage.connect(40_001, to, &listener)?;
        exchange(&client, &server, request, response)?;
        close(server, client)?;
        pause_ms(1_500);
    }
    recording.stop()
}

/// The client forgets a connection and begins another from the same port: the server, which has not
/// forgotten, asks by an acknowledgment (RFC 9293, 3.10.7.4), and is answered by a RST.
fn port_reuse_after_crash(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "port_reuse_after_crash", &["tcp"])?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    // A crash says nothing: here its RST is not let out.
    stage.client.nft(
        "table inet crash {
             chain leaving { type filter hook output priority 0; tcp flags rst drop; }
         }",
    )?;
    reset(client)?;
    stage.client.nft("delete table inet crash")?;
    let (client, second) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &second, 300, 400)?;
    close(client, second)?;
    drop(server);
    recording.stop()
}

/// A client gives up an attempt that the path has swallowed, and tries again from the same port.
fn port_reuse_unanswered(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    stage.wire()?.lose(|frame| frame.to_server && frame.number == 1);
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "port_reuse_unanswered", &["tcp"])?;
    let first = stage.socket(40_001, to)?;
    if first.connect_timeout(&to.into(), Duration::from_millis(300)).is_ok() {
        bail!("{to} answers");
    }
    drop(first);
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 100, 200)?;
    close(client, server)?;
    recording.stop()
}

/// Both ends forget a connection, and a new one takes its tuple; before, somebody's SYN on that tuple
/// is not answered. All packets are crafted.
fn superseded(stage: &Stage) -> Result<()> {
    const OLD: [u32; 2] = [1_000_000, 2_000_000];
    const NEW: [u32; 2] = [3_000_000, 4_000_000];
    const STRAY: u32 = 9_000_000;
    let up = |sequence| crafted(true, sequence);
    let down = |sequence| crafted(false, sequence);
    stage.silence()?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "superseded", &["tcp"])?;
    let say = |packet, payload| stage.say(packet, payload);
    say(up(OLD[0]).syn(), 0)?;
    say(down(OLD[1]).syn().ack(OLD[0] + 1), 0)?;
    say(up(OLD[0] + 1).ack(OLD[1] + 1), 100)?;
    say(down(OLD[1] + 1).ack(OLD[0] + 101), 200)?;
    say(up(STRAY).syn(), 0)?;
    say(up(OLD[0] + 101).ack(OLD[1] + 201), 50)?;
    say(down(OLD[1] + 201).ack(OLD[0] + 151), 0)?;
    say(up(NEW[0]).syn(), 0)?;
    say(down(NEW[1]).syn().ack(NEW[0] + 1), 0)?;
    say(up(NEW[0] + 1).ack(NEW[1] + 1), 300)?;
    say(down(NEW[1] + 1).ack(NEW[0] + 301), 400)?;
    say(up(NEW[0] + 301).fin().ack(NEW[1] + 401), 0)?;
    say(down(NEW[1] + 401).fin().ack(NEW[0] + 302), 0)?;
    say(up(NEW[0] + 302).ack(NEW[1] + 402), 0)?;
    recording.stop()
}
