//! Traffic for capture files, the same every time.

use std::collections::VecDeque;
use std::io::Result;
use std::path::Path;

use super::frames::{ACK, End, FIN, Pcap, RST, SYN, Segment};

/// 2024-01-01 00:00:00 UTC.
const START_US: u64 = 1_704_067_200_000_000;

/// Connections that are open at once in the large file.
const AT_ONCE: usize = 2_000;

/// What a file holds.
pub(super) struct Made {
    pub(super) packets: u64,
    pub(super) connections: u64,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// One connection: what it still has to send.
struct Talk {
    ends: [End; 2],
    is_ipv6: bool,
    next: [u32; 2],
    /// Who sends, flags, payload; `AGAIN` repeats the segment before.
    script: VecDeque<(usize, u8, u16)>,
    last: Option<Segment>,
}

const AGAIN: u8 = 0xff;

impl Talk {
    fn new(number: u64, random: &mut Random) -> Self {
        let client = End {
            host: 0x1_0000 + (number % 50_000) as u32,
            port: 32_768 + (number / 50_000) as u16,
        };
        let server = End {
            host: (number % 200) as u32 + 1,
            port: [443, 80, 8080, 5432][number as usize % 4],
        };
        let next = [random.next() as u32, random.next() as u32];
        let is_ipv6 = number % 8 == 7;
        Self { ends: [client, server], is_ipv6, next, script: VecDeque::new(), last: None }
    }

    /// Handshake, some requests with responses of very different length, an end.
    fn scripted(number: u64, random: &mut Random) -> Self {
        let mut talk = Self::new(number, random);
        talk.script.extend([(0, SYN, 0), (1, SYN | ACK, 0), (0, ACK, 0)]);
        for _ in 0..1 + random.below(8) {
            talk.script.push_back((0, ACK, 100 + random.below(900) as u16));
            let segments = 1 + random.below(4) * random.below(12);
            for n in 0..segments {
                let payload =
                    if n + 1 < segments { 1_448 } else { 40 + random.below(1_400) as u16 };
                talk.script.push_back((1, ACK, payload));
                if n % 2 == 1 || n + 1 == segments {
                    talk.script.push_back((0, ACK, 0));
                }
                if random.below(200) == 0 {
                    talk.script.push_back((1, AGAIN, 0));
                }
            }
        }
        match random.below(10) {
            0 => talk.script.push_back((0, RST | ACK, 0)),
            _ => talk.script.extend([(0, FIN | ACK, 0), (1, FIN | ACK, 0), (0, ACK, 0)]),
        }
        talk
    }

    fn next(&mut self) -> Option<Segment> {
        let (from, flags, payload) = self.script.pop_front()?;
        if flags == AGAIN && self.last.is_some() {
            return self.last;
        }
        let segment = self.send(from, flags & !AGAIN | flags & 0x1f, payload);
        self.last = Some(segment);
        Some(segment)
    }

    fn send(&mut self, from: usize, flags: u8, payload: u16) -> Segment {
        let length = u32::from(payload) + u32::from(flags & (SYN | FIN) != 0);
        let sequence = self.next[from];
        self.next[from] = sequence.wrapping_add(length);
        Segment {
            from: self.ends[from],
            to: self.ends[1 - from],
            is_ipv6: self.is_ipv6,
            sequence,
            acknowledgment: if flags & ACK == 0 { 0 } else { self.next[1 - from] },
            flags,
            payload,
        }
    }
}

/// Thousands of connections that come and go, some seconds to minutes of a busy node.
pub(super) fn write_mixed(path: &Path, packets: u64, snap: usize) -> Result<Made> {
    let mut random = Random(1);
    let mut pcap = Pcap::create(path, snap)?;
    let mut connections = AT_ONCE as u64;
    let mut talks: Vec<_> =
        (0..connections).map(|number| Talk::scripted(number, &mut random)).collect();
    let mut time_us = START_US;
    while pcap.packets < packets {
        let chosen = random.below(AT_ONCE as u64) as usize;
        // Packets come in short trains.
        for _ in 0..1 + random.below(4) {
            time_us += random.below(90);
            match talks[chosen].next() {
                Some(segment) => pcap.write(time_us, &segment)?,
                None => {
                    talks[chosen] = Talk::scripted(connections, &mut random);
                    connections += 1;
                    break;
                }
            }
        }
    }
    Ok(Made { packets: pcap.finish()?, connections })
}

/// Connections that all stay open: handshake and a request each, within a minute.
pub(super) fn write_open(path: &Path, connections: u32) -> Result<Made> {
    let mut random = Random(2);
    let mut pcap = Pcap::create(path, 128)?;
    for number in 0..u64::from(connections) {
        let time_us = START_US + number * 60_000_000 / u64::from(connections);
        let mut talk = Talk::new(number, &mut random);
        let steps = [(0, SYN, 0), (1, SYN | ACK, 0), (0, ACK, 0), (0, ACK, 200)];
        for (n, (from, flags, payload)) in steps.into_iter().enumerate() {
            pcap.write(time_us + n as u64, &talk.send(from, flags, payload))?;
        }
    }
    Ok(Made { packets: pcap.finish()?, connections: connections.into() })
}

/// Established connections that talk before, during and after a flood of SYNs, each of another source.
pub(super) fn write_flood(path: &Path, established: u32, syns: u32) -> Result<()> {
    let mut random = Random(3);
    let mut pcap = Pcap::create(path, 128)?;
    let mut talks: Vec<_> =
        (0..u64::from(established)).map(|number| Talk::new(number, &mut random)).collect();
    for (n, talk) in talks.iter_mut().enumerate() {
        for (from, flags) in [(0, SYN), (1, SYN | ACK), (0, ACK)] {
            pcap.write(START_US + n as u64, &talk.send(from, flags, 0))?;
        }
    }
    let begin_us = START_US + 5_000_000;
    for number in 0..syns {
        // 100,000 a second; each established connection talks every ten seconds.
        let time_us = begin_us + u64::from(number) * 10;
        let source = End { host: 0x20_0000 + number, port: 1_024 + (number % 60_000) as u16 };
        let to = End { host: 1, port: 80 };
        let (sequence, is_ipv6) = (random.next() as u32, false);
        let syn = Segment {
            from: source,
            to,
            is_ipv6,
            sequence,
            acknowledgment: 0,
            flags: SYN,
            payload: 0,
        };
        pcap.write(time_us, &syn)?;
        if number % 1_000 == 0 {
            let talk = &mut talks[(number / 1_000) as usize % established as usize];
            pcap.write(time_us, &talk.send(0, ACK, 100))?;
        }
    }
    let after_us = begin_us + u64::from(syns) * 10 + 15_000_000;
    for (n, talk) in talks.iter_mut().enumerate() {
        pcap.write(after_us + n as u64, &talk.send(0, ACK, 100))?;
    }
    pcap.finish()?;
    Ok(())
}

/// Frames of several hundred connections, for the wire: whole, and again and again.
pub(super) fn frames(connections: u64, each: usize) -> Vec<Vec<u8>> {
    let mut random = Random(4);
    let mut frames = Vec::new();
    let mut talks: Vec<_> = (0..connections).map(|number| Talk::new(number, &mut random)).collect();
    for n in 0..each {
        for talk in &mut talks {
            let payload = if n % 2 == 0 { 0 } else { 100 };
            let segment = Segment { is_ipv6: false, ..talk.send(n % 2, ACK, payload) };
            let mut frame = Vec::new();
            segment.headers(&mut frame);
            frame.resize(frame.len() + usize::from(payload), 0);
            frames.push(frame);
        }
    }
    frames
}
