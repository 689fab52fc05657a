//! Packets of this machine's interfaces, from the rings. The only place that reads the wall clock.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowtrail_schema::{Endpoint, InterfaceKind};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::points::{self, Point, Points};
use crate::config::Config;
use crate::error::CaptureError;
use crate::flow_table::{Origin, OwnsSocket, Shared};
use crate::interfaces::{Interfaces, watch};
use crate::ring::{BLOCK_TIMEOUT, Filter, Frame, HeldFrames, PacketSocket, Ring, worker_of};
use crate::sockets::Sockets;
use crate::worker::{Packet, RecorderGone, Worker};

/// Until what came before an instant has been read: the kernel holds a packet back no longer than
/// a block's timeout, and as much again is left for the reader.
const READ_OUT_TIME: Duration = BLOCK_TIMEOUT.saturating_mul(2);

/// Later than frames are held for.
const HELD_IN_VAIN: Duration = Duration::from_mins(1);

/// Microseconds since the epoch.
pub(crate) fn wall_clock_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Packet sockets, and the interfaces to watch as they come and go.
pub(crate) struct Live {
    sockets: Vec<PacketSocket>,
    interfaces: Interfaces,
    decapsulate: bool,
}

impl Live {
    /// Looks for interfaces, and opens the sockets if they are not open. Nothing is delivered yet.
    pub(crate) async fn open(
        config: &Config,
        sockets: Option<Vec<PacketSocket>>,
    ) -> Result<Self, CaptureError> {
        let sockets = match sockets {
            Some(sockets) => sockets,
            None => PacketSocket::open_group(config.workers())?,
        };
        let interfaces = watch(config.selection()).await?;
        if interfaces.first.interfaces.is_empty() {
            warn!(
                "no interface to watch yet: without --interface it needs a pod's veth or a default route"
            );
        }
        Ok(Self { sockets, interfaces, decapsulate: config.decapsulate })
    }

    /// How many workers there are to be.
    pub(crate) fn workers(&self) -> usize {
        self.sockets.len()
    }

    /// The worker that gets the packets between two ends.
    pub(crate) fn worker_of(&self, [low, high]: [Endpoint; 2]) -> usize {
        worker_of(low, high, self.sockets.len())
    }

    /// Starts to follow the interfaces and to deliver packets: one reader for each socket.
    pub(crate) fn start(self, shared: &Shared) -> Result<Vec<Reader>, CaptureError> {
        let mut first = Points::default();
        first.change(&self.interfaces.first, shared);
        let filter = Filter::new(first.excluded.iter().copied(), self.decapsulate);
        let (sender, points) = watch::channel(Arc::new(first));
        let mut readers = Vec::new();
        for socket in self.sockets {
            readers.push(Reader {
                ring: socket.start(&filter)?,
                points: points.clone(),
                current: points.borrow().clone(),
                held: HeldFrames::default(),
                decapsulate: self.decapsulate,
            });
        }
        drop(points);
        tokio::spawn(points::follow(self.interfaces, shared.clone(), sender, READ_OUT_TIME));
        Ok(readers)
    }
}

/// Asks the kernel for the owners of sockets; nothing if it cannot be asked.
pub(crate) fn owns_socket() -> Option<OwnsSocket> {
    match Sockets::open() {
        Ok(mut sockets) => Some(Box::new(move |local, remote| sockets.owns(local, remote))),
        Err(error) => {
            warn!(%error, "cannot ask for sockets: connections through NAT that are older than the agent may count for the node");
            None
        }
    }
}

/// One worker's side of the sockets.
pub(crate) struct Reader {
    ring: Ring,
    points: watch::Receiver<Arc<Points>>,
    /// The points that the worker knows of.
    current: Arc<Points>,
    /// Frames that came before the news of their interface.
    held: HeldFrames,
    decapsulate: bool,
}

impl Reader {
    /// Reads until told to stop. What was seen is recorded, whatever comes then.
    pub(crate) fn read(
        mut self,
        mut worker: Worker,
        stop: &CancellationToken,
    ) -> Result<(), CaptureError> {
        let read = match worker.start(wall_clock_us()) {
            Ok(()) => self.read_blocks(&mut worker, stop),
            Err(RecorderGone) => return Ok(()),
        };
        // What is held is of interfaces that came and went unseen.
        worker.dropped(self.held.take_given_up(Instant::now() + HELD_IN_VAIN));
        // If nobody takes what was made, that is told elsewhere.
        let _ = worker.finish();
        read.map_err(|source| CaptureError::Ring { source })
    }

    fn read_blocks(&mut self, worker: &mut Worker, stop: &CancellationToken) -> io::Result<()> {
        let mut stopping = None;
        let mut timeout = BLOCK_TIMEOUT;
        loop {
            let latest_us = self.read_block(worker, timeout)?;
            // Packets do not wait for a long cut, nor it for them.
            timeout = match worker.advance(wall_clock_us()) {
                Ok(true) => BLOCK_TIMEOUT,
                Ok(false) => Duration::ZERO,
                Err(RecorderGone) => return Ok(()),
            };
            if stop.is_cancelled() {
                // What came before is read, however much it is: until a packet came later, or none comes
                // any more for as long as the kernel may hold one back.
                let now = || (Instant::now(), wall_clock_us());
                let (since, since_us) = *stopping.get_or_insert_with(now);
                let is_read_out = match latest_us {
                    Some(latest_us) => latest_us > since_us,
                    None => since.elapsed() > READ_OUT_TIME,
                };
                if is_read_out {
                    return Ok(());
                }
            }
        }
    }

    /// Reads what the kernel hands over next, if anything within a time. The time of its last packet.
    fn read_block(&mut self, worker: &mut Worker, timeout: Duration) -> io::Result<Option<u64>> {
        let Self { ring, points, current, held, decapsulate } = self;
        let frames = ring.next_block(timeout)?;
        // After the waiting: a packet of a new interface mostly comes later than the news of it.
        let mut changed = None;
        if points.has_changed().unwrap_or(false) {
            changed = Some(std::mem::replace(current, points.borrow_and_update().clone()));
            record_held(held, current, worker);
        }
        let mut latest_us = None;
        for frame in frames.into_iter().flatten() {
            latest_us = latest_us.max(Some(frame.time_us));
            record(&frame, current, held, worker);
        }
        worker.show_packets();
        worker.dropped(ring.take_dropped()? + held.take_given_up(Instant::now()));
        if changed.is_some_and(|before| before.excluded != current.excluded)
            && !ring.set_filter(&Filter::new(current.excluded.iter().copied(), *decapsulate))?
        {
            warn!(
                "too many interfaces to ignore in the kernel: their packets are read and ignored here"
            );
        }
        Ok(latest_us)
    }
}

fn record(frame: &Frame<'_>, points: &Points, held: &mut HeldFrames, worker: &mut Worker) {
    match points.by_index.get(&frame.interface_index) {
        // What the loopback sends is the same as it receives.
        Some(point) if point.loopback && frame.outgoing => {}
        Some(point) => worker.packet(packet(frame, point)),
        None if points.unwanted.contains(&frame.interface_index) => {}
        // The block came before the news.
        None => held.hold(frame, Instant::now()),
    }
}

/// Records what waited for the news that there are now.
fn record_held(held: &mut HeldFrames, points: &Points, worker: &mut Worker) {
    let is_known =
        |index: &u32| points.by_index.contains_key(index) || points.unwanted.contains(index);
    let now_known: Vec<u32> = held.interfaces().filter(is_known).collect();
    for index in now_known {
        for owned in held.release(index) {
            record(&owned.frame(), points, held, worker);
        }
    }
}

fn packet<'a>(frame: &Frame<'a>, point: &Point) -> Packet<'a> {
    let inside_if = |inside| if inside { Origin::Inside } else { Origin::Outside };
    let origin = match point.kind {
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
