//! Where the graph comes from: a query service, which for a folder is started here for one question.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use flowtrail_embedded::{Access, Engine, EngineError};
use flowtrail_query::Query;
use flowtrail_service::net::{host_name, listen};
use flowtrail_service::tls::{self, Certificates};
use tokio_util::sync::CancellationToken;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::Arguments;
use crate::commands::{Started, up::store_of};

/// A graph is computed in well under this, or the service says itself that it took too long.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read: 10,000 edges are about 10 MiB.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// The answer of a running service.
pub(super) async fn of_service(arguments: Arguments, url: String) -> anyhow::Result<String> {
    tokio::task::spawn_blocking(move || fetch(&arguments, &url)).await?
}

/// The answer from the folder of an `up` that does not run.
pub(super) async fn of_folder(arguments: Arguments, data: &Path) -> anyhow::Result<String> {
    // The engine would make an empty one.
    if !data.join("clickhouse").is_dir() {
        bail!("{} is no folder of `flowtrail up --data`", data.display());
    }
    let Started { metrics, readiness, shutdown } = Started::new()?;
    let loopback = (Ipv4Addr::LOCALHOST, 0).into();
    let config = flowtrail_embedded::Config {
        engine: arguments.engine.clone(),
        data: Some(data.to_owned()),
        clickhouse_listen: loopback,
    };
    let listener = listen(loopback, "--data").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let engine = match Engine::open_for(&config, &Access::default()) {
        Err(EngineError::InUse { .. }) => bail!(
            "`flowtrail up` runs on {}: ask it with --url, by default http://127.0.0.1:8480, or stop it",
            data.display(),
        ),
        opened => opened?,
    };
    let store = store_of(engine.reader_login(), &url);
    let engine_shutdown = CancellationToken::new();
    let served = flowtrail_embedded::serve(engine, listener, &metrics, engine_shutdown.clone());
    let served = tokio::spawn(served);

    let answer = async {
        let config = flowtrail_query::Config { listen: loopback, ..Default::default() };
        let query = Query::new(config, store, metrics, readiness)?;
        let listener = query.listen().await?;
        let url = format!("http://{}", listener.local_addr()?);
        let ended = shutdown.child_token();
        let query = tokio::spawn(query.run(listener, ended.clone()));
        let answer = of_service(arguments, url).await;
        ended.cancel();
        // Of a folder of another version it says so before it answers.
        query.await.context("query broke off")??;
        answer
    };
    let answer = answer.await;
    engine_shutdown.cancel();
    served.await.context("the engine broke off")?;
    answer
}

fn fetch(arguments: &Arguments, service: &str) -> anyhow::Result<String> {
    let is_https = check_url(service, arguments)?;
    let url = format!("{}/api/v1/graph", service.trim_end_matches('/'));
    let mut config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // A token is for the service that was named, and no other.
        .max_redirects(0);
    // A proxy of the environment is for other machines.
    let host = service.split_once("://").map_or("", |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    if is_loopback(host_name(host)) {
        config = config.proxy(None);
    }
    if is_https {
        config = config.tls_config(trusting(arguments.ca_file.as_ref()));
    }
    let agent = ureq::Agent::new_with_config(config.build());
    let mut request = agent.get(&url).query("from", &arguments.from).query("to", &arguments.to);
    if let Some(token) = arguments.token.as_ref().or(arguments.token_file.as_ref()) {
        request = request.header("authorization", format!("Bearer {}", token.expose()));
    }
    let single = [
        ("group_by", &arguments.group_by),
        ("include", &arguments.include),
        ("exclude", &arguments.exclude),
        ("q", &arguments.q),
        ("edge", &arguments.edge),
        ("source", &arguments.source),
        ("target", &arguments.target),
        ("stat", &arguments.stat),
        ("limit", &arguments.limit.map(|limit| limit.to_string())),
    ];
    for (name, value) in single {
        if let Some(value) = value {
            request = request.query(name, value);
        }
    }
    let lists = [
        ("namespace", &arguments.namespace),
        ("workload", &arguments.workload),
        ("port", &arguments.port),
        ("kind", &arguments.kind),
    ];
    for (name, values) in lists {
        for value in values {
            request = request.query(name, value);
        }
    }
    let mut answer = request.call().map_err(|error| no_answer(service, error))?;
    let text = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string()?;
    let status = answer.status();
    if status.as_u16() == 401 {
        bail!(
            "{service} takes a token: give --token-file, or FLOWTRAIL_GRAPH_TOKEN in the environment"
        );
    }
    if status.is_redirection() {
        let to = answer.headers().get("location").and_then(|to| to.to_str().ok());
        let to = to.unwrap_or("another address");
        bail!("{service} sends to {to}, where a token is not sent along: give that as --url");
    }
    if !status.is_success() {
        // A problem says in `detail` which parameter is wrong, and what it takes.
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = problem["detail"].as_str().or(problem["title"].as_str());
        let parameter = problem["parameter"].as_str().map(|name| format!("{name} "));
        let (parameter, detail) = (parameter.unwrap_or_default(), detail.unwrap_or(&text));
        bail!("{service} answered {status}: {parameter}{detail}");
    }
    Ok(text)
}

/// Whether a URL is one of https. What makes no sense is refused before anything is sent.
fn check_url(service: &str, arguments: &Arguments) -> anyhow::Result<bool> {
    let is_https = service.starts_with("https://");
    if !is_https && !service.starts_with("http://") {
        bail!(
            "--url {service} is no address of a service: write http:// or https://, a host and a port"
        );
    }
    if arguments.ca_file.is_some() && !is_https {
        bail!(
            "--ca-file is for https, and --url {service} is not: write https:// or leave --ca-file away"
        );
    }
    Ok(is_https)
}

fn is_loopback(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Whom to trust: as all of our clients do.
fn trusting(authorities: Option<&Certificates>) -> TlsConfig {
    let trusted = tls::trusted(authorities);
    let trusted: Vec<_> = trusted.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(tls::cryptography())
        .root_certs(RootCerts::new_with_certs(&trusted))
        .build()
}

/// What is in the way, and what to do about it.
fn no_answer(service: &str, error: ureq::Error) -> anyhow::Error {
    if let Some(reason) = tls::failure(&error) {
        let todo = if reason.contains("UnknownIssuer") {
            "give the authority that signed its certificate with --ca-file"
        } else if reason.contains("corrupt message") {
            "it speaks no TLS: write http:// in --url"
        } else {
            "use the name that its certificate is for in --url, and see that it is valid"
        };
        return anyhow!("no secure connection to {service} ({reason}): {todo}");
    }
    anyhow::Error::new(error).context(format!(
        "no answer from {service}: start `flowtrail up` or `flowtrail query`, or give --url or --data"
    ))
}
