//! The agent: packet → flow → record → batch → Kafka. [`pipeline`] is the map.

pub mod batcher;
pub mod config;
pub mod error;
pub mod flow_table;
pub mod interfaces;
mod metrics;
pub mod output;
pub mod packet;
pub mod pcap;
pub mod pipeline;
pub mod privileges;
mod recorder;
mod reports;
pub mod ring;
pub mod sockets;
mod source;
mod state;
mod worker;

pub use config::Config;
pub use error::CaptureError;
pub use output::{KafkaOutput, Output, OutputError};
pub use pipeline::Agent;
pub use recorder::Summary;
pub use state::StateError;
