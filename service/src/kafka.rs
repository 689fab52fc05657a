//! How to reach Kafka: flags that capture and ingest share, as librdkafka's properties.

use std::fmt;

use clap::{Args, ValueEnum};
use flowtrail_schema::topic::FLOWS_TOPIC;
use tracing::warn;

use crate::secret::{Secret, secret_file};
use crate::tls::{Certificates, certificates_file, key_file};

/// Where Kafka is, and how to be let in. Files are read when the flags are.
#[derive(Args, Clone)]
pub struct KafkaArgs {
    /// Brokers to ask first, as host:port, separated by commas.
    #[arg(
        long,
        env = "FLOWTRAIL_KAFKA_BROKERS",
        default_value = "127.0.0.1:9092",
        value_name = "HOST:PORT,…",
        help_heading = "Kafka"
    )]
    pub kafka_brokers: String,

    /// Topic of the flow records.
    #[arg(long, env = "FLOWTRAIL_KAFKA_TOPIC", default_value = FLOWS_TOPIC, value_name = "NAME", help_heading = "Kafka")]
    pub kafka_topic: String,

    /// Encrypt the connections, and check that the brokers are who they say.
    #[arg(long, env = "FLOWTRAIL_KAFKA_TLS", help_heading = "Kafka")]
    pub kafka_tls: bool,

    /// PEM file of the certificate authorities that the brokers' certificates are signed by, instead of
    /// those that the system trusts.
    #[arg(long, env = "FLOWTRAIL_KAFKA_CA_FILE", value_parser = certificates_file, value_name = "FILE", requires = "kafka_tls", help_heading = "Kafka")]
    pub kafka_ca_file: Option<Certificates>,

    /// PEM file of the certificate to show to brokers that ask for one.
    #[arg(long, env = "FLOWTRAIL_KAFKA_CERTIFICATE_FILE", value_parser = certificates_file, value_name = "FILE", requires_all = ["kafka_tls", "kafka_key_file"], help_heading = "Kafka")]
    pub kafka_certificate_file: Option<Certificates>,

    /// PEM file of that certificate's private key, unencrypted.
    #[arg(long, env = "FLOWTRAIL_KAFKA_KEY_FILE", value_parser = key_file, value_name = "FILE", requires = "kafka_certificate_file", help_heading = "Kafka")]
    pub kafka_key_file: Option<Secret>,

    /// How to log in to the brokers, with --kafka-user and a password.
    #[arg(long, env = "FLOWTRAIL_KAFKA_SASL_MECHANISM", value_enum, value_name = "MECHANISM", requires_all = ["kafka_user", "kafka_secret"], help_heading = "Kafka")]
    pub kafka_sasl_mechanism: Option<SaslMechanism>,

    /// User to log in as.
    #[arg(
        long,
        env = "FLOWTRAIL_KAFKA_USER",
        value_name = "NAME",
        requires = "kafka_sasl_mechanism",
        help_heading = "Kafka"
    )]
    pub kafka_user: Option<String>,

    /// Password of that user; better given in the environment than on the command line.
    #[arg(
        long,
        env = "FLOWTRAIL_KAFKA_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD",
        group = "kafka_secret",
        requires = "kafka_sasl_mechanism",
        help_heading = "Kafka"
    )]
    pub kafka_password: Option<Secret>,

    /// File with that password, read at start.
    #[arg(long, env = "FLOWTRAIL_KAFKA_PASSWORD_FILE", value_parser = secret_file, value_name = "FILE", group = "kafka_secret", requires = "kafka_sasl_mechanism", help_heading = "Kafka")]
    pub kafka_password_file: Option<Secret>,

    /// Any further librdkafka property; may be repeated.
    #[arg(long, env = "FLOWTRAIL_KAFKA_PROPERTY", hide_env_values = true, value_delimiter = ',', value_parser = property, value_name = "NAME=VALUE", help_heading = "Kafka")]
    pub kafka_property: Vec<(String, String)>,
}

/// How to log in to a broker (SASL).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SaslMechanism {
    /// The password itself: only with TLS.
    Plain,
    /// RFC 7677.
    #[value(name = "scram-sha-256")]
    ScramSha256,
    /// The same with SHA-512.
    #[value(name = "scram-sha-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// Its name among SASL's mechanisms.
    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl KafkaArgs {
    /// Settings for brokers, all else by default.
    pub fn at(brokers: String) -> Self {
        Self {
            kafka_brokers: brokers,
            kafka_topic: FLOWS_TOPIC.to_owned(),
            kafka_tls: false,
            kafka_ca_file: None,
            kafka_certificate_file: None,
            kafka_key_file: None,
            kafka_sasl_mechanism: None,
            kafka_user: None,
            kafka_password: None,
            kafka_password_file: None,
            kafka_property: Vec::new(),
        }
    }

    /// The properties for librdkafka, the user's own last.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        let protocol = match (self.kafka_tls, self.kafka_sasl_mechanism) {
            (false, None) => "plaintext",
            (true, None) => "ssl",
            (false, Some(_)) => "sasl_plaintext",
            (true, Some(_)) => "sasl_ssl",
        };
        let authorities = match &self.kafka_ca_file {
            Some(authorities) => ("ssl.ca.pem", authorities.pem()),
            // Where this system has them, wherever OpenSSL was compiled to look.
            None => ("ssl.ca.location", "probe"),
        };
        let password = self.kafka_password.as_ref().or(self.kafka_password_file.as_ref());
        let optional = [
            self.kafka_tls.then_some(authorities),
            self.kafka_certificate_file.as_ref().map(|chain| ("ssl.certificate.pem", chain.pem())),
            self.kafka_key_file.as_ref().map(|key| ("ssl.key.pem", key.expose())),
            self.kafka_sasl_mechanism.map(|mechanism| ("sasl.mechanism", mechanism.as_str())),
            self.kafka_user.as_deref().map(|user| ("sasl.username", user)),
            password.map(|password| ("sasl.password", password.expose())),
        ];
        let own = self.kafka_property.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let first =
            [("bootstrap.servers", self.kafka_brokers.as_str()), ("security.protocol", protocol)];
        first.into_iter().chain(optional.into_iter().flatten()).chain(own)
    }

    /// Says if what is configured works, but not as securely as one may think.
    pub fn warn_of_risks(&self) {
        if self.kafka_sasl_mechanism.is_some() && !self.kafka_tls {
            warn!("kafka's user logs in over connections that are not encrypted: add --kafka-tls");
        }
    }
}

/// Which flags to check when librdkafka cannot connect: its reason names the layer that failed.
pub fn what_to_check(reason: &str) -> &'static str {
    if reason.contains("SASL") {
        "--kafka-sasl-mechanism, --kafka-user and its password"
    } else if reason.contains("SSL") {
        "--kafka-tls and --kafka-ca-file"
    } else {
        "--kafka-brokers"
    }
}

/// Properties may be secrets too: their names alone.
impl fmt::Debug for KafkaArgs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.properties().map(|(name, _)| name).collect();
        formatter
            .debug_struct("KafkaArgs")
            .field("brokers", &self.kafka_brokers)
            .field("topic", &self.kafka_topic)
            .field("properties", &names)
            .finish()
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| "write NAME=VALUE, like socket.timeout.ms=5000".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        kafka: KafkaArgs,
    }

    fn parse(words: &[&str]) -> Result<KafkaArgs, String> {
        let words = ["capture"].iter().chain(words);
        Command::try_parse_from(words)
            .map(|command| command.kafka)
            .map_err(|error| error.to_string())
    }

    #[track_caller]
    fn fails_saying(words: &[&str], expected: &str) {
        let error = parse(words).err().unwrap();
        assert!(error.contains(expected), "{words:?}: {error}");
    }

    #[test]
    fn defaults_of_flags_and_code_agree() {
        let properties = |args: &KafkaArgs| format!("{:?}", args.properties().collect::<Vec<_>>());
        let parsed = parse(&[]).unwrap();
        assert_eq!(properties(&parsed), properties(&KafkaArgs::at("127.0.0.1:9092".to_owned())));
        assert_eq!(parsed.kafka_topic, FLOWS_TOPIC);
        assert!(properties(&parsed).contains("\"plaintext\""));
    }

    #[test]
    fn half_a_login_names_the_other_half() {
        fails_saying(&["--kafka-user=u"], "--kafka-sasl-mechanism");
        fails_saying(&["--kafka-sasl-mechanism=plain", "--kafka-password=p"], "--kafka-user");
        fails_saying(&["--kafka-sasl-mechanism=plain", "--kafka-user=u"], "--kafka-password-file");
        fails_saying(&["--kafka-sasl-mechanism=gssapi"], "scram-sha-512");
        fails_saying(&["--kafka-password=p"], "--kafka-sasl-mechanism");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "p").unwrap();
        let file = format!("--kafka-password-file={}", path.display());
        let login = ["--kafka-sasl-mechanism=plain", "--kafka-user=u", "--kafka-password=p"];
        fails_saying(&[&login[..], &[&file]].concat(), "cannot be used with");
        fails_saying(&["--kafka-ca-file=/nowhere.pem", "--kafka-tls"], "/nowhere.pem");
    }

    #[test]
    fn a_login_over_tls_is_told_to_librdkafka_and_to_nobody_else() {
        let words = ["--kafka-tls", "--kafka-sasl-mechanism=scram-sha-512", "--kafka-user=flow"];
        let secrets = ["--kafka-password=hunter2", "--kafka-property=ssl.key.password=hunter2"];
        let args = parse(&[&words[..], &secrets[..]].concat()).unwrap();
        let properties: Vec<_> = args.properties().collect();
        for expected in [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", "probe"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "flow"),
            ("sasl.password", "hunter2"),
        ] {
            assert!(properties.contains(&expected), "{expected:?}");
        }
        assert_eq!(properties.last(), Some(&("ssl.key.password", "hunter2")));
        assert!(!format!("{args:?}").contains("hunter2"));
        for secret in ["kafka_password", "kafka_property"] {
            let command = Command::command();
            let mut flags = command.get_arguments();
            assert!(flags.any(|flag| flag.get_id() == secret && flag.is_hide_env_values_set()));
        }
    }
}
