//! `flowtrail up` with traffic in it, asked as Grafana asks.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::board::{fields, list, text};
use crate::grafana::{Scope, select};
use crate::traffic::{capture, names};

/// How long before now the traffic begins, seconds: it lasts three minutes.
const AGO_S: u64 = 600;

pub(crate) struct Up {
    process: Child,
    _data: tempfile::TempDir,
    query: String,
    clickhouse: String,
    /// The traffic's minute.
    pub(crate) start_s: u64,
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// What a query answers with: rows of fields, and the fields' names in order.
pub(crate) struct Answer {
    pub(crate) fields: Vec<String>,
    pub(crate) rows: Vec<Value>,
}

impl Up {
    /// Reads the traffic; ready when it is in the tables.
    pub(crate) fn start() -> Self {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let start_s = (now_s - AGO_S) / 60 * 60;
        let data = tempfile::tempdir().unwrap();
        let path = |name: &str| data.path().join(name).to_str().unwrap().to_owned();
        let created = chrono::DateTime::from_timestamp(start_s as i64 - 86_400, 0).unwrap();
        let names = names(&created.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        std::fs::write(path("names.json"), names.to_string()).unwrap();
        std::fs::write(path("traffic.pcap"), capture(start_s)).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_flowtrail"))
            .args(["up", "--listen", "127.0.0.1:0", "--clickhouse-listen", &free.to_string()])
            .args(["--data", &path("data"), "--read", &path("traffic.pcap")])
            .args(["--names", &path("names.json")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.into_iter().find(|line| line.starts_with("http://")).expect("no address");
        let (query, _) = url.split_once("/api/").unwrap();
        let (query, clickhouse) = (query.to_owned(), format!("http://{free}"));
        Self { process, _data: data, query, clickhouse, start_s }
    }

    /// Asks an Infinity query. Every field must be in every row, and of its type.
    pub(crate) fn infinity(&self, scope: &Scope, query: &Value) -> Result<Answer, String> {
        let params = list(&query["url_options"], "params").iter();
        let params: Vec<_> = params
            .map(|param| (text(param, "key"), scope.interpolate(text(param, "value"))))
            .collect();
        let url = format!("{}{}", self.query, text(query, "url"));
        let pairs = params.iter().map(|(name, value)| (*name, value.as_str()));
        let (status, body) = said(agent().get(&url).query_pairs(pairs).call());
        let asked = format!("{url} {params:?}");
        if status != 200 {
            return Err(format!("{asked}: {status} {body}"));
        }
        let answer: Value = serde_json::from_str(&body).unwrap();
        let root = select(&answer, text(query, "root_selector"));
        let root = root.ok_or_else(|| format!("{asked}: nothing at {}", query["root_selector"]))?;
        let rows = match root {
            Value::Array(rows) => rows,
            row => vec![row],
        };
        let columns = list(query, "columns");
        let framed = rows.iter().map(|row| {
            let field = |column: &Value| {
                let found = select(row, text(column, "selector"));
                let found = found.ok_or_else(|| format!("{asked}: no {column} in {row}"))?;
                let fits = match text(column, "type") {
                    "string" => found.is_string(),
                    "number" | "timestamp_epoch" => found.is_number(),
                    "boolean" => found.is_boolean(),
                    _ => false,
                };
                match fits || found.is_null() {
                    true => Ok((text(column, "text").to_owned(), found)),
                    false => Err(format!("{asked}: {column} is {found}")),
                }
            };
            columns.iter().map(field).collect::<Result<serde_json::Map<_, _>, _>>()
        });
        let framed = framed.collect::<Result<Vec<_>, _>>()?;
        for computed in list(query, "computed_columns") {
            let of = text(computed, "selector").split_once(" / ").map_or("", |(name, _)| name);
            let known = columns.iter().any(|column| column["text"] == of);
            known.then_some(()).ok_or_else(|| format!("{asked}: {computed} is of no column"))?;
        }
        let fields = fields(query).into_keys().collect();
        Ok(Answer { fields, rows: framed.into_iter().map(Value::Object).collect() })
    }

    /// Asks a statement as the user that Grafana has.
    pub(crate) fn sql(&self, sql: &str) -> Result<Answer, String> {
        let settings = [("user", "reader"), ("database", "flowtrail"), ("default_format", "JSON")];
        let asked = agent().post(&self.clickhouse).query_pairs(settings).send(sql);
        let (status, body) = said(asked);
        if status != 200 {
            return Err(format!("{sql}: {status} {body}"));
        }
        let answer: Value = serde_json::from_str(&body).unwrap();
        let mut fields = Vec::new();
        for column in list(&answer, "meta") {
            let kind = text(column, "type");
            // clickhouse-go cannot read the first, and panels cannot show the others.
            let hard = ["AggregateFunction", "Variant", "Dynamic", "Array", "Map", "Tuple", "IPv6"];
            if let Some(hard) = hard.iter().find(|hard| kind.contains(**hard)) {
                return Err(format!("{sql}: {} is of {hard}: cast it", column["name"]));
            }
            fields.push(text(column, "name").to_owned());
        }
        Ok(Answer { fields, rows: list(&answer, "data").to_vec() })
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build())
}

fn said(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, String) {
    let mut answer = answer.unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}
