//! Sources: where packets come from. Each reads on a thread of its own until it ends or is told to
//! stop, feeds a recorder, and lets time pass for it.

mod file;
mod live;

use flowtrail_service::admin::ReadinessPart;
use tokio_util::sync::CancellationToken;

use crate::error::CaptureError;
use crate::recorder::{Recorder, Summary};

pub(crate) use file::File;
pub(crate) use live::{Live, wall_clock_us};

/// What an agent reads.
pub(crate) enum Source {
    Live(Live),
    File(File),
}

impl Source {
    /// Reads until the end, or until told to stop, and finishes the recorder. Says when packets are
    /// seen.
    pub(crate) fn read(
        self,
        recorder: Recorder,
        ready: &ReadinessPart,
        stop: &CancellationToken,
    ) -> Result<Summary, CaptureError> {
        match self {
            Self::Live(live) => live.read(recorder, ready, stop),
            Self::File(file) => file.read(recorder, ready, stop),
        }
    }
}
