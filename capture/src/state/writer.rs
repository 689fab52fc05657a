//! Writes the state file, on a thread of its own: what workers save comes in pieces, by rounds.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use flowtrail_service::telemetry::Seldom;
use tracing::{debug, warn};

use super::{NewFile, StateDirectory};
use crate::config::Identity;
use crate::flow_table::SavedFlows;

/// Pieces that may wait to be written, some 1.5 MB each. Past that a worker goes on with its packets
/// and tries again.
const PIECES: usize = 4;

/// One writing of all that there is: the number of its minute, or the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Round {
    Minute(u64),
    Final,
}

/// Some flows of a worker.
#[derive(Debug)]
pub(crate) struct Piece {
    round: Round,
    flows: SavedFlows,
    /// The worker has no more in this round.
    is_last: bool,
}

/// The thread's side.
pub(crate) struct StateWriter {
    directory: StateDirectory,
    identity: Identity,
    workers: usize,
    pieces: Receiver<Piece>,
}

/// A worker's side.
pub(crate) struct Saver {
    writer: SyncSender<Piece>,
    /// The round that was begun last.
    round: Option<Round>,
    /// Where it is to go on, if it is not finished.
    next: Option<u32>,
    /// A piece that found no room.
    waiting: Option<Piece>,
}

impl StateWriter {
    /// A writer, and the sides of its workers.
    pub(crate) fn new(
        directory: StateDirectory,
        identity: Identity,
        workers: usize,
    ) -> (Self, Vec<Saver>) {
        let (writer, pieces) = sync_channel(PIECES);
        let saver = || Saver { writer: writer.clone(), round: None, next: None, waiting: None };
        let savers = std::iter::repeat_with(saver).take(workers).collect();
        (Self { directory, identity, workers, pieces }, savers)
    }

    /// Writes until all workers have ended. A round that another one overtakes is given up.
    pub(crate) fn run(self) {
        let seldom = Seldom::default();
        let mut current: Option<(Round, NewFile, usize)> = None;
        let mut failed = None;
        while let Ok(piece) = self.pieces.recv() {
            if failed == Some(piece.round) {
                continue;
            }
            let written = self.write(&mut current, &piece);
            if let Err(error) = written {
                // The next round may go better.
                (current, failed) = (None, Some(piece.round));
                if seldom.is_due() {
                    let path = self.directory.path.display();
                    warn!(%path, %error, "cannot write the state file: after a crash connections would begin anew");
                }
            }
        }
    }

    fn write(
        &self,
        current: &mut Option<(Round, NewFile, usize)>,
        piece: &Piece,
    ) -> io::Result<()> {
        let behind = |(round, ..): &(Round, NewFile, usize)| *round < piece.round;
        if current.as_ref().is_none_or(behind) {
            *current = Some((piece.round, NewFile::create(&self.directory)?, 0));
        }
        let Some((round, file, ended)) = current else { return Ok(()) };
        if piece.round < *round {
            return Ok(());
        }
        file.add(&piece.flows)?;
        *ended += usize::from(piece.is_last);
        if *ended == self.workers
            && let Some((round, file, _)) = current.take()
        {
            let flows = file.finish(&self.directory, &self.identity, round == Round::Final)?;
            debug!(flows, "state file written");
        }
        Ok(())
    }
}

impl Saver {
    /// Begins the round of a minute, if it has not begun. One that is not finished is given up.
    pub(crate) fn begin(&mut self, round: Round) {
        if self.round != Some(round) {
            *self = Self {
                writer: self.writer.clone(),
                round: Some(round),
                next: Some(0),
                waiting: None,
            };
        }
    }

    /// Goes on by one piece: `save` adds to it from a place on, and says where to go on. Does not wait.
    pub(crate) fn step(&mut self, save: impl FnOnce(u32, &mut SavedFlows) -> Option<u32>) {
        let Some(piece) = self.piece(save) else { return };
        if let Err(TrySendError::Full(piece)) = self.writer.try_send(piece) {
            self.waiting = Some(piece);
        }
    }

    /// Saves all of the last round, however long it takes.
    pub(crate) fn finish(mut self, mut save: impl FnMut(u32, &mut SavedFlows) -> Option<u32>) {
        self.begin(Round::Final);
        while let Some(piece) = self.piece(&mut save) {
            if self.writer.send(piece).is_err() {
                return;
            }
        }
    }

    fn piece(&mut self, save: impl FnOnce(u32, &mut SavedFlows) -> Option<u32>) -> Option<Piece> {
        if let Some(waiting) = self.waiting.take() {
            return Some(waiting);
        }
        let (round, from) = (self.round?, self.next?);
        let mut flows = SavedFlows::default();
        self.next = save(from, &mut flows);
        Some(Piece { round, flows, is_last: self.next.is_none() })
    }
}
