//! That what objects say of each other is true.

use serde_json::Value;

use crate::rendered::{Object, each_set, items};

/// The workloads whose pods have all labels of a selector.
fn selected<'a>(objects: &'a [Object], labels: &Value) -> Vec<&'a Object> {
    let labels = labels.as_object().unwrap();
    assert!(!labels.is_empty());
    let has_all = |object: &&Object| {
        let own = object.at("/spec/template/metadata/labels");
        object.pod().is_some() && labels.iter().all(|(name, value)| own[name.as_str()] == *value)
    };
    objects.iter().filter(has_all).collect()
}

fn has_port(workload: &Object, name: &Value) -> bool {
    items(&workload.container().unwrap()["ports"]).iter().any(|port| port["name"] == *name)
}

#[test]
fn selectors_select_one_workload_and_name_its_ports() {
    each_set(|set, objects| {
        for object in objects {
            let place = object.place(set);
            let labels = match object.kind() {
                "DaemonSet" | "Deployment" | "PodDisruptionBudget" => "/spec/selector/matchLabels",
                "NetworkPolicy" => "/spec/podSelector/matchLabels",
                "Service" => "/spec/selector",
                _ => continue,
            };
            let found = selected(objects, object.at(labels));
            let [workload] = found[..] else { panic!("{place} selects {}", found.len()) };
            assert_eq!(workload.component(), object.component(), "{place}");
            for port in items(object.at("/spec/ports")) {
                assert!(has_port(workload, &port["targetPort"]), "{place}: {port}");
            }
            for rule in items(object.at("/spec/ingress")) {
                let open = items(&rule["ports"]);
                assert!(!open.is_empty(), "{place}: a rule without ports opens all");
                assert!(open.iter().all(|port| has_port(workload, &port["port"])), "{place}");
            }
        }
    });
}

#[test]
fn monitors_select_a_service_with_their_port() {
    each_set(|set, objects| {
        for monitor in objects.iter().filter(|object| object.kind() == "ServiceMonitor") {
            let labels = monitor.at("/spec/selector/matchLabels").as_object().unwrap();
            let services = objects.iter().filter(|object| {
                let own = object.at("/metadata/labels");
                object.kind() == "Service" && labels.iter().all(|(name, value)| own[name] == *value)
            });
            let ports: Vec<_> =
                services.map(|service| service.at("/spec/ports/0/name").clone()).collect();
            assert_eq!(ports, [monitor.at("/spec/endpoints/0/port").clone()], "{set}");
        }
    });
}

#[test]
fn what_is_named_is_there() {
    each_set(|set, objects| {
        let is_there = |kind: &str, name: &Value| {
            objects.iter().any(|object| object.kind() == kind && object.name() == name)
        };
        for object in objects {
            let place = object.place(set);
            if let Some(pod) = object.pod() {
                let account = &pod["serviceAccountName"];
                assert!(account == "default" || is_there("ServiceAccount", account), "{place}");
                let class = &pod["priorityClassName"];
                let is_kubernetes = class.as_str().is_some_and(|name| name.starts_with("system-"));
                assert!(
                    class.is_null() || is_kubernetes || is_there("PriorityClass", class),
                    "{place}: {class}"
                );
                mounts_are_volumes(pod, &place);
            }
            if object.kind() == "ClusterRoleBinding" {
                assert!(is_there("ClusterRole", object.at("/roleRef/name")), "{place}");
                assert!(is_there("ServiceAccount", object.at("/subjects/0/name")), "{place}");
                assert_eq!(object.at("/subjects/0/namespace"), "flowtrail", "{place}");
            }
            if object.kind() == "HorizontalPodAutoscaler" {
                let target = object.at("/spec/scaleTargetRef");
                assert!(is_there(target["kind"].as_str().unwrap(), &target["name"]), "{place}");
            }
        }
    });
}

fn mounts_are_volumes(pod: &Value, place: &str) {
    let names = |list: &Value| {
        let mut names: Vec<_> = items(list).iter().map(|item| item["name"].to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(
        names(&pod["containers"][0]["volumeMounts"]),
        names(&pod["volumes"]),
        "{place}: each volume is mounted once"
    );
}

/// A hook comes before what is installed: what it needs must be a hook too, and come before it.
#[test]
fn what_the_schema_job_needs_comes_before_it() {
    each_set(|set, objects| {
        let of_job = objects.iter().filter(|object| object.component() == "schema");
        for object in of_job {
            let place = object.place(set);
            let annotation = |name: &str| {
                object.at(&format!("/metadata/annotations/helm.sh~1{name}")).as_str().unwrap()
            };
            assert_eq!(annotation("hook"), "pre-install,pre-upgrade", "{place}");
            let weight: i32 = annotation("hook-weight").parse().unwrap();
            assert_eq!(weight < 0, object.kind() != "Job", "{place}");
        }
    });
}

#[test]
fn probes_and_listeners_are_on_the_containers_port() {
    each_set(|set, objects| {
        for object in objects.iter().filter(|object| object.pod().is_some()) {
            let place = object.place(set);
            let Some(container) = object.container() else { continue };
            if object.kind() == "Job" {
                assert!(container["livenessProbe"].is_null(), "{place}");
                continue;
            }
            let port = &container["ports"][0];
            for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
                let request = &container[probe]["httpGet"];
                assert_eq!(request["path"], path, "{place}");
                assert_eq!(request["port"], port["name"], "{place}");
            }
            let suffix = format!(":{}", port["containerPort"]);
            let listens = items(&container["args"]).iter().any(|argument| {
                let argument = argument.as_str().unwrap();
                argument.contains("listen=") && argument.ends_with(&suffix)
            });
            assert!(listens, "{place}: {suffix}");
        }
    });
}
