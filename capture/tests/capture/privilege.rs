//! Without CAP_NET_RAW the agent says what it needs.

use std::process::Command;

use flowtrail_capture::{Agent, Output};
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use crate::support::config;

#[test]
fn a_missing_capability_is_named_with_the_remedy() {
    let program = std::env::current_exe().unwrap();
    let child = Command::new("setpriv")
        .args(["--bounding-set=-net_raw", "--inh-caps=-net_raw"])
        .arg(&program)
        .args(["--exact", "privilege::child_without_the_capability", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
    assert!(output.contains("CAP_NET_RAW"), "{output}");
    assert!(output.contains(&format!("sudo setcap cap_net_raw+ep {}", program.display())));
    assert!(output.contains("--read FILE needs none"), "{output}");
}

#[tokio::test]
#[ignore = "run by the test above, without the capability"]
async fn child_without_the_capability() {
    let agent = Agent::new(config(&[]), Output::Null, &Metrics::new()).unwrap();
    let ready = Readiness::default().part("capture");
    let error = agent.run(ready, CancellationToken::new()).await.unwrap_err();
    println!("{error}");
}
