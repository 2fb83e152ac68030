//! Safetensors files of f32, written and read one tensor at a time. Format: <https://huggingface.co/docs/safetensors>.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use candlewick_kernels::SourceType;
use candlewick_kernels::train::Floats;
use serde_json::{Map, Value, json};

use crate::{Result, TrainError};

/// Size and checksum of a file that was written completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sum {
    pub bytes: u64,
    pub crc32: u32,
}

/// A name, a shape and the values.
pub type Tensor<'a> = (String, Vec<usize>, &'a [f32]);

/// The header of a file that is about to be written.
#[derive(Default)]
pub struct Header {
    entries: Map<String, Value>,
    bytes: u64,
}

impl Header {
    /// The next tensor: f32, f16 or bf16.
    pub fn add(&mut self, name: &str, stored: SourceType, shape: &[usize]) {
        let dtype = match stored {
            SourceType::F16 => "F16",
            SourceType::BF16 => "BF16",
            _ => "F32",
        };
        let end = self.bytes + stored.row_bytes(shape.iter().product()) as u64;
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [self.bytes, end] });
        self.entries.insert(name.to_string(), entry);
        self.bytes = end;
    }

    /// Of all tensors.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What comes before the first tensor.
    pub fn text(&self) -> Vec<u8> {
        let mut entries = self.entries.clone();
        entries.insert("__metadata__".into(), json!({ "format": "pt" }));
        let mut text = Value::Object(entries).to_string();
        while !text.len().is_multiple_of(8) {
            text.push(' ');
        }
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }
}

/// Writes the file and waits until the disk has it.
pub fn write(path: &Path, tensors: &[Tensor]) -> Result<Sum> {
    let mut header = Header::default();
    tensors.iter().for_each(|(name, shape, _)| header.add(name, SourceType::F32, shape));
    write_parts(path, |put| {
        put(&header.text())?;
        let mut bytes = vec![0u8; 1 << 20];
        for (_, _, values) in tensors {
            for part in values.chunks(bytes.len() / 4) {
                let bytes = &mut bytes[..4 * part.len()];
                bytes.chunks_exact_mut(4).zip(part).for_each(|(to, x)| to.copy_from_slice(&x.to_le_bytes()));
                put(bytes)?;
            }
        }
        Ok(())
    })
}

/// As `write`, for any bytes.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<Sum> {
    write_parts(path, |put| put(bytes))
}

type Put<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// As `write`, for what `parts` puts, one after the other.
pub fn write_parts(path: &Path, parts: impl FnOnce(&mut Put) -> Result<()>) -> Result<Sum> {
    let io = |error: std::io::Error| TrainError::io(path, &error);
    let mut file = BufWriter::new(File::create(path).map_err(io)?);
    let (mut hasher, mut count) = (crc32fast::Hasher::new(), 0);
    parts(&mut |bytes| {
        hasher.update(bytes);
        count += bytes.len() as u64;
        file.write_all(bytes).map_err(io)
    })?;
    let file = file.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(io)?;
    Ok(Sum { bytes: count, crc32: hasher.finalize() })
}

/// The sum of a file as it is on the disk.
pub fn sum(path: &Path) -> Result<Sum> {
    let run = || {
        let mut file = File::open(path)?;
        let (mut hasher, mut bytes) = (crc32fast::Hasher::new(), 0);
        let mut buffer = vec![0u8; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Sum { bytes, crc32: hasher.finalize() }),
                n => {
                    hasher.update(&buffer[..n]);
                    bytes += n as u64;
                }
            }
        }
    };
    run().map_err(|error| TrainError::io(path, &error))
}

/// Calls `take` with each tensor. The file is one of ours or of PEFT's: f32 throughout.
pub fn read(path: &Path, mut take: impl FnMut(&str, Floats) -> Result<()>) -> Result<()> {
    let corrupt =
        |reason: &str| TrainError::CheckpointCorrupt { path: path.to_path_buf(), reason: reason.to_string() };
    let io = |error: std::io::Error| TrainError::io(path, &error);
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(io)?);
    let size = file.get_ref().metadata().map_err(io)?.len();
    let mut length = [0u8; 8];
    file.read_exact(&mut length).map_err(|_| corrupt("the file is cut"))?;
    let length = u64::from_le_bytes(length);
    if length > size.saturating_sub(8) {
        return Err(corrupt("the file is cut"));
    }
    let mut header = vec![0u8; length as usize];
    file.read_exact(&mut header).map_err(io)?;
    let header: Map<String, Value> =
        serde_json::from_slice(&header).map_err(|_| corrupt("the header is no JSON"))?;
    for (name, entry) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        let offset = |i: usize| entry["data_offsets"][i].as_u64();
        let (Some(begin), Some(end)) = (offset(0), offset(1)) else {
            return Err(corrupt("a tensor without a place"));
        };
        if entry["dtype"] != "F32"
            || begin > end
            || end > size - 8 - length
            || !(end - begin).is_multiple_of(4)
        {
            return Err(corrupt("a tensor of another type or outside the file"));
        }
        file.seek(SeekFrom::Start(8 + length + begin)).map_err(io)?;
        let mut values = Floats::zeroed(((end - begin) / 4) as usize);
        let mut bytes = vec![0u8; 1 << 20];
        for part in values.chunks_mut(bytes.len() / 4) {
            let bytes = &mut bytes[..4 * part.len()];
            file.read_exact(bytes).map_err(io)?;
            let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            part.iter_mut().zip(numbers).for_each(|(to, x)| *to = x);
        }
        take(name, values)?;
    }
    Ok(())
}

/// Syncs a folder: a rename is durable only then.
pub fn sync_folder(path: &Path) -> Result<()> {
    // Only Unix can open folders; other systems sync renames themselves.
    if cfg!(unix) {
        let sync = File::open(path).and_then(|folder| folder.sync_all());
        sync.map_err(|error| TrainError::io(path, &error))?;
    }
    Ok(())
}
