//! Where a page ends: the question, the window, the order and the last connection's place in it. Whoever asks for the
//! next page brings it along, so nothing is kept here, and what comes meanwhile moves nothing.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use flowtrail_service::instant::MAX_INSTANT_MS;

use crate::params::Order;
use crate::window::Requested;

/// What tells connections apart, as far as primary rows go: `crate::sql::open_at` has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// A summary of several connections.
    pub(crate) folded: bool,
    /// `shared` is the id itself, a hash of the tuple; else it is the client's initial sequence number.
    pub(crate) hashed: bool,
    /// What all observations of the connection have alike.
    pub(crate) shared: u64,
    pub(crate) client_ip: Ipv6Addr,
    pub(crate) client_port: u16,
    pub(crate) server_ip: Ipv6Addr,
    pub(crate) server_port: u16,
}

/// The last connection of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Tells what was asked from other questions: a place in the answer to one is none in another's.
    pub(crate) question: u64,
    pub(crate) window: Requested,
    pub(crate) order: Order,
    /// What it was ordered by.
    pub(crate) rank: u64,
    pub(crate) key: Key,
}

/// First part of a cursor's text: another form has another.
const VERSION: u64 = 2;

impl Default for Key {
    fn default() -> Self {
        Self {
            folded: false,
            hashed: false,
            shared: 0,
            client_ip: Ipv6Addr::UNSPECIFIED,
            client_port: 0,
            server_ip: Ipv6Addr::UNSPECIFIED,
            server_port: 0,
        }
    }
}

impl Default for Cursor {
    fn default() -> Self {
        let window = Requested { from_ms: 0, to_ms: 1 };
        Self { question: 0, window, order: Order::default(), rank: 0, key: Key::default() }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { question, window, order, rank, key } = self;
        write!(
            f,
            "{VERSION:x}.{question:x}.{:x}.{:x}.{:x}.{rank:x}.{:x}.{:x}.{:x}.{:x}.{:x}.{:x}",
            window.from_ms,
            window.to_ms,
            *order as u8,
            u8::from(key.folded) << 1 | u8::from(key.hashed),
            key.shared,
            u128::from(key.client_ip),
            key.client_port,
            u128::from(key.server_ip),
            key.server_port,
        )
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.');
        let mut number = || {
            let part = parts.next().filter(|part| !part.starts_with('+')).ok_or(())?;
            u128::from_str_radix(part, 16).map_err(|_| ())
        };
        if number()? != u128::from(VERSION) {
            return Err(());
        }
        let question = narrow(number()?)?;
        let instant =
            |number: u128| i64::try_from(number).ok().filter(|ms| *ms <= MAX_INSTANT_MS).ok_or(());
        let window = Requested { from_ms: instant(number()?)?, to_ms: instant(number()?)? };
        let order = usize::try_from(number()?).map_err(|_| ())?;
        let order = *Order::ALL.get(order).ok_or(())?;
        let rank = narrow(number()?)?;
        let flags = number()?;
        let key = Key {
            folded: flags & 2 != 0,
            hashed: flags & 1 != 0,
            shared: narrow(number()?)?,
            client_ip: number()?.into(),
            client_port: narrow(number()?)?,
            server_ip: number()?.into(),
            server_port: narrow(number()?)?,
        };
        if flags > 3 || parts.next().is_some() || window.from_ms >= window.to_ms {
            return Err(());
        }
        Ok(Self { question, window, order, rank, key })
    }
}

fn narrow<T: TryFrom<u128>>(number: u128) -> Result<T, ()> {
    number.try_into().map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            times in (0..MAX_INSTANT_MS, 1..=MAX_INSTANT_MS), order in prop::sample::select(Order::ALL),
            question: u64, rank: u64, flags: (bool, bool), shared: u64, ends: (u128, u16, u128, u16),
        ) {
            let (from_ms, to_ms) = (times.0.min(times.1 - 1), times.0.max(times.1));
            let key = Key {
                folded: flags.0, hashed: flags.1, shared,
                client_ip: ends.0.into(), client_port: ends.1,
                server_ip: ends.2.into(), server_port: ends.3,
            };
            let window = Requested { from_ms, to_ms };
            let cursor = Cursor { question, window, order, rank, key };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn anything_else_is_refused(text in "([0-9a-f+.-]{0,60}|.{0,40})") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert!(cursor.window.from_ms < cursor.window.to_ms);
            }
        }
    }
}
