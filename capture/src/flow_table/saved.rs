//! Flows as the state file keeps them: what makes a restart a gap, and not a new set of connections.

use std::net::IpAddr;

use flowtrail_schema::{Endpoint, Interface, InterfaceKind, Reporter};

use super::connections::Beginning;
use super::flow::{Flow, Identity, Phase};
use super::handshake::Mark;
use super::key::{End, Ends, FlowKey, PerEnd};
use super::observations::{Choice, Standing};
use super::sequence::Sequence;
use super::{FlowTable, PointId};

/// Places looked at in one call of [`FlowTable::save`]: packets wait a millisecond or two for it.
const LOOKED_AT: u32 = 8_192;

/// Some flows, and the interfaces that they were seen at.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SavedFlows {
    #[prost(message, repeated, tag = "1")]
    interfaces: Vec<SavedInterface>,
    #[prost(message, repeated, tag = "2")]
    flows: Vec<SavedFlow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SavedInterface {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    kind: i32,
}

/// One flow. Ends are numbers: 0 the lower, 1 the higher. Addresses are halves of their numbers, so
/// that nothing is allocated for them.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct SavedFlow {
    /// Index into the interfaces.
    #[prost(uint32, tag = "1")]
    interface: u32,
    #[prost(bool, tag = "2")]
    is_ipv6: bool,
    #[prost(fixed64, tag = "3")]
    low_upper: u64,
    #[prost(fixed64, tag = "4")]
    low_lower: u64,
    #[prost(fixed64, tag = "5")]
    high_upper: u64,
    #[prost(fixed64, tag = "6")]
    high_lower: u64,
    #[prost(uint32, tag = "7")]
    low_port: u32,
    #[prost(uint32, tag = "8")]
    high_port: u32,
    #[prost(uint64, tag = "9")]
    start_us: u64,
    #[prost(fixed32, optional, tag = "10")]
    low_isn: Option<u32>,
    #[prost(fixed32, optional, tag = "11")]
    high_isn: Option<u32>,
    #[prost(uint32, tag = "12")]
    client: u32,
    #[prost(bool, tag = "13")]
    handshake_seen: bool,
    #[prost(bool, tag = "14")]
    direction_inferred: bool,
    #[prost(uint32, optional, tag = "15")]
    inside: Option<u32>,
    #[prost(bool, tag = "16")]
    is_primary: bool,
    #[prost(int32, tag = "17")]
    reporter: i32,
    #[prost(uint32, tag = "18")]
    phase: u32,
    #[prost(uint64, tag = "19")]
    last_seen_us: u64,
    #[prost(uint64, tag = "20")]
    since_us: u64,
    #[prost(uint32, tag = "21")]
    counted_s: u32,
    #[prost(bool, tag = "22")]
    established: bool,
    /// Sets of ends: bit 0 the lower, bit 1 the higher.
    #[prost(uint32, tag = "23")]
    seen: u32,
    #[prost(uint32, tag = "24")]
    fin: u32,
    #[prost(uint32, tag = "25")]
    fin_acknowledged: u32,
    #[prost(fixed32, optional, tag = "26")]
    low_next: Option<u32>,
    #[prost(fixed32, optional, tag = "27")]
    high_next: Option<u32>,
}

impl SavedFlows {
    /// Flows in here.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// The interfaces, in the order that flows name them.
    pub fn interfaces(&self) -> impl Iterator<Item = Interface> {
        self.interfaces.iter().map(|saved| {
            let kind = InterfaceKind::from_number(saved.kind).unwrap_or(InterfaceKind::Other);
            Interface { name: saved.name.clone(), kind }
        })
    }

    /// The two ends of each flow, to choose the table for it.
    pub fn ends(&self) -> impl Iterator<Item = [Endpoint; 2]> {
        self.flows.iter().map(SavedFlow::ends)
    }

    fn index_of(&mut self, interface: &Interface) -> u32 {
        let saved =
            SavedInterface { name: interface.name.clone(), kind: interface.kind.number().into() };
        let index = self.interfaces.iter().position(|other| *other == saved);
        index.unwrap_or_else(|| {
            self.interfaces.push(saved);
            self.interfaces.len() - 1
        }) as u32
    }
}

impl SavedFlow {
    fn ends(&self) -> [Endpoint; 2] {
        let end = |upper: u64, lower: u64, port: u32| {
            let ip: IpAddr = match self.is_ipv6 {
                true => (u128::from(upper) << 64 | u128::from(lower)).to_be_bytes().into(),
                false => (lower as u32).to_be_bytes().into(),
            };
            Endpoint { ip, port: port as u16 }
        };
        [
            end(self.low_upper, self.low_lower, self.low_port),
            end(self.high_upper, self.high_lower, self.high_port),
        ]
    }

    fn phase(&self) -> Option<Phase> {
        [Phase::HalfOpen, Phase::Open, Phase::Lingering, Phase::Remembered]
            .into_iter()
            .find(|phase| *phase as u32 == self.phase)
    }

    fn identity(&self) -> Identity {
        let mut identity = Identity::new(end(self.client), self.start_us);
        for (end, isn) in [(End::Low, self.low_isn), (End::High, self.high_isn)] {
            if let Some(isn) = isn {
                identity.set_isn(end, isn);
            }
        }
        identity.handshake_seen = self.handshake_seen;
        identity.direction_inferred = self.direction_inferred;
        identity.inside = self.inside.map(end);
        identity
    }
}

fn end(number: u32) -> End {
    if number == 0 { End::Low } else { End::High }
}

impl FlowTable {
    /// Adds flows from a place on to what is saved: those whose choice is made, for the choice is for
    /// life, and one that a crash forgets could be made another way. Returns the place to go on from,
    /// none at the end.
    pub fn save(&self, from: u32, saved: &mut SavedFlows) -> Option<u32> {
        let places = self.slots.places();
        let until = places.end.min(from.saturating_add(LOOKED_AT));
        let common = self.shared.lock();
        let mut last = None;
        for flow in (from..until).map(|slot| &self.slots[slot]) {
            if flow.phase == Phase::Free {
                continue;
            }
            let standing = common.observations.standing(flow.observation);
            let Some(interface) = common.points.interface(flow.key.point) else { continue };
            if standing.choice == Choice::Open {
                continue;
            }
            let point = flow.key.point;
            let index = match last.filter(|(other, _)| *other == point) {
                Some((_, index)) => index,
                None => saved.index_of(interface),
            };
            last = Some((point, index));
            saved.flows.push(save(flow, standing, index));
        }
        (until < places.end).then_some(until)
    }

    /// Puts a saved flow back; `points` are those of the interfaces. `counted_s`: start of the interval,
    /// in seconds, until which open connections are not to be counted, unless the flow itself knows of a
    /// later one. False if there is no room for it, or it cannot be.
    pub fn restore(
        &mut self,
        saved: &SavedFlows,
        n: usize,
        points: &[Option<PointId>],
        counted_s: u32,
    ) -> bool {
        let Some((saved, phase)) = saved.flows.get(n).and_then(|flow| Some((flow, flow.phase()?)))
        else {
            return false;
        };
        let Some(Some(point)) = points.get(saved.interface as usize).copied() else { return false };
        let [low, high] = saved.ends();
        let key = FlowKey::between(point, low, high);
        let is_taken = self.slots.find(&key).is_some() || low > high;
        if is_taken || self.slots.len() >= self.config.max_flows {
            return false;
        }
        let choice = if saved.is_primary { Choice::Primary } else { Choice::Secondary };
        let reporter = Reporter::from_number(saved.reporter).unwrap_or(Reporter::Transit);
        let beginning = Beginning {
            identity: saved.identity(),
            standing: Standing { choice, reporter },
            phase,
            mark: Mark::Nothing,
            time_us: saved.since_us,
        };
        let slot = self.add(key, beginning);
        let flow = &mut self.slots[slot];
        flow.put_back(saved, counted_s);
        let facts_of = flow.observation;
        let mut common = self.shared.lock();
        let facts = common.facts(&self.slots[slot]);
        common.observations.set_facts(facts_of, facts);
        if saved.handshake_seen && phase == Phase::Open {
            common.listeners.insert([low, high][1 - saved.client.min(1) as usize]);
        }
        true
    }

    /// Ends the putting back of flows: they wait in the order of their times again.
    pub fn restored(&mut self) {
        self.slots.sort_lists();
    }
}

impl Flow {
    fn put_back(&mut self, saved: &SavedFlow, counted_s: u32) {
        self.last_seen_us = saved.last_seen_us;
        self.set_counted_s(saved.counted_s.max(counted_s));
        self.established = saved.established;
        self.seen = Ends(saved.seen as u8 & 0b11);
        self.fin = Ends(saved.fin as u8 & 0b11);
        self.fin_acknowledged = Ends(saved.fin_acknowledged as u8 & 0b11);
        let nexts = PerEnd([saved.low_next, saved.high_next]);
        for end in [End::Low, End::High] {
            if let Some(next) = nexts[end] {
                self.begin_sequence(end, Sequence::starting_at(next));
            }
        }
    }
}

fn save(flow: &Flow, standing: Standing, interface: u32) -> SavedFlow {
    let [low, high] = [End::Low, End::High].map(|end| flow.key.endpoint(end));
    let halves = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (0, u32::from(ip).into()),
        IpAddr::V6(ip) => ((u128::from(ip) >> 64) as u64, u128::from(ip) as u64),
    };
    let (low_upper, low_lower) = halves(low.ip);
    let (high_upper, high_lower) = halves(high.ip);
    let identity = &flow.identity;
    SavedFlow {
        interface,
        is_ipv6: low.ip.is_ipv6(),
        low_upper,
        low_lower,
        high_upper,
        high_lower,
        low_port: low.port.into(),
        high_port: high.port.into(),
        start_us: identity.start_us,
        low_isn: identity.isn(End::Low),
        high_isn: identity.isn(End::High),
        client: identity.client as u32,
        handshake_seen: identity.handshake_seen,
        direction_inferred: identity.direction_inferred,
        inside: identity.inside.map(|end| end as u32),
        is_primary: standing.choice == Choice::Primary,
        reporter: standing.reporter.number().into(),
        phase: flow.phase as u32,
        last_seen_us: flow.last_seen_us,
        since_us: flow.since_us,
        counted_s: flow.counted_s(),
        established: flow.established,
        seen: flow.seen.0.into(),
        fin: flow.fin.0.into(),
        fin_acknowledged: flow.fin_acknowledged.0.into(),
        low_next: flow.next_sequence(End::Low),
        high_next: flow.next_sequence(End::High),
    }
}
