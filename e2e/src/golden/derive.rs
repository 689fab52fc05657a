//! Derivation: expected records from events, that is, from the numbers of the packets in which things
//! happen, as people have read them off a list of packets. Nothing in here decides what a packet
//! means; it adds up.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use flowtrail_schema::{Counters, Endpoint, IdKind, connection_id};
use serde::{Deserialize, Serialize};

use super::packets::{Packet, read};

/// Length of the intervals, microseconds.
const INTERVAL_US: u64 = 10_000_000;
const MINUTE_US: u64 = 60_000_000;

/// The file that holds the events, one connection a line.
const EVENTS: &str = "events.jsonl";

/// What happens to one connection in a capture, by packet numbers; the first packet is 1.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Connection {
    capture: String,
    /// First and last, of each stretch.
    packets: Vec<(usize, usize)>,
    /// One that the client sends, or receives; the first of all, where neither is said.
    sent: Option<usize>,
    received: Option<usize>,
    opened: Option<usize>,
    #[serde(default)]
    joined: Vec<usize>,
    /// Of the id; without them it is a hash of the tuple, and the direction is inferred.
    isns: Option<Isns>,
    /// The hash is for another reason: another tuple of this interface has the id already.
    #[serde(default)]
    id_in_use: bool,
    #[serde(default)]
    one_sided: bool,
    /// First and last packet of each measure.
    syn_to_synack: Option<(usize, usize)>,
    synack_to_ack: Option<(usize, usize)>,
    first_response: Option<(usize, usize)>,
    /// From which packet to which event it is open.
    #[serde(default)]
    open: Vec<(usize, Option<When>)>,
    #[serde(default)]
    closed: Vec<Close>,
    /// So many minutes begin in the silence after a packet.
    silence: Option<(usize, u64)>,
    #[serde(default)]
    retransmitted: Vec<usize>,
    #[serde(default)]
    zero_window: Vec<usize>,
}

/// Where the initial sequence numbers are, and from which packet on both are known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Isns {
    client: Number,
    server: Option<Number>,
    known: Option<usize>,
}

/// A packet's sequence number, or the one before what it acknowledges.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Number {
    Sequence(usize),
    Acknowledged(usize),
}

/// At a packet, or so many seconds after one.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum When {
    At(usize),
    After(usize, u64),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Close {
    reason: String,
    when: When,
    /// First and last packet of the life that ends.
    life: (usize, usize),
}

/// One expected record; the field names are those of `--output json`.
#[derive(Debug, Default, Serialize)]
struct Record {
    interval_start: u64,
    connection_id: u64,
    id_kind: Option<IdKind>,
    handshake_seen: bool,
    one_sided: bool,
    direction_inferred: bool,
    client: Option<Endpoint>,
    server: Option<Endpoint>,
    first_seen: u64,
    last_seen: u64,
    sent: Counters,
    received: Counters,
    opened: u32,
    joined: u32,
    open_at_start: u32,
    closed: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syn_to_synack: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    synack_to_ack: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_response: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<u64>,
}

/// Writes `NAME.json` of every capture that a directory's events are about.
///
/// # Errors
/// If events and captures do not agree on who sent what.
pub fn derive(directory: &Path) -> Result<()> {
    let events = directory.join(EVENTS);
    let text = std::fs::read_to_string(&events)
        .with_context(|| format!("cannot read {}", events.display()))?;
    let mut captures: BTreeMap<String, Vec<Connection>> = BTreeMap::new();
    for (line, number) in text.lines().zip(1..) {
        let connection: Connection = serde_json::from_str(line)
            .with_context(|| format!("{}, line {number}", events.display()))?;
        captures.entry(connection.capture.clone()).or_default().push(connection);
    }
    for (name, connections) in captures {
        let lines = lines(directory, &name, &connections).context(name.clone())?;
        std::fs::write(directory.join(name).with_extension("json"), lines)?;
    }
    Ok(())
}

fn lines(directory: &Path, name: &str, connections: &[Connection]) -> Result<String> {
    let packets = read(&directory.join(name).with_extension("pcap"))?;
    let mut numbers: Vec<_> = connections.iter().flat_map(Connection::numbers).collect();
    numbers.sort_unstable();
    ensure!(
        numbers == (1..=packets.len()).collect::<Vec<_>>(),
        "each of the {} packets must be in one connection",
        packets.len()
    );
    let mut records = Vec::new();
    for connection in connections {
        records.extend(Derivation { connection, packets: &packets }.records()?);
    }
    records.sort_by_key(|record| record.interval_start);
    let mut lines = String::new();
    for record in records {
        writeln!(lines, "{}", serde_json::to_string(&record)?)?;
    }
    Ok(lines)
}

impl Connection {
    fn numbers(&self) -> impl Iterator<Item = usize> {
        self.packets.iter().flat_map(|(first, last)| *first..=*last)
    }
}

/// A connection's events with the packets that they name.
struct Derivation<'a> {
    connection: &'a Connection,
    packets: &'a [Packet],
}

type Records = BTreeMap<u64, Record>;

/// One of a record's measures.
type Measure = fn(&mut Record) -> &mut Option<u64>;

impl Derivation<'_> {
    fn packet(&self, number: usize) -> Result<&Packet> {
        let index = number.checked_sub(1).context("packets count from 1")?;
        self.packets.get(index).with_context(|| format!("there is no packet {number}"))
    }

    fn time_us(&self, number: usize) -> Result<u64> {
        Ok(self.packet(number)?.time_us)
    }

    fn when_us(&self, when: When) -> Result<u64> {
        Ok(match when {
            When::At(number) => self.time_us(number)?,
            When::After(number, seconds) => self.time_us(number)? + seconds * 1_000_000,
        })
    }

    fn records(&self) -> Result<Vec<Record>> {
        let (client, server) = self.ends()?;
        let mut records = Records::new();
        self.count_packets(client, server, &mut records)?;
        self.count_life(&mut records)?;
        self.measure(&mut records)?;
        for record in records.values_mut() {
            (record.client, record.server) = (Some(client), Some(server));
            self.identify(client, server, record)?;
            record.one_sided = self.connection.one_sided;
        }
        Ok(records.into_values().collect())
    }

    fn ends(&self) -> Result<(Endpoint, Endpoint)> {
        let Connection { sent, received, packets, .. } = self.connection;
        let (first, _) = packets.first().context("no packets")?;
        let Packet { source, destination, .. } =
            *self.packet(sent.or(*received).unwrap_or(*first))?;
        Ok(match received {
            Some(_) => (destination, source),
            None => (source, destination),
        })
    }

    fn count_packets(
        &self,
        client: Endpoint,
        server: Endpoint,
        records: &mut Records,
    ) -> Result<()> {
        for number in self.connection.numbers() {
            let packet = self.packet(number)?;
            let record = record_at(records, packet.time_us);
            let first = record.sent.packets + record.received.packets == 0;
            record.first_seen = match first {
                true => packet.time_us,
                false => record.first_seen.min(packet.time_us),
            };
            record.last_seen = record.last_seen.max(packet.time_us);
            let counters = match (packet.source, packet.destination) {
                ends if ends == (client, server) => &mut record.sent,
                ends if ends == (server, client) => &mut record.received,
                _ => bail!("packet {number} is not of this connection"),
            };
            *counters += Counters {
                bytes: packet.ip_bytes,
                payload_bytes: packet.payload_bytes,
                packets: 1,
                retransmitted_packets: self.connection.retransmitted.contains(&number).into(),
                zero_window_packets: self.connection.zero_window.contains(&number).into(),
            };
        }
        Ok(())
    }

    fn count_life(&self, records: &mut Records) -> Result<()> {
        let Connection { opened, joined, closed, silence, open, .. } = self.connection;
        if let Some(number) = opened {
            record_at(records, self.time_us(*number)?).opened += 1;
        }
        for number in joined {
            record_at(records, self.time_us(*number)?).joined += 1;
        }
        for Close { reason, when, life: (first, last) } in closed {
            let record = record_at(records, self.when_us(*when)?);
            *record.closed.entry(reason.clone()).or_default() += 1;
            record.duration = Some(self.time_us(*last)? - self.time_us(*first)?);
        }
        if let Some((number, minutes)) = silence {
            let next = self.time_us(*number)? / MINUTE_US + 1;
            for minute in next..next + minutes {
                record_at(records, minute * MINUTE_US);
            }
        }
        for (since, until) in open {
            let since_us = self.time_us(*since)?;
            let until_us = until.map_or(Ok(u64::MAX), |until| self.when_us(until))?;
            for record in records.values_mut() {
                let start_us = record.interval_start;
                record.open_at_start += u32::from(since_us < start_us && start_us <= until_us);
            }
        }
        Ok(())
    }

    fn measure(&self, records: &mut Records) -> Result<()> {
        let Connection { syn_to_synack, synack_to_ack, first_response, .. } = self.connection;
        let measures: [(_, Measure); 3] = [
            (syn_to_synack, |record| &mut record.syn_to_synack),
            (synack_to_ack, |record| &mut record.synack_to_ack),
            (first_response, |record| &mut record.first_response),
        ];
        for (measure, field) in measures {
            if let Some((since, until)) = measure {
                let until_us = self.time_us(*until)?;
                let duration_us = until_us - self.time_us(*since)?;
                *field(record_at(records, until_us)) = Some(duration_us);
            }
        }
        Ok(())
    }

    fn identify(&self, client: Endpoint, server: Endpoint, record: &mut Record) -> Result<()> {
        let Some(isns) = &self.connection.isns else {
            record.connection_id = connection_id::from_tuple(client, server);
            record.id_kind = Some(IdKind::TupleHash);
            record.handshake_seen = self.connection.id_in_use;
            record.direction_inferred = !self.connection.id_in_use;
            return Ok(());
        };
        let number = |number: &Number| -> Result<u32> {
            Ok(match *number {
                Number::Sequence(packet) => self.packet(packet)?.sequence,
                Number::Acknowledged(packet) => self.packet(packet)?.acknowledgment.wrapping_sub(1),
            })
        };
        let end_us = record.last_seen.max(record.interval_start);
        let known = isns.known.map(|packet| self.time_us(packet)).transpose()?;
        let (server, kind) = match &isns.server {
            Some(isn) if known.is_some_and(|known| known <= end_us) => {
                (number(isn)?, IdKind::Complete)
            }
            _ => (0, IdKind::Partial),
        };
        record.connection_id = connection_id::from_isns(number(&isns.client)?, server);
        record.id_kind = Some(kind);
        record.handshake_seen = true;
        Ok(())
    }
}

fn record_at(records: &mut Records, time_us: u64) -> &mut Record {
    let interval_start = time_us / INTERVAL_US * INTERVAL_US;
    records.entry(interval_start).or_insert(Record {
        interval_start,
        first_seen: interval_start,
        last_seen: interval_start,
        ..Record::default()
    })
}
