//! The in-process source: a log that lives as long as the process, its offsets counted here.

use std::collections::HashMap;

use flowtrail_schema::topic::{FLOWS_TOPIC, Message};
use tokio::sync::mpsc;

use super::{Envelope, Event, Topic};

pub(crate) struct ChannelFeed {
    receiver: mpsc::Receiver<Message>,
    topic: Topic,
    /// Not said yet which partitions there are.
    new: bool,
    next_offsets: HashMap<u32, u64>,
}

impl ChannelFeed {
    pub(super) fn new(
        receiver: mpsc::Receiver<Message>,
        topic_id: String,
        partitions: u32,
    ) -> Self {
        let topic = Topic { name: FLOWS_TOPIC.to_owned(), id: topic_id.into(), partitions };
        Self { receiver, topic, new: true, next_offsets: HashMap::new() }
    }

    pub(super) async fn next(&mut self) -> Event {
        if std::mem::take(&mut self.new) {
            return Event::Assigned((0..self.topic.partitions).collect());
        }
        let Some(Message { partition, payload, .. }) = self.receiver.recv().await else {
            return Event::End;
        };
        let next = self.next_offsets.entry(partition).or_default();
        let offset = *next;
        *next += 1;
        Event::Message(Envelope { partition, offset, time_ms: None, payload })
    }

    pub(super) fn topic(&self) -> &Topic {
        &self.topic
    }
}
