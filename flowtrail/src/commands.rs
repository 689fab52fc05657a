//! One file a subcommand: each puts its service together from top to bottom and runs it.

pub(crate) mod capture;
pub(crate) mod graph;
pub(crate) mod ingest;
pub(crate) mod query;
pub(crate) mod schema;
pub(crate) mod up;

/// What every service needs to start: metrics, readiness, and to be told when to end.
pub(crate) struct Started {
    pub(crate) metrics: flowtrail_service::metrics::Metrics,
    pub(crate) readiness: flowtrail_service::admin::Readiness,
    pub(crate) shutdown: tokio_util::sync::CancellationToken,
}

impl Started {
    /// Listens for signals; nothing else happens yet.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            metrics: flowtrail_service::metrics::Metrics::new(),
            readiness: flowtrail_service::admin::Readiness::default(),
            shutdown: flowtrail_service::shutdown::on_signal()?,
        })
    }
}

/// Ends a `--check-config` run: everything could be read and put together.
pub(crate) fn configuration_is_valid() -> anyhow::Result<()> {
    print("the configuration is valid")
}

/// Prints a text and a line's end to standard output. Content if the reader (`head`, say) has had enough.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
