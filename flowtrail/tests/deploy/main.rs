//! docker-compose.yml and what belongs to it, held against this repository: the binary takes what its
//! services are told, what they mount is there, and what the file promises of each service is kept. Docker
//! is not needed; `make test-compose` is what Compose itself says of the file.

#![allow(clippy::unwrap_used, reason = "tests: helpers too")]

mod compose;
mod rules;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flowtrail_schema::topic::{DEAD_LETTER_TOPIC, FLOWS_TOPIC};

use compose::{Compose, Volume, interpolated};

const TEXT: &str = include_str!("../../../docker-compose.yml");
const DOCKERFILE: &str = include_str!("../../../deploy/docker/Dockerfile");

/// A password for where one is asked for: as long as those that are made.
const PASSWORD: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn flowtrail(words: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtrail"));
    command.args(words).env_clear();
    command
}

fn said(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// What `secrets.sh` makes, in a copy of the two files that it needs.
fn secrets() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir_all(copy.path().join("deploy/docker")).unwrap();
    for name in [".env.example", "deploy/docker/secrets.sh"] {
        fs::copy(root().join(name), copy.path().join(name)).unwrap();
    }
    make_secrets(copy.path());
    copy
}

fn make_secrets(copy: &Path) {
    let output = Command::new("sh").arg(copy.join("deploy/docker/secrets.sh")).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn every_service_keeps_the_rules() {
    let problems = rules::problems(&Compose::parse(TEXT), &root());
    assert!(problems.is_empty(), "{problems:#?}");
}

/// Each rule is one that can be broken.
#[test]
fn a_broken_file_is_found_out() {
    for (whole, broken, expected) in [
        ("apache/kafka:4.3.1", "apache/kafka:latest", "kafka: image apache/kafka:latest"),
        ("busybox:1.37.0", "busybox", "visitors: image busybox"),
        ("flowtrail:0.1.0", "flowtrail:0.0.9", "query: image flowtrail:0.0.9"),
        ("\"127.0.0.1:9094:9094\"", "\"9094:9094\"", "kafka: port 9094:9094"),
        ("\"127.0.0.1:9481:9480\"", "\"0.0.0.0:9481:9480\"", "ingest: port 0.0.0.0"),
        ("    healthcheck: *ready\n", "", "ingest: has no health check"),
        ("FLOWTRAIL_LISTEN: 0.0.0.0:8480", "FLOWTRAIL_LISTEN: 0.0.0.0:8481", "query: is asked"),
        ("${FLOWTRAIL_READER_PASSWORD:?", "${FLOWTRAIL_READER_PASSWORD:-x", "is no secret"),
        ("${GRAFANA_ADMIN_PASSWORD:?run", "admin # {run", "GF_SECURITY_ADMIN_PASSWORD"),
        ("./deploy/demo/shop.sh", "./deploy/demo/shops.sh", "shops.sh is not there"),
        ("read_only: true\n        bind: { create_host_path: false }\n", "\n", "is not read only"),
        ("  security_opt: [\"no-new-privileges:true\"]\n", "", "kafka: may gain privileges"),
        ("  cap_drop: [ALL]\n", "", "query: keeps Docker's capabilities"),
        ("cap_add: [NET_RAW]", "cap_add: [NET_RAW, SYS_ADMIN]", "capture: is given SYS_ADMIN"),
        ("  logging: *logging\n", "", "grafana: its log has no limit"),
        ("    mem_limit: 3g\n", "", "clickhouse: its memory has no limit"),
        (
            "kafka: { condition: service_healthy }",
            "kafka: { condition: service_started }",
            "topics: does not wait",
        ),
        (
            "clickhouse: { condition: service_healthy }",
            "click: { condition: service_healthy }",
            "no service click",
        ),
        (
            "BROKERS: kafka:9092",
            "BROKERS: kafka:9094",
            "kafka:9094 is not what the broker advertises",
        ),
        ("BROKERS: 127.0.0.1:9094", "BROKERS: kafka:9092", "capture: kafka:9092 is not published"),
        ("[\"kafka:/var/lib/kafka/data\"]", "[\"kafkas:/var/lib/kafka/data\"]", "no volume kafkas"),
        (
            "      FLOWTRAIL_READER_PASSWORD: $",
            "      READER_PASSWORD: $",
            "users.xml wants FLOWTRAIL_READER_PASSWORD",
        ),
        ("GRAFANA_PORT:-3000", "GRAFANAS_PORT:-3000", ".env.example does not name GRAFANAS_PORT"),
    ] {
        assert!(TEXT.contains(whole), "{whole} is not in the file any more");
        let problems = rules::problems(&Compose::parse(&TEXT.replacen(whole, broken, 1)), &root());
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{expected}: {problems:#?}"
        );
    }
}

#[test]
fn the_binary_takes_every_command_and_variable() {
    let secrets = secrets();
    // Docker's, for who looks whether it is there.
    let socket = secrets.path().join("docker.sock");
    let _docker = UnixListener::bind(&socket).unwrap();
    let compose = Compose::parse(TEXT);
    let ours = compose.services.iter().filter(|(_, service)| service.is_ours());
    let mut commands = BTreeSet::new();
    for (name, service) in ours {
        let help = said(&flowtrail(&service.command).arg("--help").output().unwrap());
        let known = |variable: &str| {
            help.contains(&format!("[env: {variable}=]"))
                || help.contains(&format!("[env: {variable}]"))
        };
        let mut command = flowtrail(&service.command);
        for (variable, value) in &service.environment {
            assert!(
                known(variable),
                "{name}: `flowtrail {:?}` knows no {variable}",
                service.command
            );
            let Some(value) = value else { continue };
            let mut value = interpolated(value, PASSWORD);
            for volume in &service.volumes {
                let Volume::Bind(bind) = volume else { continue };
                let mounted = match bind.target.ends_with(".sock") {
                    true => socket.clone(),
                    false => secrets.path().join(&bind.source),
                };
                value = value.replace(&bind.target, &mounted.display().to_string());
            }
            command.env(variable, value);
        }
        let output = command.arg("--check-config").output().unwrap();
        assert!(output.status.success(), "{name}: {}", said(&output));
        commands.insert(service.command[0].clone());
    }
    assert_eq!(commands.into_iter().collect::<Vec<_>>(), ["capture", "ingest", "query", "schema"]);
}

#[test]
fn retention_that_env_may_set_is_what_schema_takes() {
    let compose = Compose::parse(TEXT);
    let schema = &compose.services["schema"];
    let passed: Vec<_> = schema.environment.iter().filter(|(_, value)| value.is_none()).collect();
    assert_eq!(passed.len(), 6);
    let mut command = flowtrail(&schema.command);
    for (variable, _) in passed {
        command.env(variable, "400d");
    }
    let output = command.arg("--check-config").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn secrets_are_made_once_and_are_whole() {
    let copy = secrets();
    let read = |name: &str| fs::read_to_string(copy.path().join(name)).unwrap();
    let (env, tokens) = (read(".env"), read(".secrets/query/tokens"));
    let values: Vec<_> = env
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .collect();
    let (user, values): (Vec<_>, Vec<_>) =
        values.into_iter().partition(|(name, _)| *name == "FLOWTRAIL_USER");
    assert!(
        matches!(user[..], [(_, id)] if id.split(':').all(|id| id.parse::<u32>().is_ok())),
        "{env}"
    );
    assert_eq!(values.len(), 5, "{env}");
    assert!(values.iter().all(|(_, value)| value.len() == PASSWORD.len()), "{env}");
    let different: BTreeSet<_> = values.iter().map(|(_, value)| value).collect();
    assert_eq!(different.len(), values.len());
    let token = values.iter().find(|(name, _)| *name == "FLOWTRAIL_GRAFANA_TOKEN").unwrap().1;
    assert!(tokens.contains(&format!("grafana {token} *\n")), "{tokens}");
    for (name, mode) in [(".env", 0o600), (".secrets", 0o700), (".secrets/query/tokens", 0o600)] {
        let found = fs::metadata(copy.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}: {found:o}");
    }

    make_secrets(copy.path());
    assert_eq!((read(".env"), read(".secrets/query/tokens")), (env, tokens), "kept");
}

#[test]
fn topics_are_those_of_the_contract() {
    let script = include_str!("../../../deploy/docker/kafka/topics.sh");
    for topic in [FLOWS_TOPIC, DEAD_LETTER_TOPIC] {
        assert!(script.contains(&format!("create {topic} ")), "{topic}");
    }
    assert!(script.contains("message.timestamp.type=LogAppendTime"));
}

#[test]
fn the_image_is_of_pinned_parts_that_are_there_and_not_roots() {
    let problems = rules::dockerfile(DOCKERFILE, &root());
    assert!(problems.is_empty(), "{problems:#?}");
    for (whole, broken, expected) in [
        ("debian:12.15-slim", "debian:stable-slim", "debian:stable-slim"),
        ("rust:1.95.0-", "rust:1.94.0-", "Rust"),
        (
            "COPY embedded/fetch-engine.sh",
            "COPY embedded/fetch.sh",
            "embedded/fetch.sh is not there",
        ),
        ("USER 65532:65532", "USER 0:0", "USER"),
        ("npm \\", "npm && curl https://example.org \\", "curl"),
    ] {
        assert!(DOCKERFILE.contains(whole), "{whole}");
        let problems = rules::dockerfile(&DOCKERFILE.replacen(whole, broken, 1), &root());
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{expected}: {problems:#?}"
        );
    }
}
