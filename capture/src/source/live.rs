//! Packets of this machine's interfaces, from the ring. The only place that reads the wall clock.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowtrail_schema::InterfaceKind;
use flowtrail_service::admin::ReadinessPart;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::error::CaptureError;
use crate::flow_table::{Origin, PointId};
use crate::interfaces::{Interfaces, Watched, WatchedInterface, watch};
use crate::recorder::{Packet, Recorder, Summary};
use crate::ring::{BLOCK_TIMEOUT, Filter, Frame, HeldFrames, PacketSocket, Ring};

/// Until what came before an instant has been read: the kernel holds a packet back no longer than
/// a block's timeout, and as much again is left for the reader.
const READ_OUT_TIME: Duration = BLOCK_TIMEOUT.saturating_mul(2);

/// Microseconds since the epoch.
pub(crate) fn wall_clock_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// A packet socket, and the interfaces to watch as they come and go.
pub(crate) struct Live {
    socket: PacketSocket,
    interfaces: Interfaces,
}

/// An observation point, by the index of its interface.
struct Point {
    id: PointId,
    watched: WatchedInterface,
    /// Since when the interface is gone; its last packets may still be in the ring.
    gone: Option<Instant>,
}

impl Live {
    /// Opens the socket and looks for interfaces. Nothing is delivered yet.
    pub(crate) async fn open(
        config: &Config,
        sockets: Option<Vec<PacketSocket>>,
    ) -> Result<Self, CaptureError> {
        let socket = match sockets.and_then(|mut sockets| sockets.pop()) {
            Some(socket) => socket,
            None => PacketSocket::open()?,
        };
        let interfaces = watch(config.selection()).await?;
        if interfaces.first.interfaces.is_empty() {
            warn!(
                "no interface to watch yet: without --interface it needs a pod's veth or a default route"
            );
        }
        Ok(Self { socket, interfaces })
    }

    pub(super) fn read(
        mut self,
        mut recorder: Recorder,
        ready: &ReadinessPart,
        stop: &CancellationToken,
    ) -> Result<Summary, CaptureError> {
        let first = &self.interfaces.first;
        let mut known = Known { unwanted: first.unwanted.clone(), ..Known::default() };
        follow(first, &mut known.points, &mut recorder);
        let mut ring = self.socket.start(&Filter::new(first.excluded.iter().copied(), false))?;
        recorder.start(wall_clock_us());
        ready.set(true);
        let mut stopping = None;
        loop {
            let read = read_block(&mut ring, &mut self.interfaces, &mut known, &mut recorder);
            if let Err(source) = read {
                // What was seen is published before the error is told.
                recorder.finish();
                return Err(CaptureError::Ring { source });
            }
            if recorder.advance(wall_clock_us()).is_err() {
                break;
            }
            if stop.is_cancelled()
                && stopping.get_or_insert_with(Instant::now).elapsed() > READ_OUT_TIME
            {
                break;
            }
        }
        Ok(recorder.finish())
    }
}

/// Reads what the kernel hands over next, if anything within its timeout.
fn read_block(
    ring: &mut Ring,
    interfaces: &mut Interfaces,
    known: &mut Known,
    recorder: &mut Recorder,
) -> std::io::Result<()> {
    let frames = ring.next_block(BLOCK_TIMEOUT)?;
    let mut excluded = None;
    // After the waiting: a packet of a new interface mostly comes later than the news of it.
    while let Ok(watched) = interfaces.changes.try_recv() {
        follow(&watched, &mut known.points, recorder);
        (known.unwanted, excluded) = (watched.unwanted, Some(watched.excluded));
        known.record_held(recorder);
    }
    for frame in frames.into_iter().flatten() {
        known.record(&frame, recorder);
    }
    let is_read_out = |point: &Point| point.gone.is_some_and(|gone| gone.elapsed() > READ_OUT_TIME);
    for (_, point) in known.points.extract_if(|_, point| is_read_out(point)) {
        recorder.remove_point(point.id);
    }
    let given_up = known.held.take_given_up(Instant::now());
    recorder.dropped(ring.take_dropped()? + given_up);
    if let Some(excluded) = excluded
        && !ring.set_filter(&Filter::new(excluded, false))?
    {
        warn!(
            "too many interfaces to ignore in the kernel: their packets are read and ignored here"
        );
    }
    Ok(())
}

/// What is known of the interfaces whose packets come.
#[derive(Default)]
struct Known {
    points: HashMap<u32, Point>,
    unwanted: BTreeSet<u32>,
    held: HeldFrames,
}

impl Known {
    fn record(&mut self, frame: &Frame<'_>, recorder: &mut Recorder) {
        match self.points.get(&frame.interface_index) {
            // The loopback shows each packet twice; the one it sends is the same it receives.
            Some(point) if point.watched.loopback && frame.outgoing => {}
            Some(point) => recorder.packet(packet(frame, point)),
            None if self.unwanted.contains(&frame.interface_index) => {}
            // The block came before the news.
            None => self.held.hold(frame, Instant::now()),
        }
    }

    /// What waited for the news that there are now.
    fn record_held(&mut self, recorder: &mut Recorder) {
        let is_known =
            |index: &u32| self.points.contains_key(index) || self.unwanted.contains(index);
        let now_known: Vec<u32> = self.held.interfaces().filter(is_known).collect();
        for index in now_known {
            for owned in self.held.release(index) {
                self.record(&owned.frame(), recorder);
            }
        }
    }
}

fn packet<'a>(frame: &Frame<'a>, point: &Point) -> Packet<'a> {
    let inside_if = |inside| if inside { Origin::Inside } else { Origin::Outside };
    let origin = match point.watched.interface.kind {
        // The host's end of a pod's veth receives what the pod sends.
        InterfaceKind::Pod => inside_if(!frame.outgoing),
        InterfaceKind::Uplink => inside_if(frame.outgoing),
        InterfaceKind::Other => Origin::Unknown,
    };
    Packet {
        point: point.id,
        origin,
        time_us: frame.time_us,
        link: frame.link,
        bytes: frame.bytes,
        wire_length: frame.wire_length,
    }
}

/// Adds the points of new interfaces, and marks those of interfaces that are gone.
fn follow(watched: &Watched, points: &mut HashMap<u32, Point>, recorder: &mut Recorder) {
    recorder.table.set_node_addresses(watched.node_addresses.clone());
    for (index, point) in points.iter_mut() {
        if !watched.interfaces.contains_key(index) && point.gone.is_none() {
            info!(interface = point.watched.interface.name, "interface is gone");
            point.gone = Some(Instant::now());
        }
    }
    for (index, interface) in &watched.interfaces {
        if let Some(point) = points.get_mut(index)
            && point.watched == *interface
        {
            point.gone = None;
            continue;
        }
        // A new one, or an old one with another name or kind: that is another observation point.
        let (name, kind) = (&interface.interface.name, interface.interface.kind);
        info!(interface = name, %kind, "watching interface");
        let id = recorder.add_point(interface.interface.clone());
        let point = Point { id, watched: interface.clone(), gone: None };
        if let Some(old) = points.insert(*index, point) {
            recorder.remove_point(old.id);
        }
    }
}
