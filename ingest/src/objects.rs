//! The six kinds of Kubernetes objects that names come from, cut down to the fields that tell them.
//!
//! The names file and the live watch decode into these same types, so both take one code path. An object
//! that cannot be decoded is an object too: its neighbours in a list are not lost for it, and what was
//! known of it stays.

mod decoded;

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::core::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

pub use decoded::{Decoded, Unreadable};

/// Label of an EndpointSlice that names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// An object of one of the kinds.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the variants are Kubernetes' kinds")]
pub enum Object {
    Pod(Pod),
    Service(Service),
    Node(Node),
    EndpointSlice(EndpointSlice),
    ReplicaSet(ReplicaSet),
    Job(Job),
    /// One that could not be decoded, as far as it tells who it is.
    Unreadable(Unreadable),
}

/// The kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the variants are Kubernetes' kinds")]
pub enum Kind {
    Pod,
    Service,
    Node,
    EndpointSlice,
    ReplicaSet,
    Job,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Pod, Self::Service, Self::Node, Self::EndpointSlice, Self::ReplicaSet, Self::Job];

    /// Kubernetes' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::Node => "Node",
            Self::EndpointSlice => "EndpointSlice",
            Self::ReplicaSet => "ReplicaSet",
            Self::Job => "Job",
        }
    }
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::Node(_) => Kind::Node,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::ReplicaSet(_) => Kind::ReplicaSet,
            Self::Job(_) => Kind::Job,
            Self::Unreadable(object) => object.kind,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Pod(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::Node(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::ReplicaSet(object) => &object.metadata,
            Self::Job(object) => &object.metadata,
            Self::Unreadable(object) => &object.metadata,
        }
    }

    /// Reads one object of a List. `None` if it is of another kind.
    ///
    /// # Errors
    /// If it does not tell its kind.
    pub fn from_json(text: &str) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct TypeOnly {
            kind: String,
        }
        fn object<K: Named>(text: &str) -> serde_json::Result<Option<Object>> {
            serde_json::from_str::<Decoded<K>>(text).map(|object| Some(object.into()))
        }
        match serde_json::from_str::<TypeOnly>(text)?.kind.as_str() {
            "Pod" => object::<Pod>(text),
            "Service" => object::<Service>(text),
            "Node" => object::<Node>(text),
            "EndpointSlice" => object::<EndpointSlice>(text),
            "ReplicaSet" => object::<ReplicaSet>(text),
            "Job" => object::<Job>(text),
            _ => Ok(None),
        }
    }
}

/// One of the six kinds.
pub trait Named: Into<Object> + DeserializeOwned {
    /// Which one.
    const KIND: Kind;
}

/// Declares the struct of a kind and tells kube where the API serves it.
macro_rules! kind {
    ($name:ident { $($field:ident: $type:ty),* } $group:literal $plural:literal $scope:ty) => {
        /// A Kubernetes object of this kind, with the fields that names need.
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[allow(missing_docs, reason = "the fields are Kubernetes' own")]
        pub struct $name {
            #[serde(deserialize_with = "slim_metadata")]
            pub metadata: ObjectMeta,
            $(#[serde(deserialize_with = "null_as_default")] pub $field: $type,)*
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                stringify!($name).into()
            }
            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }
            fn version((): &()) -> Cow<'_, str> {
                "v1".into()
            }
            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }

        impl Named for $name {
            const KIND: Kind = Kind::$name;
        }

        impl From<$name> for Object {
            fn from(object: $name) -> Self {
                Self::$name(object)
            }
        }
    };
}

kind!(Pod { spec: PodSpec, status: PodStatus } "" "pods" NamespaceResourceScope);
kind!(Service { spec: ServiceSpec, status: ServiceStatus } "" "services" NamespaceResourceScope);
kind!(Node { spec: NodeSpec, status: NodeStatus } "" "nodes" ClusterResourceScope);
kind!(EndpointSlice { endpoints: Vec<SliceEndpoint> } "discovery.k8s.io" "endpointslices" NamespaceResourceScope);
kind!(ReplicaSet {} "apps" "replicasets" NamespaceResourceScope);
kind!(Job {} "batch" "jobs" NamespaceResourceScope);

/// Declares a part of an object: every field may be absent or null.
macro_rules! part {
    ($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* }) => {
        /// Part of an object, with the fields that names need.
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[allow(missing_docs, reason = "the fields are Kubernetes' own")]
        pub struct $name {
            $($(#[$attribute])* #[serde(deserialize_with = "null_as_default")] pub $field: $type,)*
        }
    };
}

part!(PodSpec {
    node_name: String,
    host_network: bool,
    containers: Vec<Container>,
    init_containers: Vec<Container>
});
part!(Container { ports: Vec<ContainerPort> });
part!(ContainerPort { container_port: u16, host_port: Option<u16>, protocol: String });
part!(PodStatus {
    phase: String,
    start_time: Option<Time>,
    conditions: Vec<Condition>,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<HoldsIp>,
    #[serde(rename = "hostIP")]
    host_ip: String,
    #[serde(rename = "hostIPs")]
    host_ips: Vec<HoldsIp>
});
part!(HoldsIp { ip: String });
part!(Condition { r#type: String, status: String, last_transition_time: Option<Time> });
part!(ServiceSpec {
    r#type: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<String>,
    ports: Vec<ServicePort>
});
part!(ServicePort { port: u16, node_port: Option<u16>, protocol: String });
part!(ServiceStatus { load_balancer: LoadBalancer });
part!(LoadBalancer { ingress: Vec<HoldsIp> });
part!(NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>
});
part!(NodeStatus { addresses: Vec<NodeAddress> });
part!(NodeAddress { address: String });
part!(SliceEndpoint { target_ref: Option<TargetReference> });
part!(TargetReference { kind: String, namespace: String, name: String, uid: String });

/// Metadata without annotations and managed fields, which are most of its bytes.
fn slim_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Slim {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        owner_references: Option<Vec<OwnerReference>>,
        labels: Option<BTreeMap<String, String>>,
    }
    let mut slim = Slim::deserialize(deserializer)?;
    if let Some(labels) = &mut slim.labels {
        labels.retain(|name, _| name == SERVICE_NAME_LABEL);
    }
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        creation_timestamp: slim.creation_timestamp,
        owner_references: slim.owner_references,
        labels: slim.labels,
        ..ObjectMeta::default()
    })
}

/// Go writes an empty list or map as null.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
