//! The admin port of every service: `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::net::{ListenError, listen};
use crate::serve::serve_router;

/// Where the admin port listens.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// Address for /healthz, /readyz and /metrics; without it there is none.
    #[arg(
        long,
        env = "FLOWTRAIL_ADMIN_LISTEN",
        value_name = "ADDRESS:PORT",
        help_heading = "Operations"
    )]
    pub admin_listen: Option<SocketAddr>,
}

/// What a service still waits for before it is ready. Clones share the list.
///
/// A service is ready when every part that called [`Readiness::part`] has said so.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: Arc<Mutex<Vec<(&'static str, bool)>>>,
}

/// One part's side of [`Readiness`]: not ready until it says so.
#[derive(Clone, Debug)]
pub struct ReadinessPart {
    readiness: Readiness,
    index: usize,
}

impl Readiness {
    /// Adds a part that must become ready, with a name for people.
    pub fn part(&self, name: &'static str) -> ReadinessPart {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.push((name, false));
        ReadinessPart { readiness: self.clone(), index: parts.len() - 1 }
    }

    /// The names of the parts that are not ready.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter(|(_, ready)| !ready).map(|(name, _)| *name).collect()
    }
}

impl ReadinessPart {
    /// Says whether this part is ready now.
    pub fn set(&self, ready: bool) {
        let mut parts = self.readiness.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts.get_mut(self.index) {
            part.1 = ready;
        }
    }
}

/// The admin routes, to be served on a port of their own or beside a service's routes.
pub fn router(metrics: Metrics, readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(exposition).with_state(metrics))
}

/// Serves the admin port until the token is cancelled. Does nothing without an address.
///
/// # Errors
/// If the port cannot be listened on.
pub async fn serve(
    args: &AdminArgs,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> Result<(), ListenError> {
    let Some(address) = args.admin_listen else { return Ok(()) };
    let listener = listen(address, "--admin-listen").await?;
    tokio::spawn(serve_router(listener, router(metrics, readiness), shutdown));
    Ok(())
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let waiting = readiness.waiting_for();
    if waiting.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", waiting.join(", ")))
    }
}

async fn exposition(State(metrics): State<Metrics>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], metrics.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_part_is() {
        let readiness = Readiness::default();
        let (kafka, store) = (readiness.part("kafka"), readiness.part("clickhouse"));
        kafka.set(true);
        assert_eq!(readiness.waiting_for(), ["clickhouse"]);
        store.set(true);
        assert!(readiness.waiting_for().is_empty());
        kafka.set(false);
        assert_eq!(readiness.waiting_for(), ["kafka"]);
    }
}
