//! The ring: packets as the kernel hands them over. One AF_PACKET socket for all interfaces, with a
//! TPACKET_V3 ring mapped over it (Documentation/networking/packet_mmap.rst).
//!
//! The only unsafe code of the pipeline. The frames that come out are plain slices.
#![allow(unsafe_code)]

mod filter;

use std::ffi::c_int;
use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use afpacket::sync::RawPacketStream;
use libc::{sockaddr_ll, tpacket_block_desc, tpacket3_hdr};
use thiserror::Error;

use crate::packet::LinkType;

/// Bytes of one block. A frame takes about 160 (headers and the kernel's notes), so one block holds
/// some 3,000, and the reader is woken that seldom under load.
const BLOCK_SIZE: usize = 512 * 1024;

/// Blocks of the ring: with 32 MiB in all about 200,000 packets, 200 ms at a million a second, may
/// wait for the reader. After that the kernel drops, and counts.
const BLOCKS: usize = 64;

/// After this time the kernel hands over a block that is not full, so that a packet is seen long
/// before its interval is cut.
pub const BLOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// The kernel wants a nominal frame size; version 3 packs frames of any size.
const NOMINAL_FRAME_SIZE: usize = 2048;

/// Where the frame's `sockaddr_ll` is, after its header (`TPACKET_ALIGN(sizeof(tpacket3_hdr))`).
const ADDRESS_OFFSET: usize = size_of::<tpacket3_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);

/// Why packets cannot be captured.
#[derive(Debug, Error)]
pub enum RingError {
    /// The process may not open packet sockets.
    #[error(
        "capturing packets needs the capability CAP_NET_RAW, which this process does not have: run it with sudo, \
         or give it to the program with `sudo setcap cap_net_raw+ep {program}`; --read FILE needs none"
    )]
    NotPermitted {
        /// Path of this program.
        program: String,
    },
    /// The kernel refuses something else.
    #[error("cannot {what}")]
    Kernel {
        /// What was being done.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> RingError {
    move |source| RingError::Kernel { what, source }
}

/// A packet socket that does not yet deliver anything.
#[derive(Debug)]
pub struct PacketSocket {
    socket: RawPacketStream,
}

impl PacketSocket {
    /// Opens the socket: the one step that needs a privilege, CAP_NET_RAW.
    ///
    /// # Errors
    /// If the process does not have it, or the kernel has no packet sockets.
    pub fn open() -> Result<Self, RingError> {
        let socket = RawPacketStream::new().map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => RingError::NotPermitted {
                program: std::env::current_exe()
                    .map_or_else(|_| "flowtrail".to_owned(), |path| path.display().to_string()),
            },
            _ => RingError::Kernel { what: "open a packet socket", source },
        })?;
        Ok(Self { socket })
    }

    /// Starts delivery: TCP packets of all interfaces of this network namespace, from now on.
    ///
    /// # Errors
    /// If the kernel refuses the filter or has no memory for the ring.
    pub fn start(mut self) -> Result<Ring, RingError> {
        self.socket.set_bpf_filter(filter::program()).map_err(kernel("set the packet filter"))?;
        let version = libc::tpacket_versions::TPACKET_V3 as c_int;
        set_option(&self.socket, libc::PACKET_VERSION, &version)
            .map_err(kernel("choose version 3 of the packet ring"))?;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK_SIZE as u32,
            tp_block_nr: BLOCKS as u32,
            tp_frame_size: NOMINAL_FRAME_SIZE as u32,
            tp_frame_nr: (BLOCK_SIZE / NOMINAL_FRAME_SIZE * BLOCKS) as u32,
            tp_retire_blk_tov: BLOCK_TIMEOUT.as_millis() as u32,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        // What came before the filter was set is thrown away here, by the kernel.
        set_option(&self.socket, libc::PACKET_RX_RING, &request)
            .map_err(kernel("make the packet ring"))?;
        // SAFETY: a new mapping at an address of the kernel's choice, of the length just asked for,
        // over a descriptor that `Ring` keeps open longer than the mapping.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                BLOCK_SIZE * BLOCKS,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.socket.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(memory.cast::<u8>()) {
            Some(memory) if memory.as_ptr().cast() != libc::MAP_FAILED => {
                Ok(Ring { socket: self.socket, memory, block: 0, held: false })
            }
            _ => Err(kernel("map the packet ring")(io::Error::last_os_error())),
        }
    }
}

/// The mapped ring. Blocks are read in turn; one is the reader's until it asks for the next.
#[derive(Debug)]
pub struct Ring {
    socket: RawPacketStream,
    memory: NonNull<u8>,
    /// The block to read next, or the one that is held.
    block: usize,
    held: bool,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// The frames of the next block; `None` if none is handed over within the timeout.
    ///
    /// Gives the block before back to the kernel, which is why its frames must be gone by then.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn next_block(&mut self, timeout: Duration) -> io::Result<Option<Frames<'_>>> {
        if self.held {
            self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.block = (self.block + 1) % BLOCKS;
            self.held = false;
        }
        if !self.is_ready() {
            self.wait(timeout)?;
            if !self.is_ready() {
                return Ok(None);
            }
        }
        self.held = true;
        let block = self.block_start();
        // SAFETY: the block lies in the mapping and, being ready, is not written by the kernel.
        let header = unsafe { (*block.cast::<tpacket_block_desc>().as_ptr()).hdr.bh1 };
        Ok(Some(Frames {
            block,
            offset: header.offset_to_first_pkt as usize,
            remaining: header.num_pkts,
            ring: PhantomData,
        }))
    }

    /// Packets that the kernel dropped, since the last call, because the ring was full.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn take_dropped(&self) -> io::Result<u64> {
        // SAFETY: PACKET_STATISTICS of version 3 fills a tpacket_stats_v3.
        let statistics: libc::tpacket_stats_v3 =
            unsafe { option(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS) }?;
        Ok(statistics.tp_drops.into())
    }

    fn wait(&self, timeout: Duration) -> io::Result<()> {
        let mut poll =
            libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, valid for the call.
        if unsafe { libc::poll(&raw mut poll, 1, timeout.as_millis() as c_int) } < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        if poll.revents & libc::POLLERR != 0 {
            // SAFETY: SO_ERROR fills an int.
            let error: c_int = unsafe { option(&self.socket, libc::SOL_SOCKET, libc::SO_ERROR) }?;
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
        }
        Ok(())
    }

    fn block_start(&self) -> NonNull<u8> {
        // SAFETY: `block` is below BLOCKS, so the result is in the mapping.
        unsafe { self.memory.add(self.block * BLOCK_SIZE) }
    }

    fn is_ready(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// The block's owner: the kernel and the reader hand it to each other through this word.
    fn status(&self) -> &AtomicU32 {
        let block = self.block_start().cast::<tpacket_block_desc>().as_ptr();
        // SAFETY: the word is in the mapping, aligned (blocks are pages), lives as long as `self`,
        // and is only accessed atomically while both sides may write it.
        unsafe { AtomicU32::from_ptr(&raw mut (*block).hdr.bh1.block_status) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: unmaps what `start` mapped; nothing borrows from a ring that is dropped.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), BLOCK_SIZE * BLOCKS) };
    }
}

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
    /// When the kernel saw it, microseconds since the epoch.
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

fn set_option<T>(socket: &RawPacketStream, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads size_of::<T>() bytes of a valid T.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            name,
            ptr::from_ref(value).cast(),
            size_of::<T>() as u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads a socket option.
///
/// # Safety
/// The option must fill a `T`.
unsafe fn option<T>(socket: &RawPacketStream, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as u32;
    // SAFETY: the kernel writes at most `length` bytes into `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled by the kernel, as the caller promises.
    Ok(unsafe { value.assume_init() })
}
