//! What a caller may see, and the tables as that caller sees them.
//!
//! A caller whose token is of some namespaces sees the rows that have an *own* end, one in these namespaces.
//! The other end, if it is in none of them, is shown by kind, namespace, workload, Service and the port that
//! clients use. Hidden are its name, node and addresses, its port behind a Service, the place of an
//! observation on its side or between, and ids made of its address. Public and configured networks
//! (`external`) are nobody's namespace and shown; an address that nobody is known to have held could be
//! another's pod, and is hidden.
//!
//! No question has to think of that: its tables are replaced. Each statement runs beneath common table
//! expressions of the tables' own names, which leave out rows and blank columns, and so filters, groupings,
//! sums and lists cannot tell what is hidden, however they are written. What is not known here is not there.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use clickhouse::Client;
use clickhouse::query::Query;

/// Whose rows a caller may see. By default nobody's: who forgets to ask gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// All.
    All,
    /// Those with an end in one of these namespaces.
    Namespaces(Arc<[String]>),
}

impl Default for Scope {
    fn default() -> Self {
        Self::Namespaces(Arc::default())
    }
}

impl Scope {
    pub(crate) fn namespaces(names: &[&str]) -> Self {
        Self::Namespaces(names.iter().map(|name| (*name).to_owned()).collect())
    }
}

/// The tables of the store, for statements that name them without a database.
#[derive(Clone)]
pub(crate) struct Tables {
    client: Client,
    /// The database's name as SQL.
    database: String,
    /// What hashes of hidden values are keyed with: without it, an address could be found by trying all.
    key: [u64; 2],
}

impl Tables {
    pub(crate) fn new(client: Client, database: &str) -> Self {
        let database = format!("`{}`", database.replace('\\', "\\\\").replace('`', "\\`"));
        Self { client, database, key: [(); 2].map(|()| RandomState::new().hash_one(0)) }
    }

    /// A question of a caller: a `SELECT` without FORMAT, and without FINAL, which [`view`] says.
    pub(crate) fn ask(&self, scope: &Scope, statement: &str) -> Query {
        match scope {
            Scope::All => self.client.query_raw(statement),
            Scope::Namespaces(names) => {
                let views: Vec<_> = TABLES.iter().map(|table| self.view(table)).collect();
                let statement = format!("WITH {} SELECT * FROM ({statement}\n)", views.join(",\n"));
                self.client
                    .query_raw(&statement)
                    // The statement's ORDER BY is one of a subquery now, and meant nevertheless.
                    .with_setting("query_plan_remove_redundant_sorting", "0")
                    .param("scope", &**names)
                    .param("scope_key_0", self.key[0])
                    .param("scope_key_1", self.key[1])
            }
        }
    }

    /// A question about the store itself, with the same answer for every caller, and nothing of a caller in it.
    pub(crate) fn ask_for_all(&self, statement: &str) -> Query {
        self.client.query_raw(statement)
    }

    fn view(&self, (name, columns): &(&str, Columns)) -> String {
        let select = match columns {
            Columns::Flows => {
                let observer = ["node", "agent", "interface"];
                let observer = observer.map(|column| replaced(column, OWN_OBSERVER, "''"));
                let ends = ["client", "server"].map(|side| end_columns(side, FULL)).concat();
                let id = replaced(
                    "connection_id",
                    &format!(
                        "id_kind != 'tuple_hash' OR ({} AND {})",
                        known("client"),
                        known("server")
                    ),
                    &keyed("connection_id"),
                );
                self.of_ends(name, [ends, observer.to_vec(), vec![id]].concat())
            }
            Columns::Edges => {
                let client = ["name", "node", "ip", "real_ip", "seen_ip"];
                let ends = [end_columns("client", &client), end_columns("server", FULL)];
                self.of_ends(name, ends.concat())
            }
            Columns::WorkloadEdges => {
                let client = end_columns("client", &["name", "real_ip"]);
                let server = end_columns("server", &["name", "real_ip", "real_port"]);
                self.of_ends(name, [client, server].concat())
            }
            // How much was seen is of use to everybody, and where only to who may see all.
            Columns::Coverage => {
                let names =
                    ["node", "agent"].map(|column| format!("{} AS {column}", pseudonym(column)));
                let columns = [
                    names.to_vec(),
                    vec!["CAST([], 'Array(IPv6)') AS announced_addresses".to_owned()],
                ];
                self.replacing(name, &columns.concat(), "true")
            }
            Columns::CoverageHours => {
                self.replacing(name, &[format!("{} AS agent", pseudonym("agent"))], "true")
            }
            Columns::Identities => {
                format!("SELECT * FROM {}.{name} FINAL WHERE namespace IN {SCOPE}", self.database)
            }
            Columns::Whole => format!("SELECT * FROM {}.{name}", self.database),
            Columns::Nothing => "SELECT 0 WHERE false".to_owned(),
        };
        format!("{name} AS ({select})")
    }

    /// Rows with an own end.
    fn of_ends(&self, name: &str, columns: Vec<String>) -> String {
        self.replacing(name, &columns, &format!("{} OR {}", own("client"), own("server")))
    }

    fn replacing(&self, name: &str, columns: &[String], condition: &str) -> String {
        let columns = columns.join(", ");
        format!("SELECT * REPLACE ({columns}) FROM {}.{name} WHERE {condition}", self.database)
    }
}

/// What of a table is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Columns {
    Flows,
    Edges,
    WorkloadEdges,
    Coverage,
    CoverageHours,
    Identities,
    /// Nothing: it is of nobody's objects.
    Whole,
    /// All of it: no question of a caller reads it.
    Nothing,
}

/// Every table and view of the schema.
const TABLES: &[(&str, Columns)] = &[
    ("flows", Columns::Flows),
    ("edges_1m", Columns::Edges),
    ("edges_1h", Columns::Edges),
    ("edges_1d", Columns::Edges),
    ("edges_1w", Columns::Edges),
    ("workload_edges_1h", Columns::WorkloadEdges),
    ("workload_edges_1d", Columns::WorkloadEdges),
    ("workload_edges_1w", Columns::WorkloadEdges),
    ("coverage", Columns::Coverage),
    ("coverage_1h", Columns::CoverageHours),
    ("identities", Columns::Identities),
    ("identities_seen", Columns::Whole),
    ("deliveries", Columns::Nothing),
    ("flows_named", Columns::Nothing),
    ("edges", Columns::Nothing),
    ("edges_1m_view", Columns::Nothing),
    ("edges_1h_view", Columns::Nothing),
    ("edges_1d_view", Columns::Nothing),
    ("edges_1w_view", Columns::Nothing),
    ("workload_edges_1h_view", Columns::Nothing),
    ("workload_edges_1d_view", Columns::Nothing),
    ("workload_edges_1w_view", Columns::Nothing),
    ("coverage_1h_view", Columns::Nothing),
];

/// What an end has that can be hidden, where it has ports.
const FULL: &[&str] = &["name", "node", "ip", "real_ip", "real_port", "seen_ip", "seen_port"];

const SCOPE: &str = "{scope:Array(String)}";

/// The observation is on an own end's side, or of a connection between two of them.
const OWN_OBSERVER: &str = "multiIf(reporter = 'client', client_namespace IN {scope:Array(String)}, \
     reporter = 'server', server_namespace IN {scope:Array(String)}, \
     client_namespace IN {scope:Array(String)} AND server_namespace IN {scope:Array(String)})";

fn own(side: &str) -> String {
    format!("({side}_namespace IN {SCOPE})")
}

/// An end that nothing is hidden of.
fn known(side: &str) -> String {
    format!("({} OR {side}_kind = 'external')", own(side))
}

fn end_columns(side: &str, columns: &[&str]) -> Vec<String> {
    let column = |column: &&str| {
        let name = format!("{side}_{column}");
        match *column {
            // A Service's is the one that clients say.
            "name" => replaced(&name, &format!("{} OR {side}_kind = 'service'", known(side)), "''"),
            "node" => replaced(&name, &known(side), "''"),
            "real_port" => replaced(&name, &known(side), &format!("{side}_port")),
            "seen_port" => replaced(&name, &known(side), "0"),
            _ => replaced(&name, &known(side), "toIPv6('::')"),
        }
    };
    columns.iter().map(column).collect()
}

fn replaced(column: &str, shown: &str, otherwise: &str) -> String {
    format!("if({shown}, {column}, {otherwise}) AS {column}")
}

/// A number for a hidden one: the same for the same, for as long as this process runs.
fn keyed(column: &str) -> String {
    format!("sipHash64Keyed(({{scope_key_0:UInt64}}, {{scope_key_1:UInt64}}), {column})")
}

/// Tells one from another without naming either.
fn pseudonym(column: &str) -> String {
    format!(
        "concat('agent-', leftPad(lower(hex({})), 16, '0'))",
        keyed(&format!("toString({column})"))
    )
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use flowtrail_schema::sql::MIGRATIONS;

    use super::*;

    /// What the schema makes: each table's columns of names, addresses and ids; none of a view.
    fn schema() -> BTreeMap<String, BTreeSet<String>> {
        let mut tables = BTreeMap::new();
        for migration in MIGRATIONS {
            let sql = migration.statement;
            assert!(!sql.contains("ALTER TABLE"), "read what {} alters too", migration.name);
            let made = sql.split_once(" IF NOT EXISTS ").map(|(_, rest)| rest);
            let Some(rest) = made else { panic!("{} makes nothing", migration.name) };
            let name: String = rest.chars().take_while(|c| !c.is_whitespace()).collect();
            let telling = |line: &str| {
                let mut words = line.strip_prefix("    ")?.split_whitespace();
                let (column, kind) = (words.next()?, words.next()?);
                let names = kind.contains("String") || kind.contains("IPv6");
                let numbers = column.ends_with("port") || column.ends_with("id");
                (names || numbers).then(|| column.to_owned())
            };
            let is_view = sql.contains(" VIEW IF NOT EXISTS ");
            let columns = rest.lines().filter(|_| !is_view).filter_map(telling).collect();
            tables.insert(name, columns);
        }
        tables
    }

    #[test]
    fn every_table_and_telling_column_of_the_schema_is_decided_upon() {
        let tables = Tables::new(Client::default(), "flowtrail");
        let schema = schema();
        let known: BTreeSet<_> = TABLES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(schema.keys().cloned().collect::<BTreeSet<_>>(), known);

        let mut shown = BTreeSet::new();
        let ends = TABLES
            .iter()
            .filter(|(_, columns)| !matches!(columns, Columns::Nothing | Columns::Identities));
        for table in ends {
            let view = tables.view(table);
            let hidden = |column: &String| view.contains(&format!(" AS {column}"));
            shown.extend(schema[table.0].iter().filter(|column| !hidden(column)).cloned());
        }
        let expected = [
            "client_namespace",
            "client_port",
            "client_workload",
            "client_workload_kind",
            "server_namespace",
            "server_port",
            "server_workload",
            "server_workload_kind",
            "service_name",
            "service_namespace",
            "topic_id",
        ];
        assert_eq!(shown.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn who_is_forgotten_sees_nothing() {
        assert_eq!(Scope::default(), Scope::namespaces(&[]));
    }
}
