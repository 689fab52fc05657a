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
    println!("the configuration is valid");
    Ok(())
}
