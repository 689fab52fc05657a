//! TLS: certificates and keys from PEM files, and the way to an HTTPS server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::CertificateResult;
use tracing::warn;

use crate::secret::{Secret, read};

/// After how long without traffic a connection is probed: a peer that vanished is noticed.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// Certificates of a PEM file, one at least.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificates {
    pem: String,
    parsed: Vec<CertificateDer<'static>>,
}

impl Certificates {
    /// The file's text.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{} certificates]", self.parsed.len())
    }
}

/// Reads the certificates of a PEM file: a parser for flags.
///
/// # Errors
/// If the file cannot be read, or holds no certificate or a broken one.
pub fn certificates_file(path: &str) -> Result<Certificates, String> {
    let pem = read(path)?;
    let parsed = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("it is not PEM: {error}"))?;
    let broken = |certificate| RootCertStore::empty().add(certificate).err();
    if let Some(error) = parsed.iter().cloned().find_map(broken) {
        return Err(format!("a certificate in it cannot be read: {error}"));
    }
    if parsed.is_empty() {
        return Err("there is no certificate in it: use a PEM file".to_owned());
    }
    Ok(Certificates { pem, parsed })
}

/// Reads the private key of a PEM file: a parser for flags.
///
/// # Errors
/// If the file cannot be read, or holds no key, or an encrypted one.
pub fn key_file(path: &str) -> Result<Secret, String> {
    let pem = read(path)?;
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(_) => Ok(pem.into()),
        Err(_) => Err("there is no unencrypted private key in it: use a PEM file".to_owned()),
    }
}

/// The certificate authorities that the system trusts, and those given.
pub fn trusted(given: Option<&Certificates>) -> Vec<CertificateDer<'static>> {
    let CertificateResult { mut certs, errors, .. } = rustls_native_certs::load_native_certs();
    certs.extend(given.iter().flat_map(|given| given.parsed.iter().cloned()));
    if certs.is_empty() {
        warn!(?errors, "this system trusts no certificate authority: name one with a CA file");
    }
    certs
}

/// What TLS is computed with.
pub fn cryptography() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Connects with TLS where the URL says https. Trusts the system's authorities and those given.
///
/// # Errors
/// If this build has no TLS version to offer.
pub(crate) fn connector(
    authorities: Option<&Certificates>,
) -> Result<HttpsConnector<HttpConnector>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted(authorities));
    let config = ClientConfig::builder_with_provider(cryptography())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_keepalive(Some(TCP_KEEPALIVE));
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http))
}

/// What TLS says of a failure, if it is one of TLS.
pub fn failure(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls.to_string());
        }
        // An I/O error's source is what the error it wraps has as its source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file.pem");
        std::fs::write(&path, content).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (directory, path)
    }

    #[test]
    fn a_file_that_is_not_what_the_flag_wants_says_so() {
        let (_kept, empty) = file("");
        assert!(certificates_file(&empty).unwrap_err().contains("no certificate"));
        assert!(key_file(&empty).unwrap_err().contains("no unencrypted private key"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let (_kept, broken) = file(broken);
        assert!(certificates_file(&broken).unwrap_err().contains("cannot be read"));
        assert!(certificates_file("/nowhere.pem").unwrap_err().contains("cannot read it"));
    }

    #[test]
    fn a_failure_of_tls_is_found_in_whatever_wraps_it() {
        let tls = rustls::Error::General("expired".to_owned());
        let wrapped = std::io::Error::other(std::io::Error::other(tls));
        assert!(failure(&wrapped).unwrap().contains("expired"));
        assert_eq!(failure(&std::io::Error::other("refused")), None);
    }
}
