//! `flowtrail graph`: the graph in a terminal, from a running query service.

mod render;

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use flowtrail_query::Graph;

/// A graph is computed in well under this, or the service says itself that it took too long.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read: 2,000 edges are about 2 MiB.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The query service to ask.
    #[arg(
        long,
        env = "FLOWTRAIL_URL",
        default_value = "http://127.0.0.1:8480",
        value_name = "URL"
    )]
    url: String,

    /// Start of the window: epoch milliseconds, RFC 3339, now, or now-6h.
    #[arg(long, env = "FLOWTRAIL_GRAPH_FROM", default_value = "now-1h", value_name = "TIME")]
    from: String,

    /// End of the window.
    #[arg(long, env = "FLOWTRAIL_GRAPH_TO", default_value = "now", value_name = "TIME")]
    to: String,

    /// What a node of the graph is: namespace, workload, pod, service, node or ip.
    #[arg(long, env = "FLOWTRAIL_GRAPH_GROUP_BY", value_name = "LEVEL", help_heading = "Filters")]
    group_by: Option<String>,

    /// Keep edges with either end in one of these namespaces.
    #[arg(
        long,
        env = "FLOWTRAIL_GRAPH_NAMESPACE",
        value_name = "NAME,…",
        help_heading = "Filters"
    )]
    namespace: Vec<String>,

    /// Keep edges with either end's name or address matching.
    #[arg(long, env = "FLOWTRAIL_GRAPH_INCLUDE", value_name = "REGEX", help_heading = "Filters")]
    include: Option<String>,

    /// Leave out edges with either end's name or address matching.
    #[arg(long, env = "FLOWTRAIL_GRAPH_EXCLUDE", value_name = "REGEX", help_heading = "Filters")]
    exclude: Option<String>,

    /// Keep edges with one of these server ports.
    #[arg(long, env = "FLOWTRAIL_GRAPH_PORT", value_name = "PORT,…", help_heading = "Filters")]
    port: Vec<String>,

    /// Keep edges with either end of one of these kinds: pod, service, node, external, unknown.
    #[arg(long, env = "FLOWTRAIL_GRAPH_KIND", value_name = "KIND,…", help_heading = "Filters")]
    kind: Vec<String>,

    /// Keep what an expression says, as in 'server.port = 5432 and failed > 0': see docs/filters.md.
    #[arg(long, env = "FLOWTRAIL_GRAPH_Q", value_name = "EXPRESSION", help_heading = "Filters")]
    q: Option<String>,

    /// What to order edges by: connections, bytes, packets, duration, latency, retransmits, failures.
    #[arg(long, env = "FLOWTRAIL_GRAPH_STAT", value_name = "STAT", help_heading = "Filters")]
    stat: Option<String>,

    /// Edges at most; the rest is folded into one.
    #[arg(long, env = "FLOWTRAIL_GRAPH_LIMIT", value_name = "N", help_heading = "Filters")]
    limit: Option<u32>,

    /// How to print it.
    #[arg(long, env = "FLOWTRAIL_GRAPH_FORMAT", value_enum, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each edge, for people.
    Table,
    /// The service's answer.
    Json,
    /// For Graphviz.
    Dot,
    /// For Markdown.
    Mermaid,
}

pub(crate) fn run(arguments: Arguments, check: bool) -> anyhow::Result<()> {
    if check {
        return super::configuration_is_valid();
    }
    let text = fetch(&arguments)?;
    let printed = match arguments.format {
        Format::Json => text,
        format => {
            let graph: Graph = serde_json::from_str(&text).with_context(|| {
                format!("{} answered with no graph: is it a flowtrail?", arguments.url)
            })?;
            match format {
                Format::Dot => render::dot(&graph),
                Format::Mermaid => render::mermaid(&graph),
                _ => render::table(&graph),
            }
        }
    };
    super::print(&printed)
}

fn fetch(arguments: &Arguments) -> anyhow::Result<String> {
    let url = format!("{}/api/v1/graph", arguments.url.trim_end_matches('/'));
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build(),
    );
    let mut request = agent.get(&url).query("from", &arguments.from).query("to", &arguments.to);
    let single = [
        ("group_by", &arguments.group_by),
        ("include", &arguments.include),
        ("exclude", &arguments.exclude),
        ("q", &arguments.q),
        ("stat", &arguments.stat),
        ("limit", &arguments.limit.map(|limit| limit.to_string())),
    ];
    for (name, value) in single {
        if let Some(value) = value {
            request = request.query(name, value);
        }
    }
    let lists =
        [("namespace", &arguments.namespace), ("port", &arguments.port), ("kind", &arguments.kind)];
    for (name, values) in lists {
        for value in values {
            request = request.query(name, value);
        }
    }
    let mut answer = request.call().with_context(|| {
        format!(
            "no answer from {}: start `flowtrail up` or `flowtrail query`, or give --url",
            arguments.url
        )
    })?;
    let text = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string()?;
    if !answer.status().is_success() {
        // A problem says in `detail` which parameter is wrong, and what it takes.
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or(&text);
        bail!("{} answered {}: {detail}", arguments.url, answer.status());
    }
    Ok(text)
}
