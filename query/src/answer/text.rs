//! A graph as JSON text: what serde makes of it, byte for byte. Half of an answer of thousands of edges is the names
//! of its fields, which serde_json reads letter by letter each time, for what would have to be escaped. Here they are
//! constants; all else is serde_json's.

use std::sync::Arc;

use serde_json::Result;

use super::{Closed, Counters, Coverage, Duration, Edge, Graph, Latency, Node, Traffic, Window};

/// What the text of an edge and of a node takes, about: room for all, so that it is not moved as it grows.
const EDGE_BYTES: usize = 1_280;
/// See [`EDGE_BYTES`].
const NODE_BYTES: usize = 2_304;

impl Graph {
    /// The text, with the `window` as one caller asked for it.
    ///
    /// # Errors
    /// None: numbers, texts and lists of such can all be written.
    pub(crate) fn text(&self, window: &Window) -> Result<Vec<u8>> {
        let Self { window: _, coverage, nodes, edges } = self;
        let bytes = nodes.len() * NODE_BYTES + edges.len() * EDGE_BYTES;
        let mut text = Vec::with_capacity(bytes);
        text.extend_from_slice(b"{\"window\":");
        window.write(&mut text)?;
        text.extend_from_slice(b",\"coverage\":");
        coverage.write(&mut text)?;
        text.extend_from_slice(b",\"nodes\":");
        list(nodes, &mut text)?;
        text.extend_from_slice(b",\"edges\":");
        list(edges, &mut text)?;
        text.push(b'}');
        Ok(text)
    }
}

/// What an answer of thousands of edges is made of.
trait Text {
    /// Appends it.
    fn write(&self, text: &mut Vec<u8>) -> Result<()>;
}

/// An object without its braces.
trait Fields {
    /// Appends them, separated by commas.
    fn fields(&self, text: &mut Vec<u8>) -> Result<()>;
}

/// What serde_json writes.
macro_rules! leaves {
    ($($leaf:ty),+) => {
        $(impl Text for $leaf {
            fn write(&self, text: &mut Vec<u8>) -> Result<()> {
                serde_json::to_writer(text, self)
            }
        })+
    };
}

leaves!(
    bool,
    i64,
    u64,
    f64,
    Option<f64>,
    String,
    Arc<str>,
    Vec<u16>,
    Vec<String>,
    Window,
    Coverage
);

/// Objects with all of their fields: one that is left out does not compile. Those of the last may be among them.
macro_rules! objects {
    ($($object:ident { $first:ident $(, $field:ident)* $(; ..$flattened:ident)? })+) => {
        $(impl Fields for $object {
            fn fields(&self, text: &mut Vec<u8>) -> Result<()> {
                let Self { $first $(, $field)* $(, $flattened)? } = self;
                text.extend_from_slice(concat!("\"", stringify!($first), "\":").as_bytes());
                $first.write(text)?;
                $(
                    text.extend_from_slice(concat!(",\"", stringify!($field), "\":").as_bytes());
                    $field.write(text)?;
                )*
                $(
                    text.push(b',');
                    $flattened.fields(text)?;
                )?
                Ok(())
            }
        }

        impl Text for $object {
            fn write(&self, text: &mut Vec<u8>) -> Result<()> {
                text.push(b'{');
                self.fields(text)?;
                text.push(b'}');
                Ok(())
            }
        })+
    };
}

objects! {
    Node {
        id, kind, namespace, name, workload, workload_kind, addresses, more_addresses, as_client, as_server
    }
    Edge {
        id, source, target, server_ports, services, more, first_seen, last_seen; ..traffic
    }
    Traffic {
        connections, opened, joined, open, closed, failed, sent, received, retransmits, duration, latency,
        first_response, direction_inferred
    }
    Closed {
        fin, reset_by_client, reset_by_server, refused, unanswered, idle, superseded, evicted
    }
    Counters {
        bytes, payload_bytes, packets, retransmitted_packets, zero_window_packets
    }
    Duration { count, avg_ms, max_ms }
    Latency { count, avg_ms, p50_ms, p95_ms, max_ms }
}

fn list<T: Text>(values: &[T], text: &mut Vec<u8>) -> Result<()> {
    text.push(b'[');
    for (place, value) in values.iter().enumerate() {
        if place > 0 {
            text.push(b',');
        }
        value.write(text)?;
    }
    text.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::tests::{any_rows, graph};
    use crate::params::Stat;

    proptest! {
        #[test]
        fn the_text_is_serdes(rows in any_rows(), name in ".*", share in any::<f64>()) {
            let window = Window {
                from: 0,
                to: 10_000,
                requested_from: 1,
                requested_to: 9_999,
                resolution_s: 10,
                complete_until: 0,
            };
            let (mut nodes, mut edges) = graph(rows, Stat::Bytes, 5);
            nodes.iter_mut().for_each(|node| node.name.clone_from(&name));
            edges.iter_mut().for_each(|edge| edge.traffic.direction_inferred = share);
            let graph = Graph { window, coverage: Coverage::default(), nodes, edges };
            let expected = serde_json::to_string(&graph).unwrap();
            prop_assert_eq!(String::from_utf8(graph.text(&window).unwrap()).unwrap(), expected);
        }
    }
}
