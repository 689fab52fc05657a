//! The cluster's objects as `kubectl get pods,services,… -A -o json` prints them: a List.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::cluster::{Cluster, PodSpec, ServiceSpec};
use crate::lab::Node;

/// All objects of the cluster, as if it had been up for ten minutes at `now`.
pub fn list(cluster: &Cluster, now: DateTime<Utc>) -> Value {
    let created = (now - TimeDelta::minutes(10)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut items: Vec<Value> = cluster.nodes().map(|node| node_object(node, &created)).into();
    items.extend(cluster.pods.iter().map(|pod| pod_object(cluster, pod, &created)));
    let mut replica_sets: Vec<_> = cluster.pods.iter().filter(|pod| !pod.stateful).collect();
    replica_sets.dedup_by_key(|pod| (pod.namespace, pod.workload));
    items.extend(replica_sets.into_iter().map(|pod| replica_set(pod, &created)));
    for service in &cluster.services {
        items.push(service_object(service, &created));
        items.push(endpoint_slice(cluster, service, &created));
    }
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

fn metadata(kind: &str, namespace: &str, name: &str, created: &str) -> Value {
    let mut metadata = json!({
        "name": name, "uid": uid(kind, namespace, name), "creationTimestamp": created,
    });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn uid(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind}-{namespace}-{name}").to_lowercase()
}

fn owner(api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    json!([{
        "apiVersion": api_version, "kind": kind, "name": name,
        "uid": uid(kind, namespace, name), "controller": true,
    }])
}

fn node_object(node: &Node, created: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": metadata("Node", "", &node.name, created),
        "spec": {"podCIDR": node.pods, "podCIDRs": [node.pods]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": node.ip}, {"type": "Hostname", "address": node.name},
        ]},
    })
}

fn pod_object(cluster: &Cluster, pod: &PodSpec, created: &str) -> Value {
    let mut metadata = metadata("Pod", pod.namespace, &pod.name, created);
    metadata["labels"] = json!({"app": pod.workload});
    metadata["ownerReferences"] = if pod.stateful {
        owner("apps/v1", "StatefulSet", pod.namespace, pod.workload)
    } else {
        owner("apps/v1", "ReplicaSet", pod.namespace, &replica_set_name(pod))
    };
    let ports: Vec<Value> =
        pod.port.iter().map(|port| json!({"containerPort": port, "protocol": "TCP"})).collect();
    let node = cluster.nodes().into_iter().find(|node| node.name == pod.node);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "nodeName": pod.node,
            "containers": [{"name": pod.workload, "image": pod.workload, "ports": ports}],
        },
        "status": {
            "phase": "Running",
            "hostIP": node.map(|node| node.ip),
            "podIP": pod.pod.ip, "podIPs": [{"ip": pod.pod.ip}], "startTime": created,
            "conditions": [
                {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": created},
                {"type": "Ready", "status": "True", "lastTransitionTime": created},
            ],
        },
    })
}

fn replica_set_name(pod: &PodSpec) -> String {
    format!("{}-5d89c7f6b4", pod.workload)
}

fn replica_set(pod: &PodSpec, created: &str) -> Value {
    let mut metadata = metadata("ReplicaSet", pod.namespace, &replica_set_name(pod), created);
    metadata["ownerReferences"] = owner("apps/v1", "Deployment", pod.namespace, pod.workload);
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata})
}

fn service_object(service: &ServiceSpec, created: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": metadata("Service", service.namespace, service.name, created),
        "spec": {
            "type": if service.node_port.is_some() { "NodePort" } else { "ClusterIP" },
            "clusterIP": service.ip, "clusterIPs": [service.ip],
            "selector": {"app": service.name},
            "ports": [{
                "protocol": "TCP", "port": service.port, "targetPort": service.target_port,
                "nodePort": service.node_port,
            }],
        },
    })
}

fn endpoint_slice(cluster: &Cluster, service: &ServiceSpec, created: &str) -> Value {
    let name = format!("{}-x7k2p", service.name);
    let mut metadata = metadata("EndpointSlice", service.namespace, &name, created);
    metadata["labels"] = json!({"kubernetes.io/service-name": service.name});
    let endpoints: Vec<Value> = cluster
        .endpoints(service)
        .map(|pod| {
            json!({
                "addresses": [pod.pod.ip], "conditions": {"ready": true}, "nodeName": pod.node,
                "targetRef": {
                    "kind": "Pod", "namespace": pod.namespace, "name": pod.name,
                    "uid": uid("Pod", pod.namespace, &pod.name),
                },
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": metadata, "endpoints": endpoints,
        "ports": [{"name": "", "protocol": "TCP", "port": service.target_port}],
    })
}
