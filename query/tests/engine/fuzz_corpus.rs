//! The corpus of the filter language, given to it again.

#[path = "../../../fuzz/query_bodies.rs"]
mod query_bodies;
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[test]
fn expressions() {
    replay::replay("expression", query_bodies::expression);
}
