//! That this program takes every container's arguments and variables: each is run with `--check-config`.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::rendered::{Object, each_set, items};

const BINARY: &str = env!("CARGO_BIN_EXE_flowtrail");

/// Where containers have their Secrets and ConfigMaps.
const FILES: &str = "/etc/flowtrail/";

#[test]
fn every_container_could_start() {
    let directory = tempfile::tempdir().unwrap();
    make_files(directory.path());
    each_set(|set, objects| {
        for object in objects.iter().filter(|object| object.pod().is_some()) {
            check(object, &object.place(set), directory.path());
        }
    });
}

fn check(object: &Object, place: &str, directory: &Path) {
    let container = object.container().unwrap();
    let help = help(items(&container["args"]));
    let mut command = Command::new(BINARY);
    command.env_clear().arg("--check-config").stdin(Stdio::null());
    for argument in items(&container["args"]) {
        let argument = argument.as_str().unwrap();
        if let Some((_, path)) = argument.split_once(&format!("={FILES}")) {
            let (volume, file) = path.split_once('/').unwrap();
            assert!(provides(object, volume, file), "{place}: no volume has {argument}");
        }
        let here = argument
            .replace(FILES, &format!("{}/", directory.display()))
            .replace("[$(HOST_IP)]", "[::1]")
            .replace("$(HOST_IP)", "127.0.0.1");
        command.arg(here);
    }
    for variable in items(&container["env"]) {
        let name = variable["name"].as_str().unwrap();
        let is_flag = help.contains(&format!("[env: {name}]"));
        assert!(is_flag || name == "HOST_IP", "{place}: there is no flag of {name}");
        command.env(name, variable["value"].as_str().unwrap_or("from-a-secret"));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{place}: {command:?} said: {said}");
}

/// The help of a container's command, variables without their values.
fn help(arguments: &[Value]) -> String {
    let words =
        arguments.iter().filter_map(Value::as_str).take_while(|word| !word.starts_with('-'));
    let output = Command::new(BINARY).env_clear().args(words).arg("--help").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().replace("=]", "]")
}

/// Whether a volume that is mounted under its own name has a file.
fn provides(object: &Object, volume: &str, file: &str) -> bool {
    let volumes = items(&object.pod().unwrap()["volumes"]).iter();
    let mounts = items(&object.container().unwrap()["volumeMounts"]).iter();
    let is_mounted = mounts
        .into_iter()
        .any(|mount| mount["name"] == volume && mount["mountPath"] == format!("{FILES}{volume}"));
    let mut found = volumes.filter(|item| item["name"] == volume);
    let has = |item: &Value| {
        [&item["secret"], &item["configMap"]]
            .iter()
            .any(|source| items(&source["items"]).iter().any(|item| item["path"] == file))
    };
    is_mounted && found.any(has)
}

/// What users put into Secrets and ConfigMaps.
fn make_files(directory: &Path) {
    for (volume, file) in
        [("kafka-login", "password"), ("clickhouse-login", "password"), ("tokens", "tokens")]
    {
        std::fs::create_dir_all(directory.join(volume)).unwrap();
        let content = match file {
            "tokens" => "grafana 0123456789abcdef0123456789abcdef *\n",
            _ => "password\n",
        };
        std::fs::write(directory.join(volume).join(file), content).unwrap();
    }
    let certificate = directory.join("kafka-certificate");
    std::fs::create_dir(&certificate).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=test", "-keyout", "tls.key", "-out", "tls.crt"])
        .current_dir(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for authority in ["kafka-ca", "clickhouse-ca"] {
        std::fs::create_dir(directory.join(authority)).unwrap();
        std::fs::copy(certificate.join("tls.crt"), directory.join(authority).join("ca.crt"))
            .unwrap();
    }
}
