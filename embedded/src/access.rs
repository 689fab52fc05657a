//! Who may do what on the embedded engine, and how much of it: users, their passwords, and limits.
//!
//! libchdb has one user, so users are of this interface. What the engine can hold them to, it does, by
//! a settings profile with constraints, and its strict read-only mode for readers: what their
//! requests set is set before that.

mod credentials;

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use clap::Args;
use flowtrail_service::config::duration;
use flowtrail_service::secret::{Secret, secret_file};

use crate::exception::Exception;
pub(crate) use credentials::Credentials;

/// The user that Grafana and the query service read as.
const READER: &str = "reader";

/// The user of whoever names none.
const DEFAULT: &str = "default";

/// The user of this process's own services.
const SERVICE: &str = "flowtrail";

/// Users of the embedded engine's HTTP interface, and limits for each of their statements.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Access {
    /// Most memory that one statement of a client may take, in MiB; a client may ask for less with
    /// max_memory_usage. At least 1024, which the query service asks for.
    #[arg(
        long,
        env = "FLOWTRAIL_CLICKHOUSE_MAX_MEMORY_MIB",
        // Twice what a graph may take: a heavy panel beside a graph fits in a laptop's 8 GiB.
        default_value_t = 2048,
        value_parser = clap::value_parser!(u32).range(1024..),
        value_name = "MIB",
        help_heading = "Embedded ClickHouse"
    )]
    pub clickhouse_max_memory_mib: u32,

    /// Longest time that one statement of a client may run, at least 1s; a client may ask for less with
    /// max_execution_time.
    #[arg(
        long,
        env = "FLOWTRAIL_CLICKHOUSE_MAX_EXECUTION_TIME",
        // Above the 240 s that an ingest in another process asks for.
        default_value = "300s",
        value_parser = seconds,
        value_name = "DURATION",
        help_heading = "Embedded ClickHouse"
    )]
    pub clickhouse_max_execution_time: Duration,

    /// File with a password for the user `default`, who may read and change everything; without one,
    /// everybody who reaches the port may.
    #[arg(long, env = "FLOWTRAIL_CLICKHOUSE_DEFAULT_PASSWORD_FILE", value_parser = secret_file, value_name = "FILE", help_heading = "Embedded ClickHouse")]
    pub clickhouse_default_password_file: Option<Secret>,

    /// File with a password for the user `reader`, who may only read tables: the user for Grafana.
    #[arg(long, env = "FLOWTRAIL_CLICKHOUSE_READER_PASSWORD_FILE", value_parser = secret_file, value_name = "FILE", help_heading = "Embedded ClickHouse")]
    pub clickhouse_reader_password_file: Option<Secret>,
}

impl Default for Access {
    /// The flags' defaults.
    fn default() -> Self {
        Self {
            clickhouse_max_memory_mib: 2048,
            clickhouse_max_execution_time: Duration::from_mins(5),
            clickhouse_default_password_file: None,
            clickhouse_reader_password_file: None,
        }
    }
}

/// A duration of a second or more.
fn seconds(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < Duration::from_secs(1) => Err("it is below 1s".to_owned()),
        time => Ok(time),
    }
}

/// A name and a password to log in with.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user.
    pub user: &'static str,
    /// The password; none is needed without.
    pub password: Option<Secret>,
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Everything, without limits: the services of this process.
    Service,
    /// Everything, within limits.
    Client,
    /// Reading tables, within limits.
    Reader,
}

impl Role {
    /// The settings profile that the engine holds the role to, if to any.
    pub(crate) fn profile(self) -> Option<&'static str> {
        match self {
            Self::Service => None,
            Self::Client | Self::Reader => Some("limited"),
        }
    }
}

/// The users, and the limits of all but this process's services.
#[derive(Debug)]
pub(crate) struct Users {
    service: Login,
    client: Login,
    reader: Login,
    /// Of one statement, in bytes.
    max_memory: u64,
    /// Of one statement.
    pub(crate) max_execution_time: Duration,
}

impl Users {
    /// The users, with a new password for this process's services.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub(crate) fn new(access: &Access) -> io::Result<Self> {
        let login = |user, password: &Option<Secret>| Login { user, password: password.clone() };
        Ok(Self {
            service: Login { user: SERVICE, password: Some(password()?) },
            client: login(DEFAULT, &access.clickhouse_default_password_file),
            reader: login(READER, &access.clickhouse_reader_password_file),
            max_memory: u64::from(access.clickhouse_max_memory_mib) << 20,
            max_execution_time: access.clickhouse_max_execution_time,
        })
    }

    pub(crate) fn service(&self) -> &Login {
        &self.service
    }

    pub(crate) fn reader(&self) -> &Login {
        &self.reader
    }

    /// Whether everything may be changed without a password.
    pub(crate) fn are_open(&self) -> bool {
        self.client.password.is_none()
    }

    /// Whose credentials these are.
    ///
    /// # Errors
    /// ClickHouse's, which does not tell an unknown user from a wrong password.
    pub(crate) fn role(&self, credentials: &Credentials) -> Result<Role, Exception> {
        let user = credentials.user.as_deref().unwrap_or(DEFAULT);
        let given = credentials.password.as_deref().unwrap_or_default();
        let roles = [Role::Service, Role::Client, Role::Reader];
        let known = [&self.service, &self.client, &self.reader].into_iter().zip(roles);
        for (login, role) in known.filter(|(login, _)| login.user == user) {
            if login.password.as_ref().is_none_or(|password| password.is(given.as_bytes())) {
                return Ok(role);
            }
        }
        Err(Exception::new(
            516,
            "AUTHENTICATION_FAILED",
            &format!(
                "{user}: Authentication failed: password is incorrect, or there is no user with such name"
            ),
        ))
    }

    /// The limits as settings.
    pub(crate) fn limits(&self) -> [(&'static str, u64); 2] {
        [
            ("max_memory_usage", self.max_memory),
            ("max_execution_time", self.max_execution_time.as_secs()),
        ]
    }

    /// The engine's configuration, for a file of that absolute path: the profile of [`Role::profile`]. 0 is
    /// no limit in ClickHouse, so it is not among what may be asked for.
    pub(crate) fn configuration(&self, path: &str) -> String {
        let path = path.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let limit = |(name, most)| format!("<{name}><min>1</min><max>{most}</max></{name}>");
        let limits = self.limits().map(limit).concat();
        format!(
            "<clickhouse>
<users_config>{path}</users_config>
<profiles><default/><limited><constraints>{limits}</constraints></limited></profiles>
<users><default><password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default></users>
<quotas><default/></quotas>
</clickhouse>
",        )
    }
}

/// A password that is not to be guessed.
fn password() -> io::Result<Secret> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(Secret::from(bytes.map(|byte| format!("{byte:02x}")).concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(default: Option<&str>, reader: Option<&str>) -> Users {
        let secret = |text: Option<&str>| text.map(|text| Secret::from(text.to_owned()));
        Users::new(&Access {
            clickhouse_default_password_file: secret(default),
            clickhouse_reader_password_file: secret(reader),
            ..Access::default()
        })
        .unwrap()
    }

    fn role(users: &Users, user: Option<&str>, password: Option<&str>) -> Option<Role> {
        let credentials =
            Credentials { user: user.map(str::to_owned), password: password.map(str::to_owned) };
        users.role(&credentials).ok()
    }

    #[test]
    fn a_user_is_known_by_its_password() {
        let users = users(Some("one"), Some("two"));
        assert_eq!(role(&users, Some("default"), Some("one")), Some(Role::Client));
        assert_eq!(role(&users, None, Some("one")), Some(Role::Client));
        assert_eq!(role(&users, Some("reader"), Some("two")), Some(Role::Reader));
        for (user, password) in [
            (None, None),
            (Some("default"), Some("two")),
            (Some("default"), Some("on")),
            (Some("default"), Some("ones")),
            (Some("reader"), Some("one")),
            (Some("reader"), None),
            (Some("flowtrail"), None),
            (Some("flowtrail"), Some("one")),
            (Some("nobody"), Some("one")),
        ] {
            assert_eq!(role(&users, user, password), None, "{user:?} {password:?}");
        }
        let service = users.service().password.clone().unwrap();
        assert_eq!(role(&users, Some("flowtrail"), Some(service.expose())), Some(Role::Service));
    }

    #[test]
    fn without_passwords_names_are_enough_but_for_the_services() {
        let users = users(None, None);
        assert_eq!(role(&users, None, None), Some(Role::Client));
        assert_eq!(role(&users, Some("reader"), Some("anything")), Some(Role::Reader));
        assert_eq!(role(&users, Some("flowtrail"), Some("")), None);
        let other = self::users(None, None);
        assert_ne!(users.service().password, other.service().password);
    }

    #[test]
    fn a_limit_below_a_second_is_refused() {
        assert_eq!(seconds("1s"), Ok(Duration::from_secs(1)));
        assert!(seconds("999ms").is_err() && seconds("0s").is_err());
    }
}
