//! `flowtrail ingest`: flow records from Kafka to named rows in ClickHouse.

use clap::Args;
use flowtrail_ingest::{Config, Ingest, KafkaSourceArgs, Source};
use flowtrail_service::admin::{self, AdminArgs};
use flowtrail_service::kafka::KafkaArgs;
use flowtrail_service::store::ClickHouseArgs;

use super::Started;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    ingest: Config,
    #[command(flatten)]
    consumer: KafkaSourceArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    clickhouse: ClickHouseArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(crate) async fn run(arguments: Arguments, check: bool) -> anyhow::Result<()> {
    let Started { metrics, readiness, shutdown } = Started::new()?;
    arguments.kafka.warn_of_risks();
    arguments.clickhouse.validate()?;
    let source = Source::Kafka { kafka: arguments.kafka, consumer: arguments.consumer };
    let ingest = Ingest::new(arguments.ingest, source, arguments.clickhouse, &metrics)?;
    if check {
        return super::configuration_is_valid();
    }
    let ready = readiness.part("ingest");
    admin::serve(&arguments.admin, metrics, readiness, shutdown.clone()).await?;
    ingest.run(ready, shutdown).await?;
    Ok(())
}
