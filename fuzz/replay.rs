//! What fuzzing has found so far (`make fuzz`), given to the parsers again.

use std::path::Path;

/// Gives every file of a target's corpus to its body.
pub(crate) fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let replayed = std::panic::catch_unwind(|| body(&bytes));
        assert!(replayed.is_ok(), "{}", path.display());
        files += 1;
    }
    assert!(files >= 10, "{}: {files} files", corpus.display());
}
