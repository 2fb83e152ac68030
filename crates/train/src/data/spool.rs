//! The tokens of a corpus in a temporary file, 4 bytes each: a corpus larger than memory is tokenised once, and read by
//! place.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::Setup;
use super::texts::{Piece, texts};
use crate::{Result, TrainError};

/// The file has no name and goes with its handle.
pub(super) struct Spool {
    file: File,
    /// Tokens before each document, and in all.
    pub starts: Vec<u64>,
    /// Bytes of text of each document.
    pub bytes: Vec<u64>,
}

fn failed(error: std::io::Error) -> TrainError {
    TrainError::io(std::env::temp_dir(), &error)
}

impl Spool {
    /// Tokenises a split: a row is a document, and so is a plain-text file if `whole_files`.
    pub fn fill(paths: &[PathBuf], setup: &Setup<'_>, whole_files: bool) -> Result<Self> {
        let file = tempfile::tempfile().map_err(failed)?;
        let mut file = BufWriter::with_capacity(1 << 16, file);
        let (mut tokens, mut size) = (0u64, 0u64);
        let (mut starts, mut bytes) = (vec![0], Vec::new());
        texts(paths, setup.options, whole_files, setup.stop, &mut |piece| {
            match piece {
                Piece::Text(text) => {
                    let ids = setup.tokenizer.encode(text, false)?;
                    ids.iter().try_for_each(|id| file.write_all(&id.to_le_bytes())).map_err(failed)?;
                    tokens += ids.len() as u64;
                    size += text.len() as u64;
                }
                Piece::EndOfDocument => {
                    starts.push(tokens);
                    bytes.push(std::mem::take(&mut size));
                }
            }
            Ok(())
        })?;
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        Ok(Self { file, starts, bytes })
    }

    pub fn documents(&self) -> usize {
        self.bytes.len()
    }

    /// Tokens of a document.
    pub fn length(&self, document: usize) -> usize {
        (self.starts[document + 1] - self.starts[document]) as usize
    }

    /// Tokens `from` ≤ i < `to` of a document.
    pub fn read(&mut self, document: usize, from: usize, to: usize) -> Result<Vec<u32>> {
        let mut bytes = vec![0; 4 * (to - from)];
        let start = 4 * (self.starts[document] + from as u64);
        self.file
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(failed)?;
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}
