//! The service against the real engine: what it answers, and the laws its answers keep.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests: helpers too")]

mod access;
mod api;
mod blindness;
mod cluster;
mod common;
mod connections;
mod diff;
mod ends;
mod evidence;
mod expressions;
mod filters;
mod fuzz_corpus;
mod investigations;
mod laws;
mod limit;
mod panel;
mod series;
mod sharing;
mod tiers;
mod values;
