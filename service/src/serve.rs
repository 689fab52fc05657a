//! Serving HTTP/1 on a port, so that no client holds more than its share: what it may send before it is
//! let go, how long it may take, and how many there may be.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Connections at once: a browser opens six, a dashboard's server some tens. More wait in the kernel's
/// queue until one ends.
const MAX_CONNECTIONS: usize = 1_024;

/// Time for the head of a request to arrive, from the end of the one before or of the handshake: a client
/// that sends it byte by byte, or nothing, is let go.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head of a request, in bytes: twice the longest URL that a service takes.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How long what was sent may stay without acknowledgement, or the client's window closed, before the kernel
/// ends the connection (`TCP_USER_TIMEOUT`, tcp(7)): one that stopped reading holds no answer for ever.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a connection could not be taken: the process has too many open files, say.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves routes on a listener until the token is cancelled; requests under way are finished.
pub async fn serve_router(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    let next = async || {
        let place = Arc::clone(&places).acquire_owned().await;
        (place, listener.accept().await)
    };
    while let Some((place, accepted)) = shutdown.run_until_cancelled(next()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot take a connection");
                shutdown.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
                continue;
            }
        };
        configure(&stream);
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

fn configure(stream: &TcpStream) {
    // An answer's last bytes are a write of their own: held back until the client acknowledges those
    // before, which clients put off, they would cost each request 40 ms.
    let configured = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT)));
    if let Err(error) = configured {
        debug!(%error, "cannot configure a connection");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn served() -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let slow = || async {
            sleep(Duration::from_millis(100)).await;
            "done"
        };
        let router = Router::new().route("/", get(slow));
        let serving = tokio::spawn(serve_router(listener, router, shutdown.clone()));
        (address, shutdown, serving)
    }

    async fn answer(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_request_under_way_is_finished_and_no_other_is_taken() {
        let (address, shutdown, serving) = served().await;
        let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let asked = tokio::spawn(async move { answer(address, request).await });
        sleep(Duration::from_millis(30)).await;
        shutdown.cancel();
        assert!(asked.await.unwrap().ends_with("done"));
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let (address, shutdown, _serving) = served().await;
        let long = "x".repeat(2 * MAX_HEAD_BYTES);
        let request = format!("GET / HTTP/1.1\r\nhost: x\r\na: {long}\r\n\r\n");
        let answer = answer(address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
        shutdown.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_say_what_it_wants_is_let_go() {
        let (address, _shutdown, _serving) = served().await;
        assert_eq!(answer(address, b"GET / HTTP/1.1\r\nhost:").await, "");
    }
}
