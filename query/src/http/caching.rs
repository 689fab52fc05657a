//! Which answers may be kept, and for how long: those on windows that will have no other.

use std::hash::BuildHasher;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use foldhash::quality::FixedState;

use crate::answer::{Coverage, Window};
use crate::problem::Problem;
use crate::window::has_settled;

/// How long a settled answer may be taken from a cache without asking, of others and of ours: then what came later
/// than after [`crate::window::SETTLES_AFTER_MS`] is seen.
pub(super) const MAX_AGE: Duration = Duration::from_secs(300);

/// An answer, and whether the same question will have the same one.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) body: T,
    pub(crate) settled: bool,
}

/// Marks a response whose answer is settled.
#[derive(Clone, Copy)]
struct Settled;

impl<T: IntoResponse> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let mut response = self.body.into_response();
        if self.settled {
            response.extensions_mut().insert(Settled);
        }
        response
    }
}

/// Whether a window is over, was seen by agents without a gap, and ended long enough ago. `now_ms` is
/// milliseconds since the epoch.
pub(crate) fn is_settled(window: &Window, coverage: &Coverage, now_ms: i64) -> bool {
    window.complete_until >= window.to
        && coverage.agents > 0
        && coverage.intervals_reported >= coverage.intervals_expected
        && has_settled(window.to, now_ms)
}

/// Says of every answer whether it may be kept, and spares callers the one they have. With tokens no
/// shared cache may keep it: `private`.
pub(crate) async fn conditional(
    State(private): State<bool>,
    request: Request,
    next: Next,
) -> Response {
    let have = (request.method() == Method::GET).then(|| request.headers().clone());
    let response = next.run(request).await;
    let (mut parts, body) = response.into_parts();
    if parts.extensions.remove::<Settled>().is_none() || parts.status != StatusCode::OK {
        parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Response::from_parts(parts, body);
    }
    let visibility = if private { "private" } else { "public" };
    let control = format!("{visibility}, max-age={}", MAX_AGE.as_secs());
    if let Ok(control) = HeaderValue::from_str(&control) {
        parts.headers.insert(header::CACHE_CONTROL, control);
    }
    if private {
        parts.headers.append(header::VARY, HeaderValue::from_static("authorization"));
    }
    let Some(have) = have else { return Response::from_parts(parts, body) };
    // It is in memory already: this takes it, and copies nothing.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer broke off")
            .into_response();
    };
    let tag = tag(&bytes);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, tag);
    }
    if matches(&have, &tag) {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// Weak, because it is of the answer and not of how it is compressed (RFC 9110, 8.8.1). The same from every process of
/// this version.
fn tag(bytes: &[u8]) -> String {
    format!("W/\"{:016x}\"", FixedState::default().hash_one(bytes))
}

/// `If-None-Match`, compared weakly (RFC 9110, 13.1.2).
fn matches(headers: &HeaderMap, tag: &str) -> bool {
    let values =
        headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let opaque = tag.trim_start_matches("W/");
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|given| given == "*" || given.trim_start_matches("W/") == opaque)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::SETTLES_AFTER_MS;

    #[test]
    fn only_a_whole_window_of_the_past_is_settled() {
        let window = Window {
            from: 0,
            to: 60_000,
            requested_from: 0,
            requested_to: 60_000,
            resolution_s: 10,
            complete_until: 60_000,
        };
        let coverage = Coverage {
            agents: 2,
            intervals_expected: 12,
            intervals_reported: 12,
            ..Coverage::default()
        };
        let now_ms = 60_000 + SETTLES_AFTER_MS;
        assert!(is_settled(&window, &coverage, now_ms));
        assert!(!is_settled(&window, &coverage, now_ms - 1));
        assert!(!is_settled(&Window { complete_until: 50_000, ..window }, &coverage, now_ms));
        assert!(!is_settled(&window, &Coverage { intervals_reported: 11, ..coverage }, now_ms));
        assert!(!is_settled(&window, &Coverage::default(), now_ms));
    }

    #[test]
    fn a_tag_is_found_in_a_list_weak_or_not() {
        let tag = tag(b"{}");
        let given = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(value).unwrap());
            matches(&headers, &tag)
        };
        assert!(given(&tag) && given("*") && given(&format!("\"x\", {tag}")));
        assert!(given(tag.trim_start_matches("W/")));
        assert!(!given("\"x\"") && !given(""));
    }
}
