//! The packet socket's options (packet(7), socket(7)).

use std::ffi::{c_int, c_uint};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::AsRawFd;
use std::ptr;

use afpacket::sync::RawPacketStream;
use libc::{sock_filter, sock_fprog, tpacket_req3, tpacket_stats_v3};

/// Replaces the packet filter at once: each packet meets the old one or the new.
pub(super) fn set_filter(socket: &RawPacketStream, program: &[sock_filter]) -> io::Result<()> {
    // SAFETY: the option takes a sock_fprog, whose program the kernel copies and does not write.
    unsafe { set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &described(program)) }
}

/// Lets every packet through, whole.
pub(super) fn remove_filter(socket: &RawPacketStream) -> io::Result<()> {
    let ignored: c_int = 0;
    // SAFETY: the option takes an int.
    unsafe { set_option(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &ignored) }
}

/// Makes a version 3 ring. The kernel throws away what the socket has received before.
pub(super) fn make_ring(socket: &RawPacketStream, request: &tpacket_req3) -> io::Result<()> {
    let version = libc::tpacket_versions::TPACKET_V3 as c_int;
    // SAFETY: the options take an int, and for version 3 a tpacket_req3.
    unsafe {
        set_option(socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        set_option(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, request)
    }
}

/// Makes one fanout group of sockets, which from then on share the packets as the program says.
pub(super) fn join_group(sockets: &[RawPacketStream], program: &[sock_filter]) -> io::Result<()> {
    let Some((first, others)) = sockets.split_first() else { return Ok(()) };
    let kind = libc::PACKET_FANOUT_CBPF << 16;
    // The kernel chooses an id that no other group of this network namespace has. Nothing rolls over
    // to another ring when one is full: that would tear connections apart.
    let new_group: c_uint = kind | libc::PACKET_FANOUT_FLAG_UNIQUEID << 16;
    // SAFETY: PACKET_FANOUT takes an int and fills one.
    let id = unsafe {
        set_option(first, libc::SOL_PACKET, libc::PACKET_FANOUT, &new_group)?;
        option::<c_uint>(first, libc::SOL_PACKET, libc::PACKET_FANOUT)? & 0xffff
    };
    // SAFETY: the option takes a sock_fprog, whose program the kernel copies and does not write.
    unsafe {
        set_option(first, libc::SOL_PACKET, libc::PACKET_FANOUT_DATA, &described(program))?;
    }
    others.iter().try_for_each(|socket| {
        let group = kind | id;
        // SAFETY: the option takes an int.
        unsafe { set_option(socket, libc::SOL_PACKET, libc::PACKET_FANOUT, &group) }
    })
}

/// What the kernel counted since the last call.
pub(super) fn statistics(socket: &RawPacketStream) -> io::Result<tpacket_stats_v3> {
    // SAFETY: PACKET_STATISTICS of version 3 fills a tpacket_stats_v3.
    unsafe { option(socket, libc::SOL_PACKET, libc::PACKET_STATISTICS) }
}

/// The error that the socket is in, if any.
pub(super) fn pending_error(socket: &RawPacketStream) -> io::Result<()> {
    // SAFETY: SO_ERROR fills an int.
    match unsafe { option::<c_int>(socket, libc::SOL_SOCKET, libc::SO_ERROR) }? {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn described(program: &[sock_filter]) -> sock_fprog {
    sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() }
}

/// Sets a socket option.
///
/// # Safety
/// The kernel takes a `T` for the option, and what the value points to is valid for the call.
unsafe fn set_option<T>(
    socket: &RawPacketStream,
    level: c_int,
    name: c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the kernel reads size_of::<T>() bytes of a valid T, as the caller promises.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
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
