//! The engine's API: the few requests that names need, none of which changes anything.

use std::collections::HashMap;
use std::error::Error as _;
use std::time::Duration;

use bollard::errors::Error as ApiError;
use bollard::query_parameters::{EventsOptionsBuilder, InspectContainerOptions};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures::StreamExt;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::address::EngineAddress;
use super::container::{Bridge, Container, Event};

/// How long an answer may take, seconds. Starting a container holds up questions about it; a second, most often.
const TIMEOUT_SECONDS: u64 = 10;
const TIMEOUT: Duration = Duration::from_secs(TIMEOUT_SECONDS);

/// Why the engine could not be asked. All of it is retried.
#[derive(Debug, Error)]
pub(super) enum EngineError {
    /// It refuses, or its answer is not understood, or the connection failed.
    #[error("{request}: {}", causes(source))]
    Failed { request: &'static str, source: ApiError },
    #[error("{request}: no answer in {TIMEOUT_SECONDS} s")]
    TimedOut { request: &'static str },
    /// It stopped telling events: it is being restarted, most often.
    #[error("GET /events: the engine ended its answer")]
    Ended,
}

/// What came of asking after one container.
#[derive(Debug)]
pub(super) enum Inspected {
    Container(Box<Container>),
    /// There is no such container any more.
    Gone,
    /// It cannot be read: why.
    Unreadable(String),
}

/// An engine that has answered.
#[derive(Clone, Debug)]
pub(super) struct Engine(Docker);

impl Engine {
    /// Asks the engine which version of the API it speaks.
    pub(super) async fn connect(address: &EngineAddress) -> Result<Self, EngineError> {
        const REQUEST: &str = "GET /version";
        let docker = match address {
            EngineAddress::Unix(path) => {
                let path = path.to_string_lossy();
                Docker::connect_with_unix(&path, TIMEOUT_SECONDS, API_DEFAULT_VERSION)
            }
            EngineAddress::Http(url) => {
                Docker::connect_with_http(url, TIMEOUT_SECONDS, API_DEFAULT_VERSION)
            }
        };
        let docker = docker.map_err(|source| EngineError::Failed { request: REQUEST, source })?;
        Ok(Self(answer(REQUEST, docker.negotiate_version()).await?))
    }

    /// Passes events on, those since some time (seconds since the epoch) first, until the engine ends them.
    pub(super) async fn pass_events(
        self,
        since_s: u64,
        events: mpsc::Sender<Result<Event, EngineError>>,
    ) {
        let filters = HashMap::from([
            ("type", vec!["container", "network"]),
            ("event", vec!["start", "rename", "die", "destroy", "connect", "disconnect", "create"]),
        ]);
        let options =
            EventsOptionsBuilder::new().since(&since_s.to_string()).filters(&filters).build();
        let mut told = Box::pin(self.0.events(Some(options)));
        while let Some(event) = told.next().await {
            let event = match event {
                Ok(event) => Event::read(event).map(Ok),
                Err(source) => Some(Err(EngineError::Failed { request: "GET /events", source })),
            };
            // If nobody listens any more, another connection is made.
            if let Some(event) = event
                && events.send(event).await.is_err()
            {
                return;
            }
        }
        let _ = events.send(Err(EngineError::Ended)).await;
    }

    /// The host's name; empty if whoever answers does not tell it.
    pub(super) async fn host(&self) -> Result<String, EngineError> {
        match answer("GET /info", self.0.info()).await {
            Ok(info) => Ok(info.name.unwrap_or_default()),
            Err(EngineError::Failed {
                source: ApiError::DockerResponseServerError { .. } | ApiError::JsonDataError { .. },
                ..
            }) => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    /// All bridges, and why others cannot be read.
    pub(super) async fn bridges(&self) -> Result<(Vec<Bridge>, Vec<String>), EngineError> {
        let (mut bridges, mut problems) = (Vec::new(), Vec::new());
        for network in answer("GET /networks", self.0.list_networks(None)).await? {
            match Bridge::read(network) {
                Ok(bridge) => bridges.extend(bridge),
                Err(problem) => problems.push(problem),
            }
        }
        Ok((bridges, problems))
    }

    /// The ids of all containers that run.
    pub(super) async fn containers(&self) -> Result<Vec<String>, EngineError> {
        let containers = answer("GET /containers/json", self.0.list_containers(None)).await?;
        Ok(containers.into_iter().filter_map(|container| container.id).collect())
    }

    /// One container.
    pub(super) async fn inspect(&self, id: &str) -> Result<Inspected, EngineError> {
        const REQUEST: &str = "GET /containers/ID/json";
        let told = self.0.inspect_container(id, None::<InspectContainerOptions>);
        match answer(REQUEST, told).await {
            Ok(told) => Ok(match Container::read(told) {
                Ok(container) => Inspected::Container(Box::new(container)),
                Err(problem) => Inspected::Unreadable(problem),
            }),
            Err(EngineError::Failed {
                source: ApiError::DockerResponseServerError { status_code: 404, .. },
                ..
            }) => Ok(Inspected::Gone),
            // One container that the engine is stuck with does not keep the others' names.
            Err(error @ EngineError::TimedOut { .. }) => {
                Ok(Inspected::Unreadable(error.to_string()))
            }
            Err(EngineError::Failed {
                source:
                    source @ (ApiError::DockerResponseServerError { status_code: 500.., .. }
                    | ApiError::JsonDataError { .. }
                    | ApiError::JsonSerdeError { .. }),
                ..
            }) => Ok(Inspected::Unreadable(source.to_string())),
            Err(error) => Err(error),
        }
    }
}

/// What went wrong, down to what the system says: "connection refused" is not in the first line of it.
fn causes(error: &ApiError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let further = error.to_string();
        // Some repeat what is below them.
        if !text.contains(&further) {
            text = format!("{text}: {further}");
        }
        cause = error.source();
    }
    text
}

/// Waits for an answer, for as long as one may take.
async fn answer<T>(
    request: &'static str,
    answer: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, EngineError> {
    match timeout(TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(ApiError::RequestTimeoutError)) | Err(_) => Err(EngineError::TimedOut { request }),
        Ok(Err(source)) => Err(EngineError::Failed { request, source }),
    }
}
