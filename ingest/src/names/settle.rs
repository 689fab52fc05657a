//! Waiting for names that are on their way: a new pod's packets may be here before the news of it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Names, WaitLabel, now_us};

/// How old packets may be, in microseconds, for the news of their pod to be still on its way: an interval,
/// and what agents and Kafka take. What is older is a backlog, and waiting would make it longer.
const FRESH_US: u64 = 30_000_000;

/// Addresses waited for at once, at most; of more, some are enough: the news of a new node's pods comes
/// together.
const MAX_AWAITED: usize = 1_000;

/// How long an address that was waited for in vain is not waited for again, at least; at most twice that.
const MISS_MEMORY: Duration = Duration::from_secs(300);

/// Addresses waited for in vain that are remembered, at most twice as many: a /16 of them. Beyond it those
/// remembered first are forgotten.
const MAX_MISSED: usize = 65_536;

/// After a wait in vain there is none for this long: whoever scans private addresses costs a fifth of the
/// time, and not all of it.
const VAIN_PAUSE: Duration = Duration::from_secs(4);

/// What was waited for in vain, in two generations.
#[derive(Debug, Default)]
pub(super) struct Missed {
    young: HashSet<IpAddr>,
    old: HashSet<IpAddr>,
    aged: Option<Instant>,
    last_vain: Option<Instant>,
}

impl Names {
    /// Waits until all addresses are known at their instants (microseconds since the epoch), or nothing is
    /// to be hoped for: `at_most` is over, names do not come live, an address is public, was waited for
    /// in vain lately, or its packets are no longer fresh.
    pub async fn settle(&self, seen: impl Iterator<Item = (IpAddr, u64)>, at_most: Duration) {
        if !self.live.load(Ordering::Relaxed) {
            return;
        }
        // From before the first look on, so that nothing is missed.
        let mut updates = self.updates.subscribe();
        let mut awaited = self.awaited(seen);
        if awaited.is_empty() {
            return;
        }
        let deadline = Instant::now() + at_most;
        while let Ok(Ok(())) = timeout_at(deadline, updates.changed()).await {
            let index = self.read();
            awaited.retain(|address, instant_us| index.may_become_known(*address, *instant_us));
            if awaited.is_empty() {
                self.metrics.waits.get_or_create(&WaitLabel { outcome: "known" }).inc();
                return;
            }
        }
        self.metrics.waits.get_or_create(&WaitLabel { outcome: "timeout" }).inc();
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        missed.note(awaited.into_keys(), Instant::now());
    }

    fn awaited(&self, seen: impl Iterator<Item = (IpAddr, u64)>) -> HashMap<IpAddr, u64> {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        missed.age(now);
        if missed.last_vain.is_some_and(|vain| now - vain < VAIN_PAUSE) {
            return HashMap::new();
        }
        let fresh_us = now_us().saturating_sub(FRESH_US);
        let index = self.read();
        let (mut looked_at, mut awaited) = (HashSet::new(), HashMap::new());
        for (address, instant_us) in seen.filter(|(_, instant_us)| *instant_us >= fresh_us) {
            if looked_at.insert(address)
                && index.may_become_known(address, instant_us)
                && !missed.has(address)
            {
                awaited.insert(address, instant_us);
                if awaited.len() >= MAX_AWAITED {
                    break;
                }
            }
        }
        awaited
    }
}

impl Missed {
    fn has(&self, address: IpAddr) -> bool {
        self.young.contains(&address) || self.old.contains(&address)
    }

    fn note(&mut self, addresses: impl Iterator<Item = IpAddr>, now: Instant) {
        self.last_vain = Some(now);
        for address in addresses {
            if self.young.len() >= MAX_MISSED {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(address);
        }
    }

    fn age(&mut self, now: Instant) {
        let aged = *self.aged.get_or_insert(now);
        if now - aged >= MISS_MEMORY {
            self.old = std::mem::take(&mut self.young);
            self.aged = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use flowtrail_service::metrics::Metrics;
    use serde_json::json;

    use super::*;
    use crate::objects::{Object, Pod};

    const AT_MOST: Duration = Duration::from_secs(1);

    fn live() -> Names {
        let names = Names::new(&Metrics::new());
        names.come_live();
        names
    }

    fn add_pod(names: &Names, ip: &str) {
        let pod = json!({"metadata": {"name": ip}, "status": {"podIP": ip}});
        let pod: Object = serde_json::from_value::<Pod>(pod).unwrap().into();
        names.update(|index| index.apply(&pod, now_us()));
    }

    /// How long a record of these addresses waits.
    async fn waited(names: &Names, addresses: &[&str], instant_us: u64) -> Duration {
        let seen = addresses.iter().map(|address| (address.parse().unwrap(), instant_us));
        let begun = Instant::now();
        names.settle(seen, AT_MOST).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_the_last_name_is_known() {
        let names = live();
        add_pod(&names, "10.0.0.1");
        let later = names.clone();
        tokio::spawn(async move {
            for (millis, ip) in [(200, "10.0.0.2"), (300, "10.0.0.3")] {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                add_pod(&later, ip);
            }
        });
        let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "8.8.8.8"];
        assert_eq!(waited(&names, &all, now_us()).await, Duration::from_millis(500));
        assert_eq!(waited(&names, &all, now_us()).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_that_cannot_become_known() {
        let names = live();
        let public = ["8.8.8.8", "127.0.0.1", "::1", "224.0.0.1", "2001:db8::1"];
        assert_eq!(waited(&names, &public, now_us()).await, Duration::ZERO);
        assert_eq!(waited(&names, &["10.0.0.1"], now_us() - FRESH_US - 1).await, Duration::ZERO);
        let file_only = Names::new(&Metrics::new());
        assert_eq!(waited(&file_only, &["10.0.0.1"], now_us()).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_waited_for_in_vain_is_not_waited_for_again_soon() {
        let names = live();
        assert_eq!(waited(&names, &["10.0.0.1"], now_us()).await, AT_MOST);
        assert_eq!(waited(&names, &["10.0.0.2"], now_us()).await, Duration::ZERO, "a scan");
        tokio::time::advance(VAIN_PAUSE).await;
        assert_eq!(waited(&names, &["10.0.0.1"], now_us()).await, Duration::ZERO);
        assert_eq!(waited(&names, &["10.0.0.1", "10.0.0.2"], now_us()).await, AT_MOST);
        for _ in 0..2 {
            tokio::time::advance(MISS_MEMORY).await;
            waited(&names, &[], 0).await;
        }
        assert_eq!(waited(&names, &["10.0.0.1"], now_us()).await, AT_MOST);
    }

    #[test]
    fn the_memory_of_misses_is_bounded() {
        let mut missed = Missed::default();
        let addresses = (0..3 * MAX_MISSED as u32).map(|bits| IpAddr::from(bits.to_be_bytes()));
        missed.note(addresses, Instant::now());
        assert_eq!(missed.young.len() + missed.old.len(), 2 * MAX_MISSED);
    }
}
