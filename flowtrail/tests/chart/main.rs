//! The Helm chart (deploy/helm/flowtrail), as what it renders: deploy/helm/golden, one file for each set of values.
//!
//! That the chart renders these files is tried with Helm itself (`helm.rs`, `make test-helm`). All else is tried
//! on the files: that Kubernetes knows every field, that nothing has more rights than it needs, that
//! what is referred to is there, and that this program takes every flag.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: helpers too")]

mod flags;
mod helm;
mod kubernetes;
mod references;
mod rendered;
mod rights;
mod values;
