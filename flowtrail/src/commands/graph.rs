//! `flowtrail graph`: the graph in a terminal, from a running query service or the folder of an `up`.

mod csv;
mod drawing;
mod source;
mod table;
mod text;

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use flowtrail_query::Graph;
use flowtrail_service::secret::{Secret, secret_file};
use flowtrail_service::tls::{Certificates, certificates_file};
use table::Style;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The query service to ask, http or https.
    #[arg(
        long,
        env = "FLOWTRAIL_URL",
        default_value = "http://127.0.0.1:8480",
        value_name = "URL"
    )]
    url: String,

    /// PEM file of certificate authorities that an https service's certificate may be signed by, besides those that
    /// the system trusts.
    #[arg(long, env = "FLOWTRAIL_GRAPH_CA_FILE", value_parser = certificates_file, value_name = "FILE", conflicts_with = "data")]
    ca_file: Option<Certificates>,

    /// File with the token that the service takes, read at start.
    #[arg(long, env = "FLOWTRAIL_GRAPH_TOKEN_FILE", value_parser = secret_file, value_name = "FILE", group = "graph_token")]
    token_file: Option<Secret>,

    /// That token; better given in the environment than on the command line.
    #[arg(
        long,
        env = "FLOWTRAIL_GRAPH_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        group = "graph_token"
    )]
    token: Option<Secret>,

    /// Instead of asking a service, read the folder that `flowtrail up` was given as --data and that it no
    /// longer uses.
    #[arg(long, env = "FLOWTRAIL_GRAPH_DATA", value_name = "DIR", conflicts_with = "url")]
    data: Option<PathBuf>,

    /// The engine's library for --data, libchdb.so; by default the one that `up` takes.
    #[arg(long, env = "FLOWTRAIL_ENGINE", value_name = "PATH")]
    engine: Option<PathBuf>,

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

    /// Keep edges with either end of one of these workloads, as namespace/name, or the name of what has no namespace.
    #[arg(long, env = "FLOWTRAIL_GRAPH_WORKLOAD", value_name = "NAME,…", help_heading = "Filters")]
    workload: Vec<String>,

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

    /// Only the edge with this id, as --format json and csv have it, of the same --group-by.
    #[arg(long, env = "FLOWTRAIL_GRAPH_EDGE", value_name = "ID", help_heading = "Filters")]
    edge: Option<String>,

    /// Only edges with this node as client, by its id.
    #[arg(long, env = "FLOWTRAIL_GRAPH_SOURCE", value_name = "ID", help_heading = "Filters")]
    source: Option<String>,

    /// Only edges with this node as server, by its id.
    #[arg(long, env = "FLOWTRAIL_GRAPH_TARGET", value_name = "ID", help_heading = "Filters")]
    target: Option<String>,

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
    /// A line for each edge, for programs: every field, exact.
    Csv,
}

pub(crate) async fn run(arguments: Arguments, check: bool) -> anyhow::Result<()> {
    if check {
        return super::configuration_is_valid();
    }
    let (format, url) = (arguments.format, arguments.url.clone());
    let (text, from) = match arguments.data.clone() {
        Some(data) => {
            let text = source::of_folder(arguments, &data).await?;
            (text, data.display().to_string())
        }
        None => (source::of_service(arguments, url.clone()).await?, url),
    };
    if format == Format::Json {
        return super::print(&text);
    }
    let graph: Graph = serde_json::from_str(&text).with_context(|| {
        format!("{from} answered with no graph: is it a flowtrail of this version?")
    })?;
    super::print(&match format {
        Format::Dot => drawing::dot(&graph),
        Format::Mermaid => drawing::mermaid(&graph),
        Format::Csv => csv::csv(&graph)?,
        Format::Table | Format::Json => table::table(&graph, style()),
    })
}

/// As the terminal has it. Somebody who reads a file or a pipe gets all, unless COLUMNS says how wide.
fn style() -> Style {
    let terminal = stdout().is_terminal();
    let given = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let measured = || {
        let (terminal_size::Width(columns), _) = terminal_size::terminal_size_of(stdout())?;
        Some(usize::from(columns))
    };
    // https://no-color.org: whatever its value, unless it has none.
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Style { width: given.filter(|columns| *columns > 0).or_else(measured), colours }
}
