//! What the programs of this crate have in common: work that ends on Ctrl-C, and how its end is told.

use std::process::ExitCode;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

/// Works on a thread of its own, while this one listens for signals to end.
///
/// # Errors
/// If the work fails, or signals cannot be listened for.
pub fn until_told(
    work: impl FnOnce(CancellationToken) -> Result<()> + Send + 'static,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = flowtrail_service::shutdown::on_signal()?;
        tokio::task::spawn_blocking(move || work(shutdown)).await?
    })
}

/// What a program exits with; an error is told.
pub fn ended(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
