//! A pod as a cluster has it, with all that nobody needs for its name: eight kibibytes of JSON.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// A running pod of a Deployment, with two containers.
pub(crate) fn realistic(number: u32) -> String {
    let ip = Ipv4Addr::from(0x0a10_0000 + number).to_string();
    let deployment = format!("service-{:03}", number / 40);
    let replica_set = format!("{deployment}-6f7c9d8b5");
    let uid = |of: u32| format!("{of:08x}-5b1c-4c2e-9d3f-{number:012x}");
    let time = "2026-01-01T00:00:07Z";
    let env: Value = (0..16)
        .map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("value-of-setting-{n}-{number}")}))
        .collect();
    let container = |name: &str, port: u16| {
        json!({
            "name": name, "image": format!("registry.example.org/team/{name}:v1.{number}.0"),
            "imagePullPolicy": "IfNotPresent", "env": env,
            "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": port, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": port, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "volumeMounts": [{"name": "config", "mountPath": "/etc/config", "readOnly": true},
                {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
        })
    };
    let fields: Value = (0..24)
        .map(|n| {
            (
                format!("k:{{\"name\":\"SETTING_{n}\"}}"),
                json!({".": {}, "f:name": {}, "f:value": {}}),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": time});
    let conditions =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let conditions = conditions.map(condition);
    let container_status = |name: &str| {
        json!({"name": name, "ready": true, "started": true, "restartCount": 0, "lastState": {},
            "image": format!("registry.example.org/team/{name}:v1.{number}.0"),
            "imageID": format!("registry.example.org/team/{name}@sha256:{number:064x}"),
            "containerID": format!("containerd://{number:064x}"), "state": {"running": {"startedAt": time}}})
    };
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": format!("{replica_set}-{number:05x}"), "generateName": format!("{replica_set}-"),
            "namespace": format!("team-{:02}", number % 50), "uid": uid(1), "resourceVersion": (1_000_000 + number).to_string(),
            "creationTimestamp": time,
            "labels": {"app.kubernetes.io/name": deployment, "app.kubernetes.io/part-of": "shop", "pod-template-hash": "6f7c9d8b5", "team": "payments"},
            "annotations": {"checksum/config": format!("{number:064x}"), "prometheus.io/scrape": "true", "kubectl.kubernetes.io/restartedAt": time},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replica_set, "uid": uid(2), "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [
                {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {"f:env": fields}}}}},
                {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1", "subresource": "status", "fieldsV1": {"f:status": {"f:podIPs": {"k:{}": {".": {}, "f:ip": {}}}}}}]
        },
        "spec": {
            "nodeName": format!("node-{:03}", number % 100), "serviceAccountName": deployment, "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "containers": [container("app", 8080), container("proxy", 15001)],
            "volumes": [{"name": "config", "configMap": {"name": format!("{deployment}-config"), "defaultMode": 420}},
                {"name": "token", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]
        },
        "status": {
            "phase": "Running", "qosClass": "Burstable", "podIP": ip, "podIPs": [{"ip": ip}],
            "hostIP": format!("192.168.0.{}", number % 100), "startTime": time,
            "conditions": conditions,
            "containerStatuses": [container_status("app"), container_status("proxy")]
        }
    })
    .to_string()
}
