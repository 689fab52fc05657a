//! The rendered objects.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Sets of values, and the files that give them, of the chart's directory.
pub(crate) const SETS: [(&str, &[&str]); 4] = [
    ("default", &["ci/default-values.yaml"]),
    ("full", &["ci/full-values.yaml"]),
    ("least", &["ci/least-values.yaml"]),
    ("small", &["values-small.yaml", "ci/default-values.yaml"]),
];

pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

pub(crate) fn chart() -> PathBuf {
    repository().join("deploy/helm/flowtrail")
}

pub(crate) fn golden(set: &str) -> PathBuf {
    repository().join(format!("deploy/helm/golden/{set}.yaml"))
}

pub(crate) fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The objects of a rendered text.
pub(crate) fn parse(text: &str) -> Vec<Object> {
    let documents = text.split("---\n").filter(|document| !document.trim().is_empty());
    documents.map(|document| Object(serde_saphyr::from_str(document).unwrap())).collect()
}

/// All objects of a set.
pub(crate) fn objects(set: &str) -> Vec<Object> {
    let objects = parse(&std::fs::read_to_string(golden(set)).unwrap());
    assert!(!objects.is_empty());
    objects
}

/// Calls with each set's name and its objects.
pub(crate) fn each_set(check: impl Fn(&str, &[Object])) {
    for (set, _) in SETS {
        check(set, &objects(set));
    }
}

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Object(pub(crate) Value);

impl Object {
    /// What is at a JSON pointer; null if nothing is.
    pub(crate) fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    pub(crate) fn kind(&self) -> &str {
        self.at("/kind").as_str().unwrap()
    }

    pub(crate) fn name(&self) -> &str {
        self.at("/metadata/name").as_str().unwrap()
    }

    /// The component that its labels name: capture, ingest, query or schema.
    pub(crate) fn component(&self) -> &str {
        self.at("/metadata/labels/app.kubernetes.io~1component").as_str().unwrap()
    }

    /// For messages.
    pub(crate) fn place(&self, set: &str) -> String {
        format!("{set}: {} {}", self.kind(), self.name())
    }

    /// The pods that it makes, if it does.
    pub(crate) fn pod(&self) -> Option<&Value> {
        let is_workload = ["DaemonSet", "Deployment", "Job"].contains(&self.kind());
        is_workload.then(|| self.at("/spec/template/spec"))
    }

    /// Its only container.
    pub(crate) fn container(&self) -> Option<&Value> {
        let containers = self.pod()?["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        assert!(self.pod()?["initContainers"].is_null());
        containers.first()
    }
}

/// The items of a list; none if it is not there.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
