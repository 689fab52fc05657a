//! Whatever goes wrong on the way to and from a handler is a problem too.

use std::any::Any;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// Longest path and query, in bytes: two hundred namespaces and three patterns, percent-encoded.
const MAX_URL_BYTES: usize = 32 << 10;
/// Most of a text that others wrote of an error, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 10;

/// Turns URLs away that are too long, and other errors than problems into such: axum's own, say.
pub(crate) async fn uniform(request: Request, next: Next) -> Response {
    let url = request.uri().path_and_query().map_or(0, |url| url.as_str().len());
    if url > MAX_URL_BYTES {
        let detail = format!("the URL has {url} bytes; at most {MAX_URL_BYTES} are read");
        return Problem::new(StatusCode::URI_TOO_LONG, detail).into_response();
    }
    let response = next.run(request).await;
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !(status.is_client_error() || status.is_server_error())
        || kind.is_some_and(|kind| kind == Problem::CONTENT_TYPE)
    {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_TEXT_BYTES).await.unwrap_or_default();
    let detail = String::from_utf8(text.into()).unwrap_or_default();
    let mut response = Problem::new(status, detail).into_response();
    // Which methods there are, of a wrong one.
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allow.clone());
    }
    response
}

/// What callers see of a panic; its message and place are in the log.
pub(crate) fn panicked(_: Box<dyn Any + Send>) -> Response {
    let detail = "the service has a defect: the log of flowtrail query has more; please report it";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
}
