//! One engine for the tests of a program: libchdb takes one a process.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::OnceLock;

use flowtrail_embedded::{Config, Engine, serve};
use flowtrail_service::metrics::Metrics;
use tokio_util::sync::CancellationToken;

pub(crate) struct Shared {
    pub(crate) url: String,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
}

/// Starts the engine on first use, in an empty folder under target/tmp.
pub(crate) fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let config = config("http");
        // Fails with what to do, `make engine`, where the library is missing.
        let engine = Engine::open(&config).unwrap_or_else(|error| panic!("{error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let metrics = Metrics::new();
        let served = metrics.clone();
        std::thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                serve(engine, listener, &served, CancellationToken::new()).await;
            });
        });
        Shared { url, config, metrics }
    })
}

/// The default library on an empty folder.
pub(crate) fn config(folder: &str) -> Config {
    let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("embedded-{folder}"));
    let _ = std::fs::remove_dir_all(&data);
    Config { engine: None, data: Some(data), clickhouse_listen: (Ipv4Addr::LOCALHOST, 0).into() }
}
