//! That nothing may do more than it needs.

use serde_json::{Value, json};

use crate::rendered::{each_set, items};

#[test]
fn containers_have_no_right_but_net_raw_and_that_agents_alone() {
    each_set(|set, objects| {
        for object in objects {
            let (Some(pod), Some(container)) = (object.pod(), object.container()) else { continue };
            let place = object.place(set);
            let is_capture = object.component() == "capture";
            let mut expected = json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            if is_capture {
                expected["capabilities"]["add"] = json!(["NET_RAW"]);
            }
            assert_eq!(container["securityContext"], expected, "{place}");
            let context = &pod["securityContext"];
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{place}");
            assert_eq!(context["runAsUser"], if is_capture { 0 } else { 65_532 }, "{place}");
            assert_eq!(context["runAsNonRoot"] == true, !is_capture, "{place}");
            assert_eq!(pod["hostNetwork"] == true, is_capture, "{place}");
            for field in ["hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"] {
                assert!(pod[field].is_null(), "{place}: {field}");
            }
            let is_ingest = object.component() == "ingest";
            assert_eq!(pod["automountServiceAccountToken"], is_ingest, "{place}");
            assert_eq!(pod["enableServiceLinks"], false, "{place}");
        }
    });
}

#[test]
fn nothing_of_a_node_is_mounted_but_the_agents_state() {
    each_set(|set, objects| {
        for object in objects {
            for volume in object.pod().map_or(&[][..], |pod| items(&pod["volumes"])) {
                let from_node = &volume["hostPath"];
                let is_state = object.component() == "capture" && volume["name"] == "state";
                assert!(from_node.is_null() || is_state, "{}: {volume}", object.place(set));
            }
        }
    });
}

#[test]
fn passwords_come_from_secrets() {
    each_set(|set, objects| {
        assert!(objects.iter().all(|object| object.kind() != "Secret"), "{set}");
        for container in objects.iter().filter_map(|object| object.container()) {
            for variable in items(&container["env"]) {
                let name = variable["name"].as_str().unwrap();
                let is_plain = variable["value"].is_string();
                assert!(!(is_plain && name.contains("PASSWORD")), "{set}: {name}");
            }
            let arguments = items(&container["args"]).iter().filter_map(Value::as_str);
            for argument in arguments {
                let is_plain = argument.contains("-password=") || argument.contains("-user=");
                assert!(!is_plain, "{set}: {argument}");
            }
        }
    });
}

/// What it watches is compared in ingest/tests/ingest/role.rs.
#[test]
fn ingest_alone_may_ask_the_api_server() {
    each_set(|set, objects| {
        for object in objects {
            let place = object.place(set);
            match object.kind() {
                "Role" | "RoleBinding" => panic!("{place}"),
                "ClusterRole" | "ClusterRoleBinding" => {
                    assert_eq!(object.component(), "ingest", "{place}");
                }
                "ServiceAccount" => {
                    assert_eq!(object.at("/automountServiceAccountToken"), false, "{place}");
                }
                _ => {}
            }
        }
    });
}
