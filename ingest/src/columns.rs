//! Records with their names as a block of `flows`: filled some rows at a time, column by column.

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::sync::{Arc, LazyLock};

use flowtrail_schema::row::EntityKind;
use flowtrail_schema::{Detail, Endpoint, FlowRecord, IdKind, InterfaceKind, Reporter};

use crate::chunk::ChunkId;
use crate::identity::Identity;
use crate::naming::ConnectionNames;
#[cfg(test)]
use crate::native::WORD_TYPE;
use crate::native::{Block, Numbered, Plain, Rows, Seconds};
use crate::points::Point;
use crate::row::{mapped, seconds, seconds_short};

/// What a row is made of.
#[derive(Clone, Debug)]
pub(crate) struct NamedRecord<'a> {
    pub(crate) record: Cow<'a, FlowRecord>,
    pub(crate) names: Arc<ConnectionNames>,
    pub(crate) primary: bool,
    pub(crate) point: &'a Arc<Point>,
    pub(crate) topic_id: &'a Arc<str>,
    pub(crate) chunk: ChunkId,
}

/// Declares a block: what its words are of; its columns of values; its columns of words.
macro_rules! columns {
    ($(#[$doc:meta])* $block:ident of $row:ty; |$named:ident|
     { $($common:ident: $of:ty = $shared:expr;)+ }
     { $($name:ident: $value_type:ty = $value:expr;)+ }
     { $($word:ident: |$from:ident| $text:expr;)+ }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $block {
            rows: usize,
            $($common: Numbered<$of>,)+
            $($name: Plain<$value_type>,)+
        }

        impl $block {
            /// No rows yet, and room for so many.
            pub(crate) fn with_capacity(rows: usize) -> Self {
                Self {
                    rows: 0,
                    $($common: Numbered::with_capacity(rows),)+
                    $($name: Plain::with_capacity(rows),)+
                }
            }

            /// Adds rows, column after column: of some hundred rows all that is read stays near.
            pub(crate) fn extend(&mut self, rows: &[$row]) {
                self.rows += rows.len();
                $(rows.iter().for_each(|$named| self.$common.push($shared));)+
                $(rows.iter().for_each(|$named| self.$name.push($value));)+
            }

            /// The rows as one block; without rows, nothing.
            pub(crate) fn finish(self) -> Rows {
                if self.rows == 0 {
                    return Rows::default();
                }
                let columns = [$(stringify!($name),)+ $(stringify!($word),)+].len();
                let mut block = Block::new(columns, self.rows);
                $(block.plain(stringify!($name), self.$name);)+
                $(self.$from.words(stringify!($word), |$from| $text, &mut block);)+
                block.finish()
            }

            /// Names and ClickHouse types.
            #[cfg(test)]
            pub(crate) fn names_and_types() -> Vec<(&'static str, String)> {
                vec![
                    $((stringify!($name), Plain::<$value_type>::sql_type()),)+
                    $((stringify!($word), WORD_TYPE.to_owned()),)+
                ]
            }
        }
    };
}

columns! {
    /// A block of `flows` in the making. A column of the table is one line here, one in its migration, and one in
    /// `FlowRow`, which has the aliases in place of what they are computed from.
    FlowColumns of NamedRecord<'_>;
    |row|
    {
        point: Point = row.point;
        client: Identity = &row.names.client.identity;
        server: Identity = &row.names.server.identity;
        service: Identity = row.names.service.as_ref().unwrap_or_else(|| no_service());
        topic: str = row.topic_id;
    }
    {
        interval_start: Seconds = Seconds(seconds(row.record.interval.start_s()));
        interval_s: u8 = seconds_short(row.record.interval.length().seconds());
        first_offset_us: i64 = beyond(row.record.first_seen_us, row.record.interval.start_us());
        active_us: i64 = active_us(&row.record);

        interface_kind: InterfaceKind = row.record.interface.kind;
        reporter: Reporter = row.record.reporter;
        local_primary: bool = row.record.local_primary;
        primary: bool = row.primary;
        detail: Detail = row.record.detail;

        connection_id: u64 = row.record.connection_id;
        id_kind: IdKind = row.record.id_kind;
        handshake_seen: bool = row.record.handshake_seen;
        one_sided: bool = row.record.one_sided;
        direction_inferred: bool = row.record.direction_inferred;
        age_rest_us: i64 = beyond(row.record.age_us, active_us(&row.record) as u64);

        client_seen_ip: Ipv6Addr = seen(row.record.client, row.names.client.real).0;
        client_seen_port: u16 = seen(row.record.client, row.names.client.real).1;
        client_kind: EntityKind = row.names.client.identity.kind;
        client_uncertain: bool = row.names.client.identity.uncertain;
        client_real_ip: Ipv6Addr = mapped(row.names.client.real.ip);
        client_real_port: u16 = row.names.client.real.port;

        server_seen_ip: Ipv6Addr = seen(row.record.server, row.names.server.real).0;
        server_seen_port: u16 = seen(row.record.server, row.names.server.real).1;
        server_kind: EntityKind = row.names.server.identity.kind;
        server_uncertain: bool = row.names.server.identity.uncertain;
        server_real_ip: Ipv6Addr = mapped(row.names.server.real.ip);
        server_real_port: u16 = row.names.server.real.port;

        sent_header_bytes: u64 = row.record.sent.bytes.wrapping_sub(row.record.sent.payload_bytes);
        sent_payload_bytes: u64 = row.record.sent.payload_bytes;
        sent_packets: u64 = row.record.sent.packets;
        sent_retransmitted_packets: u64 = row.record.sent.retransmitted_packets;
        sent_zero_window_packets: u64 = row.record.sent.zero_window_packets;
        received_header_bytes: u64 = row.record.received.bytes.wrapping_sub(row.record.received.payload_bytes);
        received_payload_bytes: u64 = row.record.received.payload_bytes;
        received_packets: u64 = row.record.received.packets;
        received_retransmitted_packets: u64 = row.record.received.retransmitted_packets;
        received_zero_window_packets: u64 = row.record.received.zero_window_packets;

        opened: u32 = row.record.opened;
        joined: u32 = row.record.joined;
        open_at_start: u32 = row.record.open_at_start;
        closed_fin: u32 = row.record.closed.fin;
        closed_reset_by_client: u32 = row.record.closed.reset_by_client;
        closed_reset_by_server: u32 = row.record.closed.reset_by_server;
        closed_refused: u32 = row.record.closed.refused;
        closed_unanswered: u32 = row.record.closed.unanswered;
        closed_idle: u32 = row.record.closed.idle;
        closed_superseded: u32 = row.record.closed.superseded;
        closed_evicted: u32 = row.record.closed.evicted;

        syn_to_synack_us: u64 = row.record.syn_to_synack.sum_us;
        syn_to_synack_count: u32 = row.record.syn_to_synack.count;
        syn_to_synack_max_rest_us: i64 = beyond(row.record.syn_to_synack.max_us, row.record.syn_to_synack.sum_us);
        synack_to_ack_us: u64 = row.record.synack_to_ack.sum_us;
        synack_to_ack_count: u32 = row.record.synack_to_ack.count;
        synack_to_ack_max_rest_us: i64 = beyond(row.record.synack_to_ack.max_us, row.record.synack_to_ack.sum_us);
        first_response_us: u64 = row.record.first_response.sum_us;
        first_response_count: u32 = row.record.first_response.count;
        first_response_max_rest_us: i64 = beyond(row.record.first_response.max_us, row.record.first_response.sum_us);
        duration_rest_us: i64 = duration_rest_us(&row.record);
        duration_count: u32 = row.record.duration.count;
        duration_max_rest_us: i64 = beyond(row.record.duration.max_us, row.record.duration.sum_us);

        partition: u32 = row.chunk.partition;
        chunk_start: u64 = row.chunk.start;
    }
    {
        node: |point| &point.node;
        agent: |point| &point.agent;
        interface: |point| &point.interface.name;
        client_namespace: |client| &client.namespace;
        client_name: |client| &client.name;
        client_workload: |client| &client.workload;
        client_workload_kind: |client| &client.workload_kind;
        client_node: |client| &client.node;
        server_namespace: |server| &server.namespace;
        server_name: |server| &server.name;
        server_workload: |server| &server.workload;
        server_workload_kind: |server| &server.workload_kind;
        server_node: |server| &server.node;
        service_namespace: |service| &service.namespace;
        service_name: |service| &service.name;
        topic_id: |topic| topic;
    }
}

/// What a value is beyond another, or below it. As columns wrap as these do, no value is out of range.
fn beyond(value: u64, other: u64) -> i64 {
    value.wrapping_sub(other) as i64
}

fn active_us(record: &FlowRecord) -> i64 {
    beyond(record.last_seen_us, record.first_seen_us)
}

fn duration_rest_us(record: &FlowRecord) -> i64 {
    let usual_us = if record.duration.count == 0 { 0 } else { record.age_us };
    beyond(record.duration.sum_us, usual_us)
}

/// An end as it was seen, where that is not as it really is.
fn seen(seen: Endpoint, real: Endpoint) -> (Ipv6Addr, u16) {
    if seen == real { (Ipv6Addr::UNSPECIFIED, 0) } else { (mapped(seen.ip), seen.port) }
}

fn no_service() -> &'static Arc<Identity> {
    static NONE: LazyLock<Arc<Identity>> =
        LazyLock::new(|| Identity::named(EntityKind::Unknown, Arc::default()).into());
    &NONE
}

#[cfg(test)]
pub(crate) mod tests;
