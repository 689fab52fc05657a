//! Packets of interfaces that are not known yet: under load they are read some milliseconds before
//! netlink's news of their interface.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use super::Frame;
use crate::packet::LinkType;

/// Frames held at most, of all interfaces: about a megabyte. A new pod sends few before it is known.
const MAX_HELD: usize = 4_096;

/// The news of an interface comes within milliseconds; seconds with thousands of new ones. After that
/// it came and went unseen.
const MAX_HELD_TIME: Duration = Duration::from_secs(5);

/// Frames that wait for their interface to be known.
#[derive(Debug, Default)]
pub struct HeldFrames {
    by_interface: HashMap<u32, Held>,
    count: usize,
    given_up: u64,
}

#[derive(Debug)]
struct Held {
    since: Instant,
    frames: Vec<OwnedFrame>,
}

/// A frame that has outlived its block.
#[derive(Debug)]
pub struct OwnedFrame {
    bytes: Box<[u8]>,
    link: LinkType,
    wire_length: u32,
    time_us: u64,
    interface_index: u32,
    outgoing: bool,
}

impl HeldFrames {
    /// Keeps a frame. When there are too many it is given up, and counted.
    pub fn hold(&mut self, frame: &Frame<'_>, now: Instant) {
        if self.count >= MAX_HELD {
            self.given_up += 1;
            return;
        }
        let held = self
            .by_interface
            .entry(frame.interface_index)
            .or_insert_with(|| Held { since: now, frames: Vec::new() });
        held.frames.push(OwnedFrame {
            bytes: frame.bytes.into(),
            link: frame.link,
            wire_length: frame.wire_length,
            time_us: frame.time_us,
            interface_index: frame.interface_index,
            outgoing: frame.outgoing,
        });
        self.count += 1;
    }

    /// The frames of an interface that is known by now, in the order they came; they are the caller's
    /// to count, whether the interface is wanted or not.
    pub fn release(&mut self, interface_index: u32) -> Vec<OwnedFrame> {
        match self.by_interface.entry(interface_index) {
            Entry::Occupied(held) => {
                let frames = held.remove().frames;
                self.count -= frames.len();
                frames
            }
            Entry::Vacant(_) => Vec::new(),
        }
    }

    /// Interfaces that frames are held of.
    pub fn interfaces(&self) -> impl Iterator<Item = u32> {
        self.by_interface.keys().copied()
    }

    /// How many frames were given up since the last call: too many, or never known whose.
    pub fn take_given_up(&mut self, now: Instant) -> u64 {
        for (_, held) in self.by_interface.extract_if(|_, held| now >= held.since + MAX_HELD_TIME) {
            self.count -= held.frames.len();
            self.given_up += held.frames.len() as u64;
        }
        std::mem::take(&mut self.given_up)
    }
}

impl OwnedFrame {
    /// The frame as it came out of the ring.
    pub fn frame(&self) -> Frame<'_> {
        Frame {
            bytes: &self.bytes,
            link: self.link,
            wire_length: self.wire_length,
            time_us: self.time_us,
            interface_index: self.interface_index,
            outgoing: self.outgoing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(interface_index: u32, time_us: u64) -> Frame<'static> {
        Frame {
            bytes: b"bytes",
            link: LinkType::Ethernet,
            wire_length: 60,
            time_us,
            interface_index,
            outgoing: false,
        }
    }

    #[test]
    fn frames_come_back_in_order_once_their_interface_is_known() {
        let now = Instant::now();
        let mut held = HeldFrames::default();
        for (interface, time) in [(1, 10), (2, 11), (1, 12)] {
            held.hold(&frame(interface, time), now);
        }
        let times = |frames: Vec<OwnedFrame>| {
            frames.iter().map(|owned| owned.frame().time_us).collect::<Vec<_>>()
        };
        assert_eq!(times(held.release(1)), [10, 12]);
        assert_eq!(times(held.release(1)), [0_u64; 0]);
        assert_eq!(held.interfaces().collect::<Vec<_>>(), [2]);
        assert_eq!(held.take_given_up(now), 0);
        assert_eq!(held.take_given_up(now + MAX_HELD_TIME), 1);
        assert_eq!(held.interfaces().count(), 0);
    }

    #[test]
    fn too_many_are_given_up_and_counted_and_the_earlier_ones_kept() {
        let now = Instant::now();
        let mut held = HeldFrames::default();
        for time in 0..MAX_HELD as u64 + 7 {
            held.hold(&frame(1, time), now);
        }
        assert_eq!(held.take_given_up(now), 7);
        assert_eq!(held.release(1).len(), MAX_HELD);
        held.hold(&frame(1, 0), now);
        assert_eq!(held.release(1).len(), 1, "there is space again");
    }
}
