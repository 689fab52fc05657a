//! Shutdown: the first SIGTERM or SIGINT asks everything to finish, the second ends at once.

use std::process::exit;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Signals within this time of the first are the same request: `timeout`, for one, sends each twice.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// A token that is cancelled on the first SIGTERM or SIGINT. On the second the process exits with
/// 128 plus the signal's number, as shells expect.
///
/// # Errors
/// If the kernel refuses the handlers.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        let name = first_of(&mut terminate, &mut interrupt).await.0;
        info!(signal = name, "shutting down; a second signal ends at once");
        cancelled.cancel();
        let same = sleep(SAME_REQUEST);
        tokio::pin!(same);
        loop {
            tokio::select! {
                _ = first_of(&mut terminate, &mut interrupt) => {}
                () = &mut same => break,
            }
        }
        let (name, number) = first_of(&mut terminate, &mut interrupt).await;
        warn!(signal = name, "ending without finishing");
        exit(128 + number);
    });
    Ok(token)
}

async fn first_of(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = terminate.recv() => ("SIGTERM", 15),
        _ = interrupt.recv() => ("SIGINT", 2),
    }
}
