//! The frames of one block of the ring, as plain slices.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::mem::size_of;
use std::ptr::NonNull;

use libc::{sockaddr_ll, tpacket_block_desc, tpacket3_hdr};

use super::{BLOCK_SIZE, Ring};
use crate::packet::LinkType;

/// Where the frame's `sockaddr_ll` is, after its header (`TPACKET_ALIGN(sizeof(tpacket3_hdr))`).
const ADDRESS_OFFSET: usize = size_of::<tpacket3_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);

/// One packet as an interface saw it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The bytes kept of it, from the header that `link` says.
    pub bytes: &'a [u8],
    /// What `bytes` begin with: IP where the kernel knows the packet as such, else Ethernet. So no
    /// interface's own link header matters, nor a VLAN tag that the kernel took out.
    pub link: LinkType,
    /// Length on the wire of what `bytes` are the beginning of.
    pub wire_length: u32,
    /// When the kernel saw it, microseconds since the epoch of the wall clock (CLOCK_REALTIME): the
    /// software time stamp that the packet has, else the time at which it came to the ring. A step of
    /// the clock shows here.
    pub time_us: u64,
    /// Index of the interface.
    pub interface_index: u32,
    /// The interface sent it; otherwise it received it.
    pub outgoing: bool,
}

/// The frames of one block.
#[derive(Debug)]
pub struct Frames<'a> {
    block: NonNull<u8>,
    offset: usize,
    remaining: u32,
    ring: PhantomData<&'a Ring>,
}

impl Frames<'_> {
    /// # Safety
    /// `block` is a block of a mapped ring that is the reader's as long as the result lives.
    pub(super) unsafe fn of(block: NonNull<u8>) -> Self {
        // SAFETY: the block lies in the mapping and is not written by the kernel.
        let header = unsafe { (*block.cast::<tpacket_block_desc>().as_ptr()).hdr.bh1 };
        Self {
            block,
            offset: header.offset_to_first_pkt as usize,
            remaining: header.num_pkts,
            ring: PhantomData,
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        let start = self.offset;
        if !start.is_multiple_of(align_of::<tpacket3_hdr>())
            || start + ADDRESS_OFFSET + size_of::<sockaddr_ll>() > BLOCK_SIZE
        {
            return None;
        }
        // SAFETY: both lie in the block (just checked), which is the reader's for 'a; the kernel
        // aligns frames to 16 bytes, more than either needs.
        let (header, address) = unsafe {
            let frame = self.block.add(start);
            (
                *frame.cast::<tpacket3_hdr>().as_ptr(),
                *frame.add(ADDRESS_OFFSET).cast::<sockaddr_ll>().as_ptr(),
            )
        };
        self.offset = start + header.tp_next_offset as usize;

        let (link_start, ip_start) = (usize::from(header.tp_mac), usize::from(header.tp_net));
        let protocol = c_int::from(u16::from_be(address.sll_protocol));
        let is_ip = matches!(protocol, libc::ETH_P_IP | libc::ETH_P_IPV6);
        let header_length = if is_ip { ip_start.checked_sub(link_start)? } else { 0 };
        let length = (header.tp_snaplen as usize).saturating_sub(header_length);
        let first = start + link_start + header_length;
        if first + length > BLOCK_SIZE {
            return None;
        }
        // SAFETY: the bytes lie in the block (just checked), which is the reader's for 'a.
        let bytes = unsafe { std::slice::from_raw_parts(self.block.add(first).as_ptr(), length) };
        Some(Frame {
            bytes,
            link: if is_ip { LinkType::RawIp } else { LinkType::Ethernet },
            wire_length: header.tp_len.saturating_sub(header_length as u32),
            time_us: u64::from(header.tp_sec) * 1_000_000 + u64::from(header.tp_nsec) / 1_000,
            interface_index: address.sll_ifindex.cast_unsigned(),
            outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
        })
    }
}
