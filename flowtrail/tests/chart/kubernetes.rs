//! Whether Kubernetes knows every field. Its types ignore what they do not know, so each object is read and
//! written again: what is lost on the way is unknown.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::rendered::{Object, each_set, items, objects};

#[test]
fn every_field_is_known_to_kubernetes() {
    each_set(|set, objects| {
        for object in objects {
            let unknown = unknown_fields(object).unwrap_or_else(|error| vec![error]);
            assert_eq!(unknown, Vec::<String>::new(), "{}", object.place(set));
        }
    });
}

#[test]
fn a_field_that_is_unknown_or_of_another_type_is_found() {
    let mut daemon_set = objects("default").into_iter().find(|o| o.kind() == "DaemonSet").unwrap();
    daemon_set.0["spec"]["template"]["spec"]["containers"][0]["readOnly"] = json!(true);
    daemon_set.0["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"] = json!([1]);
    assert!(unknown_fields(&daemon_set).is_err());
    daemon_set.0["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"] = json!(0);
    assert_eq!(unknown_fields(&daemon_set).unwrap(), ["/spec/template/spec/containers/0/readOnly"]);
}

/// Of Prometheus' operator, as far as the chart uses it.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceMonitor {
    api_version: MonitoringVersion,
    kind: String,
    metadata: ObjectMeta,
    spec: ServiceMonitorSpec,
}

#[derive(Deserialize, Serialize)]
enum MonitoringVersion {
    #[serde(rename = "monitoring.coreos.com/v1")]
    V1,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ServiceMonitorSpec {
    selector: LabelSelector,
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Endpoint {
    port: String,
    path: String,
    interval: String,
    authorization: Option<Authorization>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Authorization {
    r#type: String,
    credentials: SecretKey,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SecretKey {
    name: String,
    key: String,
}

/// Pointers to what the object's type does not have.
fn unknown_fields(object: &Object) -> Result<Vec<String>, String> {
    let again = match object.kind() {
        "ClusterRole" => again::<ClusterRole>,
        "ClusterRoleBinding" => again::<ClusterRoleBinding>,
        "ConfigMap" => again::<ConfigMap>,
        "DaemonSet" => again::<DaemonSet>,
        "Deployment" => again::<Deployment>,
        "HorizontalPodAutoscaler" => again::<HorizontalPodAutoscaler>,
        "Job" => again::<Job>,
        "NetworkPolicy" => again::<NetworkPolicy>,
        "PodDisruptionBudget" => again::<PodDisruptionBudget>,
        "PriorityClass" => again::<PriorityClass>,
        "Service" => again::<Service>,
        "ServiceAccount" => again::<ServiceAccount>,
        "ServiceMonitor" => again::<ServiceMonitor>,
        other => return Err(format!("no type for {other}: add it here")),
    };
    let mut lost = Vec::new();
    compare(&object.0, &again(&object.0)?, String::new(), &mut lost);
    Ok(lost)
}

fn again<K: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
    let typed = K::deserialize(object).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// Collects what is in the first but not in the second.
fn compare(given: &Value, kept: &Value, place: String, lost: &mut Vec<String>) {
    let is_empty = |value: &Value| items(value).is_empty() && value.is_array();
    match given {
        Value::Object(fields) => {
            for (name, value) in fields {
                compare(value, &kept[name.as_str()], format!("{place}/{name}"), lost);
            }
        }
        Value::Array(given) if given.len() == items(kept).len() => {
            for (index, (given, kept)) in given.iter().zip(items(kept)).enumerate() {
                compare(given, kept, format!("{place}/{index}"), lost);
            }
        }
        // An empty list is written as none.
        _ if is_empty(given) && kept.is_null() => {}
        _ if given == kept => {}
        _ => lost.push(place),
    }
}
