//! The service against the real engine: what it answers, and the laws its answers keep.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests: helpers too")]

mod api;
mod blindness;
mod cluster;
mod common;
mod diff;
mod investigations;
mod laws;
mod panel;
mod series;
mod tiers;
