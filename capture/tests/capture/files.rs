//! Reading capture files: time is the file's, and nothing is dropped.

use std::path::Path;

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use flowtrail_capture::{Agent, CaptureError, Output, Summary};
use flowtrail_schema::{FlowBatch, InterfaceKind};
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{batches, config, records};

/// 2024-01-01 00:00:00 UTC.
pub(crate) const START_US: u64 = 1_704_067_200_000_000;

pub(crate) const PACKETS_PER_CONNECTION: u64 = 6;

/// A connection of six packets within 60 ms, the client's port and sequence number telling it.
fn connection(number: u16, start_us: u64) -> Vec<(u64, Vec<u8>)> {
    let (client, server) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let (port, isn) = (10_000 + number, 10_000 * (u32::from(number) + 1));
    let up =
        |offset: u32| PacketBuilder::ipv4(client, server, 64).tcp(port, 80, isn + offset, 1_000);
    let down =
        |offset: u32| PacketBuilder::ipv4(server, client, 64).tcp(80, port, 7 + offset, 1_000);
    let packets = [
        (up(0).syn(), &b""[..]),
        (down(0).syn().ack(isn + 1), b""),
        (up(1).ack(8), b"hello"),
        (up(6).fin().ack(8), b""),
        (down(1).fin().ack(isn + 7), b""),
        (up(7).ack(9), b""),
    ];
    let times = (0..).map(|index| start_us + index * 10_000);
    let write = |(time_us, (packet, payload)): (u64, (PacketBuilderStep<TcpHeader>, &[u8]))| {
        let mut bytes = Vec::new();
        packet.write(&mut bytes, payload).unwrap();
        (time_us, bytes)
    };
    times.zip(packets).map(write).collect()
}

/// A pcap file (link type 101, raw IP) of one connection a second.
pub(crate) fn pcap(connections: u16) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    for number in 0..connections {
        for (time_us, packet) in connection(number, START_US + u64::from(number) * 1_000_000) {
            let length = packet.len() as u32;
            for word in [(time_us / 1_000_000) as u32, (time_us % 1_000_000) as u32, length, length]
            {
                file.extend(word.to_le_bytes());
            }
            file.extend(packet);
        }
    }
    file
}

pub(crate) fn write_pcap(path: &Path, connections: u16) {
    std::fs::write(path, pcap(connections)).unwrap();
}

async fn read(path: &Path) -> (Result<Summary, CaptureError>, Vec<FlowBatch>) {
    let (sender, receiver) = mpsc::channel(1);
    let output = Output::Channel { sender, partitions: 2 };
    let config = config(&["--read", path.to_str().unwrap()]);
    let agent = Agent::new(config, output, &Metrics::new()).unwrap();
    let ready = Readiness::default().part("capture");
    tokio::join!(agent.run(ready, CancellationToken::new()), batches(receiver))
}

#[tokio::test]
async fn every_packet_of_a_file_is_in_a_record() {
    const CONNECTIONS: u16 = 600;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ten-minutes.pcap");
    write_pcap(&path, CONNECTIONS);

    let (summary, batches) = read(&path).await;
    let summary = summary.unwrap();
    let packets = u64::from(CONNECTIONS) * PACKETS_PER_CONNECTION;
    assert_eq!((summary.packets, summary.records_dropped), (packets, 0));
    assert!(summary.skipped.is_empty(), "{:?}", summary.skipped);
    assert_eq!(summary.first_packet_us, Some(START_US));
    assert_eq!(summary.last_packet_us, Some(START_US + 599_050_000));

    // More batches than the queue holds: the file waited for the reader.
    assert!(batches.len() >= 1_200, "{}", batches.len());
    let records = records(&batches);
    assert_eq!(summary.records, records.len() as u64);
    let counted: u64 = records.iter().map(|r| r.sent.packets + r.received.packets).sum();
    assert_eq!(counted, packets);
    assert_eq!(records.iter().map(|r| r.opened).sum::<u32>(), 600);
    assert_eq!(records.iter().map(|r| r.closed.fin).sum::<u32>(), 600);
    assert!(records.iter().all(|r| r.interface.name == "ten-minutes.pcap"));
    assert!(records.iter().all(|r| r.interface.kind == InterfaceKind::Other));

    for partition in 0..2 {
        let own = batches.iter().filter(|batch| batch.partition == partition);
        let reported: Vec<_> =
            own.flat_map(|b| &b.coverage).map(|report| report.interval.start_us()).collect();
        let all: Vec<_> = (0..600).map(|second| START_US + second * 1_000_000).collect();
        assert_eq!(reported, all, "each interval of the file is reported once");
    }
}

#[tokio::test]
async fn what_a_broken_file_holds_is_published_before_the_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broken.pcap");
    write_pcap(&path, 3);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();

    let (result, batches) = read(&path).await;
    let Err(CaptureError::BrokenFile { summary, source, .. }) = result else {
        panic!("{result:?}");
    };
    let packets = 3 * PACKETS_PER_CONNECTION - 1;
    assert_eq!(summary.packets, packets);
    assert!(source.to_string().contains("byte"), "{source}");
    let records = records(&batches);
    let counted: u64 = records.iter().map(|r| r.sent.packets + r.received.packets).sum();
    assert_eq!(counted, packets);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let (result, _) = read(Path::new("/nonexistent/x.pcap")).await;
    assert!(result.unwrap_err().to_string().contains("/nonexistent/x.pcap"));
}
