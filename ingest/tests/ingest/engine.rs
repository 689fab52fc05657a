//! A real engine behind HTTP, for as long as the test binary runs: libchdb takes one a process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use flowtrail_embedded::{Config, Engine, serve};
use flowtrail_service::metrics::Metrics;
use tokio_util::sync::CancellationToken;

/// Starts the engine on an emptied folder, in which a configuration may be put. Returns its URL.
pub(crate) fn start_engine(data: PathBuf, configure: fn(&Path)) -> String {
    let _ = std::fs::remove_dir_all(&data);
    configure(&data);
    let config =
        Config { engine: None, data: Some(data), clickhouse_listen: ([127, 0, 0, 1], 0).into() };
    let engine = Engine::open(&config).unwrap_or_else(|error| panic!("{error}"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        // Not a test's runtime: the engine outlives the test that starts it.
        tokio::runtime::Runtime::new().unwrap().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            serve(engine, listener, &Metrics::new(), CancellationToken::new()).await
        })
    });
    format!("http://{address}")
}
