//! The head of an answer: ClickHouse's headers.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

use crate::engine::Engine;
use crate::libchdb::Outcome;

/// Headers of an answer that is being made.
pub(crate) struct Head(HeaderMap);

impl Head {
    pub(super) fn new(engine: &Engine, query_id: &str, format: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(format)));
        Self(headers)
            .with("x-clickhouse-query-id", query_id)
            .with("x-clickhouse-format", format)
            .with("x-clickhouse-timezone", engine.timezone())
            .with("x-clickhouse-server-display-name", "flowtrail")
    }

    /// Says by what the text of an error in the middle of the answer is recognised.
    pub(crate) fn exception_tag(self, tag: &str) -> Self {
        self.with("x-clickhouse-exception-tag", tag)
    }

    /// Says what a statement read and wrote.
    pub(crate) fn summary(self, outcome: &Outcome) -> Self {
        let summary = serde_json::json!({
            "read_rows": outcome.rows_read.to_string(),
            "read_bytes": outcome.bytes_read.to_string(),
            "written_rows": outcome.rows_written.to_string(),
            "written_bytes": outcome.bytes_written.to_string(),
            "elapsed_ns": ((outcome.elapsed * 1e9) as u64).to_string(),
        });
        self.with("x-clickhouse-summary", &summary.to_string())
    }

    pub(crate) fn body(self, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.headers_mut() = self.0;
        response
    }

    /// Adds a header, unless its value, a caller's, cannot be in one.
    fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.insert(HeaderName::from_static(name), value);
        }
        self
    }
}

/// The content type of a format's answers, as ClickHouse gives it.
fn content_type(format: &str) -> &'static str {
    match format {
        "JSONEachRow" | "JSONLines" | "NDJSON" | "JSONStringsEachRow" => {
            "application/x-ndjson; charset=UTF-8"
        }
        format if format.starts_with("JSON") => "application/json; charset=UTF-8",
        format if format.starts_with("CSV") => "text/csv; charset=UTF-8",
        format if format.starts_with("TSV") || format.starts_with("TabSeparated") => {
            "text/tab-separated-values; charset=UTF-8"
        }
        "XML" => "application/xml; charset=UTF-8",
        "Markdown" => "text/markdown; charset=UTF-8",
        "Native"
        | "RowBinary"
        | "RowBinaryWithNames"
        | "RowBinaryWithNamesAndTypes"
        | "Parquet"
        | "Arrow"
        | "ArrowStream"
        | "ORC"
        | "Avro"
        | "MsgPack"
        | "Protobuf" => "application/octet-stream",
        _ => "text/plain; charset=UTF-8",
    }
}
