//! Stores that ingest must not write to: each is an error that says what to do, not one to wait over.

use axum::Router;
use axum::http::StatusCode;
use flowtrail_ingest::{Config, Ingest, IngestError, Source};
use flowtrail_schema::sql::VERSION;
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use flowtrail_service::store::{ClickHouseArgs, StoreError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::common::store;

async fn refusal(store: ClickHouseArgs) -> StoreError {
    let (_sender, receiver) = mpsc::channel(1);
    let source = Source::Channel { receiver, topic_id: "run".to_owned(), partitions: 1 };
    let ingest = Ingest::new(Config::default(), source, store, &Metrics::new()).unwrap();
    match ingest.run(Readiness::default().part("ingest"), CancellationToken::new()).await {
        Err(IngestError::Store(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_needs_a_newer_program() {
    let store = store("newer").await;
    let newer = VERSION + 1;
    let statement = format!(
        "INSERT INTO schema_migrations (version, name) VALUES ({newer}, 'from the future')"
    );
    store.client().query(&statement).execute().await.unwrap();
    let error = refusal(store.clone()).await;
    assert!(matches!(error, StoreError::Newer { found, known: VERSION } if found == newer));
    assert!(error.to_string().contains("use a newer flowtrail"), "{error}");
    assert!(matches!(store.migrate().await, Err(StoreError::Newer { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_made_by_other_steps_are_not_written_to() {
    let store = store("other_steps").await;
    let renamed = "ALTER TABLE schema_migrations UPDATE name = 'tables' WHERE version = 2 \
         SETTINGS mutations_sync = 2";
    store.client().query(renamed).execute().await.unwrap();
    let error = refusal(store.clone()).await.to_string();
    assert!(error.contains("step 2") && error.contains("tables, and coverage in this"), "{error}");
    assert!(matches!(store.migrate().await, Err(StoreError::Foreign { version: 2, .. })));
}

/// A server that answers every request alike.
async fn answering(status: StatusCode, text: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(move || async move { (status, text) });
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn a_wrong_password_is_not_taken_for_a_server_that_is_away() {
    let text = "Code: 516. DB::Exception: flow: Authentication failed: password is incorrect, or \
                there is no user with such name. (AUTHENTICATION_FAILED)";
    let address = answering(StatusCode::FORBIDDEN, text).await;
    let args = ClickHouseArgs {
        clickhouse_user: Some("flow".to_owned()),
        clickhouse_password: Some("hunter2".to_owned().into()),
        ..ClickHouseArgs::at(format!("http://{address}"))
    };
    let said = refusal(args).await.to_string();
    assert!(said.contains("does not let flow in: check --clickhouse-user"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn an_http_port_is_not_taken_for_an_https_one() {
    let address = answering(StatusCode::OK, "Ok.\n").await;
    let said = refusal(ClickHouseArgs::at(format!("https://{address}"))).await.to_string();
    assert!(said.contains("securely") && said.contains("its HTTPS interface"), "{said}");
}
