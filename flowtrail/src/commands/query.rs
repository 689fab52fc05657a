//! `flowtrail query`: the graph over HTTP.

use clap::Args;
use flowtrail_query::{Config, Query};
use flowtrail_service::store::ClickHouseArgs;

use super::Started;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    query: Config,
    #[command(flatten)]
    clickhouse: ClickHouseArgs,
}

pub(crate) async fn run(arguments: Arguments, check: bool) -> anyhow::Result<()> {
    let Started { metrics, readiness, shutdown } = Started::new()?;
    arguments.clickhouse.validate()?;
    let query = Query::new(arguments.query, arguments.clickhouse, metrics, readiness)?;
    if check {
        return super::configuration_is_valid();
    }
    let listener = query.listen().await?;
    query.run(listener, shutdown).await?;
    Ok(())
}
