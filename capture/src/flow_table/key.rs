//! Keys: which flow a packet belongs to, whichever direction it goes.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
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
pub(super) struct PerEnd<T>([T; 2]);

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

/// An observation point and a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowKey {
    pub(super) point: PointId,
    low: Endpoint,
    high: Endpoint,
}

impl FlowKey {
    /// The key of a packet's flow, and which end sent the packet.
    pub(super) fn of(point: PointId, segment: &Segment) -> (Self, End) {
        let Segment { source, destination, .. } = *segment;
        if source <= destination {
            (Self { point, low: source, high: destination }, End::Low)
        } else {
            (Self { point, low: destination, high: source }, End::High)
        }
    }

    pub(super) fn endpoint(&self, end: End) -> Endpoint {
        match end {
            End::Low => self.low,
            End::High => self.high,
        }
    }
}

impl Hash for FlowKey {
    /// Three words instead of the nine writes of derived ones. An IPv4 address and an IPv6 one of the
    /// same number meet; equality tells them apart.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(number(self.low.ip));
        state.write_u128(number(self.high.ip));
        let ports = u64::from(self.low.port) << 16 | u64::from(self.high.port);
        state.write_u64(u64::from(self.point.0) << 32 | ports);
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}
