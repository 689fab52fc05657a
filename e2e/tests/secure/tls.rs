//! Certificates of an authority of our own, and HTTPS with a login before a store that has neither.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// PEM files: `ca.pem`, `server.pem` (key and certificate), `client.pem`, `client.key`, and `other-ca.pem`,
/// an authority that signed none of them.
pub(crate) struct Certificates {
    pub(crate) directory: PathBuf,
}

impl Certificates {
    pub(crate) fn make(directory: &Path) -> Self {
        let directory = directory.join("tls");
        std::fs::create_dir(&directory).unwrap();
        let made = Self { directory };
        made.certificate("ca", &["-subj", "/CN=authority"]);
        made.certificate("other-ca", &["-subj", "/CN=another authority"]);
        for name in ["server", "client"] {
            let (ca, ca_key) = (made.file("ca.pem"), made.file("ca.key"));
            let signed = ["-CA", &ca, "-CAkey", &ca_key, "-subj", "/CN=test"];
            let end =
                ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"];
            made.certificate(name, &[&signed[..], &end].concat());
        }
        let read = |name: &str| std::fs::read_to_string(made.file(name)).unwrap();
        let both = read("server.key") + &read("server.pem");
        std::fs::write(made.file("server.pem"), both).unwrap();
        made
    }

    /// Makes `NAME.pem` and `NAME.key`.
    fn certificate(&self, name: &str, words: &[&str]) {
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "2", "-out", &self.file(&format!("{name}.pem"))])
            .args(["-keyout", &self.file(&format!("{name}.key"))])
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

/// Serves a plain HTTP server's answers over HTTPS, to those who know the password; until it is dropped.
pub(crate) struct HttpsProxy {
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

impl HttpsProxy {
    pub(crate) fn start(certificates: &Certificates, server: SocketAddr, password: &str) -> Self {
        let pem = std::fs::read(certificates.file("server.pem")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(&pem).unwrap()],
                PrivateKeyDer::from_pem_slice(&pem).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let expected = format!("x-clickhouse-key: {password}\r\n");
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (acceptor, expected) = (acceptor.clone(), expected.clone());
                // A client that ends the connection early has its reasons.
                tokio::spawn(async move { carry(acceptor, client, server, &expected).await.ok() });
            }
        });
        Self { address, _runtime: runtime }
    }
}

/// A connection's first request must have the header; its further ones are of the same client.
async fn carry(
    acceptor: TlsAcceptor,
    client: TcpStream,
    server: SocketAddr,
    expected: &str,
) -> std::io::Result<()> {
    let mut client = acceptor.accept(client).await?;
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    if !String::from_utf8_lossy(&head).contains(expected) {
        let body = "Code: 516. DB::Exception: default: Authentication failed: password is \
                    incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)\n";
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        client.write_all(answer.as_bytes()).await?;
        return client.shutdown().await;
    }
    let mut server = TcpStream::connect(server).await?;
    server.write_all(&head).await?;
    copy_bidirectional(&mut client, &mut server).await.map(|_| ())
}
