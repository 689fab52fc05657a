//! What paths do to packets: lose and reorder them, translate their addresses, tag them, show one
//! direction only, or carry many as one.

use std::time::Duration;

use anyhow::Result;

use super::Case;
use super::conversation::{close, exchange, send, until_ms};
use super::recording::Recording;
use super::stage::{BACKEND, BACKEND_PORT, ETH0, PORT, Path, SERVER, SERVER6, SERVICE, Stage};
use super::wire::{after_ms, at_once, lost};

pub(super) const CASES: &[Case] = &[
    Case::new("ipv6", Path::Wire, ipv6),
    Case::new("vlan", Path::Vlan(42), vlan),
    Case::new("gso", Path::Direct, gso),
    Case::new("big_tcp", Path::Direct, big_tcp),
    Case::new("nat", Path::Router, nat),
    Case::new("one_direction", Path::Wire, one_direction),
    Case::new("loss", Path::Wire, loss),
    Case::new("reordering", Path::Wire, reordering),
];

const INTERVAL_S: u64 = 10;

/// Bytes of a packet that are kept where payload is large: the headers.
const HEADERS: [&str; 3] = ["-s", "96", "tcp"];

fn ipv6(stage: &Stage) -> Result<()> {
    let to = (SERVER6, PORT).into();
    let listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "ipv6", &["tcp"])?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 300, 5_000)?;
    close(client, server)?;
    recording.stop()
}

/// Recorded on the trunk, IPv4 and IPv6.
fn vlan(stage: &Stage) -> Result<()> {
    let recording = {
        until_ms(INTERVAL_S, 2_000);
        stage.record((&stage.middle, "trunk0"), "vlan", &["vlan"])?
    };
    for to in [(SERVER, PORT).into(), (SERVER6, PORT).into()] {
        let listener = stage.listen(to)?;
        let (client, server) = stage.connect(40_001, to, &listener)?;
        exchange(&client, &server, 300, 500)?;
        close(client, server)?;
    }
    recording.stop()
}

/// Large writes over a veth pair: packets of up to 64 KiB.
fn gso(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 2_000);
    let recording = stage.record((&stage.client, ETH0), "gso", &HEADERS)?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 300, 600_000)?;
    close(client, server)?;
    recording.stop()
}

/// Packets larger than 64 KiB, whose IP headers have no length (BIG TCP).
fn big_tcp(stage: &Stage) -> Result<()> {
    for end in [&stage.client, &stage.server] {
        end.ip(["link", "set", ETH0, "gso_max_size", "200000", "gro_max_size", "200000"])?;
    }
    let to = (SERVER6, PORT).into();
    let listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 2_000);
    // Such a packet has a hop-by-hop header before TCP's (RFC 2675).
    let jumbo = ["-s", "96", "tcp or (ip6[6] = 0 and greater 60000)"];
    let recording = stage.record((&stage.client, ETH0), "big_tcp", &jumbo)?;
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 300, 1_000_000)?;
    close(client, server)?;
    recording.stop()
}

/// A pod asks a Service; recorded before and after the router has translated both addresses, and at
/// all interfaces as if they were one.
fn nat(stage: &Stage) -> Result<()> {
    let listener = stage.listen((BACKEND, BACKEND_PORT).into())?;
    until_ms(INTERVAL_S, 2_000);
    let recordings = [
        stage.record((&stage.middle, "to-client"), "nat_client", &["tcp"])?,
        stage.record((&stage.middle, "to-server"), "nat_server", &["tcp"])?,
        stage.record((&stage.middle, "any"), "nat_any", &["-y", "LINUX_SLL2", "tcp"])?,
    ];
    for (port, request, response) in [(40_001, 100, 200), (40_002, 300, 5_000)] {
        let (client, server) = stage.connect(port, (SERVICE, PORT).into(), &listener)?;
        exchange(&client, &server, request, response)?;
        close(client, server)?;
    }
    recordings.into_iter().try_for_each(Recording::stop)
}

/// The answers pass elsewhere, or the questions do: one capture of each.
fn one_direction(stage: &Stage) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 2_000);
    let recordings = [
        stage.record((&stage.client, ETH0), "one_direction_sent", &["-Q", "out", "tcp"])?,
        stage.record((&stage.client, ETH0), "one_direction_received", &["-Q", "in", "tcp"])?,
    ];
    let (client, server) = stage.connect(40_001, to, &listener)?;
    exchange(&client, &server, 300, 5_000)?;
    close(client, server)?;
    recordings.into_iter().try_for_each(Recording::stop)
}

/// Every ninth segment with payload is lost on its way from the server; seen at both ends. The way is
/// long enough that a segment sent again comes later than one that was overtaken.
fn loss(stage: &Stage) -> Result<()> {
    let mut segments = 0;
    stage.wire()?.set(move |frame| {
        segments += u32::from(!frame.to_server && frame.payload > 0);
        match !frame.to_server && frame.payload > 0 && segments % 9 == 0 {
            true => lost(),
            false => after_ms(20),
        }
    });
    recorded_at_both_ends(stage, "loss", 40_000)
}

/// Two segments with payload are overtaken, by those that follow within 200 µs.
fn reordering(stage: &Stage) -> Result<()> {
    let mut segments = 0;
    stage.wire()?.set(move |frame| {
        segments += u32::from(!frame.to_server && frame.payload > 0);
        match !frame.to_server && frame.payload > 0 && matches!(segments, 3 | 23) {
            true => vec![Duration::from_micros(200)],
            false => at_once(),
        }
    });
    recorded_at_both_ends(stage, "reordering", 40_000)
}

fn recorded_at_both_ends(stage: &Stage, name: &str, response: usize) -> Result<()> {
    let to = (SERVER, PORT).into();
    let listener = stage.listen(to)?;
    until_ms(INTERVAL_S, 2_000);
    let recordings = [
        stage.record((&stage.client, ETH0), &format!("{name}_client"), &HEADERS)?,
        stage.record((&stage.server, ETH0), &format!("{name}_server"), &HEADERS)?,
    ];
    let (client, server) = stage.connect(40_001, to, &listener)?;
    send(&client, &server, 100)?;
    send(&server, &client, response)?;
    close(client, server)?;
    recordings.into_iter().try_for_each(Recording::stop)
}
