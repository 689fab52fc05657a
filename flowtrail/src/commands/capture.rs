//! `flowtrail capture`: the agent.

use clap::{Args, ValueEnum};
use flowtrail_capture::privileges::{Keep, open_and_drop};
use flowtrail_capture::ring::PacketSocket;
use flowtrail_capture::{Agent, CaptureError, Config, KafkaOutput, Output};
use flowtrail_service::admin::{self, AdminArgs};
use flowtrail_service::kafka::KafkaArgs;

use super::Started;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: Config,

    /// Where the records go: to Kafka, as JSON lines to standard output, or nowhere.
    #[arg(long, env = "FLOWTRAIL_OUTPUT", value_enum, default_value = "kafka")]
    output: OutputKind,

    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputKind {
    /// The topic that ingest reads.
    Kafka,
    /// One FlowRecord a line.
    Json,
    /// Nothing: to measure.
    Null,
}

impl Arguments {
    /// Opens the packet sockets, and gives up every privilege.
    pub(crate) fn open_sockets(&self) -> Result<Option<Vec<PacketSocket>>, CaptureError> {
        open_and_drop(&self.capture, Keep::Nothing)
    }
}

pub(crate) async fn run(
    arguments: Arguments,
    sockets: Option<Vec<PacketSocket>>,
    check: bool,
) -> anyhow::Result<()> {
    let Started { metrics, readiness, shutdown } = Started::new()?;
    let output = match arguments.output {
        OutputKind::Kafka => {
            arguments.kafka.warn_of_risks();
            Output::Kafka(KafkaOutput::new(&arguments.kafka, &metrics)?)
        }
        OutputKind::Json => Output::Json,
        OutputKind::Null => Output::Null,
    };
    let agent = Agent::new(arguments.capture, output, &metrics)?.with_sockets(sockets);
    if check {
        return super::configuration_is_valid();
    }
    let ready = readiness.part("capture");
    admin::serve(&arguments.admin, metrics, readiness, shutdown.clone()).await?;
    agent.run(ready, shutdown).await?;
    Ok(())
}
