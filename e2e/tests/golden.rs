//! The golden captures' tools: recording (needs root) and deriving. What the agent makes of the
//! captures is the capture crate's test.

use std::path::Path;
use std::process::Command;

fn golden() -> Command {
    Command::new(env!("CARGO_BIN_EXE_flowtrail-golden"))
}

#[test]
fn the_records_are_those_of_the_events() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../capture/tests/golden");
    let derived = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for file in std::fs::read_dir(&committed).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".json") {
            expected.push(name.to_owned());
        } else {
            std::fs::copy(&path, derived.path().join(name)).unwrap();
        }
    }
    let status = golden().arg("--derive").arg("--directory").arg(derived.path()).status().unwrap();
    assert!(status.success());
    assert!(expected.len() >= 30, "{expected:?}");
    for name in expected {
        let [is, should] = [derived.path(), &committed]
            .map(|directory| std::fs::read_to_string(directory.join(&name)).unwrap_or_default());
        assert_eq!(is, should, "{name} is not what events.jsonl says: make golden-records");
    }
}

#[test]
fn a_case_is_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let made = golden().args(["refused", "--directory"]).arg(directory.path()).status().unwrap();
    assert!(made.success());
    // Two attempts, each a SYN of 74 bytes and a RST of 54.
    let bytes = std::fs::metadata(directory.path().join("refused.pcap")).unwrap().len();
    assert_eq!(bytes, 24 + 2 * (16 + 74 + 16 + 54));
}

#[test]
fn a_case_that_is_not_there_is_named() {
    let made = golden().arg("nonesuch").output().unwrap();
    assert!(!made.status.success());
    let error = String::from_utf8(made.stderr).unwrap();
    assert!(error.contains("nonesuch") && error.contains("--list"), "{error}");
}
