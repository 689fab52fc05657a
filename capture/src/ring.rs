//! The ring: packets as the kernel hands them over. An AF_PACKET socket for all interfaces, with a
//! TPACKET_V3 ring mapped over it (Documentation/networking/packet_mmap.rst); or several, which share
//! the packets connection by connection.
//!
//! The only unsafe code of the pipeline. The frames that come out are plain slices.
#![allow(unsafe_code)]

mod fanout;
mod filter;
mod frames;
mod held;
mod program;
mod socket;

use std::ffi::c_int;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use afpacket::sync::RawPacketStream;
use libc::tpacket_block_desc;
use thiserror::Error;

pub use fanout::worker_of;
pub use filter::{Filter, MAX_EXCLUDED};
pub use frames::{Frame, Frames};
pub use held::{HeldFrames, OwnedFrame};

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

/// A packet socket with its ring, which does not yet deliver anything.
#[derive(Debug)]
pub struct PacketSocket {
    ring: Ring,
}

impl PacketSocket {
    /// Opens one socket: see [`Self::open_group`].
    ///
    /// # Errors
    /// If the process does not have CAP_NET_RAW, or the kernel refuses a ring.
    pub fn open() -> Result<Self, RingError> {
        let socket = RawPacketStream::new().map_err(not_opened)?;
        ready(&socket)?;
        let ring = Ring::map(&Arc::new(vec![socket]), 0)?;
        Ok(Self { ring })
    }

    /// Opens sockets that share the packets of this network namespace: the one step that needs a
    /// privilege, CAP_NET_RAW.
    ///
    /// A packet is delivered by one of them. Which one depends on its addresses and ports alone, and
    /// is the same for both directions of a TCP connection and for its first fragments, at any
    /// interface that shows the same addresses.
    ///
    /// # Errors
    /// If the process does not have the capability, the kernel has no packet sockets, or refuses the
    /// rings or the group (256 members at most).
    pub fn open_group(count: NonZeroUsize) -> Result<Vec<Self>, RingError> {
        let sockets: Result<Vec<_>, _> =
            (0..count.get()).map(|_| RawPacketStream::new().map_err(not_opened)).collect();
        let sockets = Arc::new(sockets?);
        sockets.iter().try_for_each(ready)?;
        let rings: Result<Vec<_>, _> =
            (0..count.get()).map(|index| Ring::map(&sockets, index)).collect();
        if count.get() > 1 {
            // Last, when nothing changes any more who is in the group, in which order.
            socket::join_group(&sockets, &fanout::program())
                .map_err(kernel("share the packets among several sockets: use fewer --workers"))?;
        }
        Ok(rings?.into_iter().map(|ring| Self { ring }).collect())
    }

    /// Starts delivery: what the filter lets through, from now on. Needs no privilege.
    ///
    /// # Errors
    /// If the kernel refuses the filter.
    pub fn start(self, filter: &Filter) -> Result<Ring, RingError> {
        self.ring.set_filter(filter).map_err(kernel("set the packet filter"))?;
        Ok(self.ring)
    }
}

fn not_opened(source: io::Error) -> RingError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => RingError::NotPermitted {
            program: std::env::current_exe()
                .map_or_else(|_| "flowtrail".to_owned(), |path| path.display().to_string()),
        },
        _ => RingError::Kernel { what: "open a packet socket", source },
    }
}

/// Gives a socket an empty ring that stays empty for now.
fn ready(socket: &RawPacketStream) -> Result<(), RingError> {
    socket::set_filter(socket, Filter::nothing().program())
        .map_err(kernel("set the packet filter"))?;
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
    socket::make_ring(socket, &request).map_err(kernel("make the packet ring"))
}

/// The mapped ring. Blocks are read in turn; one is the reader's until it asks for the next.
#[derive(Debug)]
pub struct Ring {
    /// The sockets of the group. All stay open until the last ring of the group is dropped: if one
    /// left, the kernel would send its connections' packets to the others.
    sockets: Arc<Vec<RawPacketStream>>,
    /// This ring's among them.
    index: usize,
    memory: NonNull<u8>,
    /// The block to read next, or the one that is held.
    block: usize,
    held: bool,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Ring {}

impl Ring {
    fn map(sockets: &Arc<Vec<RawPacketStream>>, index: usize) -> Result<Self, RingError> {
        let sockets = Arc::clone(sockets);
        // SAFETY: a new mapping at an address of the kernel's choice, of the length that `ready`
        // asked for, over a descriptor that `Ring` keeps open longer than the mapping.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                BLOCK_SIZE * BLOCKS,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                sockets[index].as_raw_fd(),
                0,
            )
        };
        match NonNull::new(memory.cast::<u8>()) {
            Some(memory) if memory.as_ptr().cast() != libc::MAP_FAILED => {
                Ok(Self { sockets, index, memory, block: 0, held: false })
            }
            _ => Err(kernel("map the packet ring")(io::Error::last_os_error())),
        }
    }

    /// Replaces the filter while packets are delivered: each meets the old one or the new.
    ///
    /// Where the kernel has not enough memory for a long filter (net.core.optmem_max), the same
    /// without excluded interfaces takes its place. Says whether the filter excludes what it should.
    ///
    /// # Errors
    /// If the kernel refuses the filter.
    pub fn set_filter(&self, filter: &Filter) -> io::Result<bool> {
        let socket = self.socket();
        let has_no_space = |error: &io::Error| error.raw_os_error() == Some(libc::ENOMEM);
        match socket::set_filter(socket, filter.program()) {
            Err(error) if has_no_space(&error) => {
                let all = filter.of_all_interfaces();
                match socket::set_filter(socket, all.program()) {
                    // Nor is there for both at once. For an instant every packet comes, whole.
                    Err(error) if has_no_space(&error) => {
                        socket::remove_filter(socket)?;
                        socket::set_filter(socket, all.program())?;
                    }
                    set => set?,
                }
                Ok(false)
            }
            set => set.map(|()| !filter.passes_all_interfaces),
        }
    }

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
        // SAFETY: the block is ready, so it is the reader's, until the ring is borrowed again.
        Ok(Some(unsafe { Frames::of(self.block_start()) }))
    }

    /// Packets that the kernel dropped, since the last call, because the ring was full.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn take_dropped(&self) -> io::Result<u64> {
        let statistics = socket::statistics(self.socket())?;
        Ok(statistics.tp_drops.into())
    }

    fn socket(&self) -> &RawPacketStream {
        &self.sockets[self.index]
    }

    fn wait(&self, timeout: Duration) -> io::Result<()> {
        let mut poll =
            libc::pollfd { fd: self.socket().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, valid for the call.
        if unsafe { libc::poll(&raw mut poll, 1, timeout.as_millis() as c_int) } < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        if poll.revents & libc::POLLERR != 0 {
            socket::pending_error(self.socket())?;
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
