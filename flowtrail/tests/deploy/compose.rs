//! docker-compose.yml, as far as the rules look at it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Debug, Deserialize)]
pub(crate) struct Compose {
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) networks: BTreeMap<String, Option<IgnoredAny>>,
    pub(crate) volumes: BTreeMap<String, Option<IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) image: String,
    #[serde(default)]
    pub(crate) command: Vec<String>,
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, Option<String>>,
    pub(crate) healthcheck: Option<HealthCheck>,
    #[serde(default)]
    pub(crate) ports: Vec<String>,
    #[serde(default)]
    pub(crate) volumes: Vec<Volume>,
    #[serde(default)]
    pub(crate) depends_on: BTreeMap<String, Dependency>,
    #[serde(default)]
    pub(crate) networks: Vec<String>,
    pub(crate) network_mode: Option<String>,
    pub(crate) restart: String,
    pub(crate) user: Option<String>,
    #[serde(default)]
    pub(crate) read_only: bool,
    #[serde(default)]
    pub(crate) security_opt: Vec<String>,
    #[serde(default)]
    pub(crate) cap_drop: Vec<String>,
    #[serde(default)]
    pub(crate) cap_add: Vec<String>,
    pub(crate) mem_limit: Option<String>,
    pub(crate) logging: Option<Logging>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct HealthCheck {
    pub(crate) test: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) condition: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Logging {
    pub(crate) options: BTreeMap<String, String>,
}

/// What is mounted.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Volume {
    /// A named volume: `name:/path`.
    Named(String),
    /// A file or folder of the host.
    Bind(Bind),
}

#[derive(Debug, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: String,
    pub(crate) target: String,
    #[serde(default)]
    pub(crate) read_only: bool,
}

impl Compose {
    pub(crate) fn parse(text: &str) -> Self {
        serde_saphyr::from_str(text).unwrap()
    }
}

impl Service {
    /// Whether it runs our binary.
    pub(crate) fn is_ours(&self) -> bool {
        self.image.starts_with("flowtrail:")
    }

    /// Whether it does something once and ends.
    pub(crate) fn ends(&self) -> bool {
        self.restart == "no"
    }

    /// A variable's value as the file has it; empty without.
    pub(crate) fn variable(&self, name: &str) -> &str {
        self.environment.get(name).and_then(Option::as_deref).unwrap_or_default()
    }
}

/// The variables that a text asks its surroundings for: `${NAME}`, `${NAME:-default}`, `${NAME:?error}`,
/// as name and rest.
pub(crate) fn variables(text: &str) -> Vec<(&str, &str)> {
    let inside = text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    inside.map(|inside| inside.split_at(inside.find(':').unwrap_or(inside.len()))).collect()
}

/// A value with the defaults of its variables, and `secret` for those that must be set.
pub(crate) fn interpolated(value: &str, secret: &str) -> String {
    variables(value).into_iter().fold(value.to_owned(), |text, (name, rest)| {
        text.replace(&format!("${{{name}{rest}}}"), rest.strip_prefix(":-").unwrap_or(secret))
    })
}
