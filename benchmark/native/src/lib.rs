//! The other end of `benchmark/child.ts`: a request is a line of JSON `{"op", "args"}`, its answer a line `{"result"}`
//! or `{"error"}`. One request at a time.

use std::io::{BufRead, Write};

use serde_json::{Value, json};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Answers requests until standard input ends.
pub fn serve(mut answer: impl FnMut(&str, &Value) -> Result<Value>) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let op = request["op"].as_str().unwrap_or_default();
        let reply = match answer(op, &request["args"]) {
            Ok(result) => json!({ "result": result }),
            Err(error) => json!({ "error": error.to_string().lines().next() }),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{reply}")?;
        out.flush()?;
    }
    Ok(())
}

/// The version of a package in the lock file that this was built with.
pub fn locked_version(package: &str) -> &'static str {
    let lock = include_str!("../../../Cargo.lock");
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"\n")));
    let version = entry.and_then(|entry| entry.split("version = \"").nth(1)?.split('"').next());
    version.unwrap_or("unknown")
}
