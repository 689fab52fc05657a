//! `make demo`, as its user runs it: it must end by itself, say that the graph is what happened, and
//! leave no namespace behind. Needs root and the engine (`make engine`).

use std::process::Command;

use flowtrail_e2e::lab::run;

#[test]
fn the_demo_shows_what_happened_and_cleans_up() {
    let output = Command::new(env!("CARGO_BIN_EXE_flowtrail-demo"))
        .args(["--seconds", "15", "--prefix", "flowtrail-demo-test"])
        .args(["--listen", "127.0.0.1:18480", "--clickhouse-listen", "127.0.0.1:18123"])
        .output()
        .unwrap();
    let (printed, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{said}");
    assert!(printed.contains("all 7 edges are there"), "{printed}\n{said}");
    assert!(printed.contains("data/postgres"), "no table: {printed}");
    assert!(!run(["ip", "netns", "list"]).unwrap().contains("flowtrail-demo-test"));
}
