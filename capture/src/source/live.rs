//! Packets of this machine's interfaces, from the rings. The only place that reads the wall clock.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowtrail_schema::{Endpoint, InterfaceKind};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::points::{self, Point, Points};
use crate::config::Config;
use crate::error::CaptureError;
use crate::flow_table::{Origin, Shared};
use crate::interfaces::{Interfaces, watch};
use crate::ring::{BLOCK_TIMEOUT, Frame, PacketSocket, Ring};
use crate::worker::{Packet, RecorderGone, Worker};

/// Until what came before an instant has been read: the kernel holds a packet back no longer than
/// a block's timeout, and as much again is left for the reader.
const READ_OUT_TIME: Duration = BLOCK_TIMEOUT.saturating_mul(2);

/// Microseconds since the epoch.
pub(crate) fn wall_clock_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Packet sockets, and the interfaces to watch as they come and go.
pub(crate) struct Live {
    sockets: Vec<PacketSocket>,
    interfaces: Interfaces,
}

impl Live {
    /// Opens the sockets and looks for interfaces. Nothing is delivered yet.
    pub(crate) async fn open(config: &Config) -> Result<Self, CaptureError> {
        let sockets = vec![PacketSocket::open()?];
        let interfaces = watch(config.selection()).await?;
        if interfaces.first.interfaces.is_empty() {
            warn!(
                "no interface to watch yet: without --interface it needs a pod's veth or a default route"
            );
        }
        Ok(Self { sockets, interfaces })
    }

    /// How many workers there are to be.
    pub(crate) fn workers(&self) -> usize {
        self.sockets.len()
    }

    /// The worker that gets the packets between two ends.
    pub(crate) fn worker_of(&self, _ends: [Endpoint; 2]) -> usize {
        0
    }

    /// Starts to follow the interfaces and to deliver packets: one reader for each socket.
    pub(crate) fn start(self, shared: &Shared) -> Result<Vec<Reader>, CaptureError> {
        let mut first = Points::default();
        first.change(&self.interfaces.first, shared);
        let (sender, points) = watch::channel(Arc::new(first));
        let readers = self.sockets.into_iter().map(|socket| {
            let (current, points) = (points.borrow().clone(), points.clone());
            Ok(Reader { ring: socket.start()?, points, current })
        });
        let readers = readers.collect::<Result<_, CaptureError>>()?;
        drop(points);
        tokio::spawn(points::follow(self.interfaces, shared.clone(), sender, READ_OUT_TIME));
        Ok(readers)
    }
}

/// One worker's side of the sockets.
pub(crate) struct Reader {
    ring: Ring,
    points: watch::Receiver<Arc<Points>>,
    /// The points that the worker knows of.
    current: Arc<Points>,
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
        // If nobody takes what was made, that is told elsewhere.
        let _ = worker.finish();
        read.map_err(|source| CaptureError::Ring { source })
    }

    fn read_blocks(
        &mut self,
        worker: &mut Worker,
        stop: &CancellationToken,
    ) -> std::io::Result<()> {
        let mut stopping = None;
        let mut timeout = BLOCK_TIMEOUT;
        loop {
            self.read_block(worker, timeout)?;
            // Packets do not wait for a long cut, nor it for them.
            timeout = match worker.advance(wall_clock_us()) {
                Ok(true) => BLOCK_TIMEOUT,
                Ok(false) => Duration::ZERO,
                Err(RecorderGone) => return Ok(()),
            };
            if stop.is_cancelled()
                && stopping.get_or_insert_with(Instant::now).elapsed() > READ_OUT_TIME
            {
                return Ok(());
            }
        }
    }

    /// Reads what the kernel hands over next, if anything within a time.
    fn read_block(&mut self, worker: &mut Worker, timeout: Duration) -> std::io::Result<()> {
        let frames = self.ring.next_block(timeout)?;
        // After the waiting: a packet of a new interface comes later than the news of the interface.
        if self.points.has_changed().unwrap_or(false) {
            self.current = self.points.borrow_and_update().clone();
        }
        for frame in frames.into_iter().flatten() {
            if let Some(point) = self.current.by_index.get(&frame.interface_index) {
                // What the loopback sends is the same as it receives.
                if !(point.loopback && frame.outgoing) {
                    worker.packet(packet(&frame, point));
                }
            }
        }
        worker.show_packets();
        worker.dropped(self.ring.take_dropped()?);
        Ok(())
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
