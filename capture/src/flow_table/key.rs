//! Keys: which flow a packet belongs to, whichever direction it goes.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Index, IndexMut};

use flowtrail_schema::Endpoint;

use super::PointId;
use crate::packet::Segment;

/// One end of a flow. The lower address and port is `Low`, so that both directions have one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Low,
    High,
}

impl End {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

/// Something that each end has one of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PerEnd<T>(pub(super) [T; 2]);

impl<T> Index<End> for PerEnd<T> {
    type Output = T;

    fn index(&self, end: End) -> &T {
        &self.0[end as usize]
    }
}

impl<T> IndexMut<End> for PerEnd<T> {
    fn index_mut(&mut self, end: End) -> &mut T {
        &mut self.0[end as usize]
    }
}

/// A set of ends, in one byte: what is true of either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends(pub(super) u8);

impl Ends {
    pub(super) fn insert(&mut self, end: End) {
        self.0 |= 1 << end as u8;
    }

    pub(super) fn contains(self, end: End) -> bool {
        self.0 >> end as u8 & 1 == 1
    }

    pub(super) fn is_both(self) -> bool {
        self.0 == 0b11
    }
}

/// An observation point and a tuple, in 40 bytes: there is one for every flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowKey {
    low: Address,
    high: Address,
    low_port: u16,
    high_port: u16,
    pub(super) point: PointId,
    is_ipv4: bool,
}

/// The number that an address is, its upper half first. What family it is of says the key.
type Address = [u64; 2];

impl FlowKey {
    /// The key of a packet's flow, and which end sent the packet.
    pub(super) fn of(point: PointId, segment: &Segment) -> (Self, End) {
        let Segment { source, destination, .. } = *segment;
        if source <= destination {
            (Self::between(point, source, destination), End::Low)
        } else {
            (Self::between(point, destination, source), End::High)
        }
    }

    /// The key of two ends of one family, the lower one first.
    pub(super) fn between(point: PointId, low: Endpoint, high: Endpoint) -> Self {
        Self {
            low: number(low.ip),
            high: number(high.ip),
            low_port: low.port,
            high_port: high.port,
            point,
            is_ipv4: low.ip.is_ipv4(),
        }
    }

    pub(super) fn endpoint(&self, end: End) -> Endpoint {
        let ([upper, lower], port) = match end {
            End::Low => (self.low, self.low_port),
            End::High => (self.high, self.high_port),
        };
        let ip = if self.is_ipv4 {
            Ipv4Addr::from(lower as u32).into()
        } else {
            Ipv6Addr::from(u128::from(upper) << 64 | u128::from(lower)).into()
        };
        Endpoint { ip, port }
    }
}

impl Hash for FlowKey {
    /// Few words instead of a write for each field. An IPv4 address and an IPv6 one of the same number
    /// meet; equality tells them apart.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ports = u64::from(self.low_port) << 16 | u64::from(self.high_port);
        if self.is_ipv4 {
            state.write_u64(self.low[1] << 32 | self.high[1]);
        } else {
            for word in [self.low[0], self.low[1], self.high[0], self.high[1]] {
                state.write_u64(word);
            }
        }
        state.write_u64(u64::from(self.point.0) << 32 | ports);
    }
}

fn number(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => [0, u32::from(ip).into()],
        IpAddr::V6(ip) => {
            let number = u128::from(ip);
            [(number >> 64) as u64, number as u64]
        }
    }
}
