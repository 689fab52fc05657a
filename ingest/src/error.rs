//! What ends ingest. All else is retried, or counted and logged.

use flowtrail_service::store::StoreError;
use thiserror::Error;

use crate::containers::EngineAddressError;
use crate::identity::cidr::CidrNamesError;
use crate::names_file::NamesFileError;

/// Why ingest cannot start or go on.
#[derive(Debug, Error)]
pub enum IngestError {
    /// The names file cannot be read at start.
    #[error(transparent)]
    Names(#[from] NamesFileError),
    /// The names of networks contradict each other.
    #[error(transparent)]
    CidrNames(#[from] CidrNamesError),
    /// There is no cluster to get names from.
    #[error(
        "cannot reach a Kubernetes cluster for --kubernetes: run in a pod with a service account, or set KUBECONFIG to a file whose current context works"
    )]
    Kubernetes(#[source] Box<kube::Error>),
    /// The container engine cannot be asked.
    #[error(transparent)]
    Containers(#[from] EngineAddressError),
    /// The store is not one that this program can write to.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The Kafka client cannot be made of the given properties.
    #[error(
        "cannot set up the Kafka consumer: check --kafka-brokers, --group and --kafka-property"
    )]
    KafkaSetup(#[source] rdkafka::error::KafkaError),
    /// Kafka says that going on is pointless.
    #[error("the Kafka consumer failed for good: restart flowtrail")]
    Kafka(#[source] rdkafka::error::KafkaError),
}
