//! Traces: what thousands of connections send, packet by packet in time order. A seed makes the same
//! trace every time; no clock and no I/O.

mod talk;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fastrand::Rng;

use talk::Talk;

const SEED: u64 = 20_260_101;
const MILLISECOND_US: u64 = 1_000;
const SECOND_US: u64 = 1_000_000;

/// Time that connections start within, in a trace of everyday traffic.
const WEB_WINDOW_US: u64 = 180 * SECOND_US;
/// Client hosts of a trace; connections beyond that share hosts and have ports of their own.
const CLIENT_HOSTS: u32 = 2_000;
const SERVER_HOSTS: u32 = 200;
const SERVER_PORTS: [u16; 8] = [443, 80, 443, 8080, 5432, 6379, 9092, 3306];
const FIRST_CLIENT_PORT: u32 = 32_768;
/// Ports between two that one host uses in turn, so that they look like a machine's.
const CLIENT_PORT_STEP: u32 = 7;

/// The two ends of a connection, and what its packets look like.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The end that opens it.
    pub client: SocketAddr,
    /// The other.
    pub server: SocketAddr,
    /// Its packets carry the timestamp option (RFC 7323), as Linux's do.
    pub timestamps: bool,
}

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The client's first.
    Syn,
    /// The server's first.
    SynAck,
    /// Data, or an acknowledgment without any.
    Ack,
    /// The last data of a message.
    Push,
    /// The end of what one side has to say.
    Fin,
    /// An abrupt end, or a refusal.
    Reset,
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Since the trace's start, microseconds.
    pub time_us: u64,
    /// Index of its connection.
    pub connection: u32,
    /// Its sequence number.
    pub sequence: u32,
    /// What it acknowledges; no meaning in a SYN.
    pub acknowledgment: u32,
    /// TCP payload, bytes.
    pub payload: u16,
    /// Sent by the client.
    pub from_client: bool,
    /// What it is for.
    pub kind: Kind,
}

/// Connections and their packets, in time order.
#[derive(Debug, Default)]
pub struct Trace {
    /// Who talks.
    pub connections: Vec<Connection>,
    /// What they send.
    pub events: Vec<Event>,
}

impl Trace {
    /// Everyday traffic of at least so many packets: web requests, remote calls of small messages and
    /// some bulk transfers; with retransmissions, closed by FIN or RST, refused, unanswered, or left
    /// open. About a hundred packets a connection, over three minutes; one connection in seven is IPv6.
    pub fn everyday(packets: usize) -> Self {
        let mut rng = Rng::with_seed(SEED);
        let mut trace = Self::default();
        while trace.events.len() < packets {
            let start_us = rng.u64(..WEB_WINDOW_US);
            trace.talk(start_us, &mut rng, everyday_connection);
        }
        trace.in_time_order()
    }

    /// Connections that are all open at once at the end: a handshake and a request each, within half
    /// a minute.
    pub fn open_at_once(connections: usize) -> Self {
        let mut rng = Rng::with_seed(SEED);
        let mut trace = Self::default();
        for index in 0..connections as u64 {
            let start_us = index * 30 * SECOND_US / connections as u64;
            trace.talk(start_us, &mut rng, |mut talk, rng| {
                talk.handshake();
                talk.segment(true, rng.u16(60..300), Kind::Push);
            });
        }
        trace.in_time_order()
    }

    /// The packets of a flood of SYNs, each from an address of its own, to a server that also has
    /// established connections; these are the first of the trace's connections, each with a client
    /// address of its own. They talk before, during and after the flood, half of them; the other half
    /// is silent during it. With `answered` the server answers every SYN.
    pub fn flood(established: usize, attackers: u32, answered: bool) -> Self {
        const FLOOD_START_US: u64 = 5 * SECOND_US;
        const FLOOD_US: u64 = 20 * SECOND_US;
        let server = SocketAddr::new(IpAddr::from([10, 96, 0, 1]), 443);
        let mut rng = Rng::with_seed(SEED);
        let mut trace = Self::default();
        for index in 0..established as u64 {
            let client = SocketAddr::new(host(false, 64, index as u32), 40_000);
            let connection = Connection { client, server, timestamps: true };
            let start_us = index * 3 * SECOND_US / established as u64;
            let is_silent = index % 2 == 1;
            trace.talk_as(connection, start_us, &mut rng, |mut talk, _| {
                talk.handshake();
                for second in 0..30 {
                    let during = (FLOOD_START_US / SECOND_US..26).contains(&second);
                    if !(is_silent && during) {
                        talk.message(true, 300);
                        talk.message(false, 900);
                    }
                    talk.pause(SECOND_US);
                }
                talk.finish(true);
            });
        }
        for index in 0..attackers {
            let client = SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x6440_0000 + index)), 1_024);
            let connection = Connection { client, server, timestamps: false };
            let start_us = FLOOD_START_US + u64::from(index) * FLOOD_US / u64::from(attackers);
            trace.talk_as(connection, start_us, &mut rng, |mut talk, _| {
                talk.syn();
                if answered {
                    talk.syn_ack();
                }
            });
        }
        trace.in_time_order()
    }

    /// Lets another connection talk, from an instant on.
    fn talk(&mut self, start_us: u64, rng: &mut Rng, script: impl FnOnce(Talk<'_>, &mut Rng)) {
        let index = self.connections.len() as u32;
        let is_v6 = rng.u32(..7) == 0;
        let port = FIRST_CLIENT_PORT + index / CLIENT_HOSTS * CLIENT_PORT_STEP % 28_000;
        let server_port = rng.choice(SERVER_PORTS).unwrap_or(SERVER_PORTS[0]);
        let connection = Connection {
            client: SocketAddr::new(host(is_v6, 64, index % CLIENT_HOSTS), port as u16),
            server: SocketAddr::new(host(is_v6, 96, rng.u32(..SERVER_HOSTS)), server_port),
            timestamps: rng.u32(..10) < 7,
        };
        self.talk_as(connection, start_us, rng, script);
    }

    fn talk_as(
        &mut self,
        connection: Connection,
        start_us: u64,
        rng: &mut Rng,
        script: impl FnOnce(Talk<'_>, &mut Rng),
    ) {
        let number = self.connections.len() as u32;
        let talk = Talk::new(number, &connection, &mut self.events, start_us, rng);
        self.connections.push(connection);
        script(talk, rng);
    }

    fn in_time_order(mut self) -> Self {
        // Stable: what one connection sends at one instant stays in its order.
        self.events.sort_by_key(|event| event.time_us);
        self
    }
}

/// A host's address: 10.`net`.0.0/16, or fd00:`net`::/32.
fn host(is_v6: bool, net: u8, number: u32) -> IpAddr {
    if is_v6 {
        let [high, low] = [(number >> 16) as u16, number as u16];
        Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, high, low).into()
    } else {
        let [_, _, high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, net, high, low).into()
    }
}

fn everyday_connection(mut talk: Talk<'_>, rng: &mut Rng) {
    match rng.u32(..100) {
        0 => return talk.syn_unanswered(),
        1 => return talk.syn_refused(),
        _ => talk.handshake(),
    }
    match rng.u32(..100) {
        0..45 => {
            for _ in 0..rng.u32(1..7) {
                talk.message(true, rng.usize(300..1_500));
                talk.message(false, heavy_tailed(rng, 600.0, 300_000.0));
                talk.pause(rng.u64(100 * MILLISECOND_US..2 * SECOND_US));
            }
        }
        45..95 => {
            for _ in 0..rng.u32(5..70) {
                talk.message(true, rng.usize(60..500));
                talk.message(false, rng.usize(40..700));
                talk.pause(rng.u64(10 * MILLISECOND_US..600 * MILLISECOND_US));
            }
        }
        _ => {
            let is_upload = rng.bool();
            talk.message(true, 400);
            talk.message(is_upload, rng.usize(200_000..1_500_000));
            talk.message(false, 200);
        }
    }
    match rng.u32(..100) {
        0..3 => {}
        3..13 => talk.reset(rng.bool()),
        _ => talk.finish(rng.u32(..10) < 7),
    }
}

/// A size whose large values are rare (Pareto's distribution, cut off).
fn heavy_tailed(rng: &mut Rng, least: f64, most: f64) -> usize {
    (least * (1.0 - rng.f64()).powf(-1.0 / 1.2)).min(most) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn summary(trace: &Trace) -> Vec<(u64, u32, u32, u16)> {
        let of = |e: &Event| (e.time_us, e.connection, e.sequence, e.payload);
        trace.events.iter().map(of).collect()
    }

    #[test]
    fn everyday_traffic_is_the_same_every_time_and_in_order() {
        let trace = Trace::everyday(50_000);
        assert!(trace.events.len() >= 50_000);
        assert!(trace.events.is_sorted_by_key(|event| event.time_us));
        assert!(summary(&trace) == summary(&Trace::everyday(50_000)));
        let ends =
            trace.connections.iter().map(|connection| (connection.client, connection.server));
        assert_eq!(ends.collect::<HashSet<_>>().len(), trace.connections.len());
        for kind in [Kind::SynAck, Kind::Push, Kind::Fin, Kind::Reset] {
            assert!(trace.events.iter().any(|event| event.kind == kind), "no {kind:?}");
        }
        assert!(trace.connections.iter().any(|connection| connection.client.is_ipv6()));
    }

    #[test]
    fn a_hundred_thousand_connections_are_open_at_once() {
        let trace = Trace::open_at_once(100_000);
        let clients = trace.connections.iter().map(|connection| connection.client);
        assert_eq!(clients.collect::<HashSet<_>>().len(), 100_000);
        assert_eq!(trace.events.len(), 400_000);
        assert!(!trace.events.iter().any(|e| matches!(e.kind, Kind::Fin | Kind::Reset)));
    }

    #[test]
    fn every_attacker_of_a_flood_has_its_own_address() {
        let trace = Trace::flood(10, 1_000, false);
        let clients = trace.connections.iter().map(|connection| connection.client.ip());
        assert_eq!(clients.collect::<HashSet<_>>().len(), 1_010);
        let first = trace.events.iter().find(|event| event.connection >= 10);
        let last = trace.events.iter().rfind(|event| event.connection < 10);
        assert!(first.unwrap().time_us < last.unwrap().time_us);
    }
}
