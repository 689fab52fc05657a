//! The kernel's packet filter: TCP over IPv4 and IPv6, also in VLAN tags, cut to its headers.

use afpacket::sync::Filter;
use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JA, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};

/// Bytes kept of a frame: the tallest headers in use (Ethernet and two tags 22, IPv6 40, TCP 60) and
/// as much again for IPv6 extension headers. Payload is never copied.
const SNAP_LENGTH: u32 = 256;

const ARPHRD_ETHER: u32 = libc::ARPHRD_ETHER as u32;
const ARPHRD_LOOPBACK: u32 = libc::ARPHRD_LOOPBACK as u32;
const IPV4: u32 = libc::ETH_P_IP as u32;
const IPV6: u32 = libc::ETH_P_IPV6 as u32;
const VLAN: u32 = libc::ETH_P_8021Q as u32;
const SERVICE_VLAN: u32 = libc::ETH_P_8021AD as u32;
const TCP: u32 = libc::IPPROTO_TCP as u32;

/// Offset of the protocol in an IPv4 header, and of the next header in an IPv6 header.
const IPV4_PROTOCOL: u32 = 9;
const IPV6_NEXT_HEADER: u32 = 6;

/// Loads at these offsets mean the packet's metadata and its network header (linux/filter.h).
const LINK_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_HATYPE) as u32;
const PROTOCOL: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL) as u32;
const NETWORK: u32 = libc::SKF_NET_OFF as u32;

/// Where the steps that several paths share are.
const IPV6_STEP: usize = 27;
const ACCEPT: usize = 33;
const DROP: usize = 34;

enum Step {
    Word(u32),
    Half(u32),
    Byte(u32),
    /// Continue at the first step if the loaded value equals, else at the second.
    If(u32, usize, usize),
    Goto(usize),
    Return(u32),
}
use Step::{Byte, Goto, Half, If, Return, Word};

/// Frames with an Ethernet header are read from their start, as tcpdump does. Others (tunnels, PPP)
/// are read from where the kernel says the IP header is. IPv6 with extension headers passes: which
/// protocol it carries is for the parser to see.
#[rustfmt::skip]
const STEPS: [Step; 35] = [
    /*  0 */ Word(LINK_TYPE),
    /*  1 */ If(ARPHRD_ETHER, 10, 2),
    /*  2 */ If(ARPHRD_LOOPBACK, 10, 3),
    /*  3 */ Word(PROTOCOL),
    /*  4 */ If(IPV4, 5, 7),
    /*  5 */ Byte(NETWORK + IPV4_PROTOCOL),
    /*  6 */ If(TCP, ACCEPT, DROP),
    /*  7 */ If(IPV6, 8, DROP),
    /*  8 */ Byte(NETWORK + IPV6_NEXT_HEADER),
    /*  9 */ Goto(IPV6_STEP),
    /* 10: an Ethernet header */
    /* 10 */ Half(12),
    /* 11 */ If(IPV4, 12, 14),
    /* 12 */ Byte(14 + IPV4_PROTOCOL),
    /* 13 */ If(TCP, ACCEPT, DROP),
    /* 14 */ If(IPV6, 15, 17),
    /* 15 */ Byte(14 + IPV6_NEXT_HEADER),
    /* 16 */ Goto(IPV6_STEP),
    /* 17 */ If(VLAN, 19, 18),
    /* 18 */ If(SERVICE_VLAN, 19, DROP),
    /* 19: one tag that is still in the frame; a second one is left to the parser */
    /* 19 */ Half(16),
    /* 20 */ If(IPV4, 21, 23),
    /* 21 */ Byte(18 + IPV4_PROTOCOL),
    /* 22 */ If(TCP, ACCEPT, DROP),
    /* 23 */ If(IPV6, 24, 26),
    /* 24 */ Byte(18 + IPV6_NEXT_HEADER),
    /* 25 */ Goto(IPV6_STEP),
    /* 26 */ If(VLAN, ACCEPT, DROP),
    /* 27: IPv6's next header */
    /* 27 */ If(TCP, ACCEPT, 28),
    /* 28 */ If(libc::IPPROTO_HOPOPTS as u32, ACCEPT, 29),
    /* 29 */ If(libc::IPPROTO_ROUTING as u32, ACCEPT, 30),
    /* 30 */ If(libc::IPPROTO_FRAGMENT as u32, ACCEPT, 31),
    /* 31 */ If(libc::IPPROTO_AH as u32, ACCEPT, 32),
    /* 32 */ If(libc::IPPROTO_DSTOPTS as u32, ACCEPT, DROP),
    /* 33 */ Return(SNAP_LENGTH),
    /* 34 */ Return(0),
];

/// The program, as classic BPF instructions: (code, jump if true, jump if false, value).
pub(super) fn program() -> Vec<Filter> {
    let encode = |(at, step): (usize, &Step)| {
        let skip = |to: usize| (to - at - 1) as u8;
        match *step {
            Word(offset) => ((BPF_LD | BPF_W | BPF_ABS) as u16, 0, 0, offset),
            Half(offset) => ((BPF_LD | BPF_H | BPF_ABS) as u16, 0, 0, offset),
            Byte(offset) => ((BPF_LD | BPF_B | BPF_ABS) as u16, 0, 0, offset),
            If(value, then, other) => {
                ((BPF_JMP | BPF_JEQ | BPF_K) as u16, skip(then), skip(other), value)
            }
            Goto(to) => ((BPF_JMP | BPF_JA) as u16, 0, 0, skip(to).into()),
            Return(length) => ((BPF_RET | BPF_K) as u16, 0, 0, length),
        }
    };
    STEPS.iter().enumerate().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the steps over an Ethernet frame: whether it passes.
    fn passes(frame: &[u8]) -> bool {
        let (mut at, mut value) = (0, 0);
        let load = |offset: u32, length: usize| {
            let bytes = frame.get(offset as usize..offset as usize + length)?;
            Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        };
        loop {
            let (next, loaded) = match STEPS[at] {
                Word(LINK_TYPE) => (at + 1, Some(ARPHRD_ETHER)),
                Word(offset) => (at + 1, load(offset, 4)),
                Half(offset) => (at + 1, load(offset, 2)),
                Byte(offset) => (at + 1, load(offset, 1)),
                If(expected, then, other) => {
                    (if value == expected { then } else { other }, Some(value))
                }
                Goto(to) => (to, Some(value)),
                Return(length) => return length > 0,
            };
            // The kernel drops a packet that is too short for a load.
            let Some(loaded) = loaded else { return false };
            (at, value) = (next, loaded);
        }
    }

    fn frame(tags: &[u16], ethertype: u16, protocol: u8) -> Vec<u8> {
        let mut frame = vec![0; 12];
        for tag in tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 7]);
        }
        frame.extend(ethertype.to_be_bytes());
        let mut header = [0; 40];
        header[if ethertype == 0x0800 { 9 } else { 6 }] = protocol;
        frame.extend(header);
        frame
    }

    #[test]
    fn tcp_passes_and_the_rest_does_not() {
        for tags in [&[][..], &[0x8100], &[0x88a8]] {
            assert!(passes(&frame(tags, 0x0800, 6)), "IPv4 {tags:x?}");
            assert!(passes(&frame(tags, 0x86dd, 6)), "IPv6 {tags:x?}");
            assert!(passes(&frame(tags, 0x86dd, 44)), "IPv6 fragment {tags:x?}");
            assert!(!passes(&frame(tags, 0x0800, 17)), "UDP over IPv4 {tags:x?}");
            assert!(!passes(&frame(tags, 0x86dd, 58)), "ICMPv6 {tags:x?}");
            assert!(!passes(&frame(tags, 0x0806, 6)), "ARP {tags:x?}");
        }
        assert!(passes(&frame(&[0x88a8, 0x8100], 0x0800, 6)), "two tags");
        assert!(!passes(&[0; 13]), "too short");
    }

    #[test]
    fn every_jump_goes_forward_within_the_program() {
        assert_eq!(program().len(), STEPS.len());
        for (at, step) in STEPS.iter().enumerate() {
            if let If(_, then, other) = *step {
                assert!(at < then && at < other && then.max(other) < STEPS.len(), "step {at}");
            }
        }
    }
}
