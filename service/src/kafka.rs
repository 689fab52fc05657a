//! How to reach Kafka: flags that capture and ingest share, as librdkafka's properties.

use clap::Args;
use flowtrail_schema::topic::FLOWS_TOPIC;

/// Where Kafka is.
#[derive(Args, Clone, Debug)]
pub struct KafkaArgs {
    /// Brokers to ask first, as host:port, separated by commas.
    #[arg(
        long,
        env = "FLOWTRAIL_KAFKA_BROKERS",
        default_value = "127.0.0.1:9092",
        value_name = "HOST:PORT,…",
        help_heading = "Kafka"
    )]
    pub kafka_brokers: String,

    /// Topic of the flow records.
    #[arg(long, env = "FLOWTRAIL_KAFKA_TOPIC", default_value = FLOWS_TOPIC, value_name = "NAME", help_heading = "Kafka")]
    pub kafka_topic: String,

    /// Any further librdkafka property; may be repeated.
    #[arg(long, env = "FLOWTRAIL_KAFKA_PROPERTY", value_delimiter = ',', value_parser = property, value_name = "NAME=VALUE", help_heading = "Kafka")]
    pub kafka_property: Vec<(String, String)>,
}

impl KafkaArgs {
    /// The properties for librdkafka, the user's own last.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        let brokers = ("bootstrap.servers", self.kafka_brokers.as_str());
        let own = self.kafka_property.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        [brokers].into_iter().chain(own)
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not NAME=VALUE, like socket.timeout.ms=5000"))?;
    Ok((name.to_owned(), value.to_owned()))
}
