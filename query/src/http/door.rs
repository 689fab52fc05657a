//! The door of all routes: who may ask.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::access::Access;
use crate::problem::Problem;
use crate::scope::Scope;

/// What anybody may ask: probes come without a token and are told no more than whether all is well, and the
/// API's description is in the sources.
const PUBLIC: &[&str] = &["/healthz", "/readyz", "/openapi.json"];
/// What only a token of all namespaces opens: it tells of all.
const UNLIMITED: &[&str] = &["/metrics"];

/// Lets a request pass with what its caller may see.
pub(crate) async fn guard(
    State(access): State<Access>,
    mut request: Request,
    next: Next,
) -> Response {
    if !access.is_asked(request.headers()) {
        let detail = "the request's Host header is none of this service's names: it listens on this machine alone, \
                      for whoever is here, and a name could be that of another site's page; use localhost or an \
                      address, or start it with --allowed-host NAME";
        return Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response();
    }
    if access.is_abused(request.headers()) {
        let detail = "a page of another site asks: this service is for whoever is on this machine";
        return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    let path = request.uri().path();
    if PUBLIC.contains(&path) {
        return next.run(request).await;
    }
    let Some(scope) = access.scope(request.headers()) else {
        let detail = "takes a token of --token-file: send `Authorization: Bearer TOKEN`, or the token as the \
                      password of HTTP's Basic scheme with any user";
        return Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    };
    if UNLIMITED.contains(&path) && scope != Scope::All {
        let detail = "takes a token of all namespaces: this one is limited";
        return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    request.extensions_mut().insert(scope);
    next.run(request).await
}
