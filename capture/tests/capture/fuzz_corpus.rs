//! What fuzzing has found so far (`make fuzz`), given to the parsers again.

#[path = "../../../fuzz/bodies.rs"]
mod bodies;

#[path = "../../../fuzz/replay.rs"]
mod replay;
use replay::replay;

#[test]
fn packets() {
    replay("packet", bodies::packet);
}

#[test]
fn capture_files() {
    replay("pcap", bodies::pcap);
}

#[test]
fn flows() {
    replay("flow_table", bodies::flow_table);
}

#[test]
fn batches() {
    replay("batch", bodies::batch);
}
