//! Packets of a capture file. Time is the file's.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use flowtrail_schema::batch::MAX_NAME_BYTES;
use flowtrail_schema::{Interface, InterfaceKind};
use tokio_util::sync::CancellationToken;

use crate::error::CaptureError;
use crate::flow_table::{Origin, PointId, Shared};
use crate::pcap::{PcapError, PcapReader};
use crate::worker::{Packet, RecorderGone, Worker};

/// An open file.
pub(crate) struct File {
    path: PathBuf,
    reader: PcapReader,
}

impl File {
    /// Opens a file, or standard input (`-`) when its first bytes come; `None` if the shutdown comes
    /// before them.
    pub(crate) async fn open(
        path: &Path,
        shutdown: &CancellationToken,
    ) -> Result<Option<Self>, CaptureError> {
        let (path, stop) = (path.to_owned(), shutdown.clone());
        let open = move || {
            let opened = if path.as_os_str() == "-" {
                StandardInput::open(stop.clone()).and_then(PcapReader::new)
            } else {
                PcapReader::open(&path)
            };
            match opened {
                Err(_) if stop.is_cancelled() => Ok(None),
                Err(source) => Err(CaptureError::File { path, source }),
                Ok(reader) => Ok(Some(Self { path, reader })),
            }
        };
        tokio::task::spawn_blocking(open).await.map_err(|_| CaptureError::Stopped)?
    }

    /// Reads to the end, or until told to stop. What could be read is recorded, whatever comes then.
    pub(crate) fn read(
        mut self,
        shared: &Shared,
        mut worker: Worker,
        stop: &CancellationToken,
    ) -> Result<(), CaptureError> {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        let mut name = name.to_string_lossy().into_owned();
        name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
        let interface = Arc::new(Interface { name, kind: InterfaceKind::Other });
        let point = shared.add_point(interface).ok_or(CaptureError::Stopped)?;
        let read = self.read_packets(point, &mut worker, stop);
        worker.unsupported(self.reader.unsupported_packets());
        // If nobody takes what was made, that is told elsewhere.
        let _ = worker.finish();
        read.map_err(|source| CaptureError::BrokenFile {
            path: self.path,
            summary: Box::default(),
            source,
        })
    }

    fn read_packets(
        &mut self,
        point: PointId,
        worker: &mut Worker,
        stop: &CancellationToken,
    ) -> Result<(), PcapError> {
        for n in 0_u64.. {
            if n % STOP_CHECK_PACKETS == 0 && stop.is_cancelled() {
                break;
            }
            let packet = match self.reader.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                // Told to stop, standard input ends in the middle of something.
                Err(_) if stop.is_cancelled() => break,
                Err(source) => return Err(source),
            };
            loop {
                match worker.advance(packet.time_us) {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(RecorderGone) => return Ok(()),
                }
            }
            worker.packet(Packet {
                point,
                origin: Origin::Unknown,
                time_us: packet.time_us,
                link: packet.link,
                bytes: packet.bytes,
                wire_length: packet.wire_length,
            });
            if n % SHOW_PACKETS == 0 || self.reader.may_wait() {
                worker.show_packets();
            }
        }
        Ok(())
    }
}

/// Bytes taken from standard input at once, and how many such pieces may wait.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES: usize = 4;

/// How often the metric follows while there is something to read.
const SHOW_PACKETS: u64 = 64;

/// How often a reader that does not wait looks whether it is to stop.
const STOP_CHECK_PACKETS: u64 = 256;

/// How soon a reader that waits for input sees that it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// Standard input, which ends early when it is to stop: reading it cannot be interrupted, so a thread
/// of its own does, and is left behind.
struct StandardInput {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Cursor<Vec<u8>>,
    stop: CancellationToken,
}

impl StandardInput {
    fn open(stop: CancellationToken) -> Result<Self, PcapError> {
        let (sender, pieces) = sync_channel(PIECES);
        let read = move || {
            let mut stdin = io::stdin().lock();
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = stdin.read(&mut piece);
                let ended = !matches!(read, Ok(1..));
                let read = read.map(|length| {
                    piece.truncate(length);
                    piece
                });
                if sender.send(read).is_err() || ended {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(read)
            .map_err(|source| PcapError::Read { offset: 0, source })?;
        Ok(Self { pieces, piece: Cursor::default(), stop })
    }
}

impl Read for StandardInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.piece.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            match self.pieces.recv_timeout(STOP_CHECK) {
                // An empty piece is the end.
                Ok(piece) => match piece? {
                    piece if piece.is_empty() => return Ok(0),
                    piece => self.piece = Cursor::new(piece),
                },
                Err(RecvTimeoutError::Timeout) if !self.stop.is_cancelled() => {}
                Err(_) => return Ok(0),
            }
        }
    }
}
