//! Any bytes for `expression`: see `query_bodies.rs`.
#![no_main]

#[path = "../query_bodies.rs"]
mod query_bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| query_bodies::expression(bytes));
