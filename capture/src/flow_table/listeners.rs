//! Listeners: ends that were seen to answer a SYN. They tell who is the server of a connection that
//! was joined midstream.

use flowtrail_schema::Endpoint;
use foldhash::fast::RandomState;
use hashbrown::HashSet;

/// Listeners in a generation: more than the ports that a node's pods and their peers listen on. When
/// it is full the generation before it is forgotten, that is, what was not seen for the longest time.
const GENERATION: usize = 32_768;

/// A set that forgets what was not seen for long: two generations of bounded size.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    young: HashSet<Endpoint, RandomState>,
    old: HashSet<Endpoint, RandomState>,
}

impl Listeners {
    pub(super) fn insert(&mut self, end: Endpoint) {
        if self.young.len() >= GENERATION && !self.young.contains(&end) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(end);
    }

    pub(super) fn contains(&self, end: Endpoint) -> bool {
        self.young.contains(&end) || self.old.contains(&end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let end = |n: u32| Endpoint { ip: std::net::Ipv4Addr::from(n).into(), port: 80 };
        let mut listeners = Listeners::default();
        for n in 0..3 * GENERATION as u32 {
            listeners.insert(end(n));
        }
        assert!(listeners.contains(end(3 * GENERATION as u32 - 1)));
        assert!(!listeners.contains(end(0)));
        assert!(listeners.young.len() + listeners.old.len() <= 2 * GENERATION);
    }
}
