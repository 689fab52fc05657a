//! What an HTTP request asks, from its URL, headers and body
//! (ClickHouse, `src/Server/HTTPHandler.cpp`).

mod upload;

use std::time::Duration;

use axum::extract::{FromRequest, Multipart, Query};
use axum::http::{HeaderMap, Method, header, request::Parts};
use bytes::{Bytes, BytesMut};

use crate::access::{Credentials, Role};
use crate::exception::Exception;
use crate::native;
use crate::statement::{Statement, guard, without_comments};
use tokio::time::timeout;
use upload::RECEIVE_TIMEOUT;
pub(crate) use upload::Upload;

/// Longest statement, in bytes, its parameters and URL aside: query's longest, with the edges and nodes of its
/// largest graph, has about one megabyte. The engine's own `max_query_size` is 256 KiB unless a request sets it.
pub(crate) const MAX_STATEMENT_BYTES: usize = 8 << 20;

/// Parameters of the URL that are neither settings nor asked for here: they tune what a
/// server does with connections.
const IGNORED: [&str; 6] = [
    "quota_key",
    "stacktrace",
    "buffer_size",
    "wait_end_of_query",
    "session_timeout",
    "session_check",
];

/// How a request wants its statement run and answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) credentials: Credentials,
    pub(crate) database: Option<String>,
    pub(crate) default_format: Option<String>,
    pub(crate) query_id: Option<String>,
    /// Names are words, values any text.
    pub(crate) settings: Vec<(String, String)>,
    /// For `{name:Type}` placeholders.
    pub(crate) parameters: Vec<(String, String)>,
    /// Answer in ClickHouse's compressed blocks.
    pub(crate) compress: bool,
    /// Revision of the protocol that Native answers are to be of; 0 is the format's own.
    pub(crate) revision: u64,
    /// The body is in ClickHouse's compressed blocks.
    decompress: bool,
    statement: Option<String>,
}

/// A request's statement, ready to run.
pub(crate) enum Plan {
    /// Answers with rows: head, output clause, tail.
    Query { head: String, tail: String, format: String },
    /// Takes the rows in `first`, then those uploaded.
    Insert { head: String, format: String, first: Bytes, rest: Option<Upload> },
    /// Neither.
    Command { text: String, format: String },
}

impl Plan {
    /// Checks that a role may run this.
    ///
    /// # Errors
    /// ClickHouse's, for what it may not.
    pub(crate) fn check(&self, role: Role) -> Result<(), Exception> {
        let reader = role == Role::Reader;
        match self {
            _ if role == Role::Service => Ok(()),
            Self::Query { head, tail, .. } => guard::check(&format!("{head} {tail}"), reader),
            _ if reader => Err(guard::not_for_readers("it takes queries only")),
            Self::Insert { head, .. } => guard::check(head, reader),
            Self::Command { text, .. } => guard::check(text, reader),
        }
    }

    /// Reads what the client still sends, so that it sees an error.
    pub(crate) async fn discard(self) {
        if let Self::Insert { rest: Some(rest), .. } = self {
            rest.discard().await;
        }
    }
}

/// Reads a request; `None` if it asks nothing.
///
/// # Errors
/// If it is not what ClickHouse's interface takes, or asks what the embedded engine has not.
pub(crate) async fn read(
    request: axum::extract::Request,
) -> Result<Option<(Options, Plan)>, Exception> {
    let (parts, body) = request.into_parts();
    let mut options = Options::of_url_and_headers(&parts)?;
    if is_multipart(&parts.headers) {
        let request = axum::extract::Request::from_parts(parts, body);
        let read = options.read_form(request);
        timeout(RECEIVE_TIMEOUT, read).await.unwrap_or_else(|_| Err(upload::stalled()))?;
        let text = options.statement.take().unwrap_or_default();
        let plan = plan(text.into(), &mut None, &options)?;
        return Ok(Some((options, plan)));
    }
    if let Some(encoding) = parts.headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(Exception::not_implemented(
            "Content-Encoding of a request: send the body plain, or in ClickHouse's blocks with decompress=1",
        ));
    }
    let mut upload = Upload::new(body, options.decompress);
    let text = match options.statement.take() {
        Some(statement) => {
            let text = Bytes::from(statement);
            if !matches!(Statement::parse(&text), Ok(Statement::Insert { .. })) {
                // The statement goes on in the body.
                let mut text = BytesMut::from(&text[..]);
                let mut body = BytesMut::new();
                upload.fill(&mut body, MAX_STATEMENT_BYTES).await?;
                if !body.is_empty() {
                    text.extend_from_slice(b"\n");
                    text.unsplit(body);
                }
                text.freeze()
            } else {
                text
            }
        }
        None => {
            let mut text = BytesMut::new();
            upload.fill(&mut text, MAX_STATEMENT_BYTES).await?;
            if text.is_empty() && parts.method != Method::POST {
                return Ok(None);
            }
            text.freeze()
        }
    };
    let mut upload = Some(upload);
    match plan(text, &mut upload, &options) {
        Ok(plan) => Ok(Some((options, plan))),
        Err(exception) => {
            if let Some(upload) = upload {
                upload.discard().await;
            }
            Err(exception)
        }
    }
}

/// The rows that follow an INSERT are taken from `upload`; nothing may follow another statement.
fn plan(text: Bytes, upload: &mut Option<Upload>, options: &Options) -> Result<Plan, Exception> {
    let default = |format: Option<&str>, otherwise: &str| {
        let format = format.or(options.default_format.as_deref());
        format.unwrap_or(otherwise).to_owned()
    };
    let more = upload.as_ref().is_some_and(|upload| !upload.is_done());
    match Statement::parse(&text)? {
        Statement::Insert { head, format, data } => Ok(Plan::Insert {
            format: default(format, "Values"),
            head: without_comments(head),
            first: text.slice(data..),
            rest: upload.take(),
        }),
        _ if more => Err(Exception::new(
            229,
            "QUERY_IS_TOO_LARGE",
            &format!("The statement is longer than {MAX_STATEMENT_BYTES} bytes"),
        )),
        Statement::Query { head, tail, format } => Ok(Plan::Query {
            format: default(format, "TabSeparated"),
            head: without_comments(head),
            tail: without_comments(tail),
        }),
        Statement::Command(text) => Ok(Plan::Command {
            text: without_comments(text),
            format: default(None, "TabSeparated"),
        }),
    }
}

impl Options {
    /// How long the statement may take: what the request asks for, if it is less than the most.
    pub(crate) fn time_limit(&self, most: Duration) -> Duration {
        let asked = self.settings.iter().rev().find(|(name, _)| name == "max_execution_time");
        let seconds = asked.and_then(|(_, value)| value.parse().ok()).filter(|asked| *asked > 0.0);
        let asked = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        asked.map_or(most, |asked| asked.min(most))
    }

    fn of_url_and_headers(parts: &Parts) -> Result<Self, Exception> {
        let mut options = Self::default();
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|error| Exception::bad_argument(&format!("The URL's query: {error}")))?;
        for (name, value) in pairs {
            options.set(name, value)?;
        }
        options.credentials = options.credentials.or_of_headers(&parts.headers)?;
        let header = |name: &str| -> Option<String> {
            Some(parts.headers.get(name)?.to_str().ok()?.to_owned())
        };
        options.database = options.database.or_else(|| header("x-clickhouse-database"));
        let format = || header("x-clickhouse-format").filter(|format| !format.is_empty());
        options.default_format = options.default_format.or_else(format);
        if options.revision > 0 {
            // First, so that a request's own come after them.
            let ours = native::SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
            options.settings.splice(0..0, ours);
        }
        // A link that is followed must not change anything, whatever else it asks for; 1 is stricter.
        if parts.method != Method::POST {
            let strict = |(name, value): &(String, String)| name == "readonly" && value == "1";
            let readonly = if options.settings.iter().any(strict) { "1" } else { "2" };
            options.settings.retain(|(name, _)| name != "readonly");
            options.settings.push(("readonly".to_owned(), readonly.to_owned()));
        }
        Ok(options)
    }

    async fn read_form(&mut self, request: axum::extract::Request) -> Result<(), Exception> {
        let unreadable =
            |error: String| Exception::bad_argument(&format!("The multipart body: {error}"));
        let mut form = Multipart::from_request(request, &())
            .await
            .map_err(|error| unreadable(error.body_text()))?;
        while let Some(field) =
            form.next_field().await.map_err(|error| unreadable(error.body_text()))?
        {
            let name = field.name().unwrap_or_default().to_owned();
            if field.file_name().is_some() {
                return Err(Exception::not_implemented("A table sent as a file of a form"));
            }
            let value = field.text().await.map_err(|error| unreadable(error.body_text()))?;
            self.set(name, value)?;
        }
        Ok(())
    }

    /// Takes one parameter of the URL or field of a form.
    fn set(&mut self, name: String, value: String) -> Result<(), Exception> {
        if let Some(parameter) = name.strip_prefix("param_") {
            self.parameters.push((parameter.to_owned(), value));
            return Ok(());
        }
        let some = |value: String| Some(value).filter(|value| !value.is_empty());
        match name.as_str() {
            "user" => self.credentials.user = some(value),
            "password" => self.credentials.password = Some(value),
            "query" => match &mut self.statement {
                Some(statement) => statement.push_str(&value),
                None => self.statement = some(value),
            },
            "database" => self.database = some(value),
            "default_format" => self.default_format = some(value),
            "query_id" => self.query_id = some(value),
            "compress" => self.compress = value == "1" || value == "true",
            "decompress" => self.decompress = value == "1" || value == "true",
            "session_id" | "role" => {
                return Err(Exception::not_implemented(&format!(
                    "{name}: the embedded engine has neither sessions nor roles; leave it out"
                )));
            }
            "client_protocol_version" => {
                self.revision = value.parse().map_err(|_| {
                    Exception::bad_argument("client_protocol_version is to be a number")
                })?;
            }
            // It would be another's.
            "profile" => {
                return Err(Exception::new(
                    452,
                    "SETTING_CONSTRAINT_VIOLATION",
                    "profile: a user of the embedded engine has one and keeps it",
                ));
            }
            name if IGNORED.contains(&name) => {}
            _ if name.is_empty()
                || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
            {
                return Err(Exception::new(
                    115,
                    "UNKNOWN_SETTING",
                    &format!("{name:?} is no setting's name"),
                ));
            }
            _ => self.settings.push((name, value)),
        }
        Ok(())
    }
}

fn is_multipart(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("multipart/form-data"))
}
