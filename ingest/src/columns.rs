//! Records with their names as a block of `flows`: filled row by row, written column by column.

use crate::chunk::{Accepted, ChunkId};
use crate::naming::ConnectionNames;
use crate::native::{
    Column, Micros, Plain, Rows, Seconds, Word, Words, encode_column, encode_head,
};
use crate::row::{mapped, micros, seconds, seconds_short};
use flowtrail_schema::row::EntityKind;
use flowtrail_schema::{Detail, FlowRecord, IdKind, InterfaceKind, Reporter};
use std::net::Ipv6Addr;

/// What a row is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NamedRecord<'a> {
    pub(crate) record: &'a FlowRecord,
    pub(crate) names: &'a ConnectionNames,
    pub(crate) primary: bool,
    pub(crate) batch: &'a Accepted,
    pub(crate) chunk: ChunkId,
}

/// Declares the columns of a block: name in the table, kind of column, value in a row.
macro_rules! columns {
    ($(#[$doc:meta])* $block:ident of $row:ty;
     |$named:ident| { $($name:ident: $column:ty = $value:expr;)+ }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $block {
            rows: usize,
            $($name: $column,)+
        }

        impl $block {
            /// No rows yet, and room for so many.
            pub(crate) fn with_capacity(rows: usize) -> Self {
                Self { rows: 0, $($name: Column::with_capacity(rows),)+ }
            }

            /// Adds a row.
            pub(crate) fn push(&mut self, $named: $row) {
                self.rows += 1;
                $(self.$name.push($value);)+
            }

            /// The rows as one block; without rows, nothing.
            pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
                if self.rows > 0 {
                    encode_head([$(stringify!($name)),+].len(), self.rows, bytes);
                    $(encode_column(stringify!($name), &self.$name, bytes);)+
                }
            }

            /// Names and ClickHouse types.
            #[cfg(test)]
            pub(crate) fn names_and_types() -> Vec<(&'static str, String)> {
                vec![$((stringify!($name), <$column>::sql_type())),+]
            }
        }
    };
}

columns! {
    /// A block of `flows` in the making. A column of the table is one line here, one in
    /// `FlowRow`, and its migration.
    FlowColumns of NamedRecord<'_>;
    |row| {
        interval_start: Plain<Seconds> = Seconds(seconds(row.record.interval.start_s()));
        interval_s: Plain<u8> = seconds_short(row.record.interval.length().seconds());
        first_seen: Plain<Micros> = Micros(micros(row.record.first_seen_us));
        last_seen: Plain<Micros> = Micros(micros(row.record.last_seen_us));

        node: Words = Word::Shared(&row.batch.node);
        agent: Words = Word::Shared(&row.batch.agent);
        interface: Words = Word::Text(&row.record.interface.name);
        interface_kind: Plain<InterfaceKind> = row.record.interface.kind;
        reporter: Plain<Reporter> = row.record.reporter;
        local_primary: Plain<bool> = row.record.local_primary;
        primary: Plain<bool> = row.primary;
        detail: Plain<Detail> = row.record.detail;

        connection_id: Plain<u64> = row.record.connection_id;
        id_kind: Plain<IdKind> = row.record.id_kind;
        handshake_seen: Plain<bool> = row.record.handshake_seen;
        one_sided: Plain<bool> = row.record.one_sided;
        direction_inferred: Plain<bool> = row.record.direction_inferred;
        age_us: Plain<u64> = row.record.age_us;

        client_ip: Plain<Ipv6Addr> = mapped(row.record.client.ip);
        client_port: Plain<u16> = row.record.client.port;
        client_kind: Plain<EntityKind> = row.names.client.identity.kind;
        client_namespace: Words = Word::Shared(&row.names.client.identity.namespace);
        client_name: Words = Word::Shared(&row.names.client.identity.name);
        client_workload: Words = Word::Shared(&row.names.client.identity.workload);
        client_workload_kind: Words = Word::Shared(&row.names.client.identity.workload_kind);
        client_node: Words = Word::Shared(&row.names.client.identity.node);
        client_uncertain: Plain<bool> = row.names.client.identity.uncertain;
        client_real_ip: Plain<Ipv6Addr> = mapped(row.names.client.real.ip);
        client_real_port: Plain<u16> = row.names.client.real.port;

        server_ip: Plain<Ipv6Addr> = mapped(row.record.server.ip);
        server_port: Plain<u16> = row.record.server.port;
        server_kind: Plain<EntityKind> = row.names.server.identity.kind;
        server_namespace: Words = Word::Shared(&row.names.server.identity.namespace);
        server_name: Words = Word::Shared(&row.names.server.identity.name);
        server_workload: Words = Word::Shared(&row.names.server.identity.workload);
        server_workload_kind: Words = Word::Shared(&row.names.server.identity.workload_kind);
        server_node: Words = Word::Shared(&row.names.server.identity.node);
        server_uncertain: Plain<bool> = row.names.server.identity.uncertain;
        server_real_ip: Plain<Ipv6Addr> = mapped(row.names.server.real.ip);
        server_real_port: Plain<u16> = row.names.server.real.port;
        service_namespace: Words = shared(row.names.service.as_ref().map(|(namespace, _)| namespace));
        service_name: Words = shared(row.names.service.as_ref().map(|(_, name)| name));

        sent_bytes: Plain<u64> = row.record.sent.bytes;
        sent_payload_bytes: Plain<u64> = row.record.sent.payload_bytes;
        sent_packets: Plain<u64> = row.record.sent.packets;
        sent_retransmitted_packets: Plain<u64> = row.record.sent.retransmitted_packets;
        sent_zero_window_packets: Plain<u64> = row.record.sent.zero_window_packets;
        received_bytes: Plain<u64> = row.record.received.bytes;
        received_payload_bytes: Plain<u64> = row.record.received.payload_bytes;
        received_packets: Plain<u64> = row.record.received.packets;
        received_retransmitted_packets: Plain<u64> = row.record.received.retransmitted_packets;
        received_zero_window_packets: Plain<u64> = row.record.received.zero_window_packets;

        opened: Plain<u32> = row.record.opened;
        joined: Plain<u32> = row.record.joined;
        open_at_start: Plain<u32> = row.record.open_at_start;
        closed_fin: Plain<u32> = row.record.closed.fin;
        closed_reset_by_client: Plain<u32> = row.record.closed.reset_by_client;
        closed_reset_by_server: Plain<u32> = row.record.closed.reset_by_server;
        closed_refused: Plain<u32> = row.record.closed.refused;
        closed_unanswered: Plain<u32> = row.record.closed.unanswered;
        closed_idle: Plain<u32> = row.record.closed.idle;
        closed_superseded: Plain<u32> = row.record.closed.superseded;
        closed_evicted: Plain<u32> = row.record.closed.evicted;

        syn_to_synack_us: Plain<u64> = row.record.syn_to_synack.sum_us;
        syn_to_synack_count: Plain<u32> = row.record.syn_to_synack.count;
        syn_to_synack_max_us: Plain<u64> = row.record.syn_to_synack.max_us;
        synack_to_ack_us: Plain<u64> = row.record.synack_to_ack.sum_us;
        synack_to_ack_count: Plain<u32> = row.record.synack_to_ack.count;
        synack_to_ack_max_us: Plain<u64> = row.record.synack_to_ack.max_us;
        first_response_us: Plain<u64> = row.record.first_response.sum_us;
        first_response_count: Plain<u32> = row.record.first_response.count;
        first_response_max_us: Plain<u64> = row.record.first_response.max_us;
        duration_us: Plain<u64> = row.record.duration.sum_us;
        duration_count: Plain<u32> = row.record.duration.count;
        duration_max_us: Plain<u64> = row.record.duration.max_us;

        partition: Plain<u32> = row.chunk.partition;
        chunk_start: Plain<u64> = row.chunk.start;
    }
}

impl FlowColumns {
    /// The rows as they are sent.
    pub(crate) fn finish(self) -> Rows {
        let mut bytes = Vec::with_capacity(self.rows * ROW_BYTES);
        self.encode(&mut bytes);
        Rows { count: self.rows, bytes: bytes.into() }
    }
}

/// About what a row takes, so that a block's bytes are moved once.
const ROW_BYTES: usize = 480;

fn shared(text: Option<&std::sync::Arc<str>>) -> Word<'_> {
    text.map_or(Word::Text(""), Word::Shared)
}

#[cfg(test)]
mod tests;
