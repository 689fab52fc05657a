//! Logs: lines on standard error, for people by default, as JSON where a collector reads them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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

/// Time between two lines of a [`Seldom`].
const SELDOM: Duration = Duration::from_secs(10);

/// Lets one line about a repeated failure through every ten seconds: the failures themselves are
/// counted in metrics.
#[derive(Debug, Default)]
pub struct Seldom {
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    /// Whether this is the time for a line.
    pub fn is_due(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= SELDOM);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_of_a_burst_is_due() {
        let seldom = Seldom::default();
        let due = (0..1_000).filter(|_| seldom.is_due()).count();
        assert_eq!(due, 1);
    }
}
