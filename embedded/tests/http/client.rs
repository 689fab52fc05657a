//! The `clickhouse` crate with its defaults: LZ4 and validation.

use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};

use crate::common::shared;

#[derive(Row, Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Event {
    id: u64,
    name: String,
    parts: Vec<u32>,
}

fn event(id: u64) -> Event {
    Event { id, name: format!("it's \\ number {id}"), parts: vec![id as u32; (id % 5) as usize] }
}

async fn client(database: &str) -> Client {
    let client = Client::default().with_url(&shared().url);
    client.query(&format!("CREATE DATABASE {database}")).execute().await.unwrap();
    let client = client.with_database(database);
    client
        .query(
            "CREATE TABLE events (id UInt64, name String, parts Array(UInt32)) ENGINE = MergeTree \
             ORDER BY id SETTINGS non_replicated_deduplication_window = 100",
        )
        .execute()
        .await
        .unwrap();
    client
}

async fn insert(client: &Client, ids: std::ops::Range<u64>) -> clickhouse::error::Result<()> {
    let mut insert = client.insert::<Event>("events").await?;
    for id in ids {
        insert.write(&event(id)).await?;
    }
    insert.end().await
}

async fn count(client: &Client) -> u64 {
    client.query("SELECT count() FROM events").fetch_one().await.unwrap()
}

#[tokio::test]
async fn rows_come_back_as_they_were_inserted() {
    let client = client("rows").await;
    insert(&client, 0..100_000).await.unwrap();
    let rows: Vec<Event> =
        client.query("SELECT ?fields FROM events ORDER BY id").fetch_all().await.unwrap();
    assert_eq!(rows.len(), 100_000);
    assert!(rows.iter().enumerate().all(|(id, row)| *row == event(id as u64)));
}

#[tokio::test]
async fn values_reach_a_query_bound_or_as_parameters() {
    let client = client("bound").await;
    insert(&client, 0..100).await.unwrap();
    let bound: Vec<Event> = client
        .query("SELECT ?fields FROM events WHERE name = ? AND id IN ?")
        .bind(event(7).name)
        .bind([6_u64, 7, 8])
        .fetch_all()
        .await
        .unwrap();
    assert_eq!(bound, [event(7)]);
    let given: Vec<Event> = client
        .query("SELECT ?fields FROM events WHERE name = {name: String} AND has({ids: Array(UInt64)}, id)")
        .param("name", event(7).name)
        .param("ids", vec![6_u64, 7, 8])
        .fetch_all()
        .await
        .unwrap();
    assert_eq!(given, [event(7)]);
    let strange = "a\tb\nc'd\"e\\f{g}é\0;--";
    let back: String =
        client.query("SELECT {text: String}").param("text", strange).fetch_one().await.unwrap();
    assert_eq!(back, strange);
}

#[tokio::test]
async fn bytes_come_in_the_format_asked_for() {
    let client = client("bytes").await;
    insert(&client, 0..2).await.unwrap();
    let mut bytes =
        client.query("SELECT id FROM events ORDER BY id").fetch_bytes("JSONEachRow").unwrap();
    assert_eq!(bytes.collect().await.unwrap(), "{\"id\":0}\n{\"id\":1}\n".as_bytes());
}

#[tokio::test]
async fn a_token_inserts_its_rows_once() {
    let client = client("tokens").await;
    let with = |token| client.clone().with_setting("insert_deduplication_token", token);
    insert(&with("a"), 0..10).await.unwrap();
    // Other rows, same token: the token decides.
    insert(&with("a"), 10..20).await.unwrap();
    assert_eq!(count(&client).await, 10);
    insert(&with("b"), 0..10).await.unwrap();
    assert_eq!(count(&client).await, 20);
}

#[tokio::test]
async fn settings_end_with_their_request() {
    let client = client("settings").await;
    let threads = |client: &Client| {
        client
            .query("SELECT toString(getSetting('max_threads')), toString(getSetting('readonly'))")
            .fetch_one::<(String, String)>()
    };
    let set = client.clone().with_setting("max_threads", "3").with_setting("readonly", "2");
    assert_eq!(threads(&set).await.unwrap(), ("3".to_owned(), "2".to_owned()));
    let (after, readonly) = threads(&client).await.unwrap();
    assert_ne!(after, "3");
    assert_eq!(readonly, "0");
}

#[tokio::test]
async fn an_aborted_insert_leaves_nothing() {
    let client = client("aborted").await;
    let mut aborted = client.insert::<Event>("events").await.unwrap();
    for id in 0..50_000 {
        aborted.write(&event(id)).await.unwrap();
    }
    drop(aborted);
    // The abort is counted when the engine's side has ended.
    crate::plain::wait_for("flowtrail_embedded_requests_cancelled_total", 1).await;
    assert_eq!(count(&client).await, 0);
}

#[tokio::test]
async fn queries_run_beside_an_open_insert() {
    let client = client("beside").await;
    let mut open = client.insert::<Event>("events").await.unwrap();
    open.write(&event(1000)).await.unwrap();
    let queries = (0..20_u64).map(|id| {
        let client = client.clone();
        tokio::spawn(async move {
            insert(&client, id..id + 1).await.unwrap();
            client.query("SELECT sum(number) FROM numbers(?)").bind(id).fetch_one::<u64>().await
        })
    });
    for (id, query) in queries.collect::<Vec<_>>().into_iter().enumerate() {
        let id = id as u64;
        assert_eq!(query.await.unwrap().unwrap(), id * id.saturating_sub(1) / 2);
    }
    assert_eq!(count(&client).await, 20);
    open.end().await.unwrap();
    assert_eq!(count(&client).await, 21);
}

#[tokio::test]
async fn errors_are_the_engines() {
    let client = client("failing").await;
    let error = client.query("SELECT * FROM nothing").execute().await.unwrap_err();
    assert!(error.to_string().contains("Code: 60."), "{error}");
    // After a part of the answer is under way.
    let error = client
        .query("SELECT number, throwIf(number = 3000000) AS b FROM numbers(5000000)")
        .fetch_all::<(u64, u8)>()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"), "{error}");
    // An insert that the engine ends while rows are still coming.
    let cut = client.clone().with_setting("max_partitions_per_insert_block", "many");
    let error = insert(&cut, 0..100_000).await.unwrap_err();
    assert!(error.to_string().contains("Code: "), "{error}");
}
