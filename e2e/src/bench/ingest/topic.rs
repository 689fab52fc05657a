//! The topic on a real broker: filled before anything is measured.

use std::time::Duration;

use anyhow::Result;
use flowtrail_schema::topic::{FLOWS_TOPIC, Message};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::traffic::PARTITIONS;
use crate::broker::Broker;

/// How long the broker may take to acknowledge all.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);

/// Writes to the topic as agents do.
pub struct Topic {
    producer: BaseProducer,
}

impl Topic {
    /// Makes the topic.
    ///
    /// # Errors
    /// If the broker refuses.
    pub fn create(broker: &Broker) -> Result<Self> {
        broker.create_topic(FLOWS_TOPIC, PARTITIONS as i32)?;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", broker.address().to_string())
            .set("compression.type", "lz4")
            .set("enable.idempotence", "true")
            .create()?;
        Ok(Self { producer })
    }

    /// Adds messages. They are on their way then, not yet there.
    ///
    /// # Errors
    /// If Kafka refuses one.
    pub fn send(&self, messages: &[Message]) -> Result<()> {
        for message in messages {
            loop {
                let record = BaseRecord::<(), [u8]>::to(FLOWS_TOPIC)
                    .partition(message.partition as i32)
                    .payload(&message.payload);
                match self.producer.send(record) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                        self.producer.poll(Duration::from_millis(10));
                    }
                    Err((error, _)) => return Err(error.into()),
                }
            }
            self.producer.poll(Duration::ZERO);
        }
        Ok(())
    }

    /// Waits until all messages are there.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn flush(&self) -> Result<()> {
        Ok(self.producer.flush(FLUSH_TIMEOUT)?)
    }
}
