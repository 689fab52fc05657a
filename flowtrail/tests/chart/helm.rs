//! The chart under Helm itself: `make test-helm`, which gives its path in FLOWTRAIL_HELM.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::rendered::{SETS, chart, golden, parse, repository};

/// A version of Kubernetes that the chart takes; Helm built as a module has one of its own that is old.
const KUBERNETES: [&str; 2] = ["--kube-version", "1.31.0"];

fn helm(words: &[&str]) -> Output {
    let helm = std::env::var_os("FLOWTRAIL_HELM").unwrap();
    let home = std::env::temp_dir().join("flowtrail-helm");
    let mut command = Command::new(helm);
    for directory in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(directory, &home);
    }
    command.args(words).current_dir(chart()).output().unwrap()
}

#[track_caller]
fn succeeds(words: &[&str]) -> String {
    let output = helm(words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{words:?}: {said}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn render(chart: &str, more: &[&str]) -> String {
    let words = ["template", "flowtrail", chart, "--namespace", "flowtrail"];
    succeeds(&[&words[..], &KUBERNETES[..], more].concat())
}

fn flags_of(files: &'static [&'static str]) -> Vec<&'static str> {
    files.iter().flat_map(|file| ["--values", *file]).collect()
}

#[test]
#[ignore = "needs Helm: make test-helm"]
fn it_is_in_order_and_renders_what_was_reviewed() {
    for (set, files) in SETS {
        let values = flags_of(files);
        succeeds(&[&["lint", "--strict", "."], &KUBERNETES[..], &values[..]].concat());
        let rendered = render(".", &values);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(golden(set), &rendered).unwrap();
        }
        let reviewed = std::fs::read_to_string(golden(set)).unwrap();
        for (line, (found, reviewed)) in rendered.lines().zip(reviewed.lines()).enumerate() {
            let hint = "review it, then run make test-helm with UPDATE_GOLDEN=1";
            assert_eq!(found, reviewed, "line {} of {set}.yaml: {hint}", line + 1);
        }
        assert_eq!(rendered.len(), reviewed.len(), "{set}.yaml is of another length");
    }
}

#[test]
#[ignore = "needs Helm: make test-helm"]
fn wrong_values_are_refused_with_what_is_wrong() {
    let all = "--values=ci/default-values.yaml";
    for (values, expected) in [
        // The schema's.
        (&["kafka.broker=kafka:9092"][..], "additional properties 'broker' not allowed"),
        (&["ingest.replicas=two"], "got string, want integer"),
        (&["kafka.brokers=kafka"], "kafka/brokers': 'kafka' does not match pattern"),
        (&["clickhouse.url=clickhouse:8123"], "/clickhouse/url': 'clickhouse:8123' does not match"),
        (&["clickhouse.url=http://user:password@clickhouse"], "/clickhouse/url"),
        (&["capture.interval=7s"], "/capture/interval': value must be one of '1s', '2s'"),
        (&["ingest.chunkRows=1000001"], "/ingest/chunkRows': maximum"),
        (&["image.digest=sha256:1234"], "/image/digest"),
        (&["ingest.terminationGracePeriodSeconds=10"], "minimum: got 10, want 35"),
        (&["ingest.extraEnv[0].name=A_PASSWORD", "ingest.extraEnv[0].value=x"], "/extraEnv/0"),
        (&["kafka.properties[0]=ssl.key.password=x"], "/kafka/properties/0"),
        (&["capture.interfaces[0]=eth{0\\,1}"], "/capture/interfaces/0"),
        (&["clickhouse.ca.secret=a", "clickhouse.ca.configMap=b"], "/clickhouse/ca"),
        // The chart's own.
        (&["kafka.brokers="], "kafka.brokers is empty: give the brokers as host:port"),
        (&["clickhouse.url="], "clickhouse.url is empty"),
        (
            &["ingest.replicas=9"],
            "ingest.replicas is 9, but topic flowtrail.flows.v1 has 8 partitions",
        ),
        (
            &["ingest.autoscaling.enabled=true", "ingest.autoscaling.maxReplicas=9"],
            "ingest.autoscaling.maxReplicas is 9, but topic",
        ),
        (
            &["ingest.autoscaling.enabled=true", "ingest.autoscaling.minReplicas=9"],
            "minReplicas is 9, above maxReplicas, 8",
        ),
        (&["query.tokens.secret="], "whoever reaches query would see everything"),
        (&["query.tokens.disabled=true"], "leave one away"),
        (&["kafka.sasl.mechanism=scram-sha-512"], "give kafka.sasl.secret or capture.kafkaSecret"),
        (&["kafka.sasl.secret=a"], "give kafka.sasl.mechanism"),
        (&["kafka.sasl.secret=a", "kafka.sasl.mechanism=plain"], "set kafka.tls.enabled"),
        (&["kafka.tls.ca.secret=a"], "kafka.tls.enabled is false"),
        (&["ingest.kafkaCertificateSecret=a"], "kafka.tls.enabled is false"),
        (&["clickhouse.ca.secret=a"], "use https"),
        (&["serviceMonitor.enabled=true"], "give serviceMonitor.queryToken.secret"),
        (
            &[
                "kafka.properties[0]=a=b",
                "ingest.extraEnv[0].name=FLOWTRAIL_KAFKA_PROPERTY",
                "ingest.extraEnv[0].value=c=d",
            ],
            "which kafka.properties would hide",
        ),
    ] {
        let mut words = vec!["template", "flowtrail", ".", all];
        words.extend(KUBERNETES);
        words.extend(values.iter().flat_map(|value| ["--set", *value]));
        let output = helm(&words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{values:?} was taken");
        assert!(said.contains(expected), "{values:?} said: {said}");
    }
}

#[test]
#[ignore = "needs Helm: make test-helm"]
fn names_stay_within_what_kubernetes_takes() {
    let long = "a".repeat(53);
    let words = ["template", &long, ".", "--values=ci/full-values.yaml"];
    for object in parse(&succeeds(&[&words[..], &KUBERNETES[..]].concat())) {
        // A Job's name and five more are its pods', which are labels, too.
        assert!(object.name().len() <= 57, "{}", object.name());
    }
}

/// The chart has dashboards by a symbolic link, in place of which a package has the files.
#[test]
#[ignore = "needs Helm: make test-helm"]
fn dashboards_are_those_of_the_repository() {
    let directory = repository().join("deploy/grafana/dashboards");
    let files: BTreeMap<String, String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (file_name(&path), std::fs::read_to_string(path).unwrap()))
        .collect();
    let packages = tempfile::tempdir().unwrap();
    let to = packages.path().to_str().unwrap();
    succeeds(&["package", ".", "--destination", to]);
    let package = std::fs::read_dir(packages.path()).unwrap().next().unwrap().unwrap().path();
    for chart in [".", package.to_str().unwrap()] {
        let values = ["--values=ci/default-values.yaml", "--set=dashboards.enabled=true"];
        let mut found = BTreeMap::new();
        if !files.is_empty() {
            for object in parse_dashboards(&render(chart, &values)) {
                found.extend(object);
            }
        }
        let trimmed = |text: &String| text.trim_end().to_owned();
        let expected: BTreeMap<_, _> =
            files.iter().map(|(name, text)| (name.clone(), trimmed(text))).collect();
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        assert!(found == expected, "a dashboard is not what its file is");
    }
}

/// File names and contents of the ConfigMaps of dashboards.
fn parse_dashboards(rendered: &str) -> Vec<BTreeMap<String, String>> {
    let maps = parse(rendered).into_iter().filter(|object| object.kind() == "ConfigMap");
    maps.map(|map| {
        assert_eq!(map.at("/metadata/labels/grafana_dashboard"), "1", "{}", map.name());
        serde_json::from_value(map.at("/data").clone()).unwrap()
    })
    .collect()
}

fn file_name(path: &Path) -> String {
    PathBuf::from(path.file_name().unwrap()).display().to_string()
}

/// What Helm prints after an install. It asks a cluster for that, so here they are made an object.
#[test]
#[ignore = "needs Helm: make test-helm"]
fn notes_say_what_to_do_next() {
    let copies = tempfile::tempdir().unwrap();
    let copied =
        Command::new("cp").args(["-rL", "."]).arg(copies.path()).current_dir(chart()).status();
    assert!(copied.unwrap().success());
    let templates = copies.path().join("templates");
    let notes = std::fs::read_to_string(templates.join("NOTES.txt")).unwrap();
    std::fs::remove_file(templates.join("NOTES.txt")).unwrap();
    let wrapped = "kind: Notes\ndata: {{ include \"notes\" . | quote }}\n";
    let defined = format!("{{{{ define \"notes\" }}}}{notes}{{{{ end }}}}{wrapped}");
    std::fs::write(templates.join("notes.yaml"), defined).unwrap();
    let notes = |set: &str| {
        let rendered = render(copies.path().to_str().unwrap(), &[set]);
        let notes = parse(&rendered).into_iter().find(|object| object.kind() == "Notes").unwrap();
        notes.at("/data").as_str().unwrap().to_owned()
    };
    let default = notes("--values=ci/default-values.yaml");
    assert!(default.contains("--topic flowtrail.flows.v1 --partitions 8"), "{default}");
    assert!(default.contains("port-forward service/flowtrail-query 8480:8480"), "{default}");
    assert!(!default.contains("NOTE: query.tokens.disabled"), "{default}");
    let least = notes("--values=ci/least-values.yaml");
    assert!(least.contains("NOTE: query.tokens.disabled"), "{least}");
    assert!(!least.contains("kafka-topics.sh"), "{least}");
}
