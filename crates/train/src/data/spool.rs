//! The tokens of a corpus in a temporary file, 4 bytes each: a corpus larger than memory is tokenised once, and read by place.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::rows::open_regular;
use super::task::Columns;
use super::{Format, Rows, Setup, Task};
use crate::{Result, TrainError};

/// Texts are tokenised in pieces of about this size.
const PIECE_BYTES: usize = 1 << 16;

/// The file has no name and goes with its handle.
pub(super) struct Spool {
    file: File,
    /// Tokens before each document, and in all.
    pub starts: Vec<u64>,
    /// Bytes of text of each document.
    pub bytes: Vec<u64>,
}

struct Writer {
    file: BufWriter<File>,
    tokens: u64,
}

fn failed(error: std::io::Error) -> TrainError {
    TrainError::io(std::env::temp_dir(), &error)
}

impl Writer {
    fn write(&mut self, ids: &[u32]) -> Result<()> {
        self.tokens += ids.len() as u64;
        ids.iter().try_for_each(|id| self.file.write_all(&id.to_le_bytes())).map_err(failed)
    }
}

impl Spool {
    /// Tokenises a split: a row is a document, and so is a plain-text file if `whole_files`.
    pub fn fill(paths: &[PathBuf], setup: &Setup<'_>, whole_files: bool) -> Result<Self> {
        let file = tempfile::tempfile().map_err(failed)?;
        let mut writer = Writer { file: BufWriter::with_capacity(1 << 16, file), tokens: 0 };
        let (mut starts, mut bytes) = (vec![0], Vec::new());
        let mut ended = |tokens: u64, size: u64| {
            starts.push(tokens);
            bytes.push(size);
        };
        for path in paths {
            let format = setup.options.format.unwrap_or_else(|| Format::of(path));
            if format == Format::Text && whole_files {
                let size = pour(path, setup, &mut writer)?;
                ended(writer.tokens, size);
                continue;
            }
            let mut columns: Option<Columns> = None;
            let rows = Rows::open(std::slice::from_ref(path), Some(format), setup.stop, &mut |row| {
                if columns.is_none() {
                    columns = Some(Columns::find(setup.task, &setup.options.columns, row)?);
                }
                let Some(columns) = &columns else { return Ok(()) };
                let text = columns.text(row, "text")?;
                writer.write(&setup.tokenizer.encode(text, false)?)?;
                ended(writer.tokens, text.len() as u64);
                Ok(())
            });
            match rows {
                Err(TrainError::DataEmpty(_)) if paths.len() > 1 => {}
                rows => drop(rows?),
            }
        }
        let mut file = writer.file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.flush().map_err(failed)?;
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

/// A whole file as one document; returns its size. The pieces end after a line feed that no white space follows, where GPT-2's
/// pre-tokeniser begins a new word in any case: the tokens are those of the whole text.
fn pour(path: &std::path::Path, setup: &Setup<'_>, writer: &mut Writer) -> Result<u64> {
    debug_assert!(setup.task == Task::TextGeneration);
    let mut file = open_regular(path)?;
    let (mut size, mut buffer, mut ended) = (0u64, Vec::new(), false);
    while !ended {
        if (setup.stop)() {
            return Err(TrainError::Aborted);
        }
        let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut buffer);
        ended = read.map_err(|error| TrainError::io(path, &error))? == 0;
        let end = if ended { Some(buffer.len()) } else { last_boundary(&buffer) };
        let Some(end) = end else { continue };
        let text = std::str::from_utf8(&buffer[..end]).map_err(|error| TrainError::DataInvalid {
            place: format!("{}, byte {}", path.display(), size + error.valid_up_to() as u64),
            reason: "no UTF-8".into(),
        })?;
        writer.write(&setup.tokenizer.encode(text, false)?)?;
        size += end as u64;
        buffer.drain(..end);
    }
    if size == 0 {
        return Err(TrainError::DataEmpty(path.display().to_string()));
    }
    Ok(size)
}

/// Without a line feed for so long, a text is cut at any character: memory is bounded before tokens are the same.
const PIECE_AT_MOST: usize = 1 << 24;

fn last_boundary(bytes: &[u8]) -> Option<usize> {
    let letter = |byte: u8| byte.is_ascii() && !byte.is_ascii_whitespace() || byte >= 0xe4; // from U+4000 on
    let after_line = |at: &usize| bytes[at - 1] == b'\n' && letter(bytes[*at]);
    let starts_character = |at: &usize| bytes.len() > PIECE_AT_MOST && bytes[*at] & 0xc0 != 0x80;
    let places = || (1..bytes.len()).rev();
    places().find(after_line).or_else(|| places().find(starts_character))
}
