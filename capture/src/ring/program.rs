//! Classic BPF programs (Documentation/networking/filter.rst), put together from their end: where an
//! instruction continues is a [`Place`] that exists already, so every jump leads forward, as the
//! kernel demands, and no label can be missing.

use libc::{
    BPF_ABS, BPF_ADD, BPF_ALU, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP,
    BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_MEM, BPF_MISC, BPF_MSH, BPF_MUL, BPF_RET, BPF_RSH,
    BPF_ST, BPF_TAX, BPF_W, BPF_X, BPF_XOR, sock_filter,
};

/// The kernel's limit for a program (BPF_MAXINSNS).
pub(super) const MAX_INSTRUCTIONS: usize = 4_096;

/// Loads from here on mean what the kernel knows about the packet; from the next, its network and
/// its link header, wherever in the packet these are (linux/filter.h).
pub(super) const PROTOCOL: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL) as u32;
pub(super) const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
pub(super) const INTERFACE_INDEX: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;
pub(super) const LINK_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_HATYPE) as u32;
pub(super) const NETWORK_HEADER: u32 = libc::SKF_NET_OFF as u32;
pub(super) const LINK_HEADER: u32 = libc::SKF_LL_OFF as u32;

/// An instruction that others may continue at, by its distance from the program's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

/// How much to load; network byte order.
#[derive(Clone, Copy, Debug)]
pub(super) enum Width {
    Byte = BPF_B as isize,
    Half = BPF_H as isize,
    Word = BPF_W as isize,
}

/// A program in the making: its last instruction first. A is the accumulator, X the index register.
#[derive(Debug, Default)]
pub(super) struct Code {
    reversed: Vec<sock_filter>,
}

impl Code {
    /// The program that begins at a place.
    pub(super) fn program(mut self, first: Place) -> Vec<sock_filter> {
        self.reversed.truncate(first.0 + 1);
        self.reversed.reverse();
        self.reversed
    }

    /// Ends with a value.
    pub(super) fn end(&mut self, value: u32) -> Place {
        self.push(BPF_RET | BPF_K, value)
    }

    /// Ends with A.
    pub(super) fn end_with_a(&mut self) -> Place {
        // BPF_A, which libc does not name: bit 4 of a return says that A is returned.
        self.push(BPF_RET | 0x10, 0)
    }

    /// A = packet[offset].
    pub(super) fn load(&mut self, width: Width, offset: u32, then: Place) -> Place {
        self.then(BPF_LD | width as u32 | BPF_ABS, offset, then)
    }

    /// A = packet[X + offset].
    pub(super) fn load_at_x(&mut self, width: Width, offset: u32, then: Place) -> Place {
        self.then(BPF_LD | width as u32 | BPF_IND, offset, then)
    }

    /// X = the length of the IPv4 header at the offset.
    pub(super) fn load_ipv4_header_length(&mut self, offset: u32, then: Place) -> Place {
        self.then(BPF_LDX | BPF_B | BPF_MSH, offset, then)
    }

    /// A = value.
    pub(super) fn set(&mut self, value: u32, then: Place) -> Place {
        self.then(BPF_LD | BPF_IMM, value, then)
    }

    /// memory[slot] = A.
    pub(super) fn keep(&mut self, slot: u32, then: Place) -> Place {
        self.then(BPF_ST, slot, then)
    }

    /// X = memory[slot].
    pub(super) fn recall_x(&mut self, slot: u32, then: Place) -> Place {
        self.then(BPF_LDX | BPF_MEM, slot, then)
    }

    /// X = A.
    pub(super) fn copy_to_x(&mut self, then: Place) -> Place {
        self.then(BPF_MISC | BPF_TAX, 0, then)
    }

    /// A = A + X.
    pub(super) fn add_x(&mut self, then: Place) -> Place {
        self.then(BPF_ALU | BPF_ADD | BPF_X, 0, then)
    }

    /// A = A ^ X.
    pub(super) fn xor_x(&mut self, then: Place) -> Place {
        self.then(BPF_ALU | BPF_XOR | BPF_X, 0, then)
    }

    /// A = A * value, of which the lower 32 bits.
    pub(super) fn multiply(&mut self, value: u32, then: Place) -> Place {
        self.then(BPF_ALU | BPF_MUL | BPF_K, value, then)
    }

    /// A = A >> bits.
    pub(super) fn shift_right(&mut self, bits: u32, then: Place) -> Place {
        self.then(BPF_ALU | BPF_RSH | BPF_K, bits, then)
    }

    /// Whether A == value.
    pub(super) fn if_equal(&mut self, value: u32, then: Place, other: Place) -> Place {
        self.branch(BPF_JEQ, value, then, other)
    }

    /// Whether A >= value.
    pub(super) fn if_at_least(&mut self, value: u32, then: Place, other: Place) -> Place {
        self.branch(BPF_JGE, value, then, other)
    }

    /// Whether A & bits is not 0.
    pub(super) fn if_any_bit(&mut self, bits: u32, then: Place, other: Place) -> Place {
        self.branch(BPF_JSET, bits, then, other)
    }

    /// Whether A is one of some values.
    pub(super) fn if_one_of(&mut self, values: &[u32], then: Place, other: Place) -> Place {
        values.iter().rfold(other, |other, value| self.if_equal(*value, then, other))
    }

    /// An instruction after which the program continues at a place.
    fn then(&mut self, operation: u32, value: u32, then: Place) -> Place {
        if then.0 + 1 != self.reversed.len() {
            self.go(then);
        }
        self.push(operation, value)
    }

    fn branch(&mut self, test: u32, value: u32, then: Place, other: Place) -> Place {
        // A conditional jump skips 255 instructions at most: farther it leads to an unconditional
        // one close by, which may come between the test and where the other leads.
        let is_near = |place: Place| self.reversed.len() - place.0 <= u8::MAX.into();
        let (then_is_near, other_is_near) = (is_near(then), is_near(other));
        let then = if then_is_near { then } else { self.go(then) };
        let other = if other_is_near { other } else { self.go(other) };
        let skip = |place: Place| (self.reversed.len() - 1 - place.0) as u8;
        let (jt, jf) = (skip(then), skip(other));
        self.reversed.push(sock_filter { code: (BPF_JMP | test | BPF_K) as u16, jt, jf, k: value });
        self.last()
    }

    /// Continues at a place, however far.
    fn go(&mut self, place: Place) -> Place {
        let skipped = self.reversed.len() - 1 - place.0;
        self.push(BPF_JMP | BPF_JA, skipped as u32)
    }

    fn push(&mut self, operation: u32, value: u32) -> Place {
        self.reversed.push(sock_filter { code: operation as u16, jt: 0, jf: 0, k: value });
        self.last()
    }

    fn last(&self) -> Place {
        Place(self.reversed.len() - 1)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What the kernel would know about a packet.
    #[derive(Clone, Debug)]
    pub(crate) struct Packet {
        /// From its link header on.
        pub(crate) bytes: Vec<u8>,
        /// Where the kernel says that the network header is.
        pub(crate) network: usize,
        pub(crate) protocol: u32,
        pub(crate) link_type: u32,
        pub(crate) packet_type: u32,
        pub(crate) interface: u32,
        /// Where the data starts that loads at small offsets mean.
        pub(crate) data: usize,
    }

    impl Packet {
        fn load(&self, offset: u32, width: u32) -> Option<u32> {
            let start = match offset {
                PROTOCOL => return Some(self.protocol),
                PACKET_TYPE => return Some(self.packet_type),
                INTERFACE_INDEX => return Some(self.interface),
                LINK_TYPE => return Some(self.link_type),
                _ if offset >= NETWORK_HEADER => {
                    self.network + offset.wrapping_sub(NETWORK_HEADER) as usize
                }
                _ if offset >= LINK_HEADER => offset.wrapping_sub(LINK_HEADER) as usize,
                _ => self.data + offset as usize,
            };
            let length = match width {
                BPF_B => 1,
                BPF_H => 2,
                _ => 4,
            };
            let bytes = self.bytes.get(start..start + length)?;
            Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        }
    }

    /// Runs a program as the kernel would: 0 if a load leads out of the packet.
    pub(crate) fn run(program: &[sock_filter], packet: &Packet) -> u32 {
        let (mut at, mut a, mut x, mut memory) = (0, 0_u32, 0_u32, [None; 16]);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let code = u32::from(code);
            at += 1;
            let operand = if code & BPF_X == 0 { k } else { x };
            match code & 0x07 {
                BPF_RET => return if code & 0x10 == 0 { k } else { a },
                BPF_LD if code & 0xe0 == BPF_IMM => a = k,
                BPF_LD => {
                    let offset = if code & 0xe0 == BPF_IND { x.wrapping_add(k) } else { k };
                    match packet.load(offset, code & 0x18) {
                        Some(value) => a = value,
                        None => return 0,
                    }
                }
                BPF_LDX if code & 0xe0 == BPF_MSH => match packet.load(k, BPF_B) {
                    Some(value) => x = (value & 0xf) * 4,
                    None => return 0,
                },
                BPF_LDX => x = memory[k as usize].expect("memory is set before it is read"),
                BPF_ST => memory[k as usize] = Some(a),
                BPF_MISC => x = a,
                BPF_ALU => {
                    a = match code & 0xf0 {
                        BPF_ADD => a.wrapping_add(operand),
                        BPF_XOR => a ^ operand,
                        BPF_RSH => a >> operand,
                        BPF_MUL => a.wrapping_mul(operand),
                        other => panic!("operation {other:#x}"),
                    }
                }
                _ => {
                    at += match code & 0xf0 {
                        BPF_JA => k as usize,
                        BPF_JEQ if a == k => jt.into(),
                        BPF_JGE if a >= k => jt.into(),
                        BPF_JSET if a & k != 0 => jt.into(),
                        _ => jf.into(),
                    }
                }
            }
        }
    }

    #[test]
    fn far_branches_lead_where_they_should() {
        let packet = Packet {
            bytes: Vec::new(),
            network: 0,
            protocol: 7,
            link_type: 0,
            packet_type: 0,
            interface: 0,
            data: 0,
        };
        for distance in 250..260 {
            let mut code = Code::default();
            let (no, yes) = (code.end(1), code.end(2));
            let mut place = code.end(3);
            for _ in 0..distance {
                place = code.end(4);
            }
            let seven = code.if_equal(7, yes, no);
            let first = code.load(Width::Word, PROTOCOL, seven);
            assert_eq!(run(&code.program(first), &packet), 2, "then at {distance}");
            let mut code = Code::default();
            let (yes, no) = (code.end(2), code.end(1));
            for _ in 0..distance {
                place = code.end(4);
            }
            let eight = code.if_equal(8, yes, no);
            let near = code.if_equal(7, place, eight);
            let first = code.load(Width::Word, PROTOCOL, near);
            assert_eq!(run(&code.program(first), &packet), 4, "else at {distance}");
        }
    }
}
