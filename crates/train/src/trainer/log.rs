//! The run's log in the output folder, a line of JSON for each step, evaluation and checkpoint: what a report draws.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::event::Event;
use crate::{Result, TrainError};

pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Lines after `step`, of a run that was ended there, are dropped.
    pub fn open(output: &Path, step: u64) -> Result<Self> {
        let path = output.join("training-log.jsonl");
        let io = |error: std::io::Error| TrainError::io(&path, &error);
        // A truncated line (perhaps inside a character) must not make other lines unreadable.
        let old = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
        let kept = old.lines().filter(|line| {
            let row: Option<Value> = serde_json::from_str(line).ok();
            row.and_then(|row| row["step"].as_u64()).is_some_and(|of| of <= step)
        });
        let mut text: String = kept.collect::<Vec<_>>().join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        let aside = output.join(".training-log.jsonl");
        fs::write(&aside, text).and_then(|()| fs::rename(&aside, &path)).map_err(io)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        Ok(Self { path, file })
    }

    pub fn write(&mut self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_string(event).map_err(|e| TrainError::Internal(e.to_string()))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|error| TrainError::io(&self.path, &error))
    }
}
