//! The texts of a corpus, in pieces that fit in memory.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::rows::open_regular;
use super::task::Columns;
use super::{DataOptions, Format, Rows, Task};
use crate::{Result, TrainError};

/// A whole file is read in pieces of about this size.
const PIECE_BYTES: usize = 1 << 16;
/// After this many bytes without a line feed, a text is cut at any character: bounded memory comes before identical
/// tokens.
const PIECE_AT_MOST: usize = 1 << 24;

pub enum Piece<'a> {
    Text(&'a str),
    EndOfDocument,
}

/// Gives every text to `visit`: a row's column `text` is a document, and so is a plain-text file if `whole_files`, else
/// its lines. `stop` is asked between pieces.
pub fn texts(
    paths: &[PathBuf],
    options: &DataOptions,
    whole_files: bool,
    stop: &dyn Fn() -> bool,
    visit: &mut dyn FnMut(Piece<'_>) -> Result<()>,
) -> Result<()> {
    let mut any = false;
    for path in paths {
        let format = options.format.unwrap_or_else(|| Format::of(path));
        if format == Format::Text && whole_files {
            any |= whole(path, stop, visit)?;
            continue;
        }
        let mut columns: Option<Columns> = None;
        let rows = Rows::open(std::slice::from_ref(path), Some(format), stop, &mut |row| {
            if columns.is_none() {
                columns = Some(Columns::find(Task::TextGeneration, &options.columns, row)?);
            }
            let Some(columns) = &columns else { return Ok(()) };
            visit(Piece::Text(columns.text(row, "text")?))?;
            visit(Piece::EndOfDocument)
        });
        match rows {
            Err(TrainError::DataEmpty(_)) => {}
            rows => any |= rows.map(|_| true)?,
        }
    }
    if any { Ok(()) } else { Err(TrainError::DataEmpty(names(paths))) }
}

pub(super) fn names(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// A file as one document; `false`: it is empty. The pieces end after a line feed that no white space follows, where
/// GPT-2's and BERT's pre-tokenisers begin a new word in any case: the tokens are those of the whole text.
fn whole(
    path: &Path,
    stop: &dyn Fn() -> bool,
    visit: &mut dyn FnMut(Piece<'_>) -> Result<()>,
) -> Result<bool> {
    let mut file = open_regular(path)?;
    let (mut offset, mut buffer, mut ended) = (0u64, Vec::new(), false);
    while !ended {
        if stop() {
            return Err(TrainError::Aborted);
        }
        let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut buffer);
        ended = read.map_err(|error| TrainError::io(path, &error))? == 0;
        let end = if ended { Some(buffer.len()) } else { last_boundary(&buffer) };
        let Some(end) = end else { continue };
        let text = std::str::from_utf8(&buffer[..end]).map_err(|error| TrainError::DataInvalid {
            place: format!("{}, byte {}", path.display(), offset + error.valid_up_to() as u64),
            reason: "no UTF-8".into(),
        })?;
        // A byte order mark is not part of the text.
        visit(Piece::Text(if offset == 0 { text.trim_start_matches('\u{feff}') } else { text }))?;
        offset += end as u64;
        buffer.drain(..end);
    }
    if offset > 0 {
        visit(Piece::EndOfDocument)?;
    }
    Ok(offset > 0)
}

fn last_boundary(bytes: &[u8]) -> Option<usize> {
    let letter = |byte: u8| byte.is_ascii() && !byte.is_ascii_whitespace() || byte >= 0xe4; // from U+4000 on
    let after_line = |at: &usize| bytes[at - 1] == b'\n' && letter(bytes[*at]);
    let starts_character = |at: &usize| bytes.len() > PIECE_AT_MOST && bytes[*at] & 0xc0 != 0x80;
    let places = || (1..bytes.len()).rev();
    places().find(after_line).or_else(|| places().find(starts_character))
}
