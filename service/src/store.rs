//! The way to ClickHouse: connection settings, and the schema's version.
//!
//! The embedded engine, a server and a cluster are all reached over HTTP by the same client.

mod error;
mod schema;

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use clickhouse::error::Error;
use clickhouse::{Client, Compression, Row};
use flowtrail_schema::sql::{DATABASE, MIGRATIONS, VERSION};
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tracing::{error, warn};

pub use error::StoreError;
pub use schema::RetentionArgs;

use crate::secret::{Secret, secret_file};
use crate::tls::{self, Certificates, certificates_file};

/// How long a connection that nobody uses is kept: less than the 3 s after which ClickHouse closes it, as
/// a request on its way would then be lost.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where ClickHouse is and who asks.
#[derive(Args, Clone, Debug)]
pub struct ClickHouseArgs {
    /// ClickHouse's HTTP interface, http or https.
    #[arg(
        long,
        env = "FLOWTRAIL_CLICKHOUSE_URL",
        default_value = "http://127.0.0.1:8123",
        value_name = "URL",
        help_heading = "ClickHouse"
    )]
    pub clickhouse_url: String,

    /// PEM file of certificate authorities that an https server's certificate may be signed by, besides
    /// those that the system trusts.
    #[arg(long, env = "FLOWTRAIL_CLICKHOUSE_CA_FILE", value_parser = certificates_file, value_name = "FILE", help_heading = "ClickHouse")]
    pub clickhouse_ca_file: Option<Certificates>,

    /// Database that holds Flowtrail's tables.
    #[arg(long, env = "FLOWTRAIL_CLICKHOUSE_DATABASE", default_value = DATABASE, value_name = "NAME", help_heading = "ClickHouse")]
    pub clickhouse_database: String,

    /// User to connect as; ClickHouse's default user without it.
    #[arg(
        long,
        env = "FLOWTRAIL_CLICKHOUSE_USER",
        value_name = "NAME",
        help_heading = "ClickHouse"
    )]
    pub clickhouse_user: Option<String>,

    /// Password of that user; better given in the environment than on the command line.
    #[arg(
        long,
        env = "FLOWTRAIL_CLICKHOUSE_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD",
        group = "clickhouse_secret",
        help_heading = "ClickHouse"
    )]
    pub clickhouse_password: Option<Secret>,

    /// File with that password, read at start.
    #[arg(long, env = "FLOWTRAIL_CLICKHOUSE_PASSWORD_FILE", value_parser = secret_file, value_name = "FILE", group = "clickhouse_secret", help_heading = "ClickHouse")]
    pub clickhouse_password_file: Option<Secret>,
}

impl ClickHouseArgs {
    /// Settings for a store at a URL, all else by default.
    pub fn at(url: String) -> Self {
        Self {
            clickhouse_url: url,
            clickhouse_ca_file: None,
            clickhouse_database: DATABASE.to_owned(),
            clickhouse_user: None,
            clickhouse_password: None,
            clickhouse_password_file: None,
        }
    }

    /// Checks what flags say together, and warns of what works but is not secure.
    ///
    /// # Errors
    /// If they contradict each other.
    pub fn validate(&self) -> Result<(), StoreError> {
        check_url(&self.clickhouse_url)?;
        if self.is_https() {
            return Ok(());
        }
        if self.clickhouse_ca_file.is_some() {
            return Err(StoreError::NotTls(self.clickhouse_url.clone()));
        }
        if self.password().is_some() {
            warn!(
                "clickhouse's password is sent over connections that are not encrypted: use https in --clickhouse-url"
            );
        }
        Ok(())
    }

    /// A client for the configured database. Connects when used.
    pub fn client(&self) -> Client {
        self.client_without_database()
            .with_database(&self.clickhouse_database)
            // A question about two tables of a cluster: what is compared or joined is asked for once, of all
            // shards, and not by each shard of all others. Of one server's tables it says nothing.
            .with_setting("distributed_product_mode", "global")
    }

    fn client_without_database(&self) -> Client {
        let mut client = self.unconfigured_client().with_url(&self.clickhouse_url);
        if self.is_on_this_machine() {
            // Packing and unpacking would cost both sides more than the bytes do.
            client = client.with_compression(Compression::None);
        }
        if let Some(user) = &self.clickhouse_user {
            client = client.with_user(user);
        }
        if let Some(password) = self.password() {
            client = client.with_password(password.expose());
        }
        client
    }

    fn is_on_this_machine(&self) -> bool {
        let after_scheme = self.clickhouse_url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = after_scheme.split(['/', '?']).next().unwrap_or_default();
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    fn unconfigured_client(&self) -> Client {
        if !self.is_https() {
            return Client::default();
        }
        match tls::connector(self.clickhouse_ca_file.as_ref()) {
            Ok(connector) => Client::with_http_client(
                hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                    .pool_idle_timeout(POOL_IDLE_TIMEOUT)
                    .build(connector),
            ),
            Err(error) => {
                // The plain client then refuses the URL: nothing goes out unencrypted.
                error!(%error, "no tls in this build");
                Client::default()
            }
        }
    }

    fn is_https(&self) -> bool {
        self.clickhouse_url.starts_with("https://")
    }

    fn password(&self) -> Option<&Secret> {
        self.clickhouse_password.as_ref().or(self.clickhouse_password_file.as_ref())
    }

    /// Checks that the tables are of the version this program works with.
    ///
    /// # Errors
    /// If ClickHouse is away, or holds an older or a newer schema.
    pub async fn check(&self) -> Result<(), StoreError> {
        match self.version().await? {
            found if found > VERSION => Err(StoreError::Newer { found, known: VERSION }),
            found if found < VERSION => Err(StoreError::Older { found, needed: VERSION }),
            _ => Ok(()),
        }
    }

    /// The applied version; 0 without tables.
    async fn version(&self) -> Result<u32, StoreError> {
        #[derive(Row, Deserialize)]
        struct Count {
            tables: u64,
        }
        #[derive(Row, Deserialize)]
        struct Version {
            version: u32,
            name: String,
        }
        let there: Count = self
            .client_without_database()
            .query("SELECT count() AS tables FROM system.tables WHERE database = ? AND name = 'schema_migrations'")
            .bind(&self.clickhouse_database)
            .fetch_one()
            .await
            .map_err(|source| self.failed("look for schema_migrations", source))?;
        if there.tables == 0 {
            return Ok(0);
        }
        let applied: Vec<Version> = self
            .client()
            .query("SELECT version, name FROM schema_migrations ORDER BY version")
            .fetch_all()
            .await
            .map_err(|source| self.failed("read schema_migrations", source))?;
        for (applied, ours) in applied.iter().zip(MIGRATIONS) {
            if (applied.version, applied.name.as_str()) != (ours.version, ours.name) {
                return Err(StoreError::Foreign {
                    version: ours.version,
                    found: applied.name.clone(),
                    known: ours.name,
                });
            }
        }
        Ok(applied.last().map_or(0, |last| last.version))
    }

    pub(crate) fn failed(&self, what: &str, source: Error) -> StoreError {
        let url = self.clickhouse_url.clone();
        match source {
            Error::Network(_) | Error::TimedOut => match tls::failure(&source) {
                Some(reason) => StoreError::Tls { url, reason },
                None => StoreError::Unreachable { url, source },
            },
            Error::BadResponse(ref answer) if is_login_refused(answer) => {
                let user = self.clickhouse_user.as_deref().unwrap_or("its default user");
                StoreError::Refused { url, user: user.to_owned(), source }
            }
            source => StoreError::Statement { what: what.to_owned(), source },
        }
    }
}

/// ClickHouse's UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD and AUTHENTICATION_FAILED.
const LOGIN_CODES: [&str; 4] = ["Code: 192.", "Code: 193.", "Code: 194.", "Code: 516."];

fn is_login_refused(answer: &str) -> bool {
    LOGIN_CODES.iter().any(|code| answer.contains(code))
}

/// Checks what is said of the URL without showing it.
fn check_url(text: &str) -> Result<(), StoreError> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest.and_then(|rest| rest.split('/').next()) {
        Some(authority) if authority.contains('@') => Err(StoreError::Url(
            "name the user with --clickhouse-user, the password with --clickhouse-password-file",
        )),
        Some(authority) if !authority.is_empty() => Ok(()),
        _ => Err(StoreError::Url("write http:// or https://, a host and a port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(url: &str) -> String {
        ClickHouseArgs::at(url.to_owned()).validate().unwrap_err().to_string()
    }

    #[test]
    fn a_url_that_is_not_usable_is_told_without_a_password_in_it() {
        let with_password = said("http://flow:hunter2@localhost:8123/");
        assert!(with_password.contains("--clickhouse-password-file"), "{with_password}");
        assert!(!with_password.contains("hunter2"), "{with_password}");
        for url in ["localhost:8123", "ftp://localhost", "https:///path", ""] {
            assert!(said(url).contains("write http://"), "{url}");
        }
        assert!(ClickHouseArgs::at("https://[::1]:8443".to_owned()).validate().is_ok());
    }
}
