//! What holds for every service, and for the image. A problem is a line that names the service.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::compose::{Bind, Compose, Service, Volume, interpolated, variables};

/// What only exists where the file is used.
const MADE_LATER: [&str; 2] = ["./.secrets/query", "${DOCKER_SOCKET:-/var/run/docker.sock}"];

/// Capabilities, and who has a reason for one.
const CAPABILITIES: [(&str, &str); 3] =
    [("capture", "NET_RAW"), ("payments", "NET_ADMIN"), ("scanner", "NET_ADMIN")];

/// All that is wrong with the file; `root` is the repository's.
pub(crate) fn problems(compose: &Compose, root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, service) in &compose.services {
        let mut all = Vec::new();
        image(service, &mut all);
        confinement(name, service, &mut all);
        health(service, &mut all);
        order(compose, service, &mut all);
        mounts(compose, service, root, &mut all);
        network(compose, service, &mut all);
        secrets(service, &mut all);
        problems.extend(all.into_iter().map(|problem| format!("{name}: {problem}")));
    }
    surroundings(compose, root, &mut problems);
    problems
}

/// Whether an image's tag is of one version: at least two numbers.
fn is_pinned(image: &str) -> bool {
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let version = tag.split('-').next().unwrap_or_default();
    let numbers: Vec<_> = version.split('.').collect();
    numbers.len() >= 2 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
}

fn image(service: &Service, problems: &mut Vec<String>) {
    let image = &service.image;
    if !is_pinned(image) {
        problems.push(format!("image {image} is not pinned to a version"));
    }
    if service.is_ours() && *image != concat!("flowtrail:", env!("CARGO_PKG_VERSION")) {
        problems.push(format!("image {image} is not of this version"));
    }
}

fn confinement(name: &str, service: &Service, problems: &mut Vec<String>) {
    if !service.security_opt.iter().any(|option| option == "no-new-privileges:true") {
        problems.push("may gain privileges".to_owned());
    }
    let is_others = !service.is_ours() && !service.image.starts_with("busybox:");
    if !is_others && service.cap_drop != ["ALL"] {
        problems.push("keeps Docker's capabilities".to_owned());
    }
    if !is_others && !service.read_only {
        problems.push("may write to its own files".to_owned());
    }
    for capability in &service.cap_add {
        if !CAPABILITIES.contains(&(name, capability)) {
            problems.push(format!("is given {capability}"));
        }
    }
    if service.mem_limit.is_none() {
        problems.push("its memory has no limit".to_owned());
    }
    if !service.logging.as_ref().is_some_and(|logging| logging.options.contains_key("max-size")) {
        problems.push("its log has no limit".to_owned());
    }
}

fn health(service: &Service, problems: &mut Vec<String>) {
    let Some(check) = &service.healthcheck else {
        if !service.ends() {
            problems.push("has no health check".to_owned());
        }
        return;
    };
    if let [kind, program, port] = &check.test[..]
        && (kind.as_str(), program.as_str()) == ("CMD", "flowtrail-ready")
    {
        let listens = ["FLOWTRAIL_ADMIN_LISTEN", "FLOWTRAIL_LISTEN"]
            .iter()
            .any(|variable| service.variable(variable).ends_with(&format!(":{port}")));
        if !listens {
            problems.push(format!("is asked on port {port}, where it does not listen"));
        }
    } else if service.is_ours() {
        problems.push(format!("is not asked whether it is ready, but {:?}", check.test));
    }
}

/// Whoever needs another waits until it is healthy, or has ended well.
fn order(compose: &Compose, service: &Service, problems: &mut Vec<String>) {
    for (needed, dependency) in &service.depends_on {
        let Some(other) = compose.services.get(needed) else {
            problems.push(format!("there is no service {needed}"));
            continue;
        };
        let condition =
            if other.ends() { "service_completed_successfully" } else { "service_healthy" };
        if dependency.condition != condition {
            problems.push(format!("does not wait for {needed} as {condition}"));
        }
    }
}

fn mounts(compose: &Compose, service: &Service, root: &Path, problems: &mut Vec<String>) {
    for volume in &service.volumes {
        match volume {
            Volume::Named(text) => {
                let name = text.split(':').next().unwrap_or_default();
                if !compose.volumes.contains_key(name) {
                    problems.push(format!("there is no volume {name}"));
                }
            }
            Volume::Bind(bind) => bound(bind, root, problems),
        }
    }
}

fn bound(bind: &Bind, root: &Path, problems: &mut Vec<String>) {
    let source = &bind.source;
    let is_there = root.join(source).exists();
    if !is_there && !MADE_LATER.contains(&source.as_str()) {
        problems.push(format!("{source} is not there"));
    }
    if !bind.read_only {
        problems.push(format!("{source} is not read only"));
    }
}

fn network(compose: &Compose, service: &Service, problems: &mut Vec<String>) {
    for port in &service.ports {
        if !port.starts_with("127.0.0.1:") {
            problems.push(format!("port {port} is open to other machines"));
        }
    }
    for network in &service.networks {
        if !compose.networks.contains_key(network) {
            problems.push(format!("there is no network {network}"));
        }
    }
    if service.networks.is_empty() && service.network_mode.is_none() {
        problems.push("is on Compose's default network".to_owned());
    }
    let broker = service.variable("FLOWTRAIL_KAFKA_BROKERS");
    let Some(kafka) = compose.services.get("kafka").filter(|_| !broker.is_empty()) else { return };
    let advertised = kafka.variable("KAFKA_ADVERTISED_LISTENERS");
    if !advertised.split(',').any(|door| door.ends_with(&format!("://{broker}"))) {
        problems.push(format!("{broker} is not what the broker advertises"));
    }
    let is_on_host = service.network_mode.as_deref() == Some("host");
    if is_on_host && !kafka.ports.iter().any(|port| port.starts_with(&format!("{broker}:"))) {
        problems.push(format!("{broker} is not published"));
    }
}

/// A password comes from `.env`, which must have it.
fn secrets(service: &Service, problems: &mut Vec<String>) {
    for (variable, value) in &service.environment {
        let is_secret = variable.ends_with("PASSWORD") || variable.ends_with("TOKEN");
        let value = value.as_deref().unwrap_or_default();
        let asks = matches!(variables(value)[..], [(_, rest)] if rest.starts_with(":?"));
        if is_secret && (!asks || !interpolated(value, "").is_empty()) {
            problems.push(format!("{variable} is no secret that must be set"));
        }
    }
}

/// `.env.example` names what the file asks for; Grafana's data sources and ClickHouse's users.xml find what they
/// take from their server's environment.
fn surroundings(compose: &Compose, root: &Path, problems: &mut Vec<String>) {
    let mut asked = BTreeSet::new();
    for service in compose.services.values() {
        for (variable, value) in &service.environment {
            match value {
                Some(value) => asked.extend(variables(value).into_iter().map(|(name, _)| name)),
                None => _ = asked.insert(variable),
            }
        }
        let sources = service.volumes.iter().filter_map(|volume| match volume {
            Volume::Bind(bind) => Some(&bind.source),
            Volume::Named(_) => None,
        });
        for text in service.ports.iter().chain(sources).chain(&service.user) {
            asked.extend(variables(text).into_iter().map(|(name, _)| name));
        }
    }
    let example = include_str!("../../../.env.example");
    let named: BTreeSet<_> = example
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once('='))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_'))
        .collect();
    problems
        .extend(asked.difference(&named).map(|name| format!(".env.example does not name {name}")));
    problems.extend(
        named.difference(&asked).map(|name| format!(".env.example names {name} for nothing")),
    );

    let grafana = &compose.services["grafana"];
    for (file, name) in provisioned(&root.join("deploy/grafana/provisioning")) {
        if !grafana.environment.contains_key(&name) {
            problems.push(format!("grafana: {file} wants {name}"));
        }
    }

    let users = include_str!("../../../deploy/docker/clickhouse/users.xml");
    for name in users.split("from_env=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        let clickhouse = compose.services.get("clickhouse");
        if !clickhouse.is_some_and(|service| service.environment.contains_key(name)) {
            problems.push(format!("clickhouse: users.xml wants {name}"));
        }
    }
}

/// The variables that Grafana's provisioning takes from its environment, with the file's name.
fn provisioned(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(provisioned(&path));
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let named = variables(&text).into_iter().map(|(name, _)| name);
            let is_name = |name: &&str| name.starts_with(|first: char| first.is_ascii_uppercase());
            let file = path.display().to_string();
            found.extend(named.filter(is_name).map(|name| (file.clone(), name.to_owned())));
        }
    }
    found
}

/// All that is wrong with a Dockerfile.
pub(crate) fn dockerfile(text: &str, root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let instructions = || text.lines().filter_map(|line| line.split_once(' '));
    let mut stages: BTreeSet<&str> = BTreeSet::new();
    for (_, rest) in instructions().filter(|(word, _)| *word == "FROM") {
        let words: Vec<_> = rest.split(' ').collect();
        if !stages.contains(words[0]) && !is_pinned(words[0]) {
            problems.push(format!("{} is not pinned to a version", words[0]));
        }
        stages.extend(words.last());
    }
    let rust = concat!("FROM rust:", env!("CARGO_PKG_RUST_VERSION"), ".");
    if !text.contains(rust) {
        problems.push("the builder's Rust is not the one that the workspace names".to_owned());
    }
    for (_, rest) in
        instructions().filter(|(word, rest)| *word == "COPY" && !rest.contains("--from"))
    {
        let words: Vec<_> = rest.split(' ').filter(|word| !word.starts_with("--")).collect();
        for source in &words[..words.len() - 1] {
            if !root.join(source).exists() {
                problems.push(format!("{source} is not there"));
            }
        }
    }
    if !instructions().filter(|(word, _)| *word == "USER").all(|(_, user)| !user.starts_with('0'))
        || !text.contains("\nUSER ")
    {
        problems.push("USER is root, or not said".to_owned());
    }
    if !text.contains(concat!("image.version=\"", env!("CARGO_PKG_VERSION"), "\"")) {
        problems.push("the label says another version".to_owned());
    }
    for fetches in ["curl ", "wget ", "\nADD "] {
        if text.contains(fetches) {
            problems.push(format!("{} gets what nobody checks", fetches.trim()));
        }
    }
    problems
}
