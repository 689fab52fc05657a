//! The ClusterRole of the Helm chart, against what the watch asks the API server for.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use flowtrail_ingest::names::Names;
use flowtrail_ingest::watch;
use flowtrail_service::metrics::Metrics;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::Api;

/// A verb, an API group and a resource.
type Right = (String, String, String);

#[tokio::test]
async fn the_charts_role_is_what_the_watch_asks_for() {
    let api = Api::default();
    let shutdown = CancellationToken::new();
    let client = api.client().await;
    let first = watch::start(&client, &Names::new(&Metrics::new()), &shutdown);
    assert!(first.wait(Duration::from_secs(30)).await.is_empty());
    let granted = granted();
    let complete = async {
        while asked(&api).len() < granted.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), complete).await.ok();
    shutdown.cancel();
    assert_eq!(asked(&api), granted);
}

/// What the double was asked for: the path is /api/v1/RESOURCE, or /apis/GROUP/VERSION/RESOURCE.
fn asked(api: &Api) -> BTreeSet<Right> {
    api.with(|state| {
        let rights = state.asked.iter().map(|(path, is_watch)| {
            let words: Vec<_> = path.trim_start_matches('/').split('/').collect();
            let (group, resource) = match words[..] {
                ["api", _, resource] => ("", resource),
                ["apis", group, _, resource] => (group, resource),
                _ => panic!("{path} is no list"),
            };
            let verb = if *is_watch { "watch" } else { "list" };
            (verb.to_owned(), group.to_owned(), resource.to_owned())
        });
        rights.collect()
    })
}

fn granted() -> BTreeSet<Right> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/golden/default.yaml");
    let rendered = std::fs::read_to_string(Path::new(path)).unwrap();
    let role = rendered.split("---\n").find(|text| text.contains("\nkind: ClusterRole\n")).unwrap();
    let role: Value = serde_saphyr::from_str(role).unwrap();
    let texts = |list: &Value| serde_json::from_value::<Vec<String>>(list.clone()).unwrap();
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    rights.insert((verb, group.clone(), resource.clone()));
                }
            }
        }
    }
    assert_eq!(rights.len(), 12);
    rights
}
