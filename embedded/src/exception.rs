//! Errors as ClickHouse's HTTP interface answers them: text, a code in a header, a status.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The header that carries the code; its presence tells clients that an answer is an error.
pub(crate) const EXCEPTION_CODE: &str = "x-clickhouse-exception-code";

/// An error with ClickHouse's code, from the engine or of this interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exception {
    /// ClickHouse's error code (`src/Common/ErrorCodes.cpp`); 1002 is its "unknown".
    pub(crate) code: u32,
    /// As in `Code: 60. DB::Exception: …`, without line end.
    pub(crate) message: String,
}

impl Exception {
    /// What the engine said. Its messages begin with the code.
    pub(crate) fn engine(message: String) -> Self {
        let code = message
            .strip_prefix("Code: ")
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(code, _)| code.parse().ok());
        match code {
            Some(code) => Self { code, message: message.trim_end().to_owned() },
            None => Self::new(1002, "UNKNOWN_EXCEPTION", message.trim_end()),
        }
    }

    /// An error of this interface, in ClickHouse's words.
    pub(crate) fn new(code: u32, name: &str, text: &str) -> Self {
        Self { code, message: format!("Code: {code}. DB::Exception: {text}. ({name})") }
    }

    pub(crate) fn syntax(text: &str) -> Self {
        Self::new(62, "SYNTAX_ERROR", text)
    }

    pub(crate) fn bad_argument(text: &str) -> Self {
        Self::new(36, "BAD_ARGUMENTS", text)
    }

    pub(crate) fn not_implemented(text: &str) -> Self {
        Self::new(48, "NOT_IMPLEMENTED", text)
    }

    /// A clause by which a client program, not a server, works on files.
    pub(crate) fn file(clause: &str) -> Self {
        Self::bad_argument(&format!(
            "{clause} is for programs with files of their own: send and read the data over HTTP"
        ))
    }

    /// The status that ClickHouse answers with (`src/Server/HTTP/exceptionCodeToHTTPStatus.cpp`).
    pub(crate) fn status(&self) -> StatusCode {
        match self.code {
            194 => StatusCode::UNAUTHORIZED,
            192 | 193 | 497 | 512 | 516 => StatusCode::FORBIDDEN,
            6 | 8 | 15 | 25 | 26 | 27 | 36 | 37 | 38 | 41 | 44 | 53 | 62 | 72 | 117 | 123 | 167
            | 168 | 223 | 321 | 376 | 427 | 441 | 675 | 676 => StatusCode::BAD_REQUEST,
            46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 | 152 | 336 | 511 => {
                StatusCode::NOT_FOUND
            }
            229 => StatusCode::PAYLOAD_TOO_LARGE,
            48 => StatusCode::NOT_IMPLEMENTED,
            76 | 209 | 439 => StatusCode::SERVICE_UNAVAILABLE,
            779 => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            381 => StatusCode::LENGTH_REQUIRED,
            159 => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Exception {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(format!("{}\n", self.message)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
        headers.insert(EXCEPTION_CODE, self.code.into());
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_read_from_the_message() {
        let message = "Code: 60. DB::Exception: Table a.b does not exist. (UNKNOWN_TABLE)\n";
        let exception = Exception::engine(message.to_owned());
        assert_eq!((exception.code, exception.status()), (60, StatusCode::NOT_FOUND));
        assert_eq!(exception.message, message.trim_end());
    }

    #[test]
    fn a_message_without_a_code_gets_one() {
        let exception = Exception::engine("out of luck".to_owned());
        assert_eq!(exception.code, 1002);
        assert!(exception.message.starts_with("Code: 1002. DB::Exception: out of luck."));
    }
}
