//! Logs: lines on standard error, for people by default, as JSON where a collector reads them.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How a process logs.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// What to log: error, warn, info, debug or trace; or by part, like "info,flowtrail_capture=debug".
    #[arg(
        long,
        env = "FLOWTRAIL_LOG",
        default_value = "info",
        value_name = "FILTER",
        global = true,
        help_heading = "Logging"
    )]
    pub log: String,

    /// Lines for people, or JSON objects for a collector.
    #[arg(
        long,
        env = "FLOWTRAIL_LOG_FORMAT",
        default_value = "text",
        value_enum,
        global = true,
        help_heading = "Logging"
    )]
    pub log_format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. Once a process.
///
/// # Errors
/// If the filter cannot be read, or logging was started before.
pub fn init(args: &LogArgs) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(&args.log).map_err(|error| format!("--log {:?}: {error}", args.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match args.log_format {
        LogFormat::Text => {
            let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(terminal).try_init()
        }
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| error.to_string())
}
