//! A run's state on the disk. A checkpoint is a folder that is written aside, synced and renamed, and whose state file
//! names the size and the sum of each other file: it is whole, or known not to be.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use candlewick_kernels::train::{Floats, Precision};
use serde::{Deserialize, Serialize};

use super::event::Skipped;
use super::network::Network;
use super::tensors::{self, Sum, sync_folder};
use crate::{Result, TrainError};

const STATE: &str = "training_state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const VERSION: u32 = 1;
/// A fact; checkpoints from before there was a choice lack it.
pub const PRECISION: &str = "precision";

/// Where a run is, beside its weights and moments. Everything random is a function of the seed and of these numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimiser steps done: with the plan of batches, also the place in the data.
    pub step: u64,
    pub best_step: Option<u64>,
    pub best_metric: Option<f64>,
    /// Evaluations since the best.
    pub worse: u64,
    /// Of the last evaluation.
    pub evaluated: Option<u64>,
    pub tokens: u64,
    pub seconds: f64,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    /// What is stored of the run, to compare with the run that resumes.
    run: BTreeMap<String, String>,
    state: State,
    files: BTreeMap<String, Sum>,
}

impl Record {
    fn read(checkpoint: &Path) -> std::io::Result<Self> {
        let mut record: Self = serde_json::from_slice(&fs::read(checkpoint.join(STATE))?)?;
        record.run.entry(PRECISION.into()).or_insert_with(|| Precision::F32.name().into());
        Ok(record)
    }
}

pub struct Checkpoints {
    output: PathBuf,
    /// Facts about the run; a checkpoint with others is another run's.
    run: BTreeMap<String, String>,
    keep: usize,
    /// The weights of the best evaluation are needed at the end.
    keeps_best: bool,
    /// The folder, locked against other runs for as long as it is open.
    _lock: Option<File>,
}

/// A checkpoint that was used.
pub struct Restored {
    pub state: State,
    pub path: PathBuf,
}

impl Checkpoints {
    /// Makes the folder, and finds out whether it can be written, before any work.
    pub fn open(output: &Path, run: BTreeMap<String, String>, keep: usize, keeps_best: bool) -> Result<Self> {
        let io = |error: std::io::Error| TrainError::io(output, &error);
        fs::create_dir_all(output).map_err(io)?;
        let lock = lock(output)?;
        let probe = output.join(".probe");
        fs::write(&probe, b"x").map_err(io)?;
        fs::remove_file(&probe).map_err(io)?;
        for entry in fs::read_dir(output).map_err(io)?.flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(".checkpoint-") {
                // Leftovers of a killed run.
                let path = entry.path();
                if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.map_err(io)?;
            }
        }
        Ok(Self { output: output.to_path_buf(), run, keep, keeps_best, _lock: lock })
    }

    pub fn path(&self, step: u64) -> PathBuf {
        path(&self.output, step)
    }

    pub fn save(&self, network: &Network, state: &State) -> Result<PathBuf> {
        let path = self.path(state.step);
        let aside = self.output.join(format!(".checkpoint-{}", state.step));
        let io = |error: std::io::Error| TrainError::io(&aside, &error);
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(io)?;
        }
        fs::create_dir(&aside).map_err(io)?;
        let written = self.write(&aside, network, state);
        if written.is_err() {
            // The first error, such as a full disk, is reported. The leftovers are removed: they would block the next
            // try.
            let _ = fs::remove_dir_all(&aside);
            written?;
        }
        if path.exists() {
            // A checkpoint of an earlier run into the same folder.
            fs::remove_dir_all(&path).map_err(io)?;
        }
        fs::rename(&aside, &path).map_err(io)?;
        sync_folder(&self.output)?;
        self.rotate(state)?;
        Ok(path)
    }

    fn write(&self, folder: &Path, network: &Network, state: &State) -> Result<()> {
        let mut files = network.save(folder)?;
        let mut moments = Vec::new();
        for param in network.params.all.iter().filter(|param| !param.first_moment.is_empty()) {
            let name = network.saved_name(param);
            moments.push((format!("m.{name}"), param.shape.clone(), &param.first_moment[..]));
            // Muon has no second moment.
            if !param.second_moment.is_empty() {
                moments.push((format!("v.{name}"), param.shape.clone(), &param.second_moment[..]));
            }
        }
        files.insert(OPTIMIZER.into(), tensors::write(&folder.join(OPTIMIZER), &moments)?);
        let record = Record { version: VERSION, run: self.run.clone(), state: state.clone(), files };
        let text = serde_json::to_vec_pretty(&record).map_err(|e| TrainError::Internal(e.to_string()))?;
        tensors::write_bytes(&folder.join(STATE), &text)?;
        sync_folder(folder)
    }

    fn rotate(&self, state: &State) -> Result<()> {
        let old = steps(&self.output)
            .into_iter()
            .filter(|step| Some(*step) != state.best_step && *step <= state.step);
        for step in old.skip(self.keep) {
            let path = self.path(step);
            // Renamed first, so that it is never half there under its name.
            let aside = self.output.join(format!(".checkpoint-{step}-old"));
            let gone = fs::rename(&path, &aside).and_then(|()| fs::remove_dir_all(&aside));
            gone.map_err(|error| TrainError::io(&path, &error))?;
        }
        Ok(())
    }

    /// The last checkpoint that is whole, into `network`; those that are not are listed. `None` where there is none at
    /// all.
    pub fn restore(&self, network: &mut Network) -> Result<(Option<Restored>, Vec<Skipped>)> {
        let mut skipped = Vec::new();
        let mut last = None;
        for step in newest(&self.output) {
            let path = self.path(step);
            match self.check_with_best(step) {
                Ok(state) => {
                    self.load(&path, network)?;
                    return Ok((Some(Restored { state, path }), skipped));
                }
                Err(error @ TrainError::CheckpointMismatch { .. }) => return Err(error),
                Err(error) => {
                    skipped.push(Skipped { path, reason: error.to_string() });
                    last = Some(error);
                }
            }
        }
        match last {
            Some(error) => Err(error),
            None => Ok((None, skipped)),
        }
    }

    /// A checkpoint is of no use without the best one's weights, which the end of the run needs: those before the best
    /// are.
    fn check_with_best(&self, step: u64) -> Result<State> {
        let state = self.check(step)?;
        if let Some(best) = state.best_step.filter(|best| self.keeps_best && *best != step)
            && let Err(error) = self.check(best)
        {
            let reason = format!("the best checkpoint cannot be used: {error}");
            return Err(TrainError::CheckpointCorrupt { path: self.path(step), reason });
        }
        Ok(state)
    }

    fn check(&self, step: u64) -> Result<State> {
        let path = self.path(step);
        let corrupt = |reason: String| TrainError::CheckpointCorrupt { path: path.clone(), reason };
        let record = Record::read(&path).map_err(|error| corrupt(format!("{STATE}: {error}")))?;
        for (name, expected) in &record.files {
            match tensors::sum(&path.join(name)) {
                Ok(found) if found == *expected => {}
                Ok(_) => return Err(corrupt(format!("{name} is not what was written"))),
                Err(error) => return Err(corrupt(error.to_string())),
            }
        }
        if record.version != VERSION || record.run != self.run {
            let differs = |(key, value): (&String, &String)| {
                let was = record.run.get(key);
                (was != Some(value))
                    .then(|| format!("{key} was {}, is {value}", was.map_or("absent", |was| was.as_str())))
            };
            let reasons: Vec<String> = self.run.iter().filter_map(differs).collect();
            let reason = format!("a checkpoint of another run: {}", reasons.join("; "));
            return Err(TrainError::CheckpointMismatch { path, reason });
        }
        if record.state.step != step {
            return Err(corrupt(format!("it is that of step {}", record.state.step)));
        }
        Ok(record.state)
    }

    fn load(&self, path: &Path, network: &mut Network) -> Result<()> {
        network.load(path)?;
        let file = path.join(OPTIMIZER);
        let names: Vec<String> = network.params.all.iter().map(|param| network.saved_name(param)).collect();
        tensors::read(&file, |name, values| {
            let mismatch = || TrainError::CheckpointMismatch {
                path: file.clone(),
                reason: format!("{name} is of another model"),
            };
            let (moment, name) = name.split_once('.').ok_or_else(mismatch)?;
            let at = names.iter().position(|known| known == name).ok_or_else(mismatch)?;
            let param = &mut network.params.all[at];
            if values.len() != param.value.len() {
                return Err(mismatch());
            }
            let slot: &mut Floats =
                if moment == "m" { &mut param.first_moment } else { &mut param.second_moment };
            *slot = values;
            Ok(())
        })
    }

    /// The weights of the best evaluation.
    pub fn load_weights(&self, step: u64, network: &mut Network) -> Result<()> {
        self.check(step)?;
        network.load(&self.path(step))
    }
}

fn path(output: &Path, step: u64) -> PathBuf {
    output.join(format!("checkpoint-{step}"))
}

/// Steps that have a checkpoint, the last first.
fn steps(output: &Path) -> Vec<u64> {
    let entries = fs::read_dir(output).into_iter().flatten().flatten();
    let step = |name: String| name.strip_prefix("checkpoint-")?.parse().ok();
    let mut steps: Vec<u64> =
        entries.filter_map(|entry| step(entry.file_name().to_string_lossy().into_owned())).collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    steps
}

/// The same, the last one written first: a higher number may be left from an earlier run into the same folder.
fn newest(output: &Path) -> Vec<u64> {
    let mut steps = steps(output);
    let written =
        |step: u64| fs::metadata(path(output, step).join(STATE)).and_then(|file| file.modified()).ok();
    steps.sort_by_key(|step| std::cmp::Reverse((written(*step), *step)));
    steps
}

/// A fact of the newest checkpoint of a run that can be read.
pub fn fact(output: &Path, name: &str) -> Option<String> {
    let mut records = newest(output).into_iter().filter_map(|step| Record::read(&path(output, step)).ok());
    records.next()?.run.remove(name)
}

/// A lock that ends with the process, however it ends. `None` where the system cannot lock folders: then other runs are
/// not kept out.
fn lock(folder: &Path) -> Result<Option<File>> {
    let Ok(file) = File::open(folder) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(TrainError::OutputBusy { path: folder.to_path_buf() }),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}
