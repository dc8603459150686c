//! Files of `docs` that are written from what the tests run.

use crate::common::root;

/// That a file of `docs` is this text; with `PREFUSE_WRITE_DOCS` it becomes it.
pub fn assert_docs(file: &str, text: &str, tests: &str) {
    let path = root().join("docs").join(file);
    if std::env::var_os("PREFUSE_WRITE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/{file} is stale: PREFUSE_WRITE_DOCS=1 cargo test {tests}");
}
