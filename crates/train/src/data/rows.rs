//! Rows of JSON lines, CSV, TSV or plain text, read where they lie: memory holds the offset of each row, 8 bytes, and
//! nothing else of a file, so that a file may be larger than memory.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Result, TrainError};

/// Maximum bytes of a row: tokenizing takes about a hundred times as much memory.
const MAX_ROW_BYTES: u64 = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Jsonl,
    Csv,
    Tsv,
    /// Each line is a row with the one column `text`; empty lines are none.
    Text,
}

impl Format {
    /// By the ending of the name; anything that is not known is plain text.
    pub fn of(path: &Path) -> Self {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("jsonl" | "ndjson" | "json") => Self::Jsonl,
            Some("csv") => Self::Csv,
            Some("tsv" | "tab") => Self::Tsv,
            _ => Self::Text,
        }
    }
}

/// Where a row is, for a message: the line is counted when it is shown.
#[derive(Debug, Clone)]
pub struct RowPlace {
    path: Arc<Path>,
    at: At,
}

impl std::fmt::Display for RowPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&place(&self.path, self.at))
    }
}

/// A row as an object: all values of CSV and TSV are strings.
#[derive(Debug, Clone)]
pub struct Row {
    pub fields: Map<String, Value>,
    path: Arc<Path>,
    at: At,
}

/// Where a row begins.
#[derive(Debug, Clone, Copy)]
enum At {
    Line(u64),
    /// In bytes: lines are counted when something is wrong with the row, and not before.
    Offset(u64),
}

impl Row {
    /// `file:line`
    pub fn place(&self) -> String {
        place(&self.path, self.at)
    }

    pub fn at(&self) -> RowPlace {
        RowPlace { path: self.path.clone(), at: self.at }
    }

    pub fn wrong(&self, reason: impl Into<String>) -> TrainError {
        TrainError::DataInvalid { place: self.place(), reason: reason.into() }
    }
}

fn place(path: &Path, at: At) -> String {
    let line = match at {
        At::Line(line) => Ok(line),
        At::Offset(offset) => {
            File::open(path).and_then(|file| lines_before(file, offset)).map(|lines| lines + 1)
        }
    };
    match line {
        Ok(line) => format!("{}:{line}", path.display()),
        Err(_) => path.display().to_string(),
    }
}

fn lines_before(file: File, offset: u64) -> std::io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 16, file.take(offset));
    let mut lines = 0;
    loop {
        let part = reader.fill_buf()?;
        if part.is_empty() {
            return Ok(lines);
        }
        lines += part.iter().filter(|byte| **byte == b'\n').count() as u64;
        let read = part.len();
        reader.consume(read);
    }
}

pub struct Rows {
    files: Vec<Source>,
    /// Rows in the files before each, and in all.
    starts: Vec<usize>,
}

struct Source {
    path: Arc<Path>,
    format: Format,
    file: File,
    header: Vec<String>,
    /// Where each row begins, and where the last one ends.
    offsets: Vec<u64>,
}

impl Rows {
    /// Reads every file once from end to end: finds the rows, and gives each to `visit`, whose error ends it. `stop` is
    /// asked between rows.
    pub fn open(
        paths: &[PathBuf],
        format: Option<Format>,
        stop: &dyn Fn() -> bool,
        visit: &mut dyn FnMut(&Row) -> Result<()>,
    ) -> Result<Self> {
        let mut rows = Self { files: Vec::new(), starts: vec![0] };
        for path in paths {
            let source = Source::open(path, format.unwrap_or_else(|| Format::of(path)), stop, visit)?;
            rows.starts.push(rows.len() + source.len());
            rows.files.push(source);
        }
        if rows.len() == 0 {
            let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            return Err(TrainError::DataEmpty(names.join(", ")));
        }
        Ok(rows)
    }

    #[allow(clippy::len_without_is_empty)] // one without rows does not open
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    pub fn get(&mut self, index: usize) -> Result<Row> {
        let (file, row) = self.find(index);
        self.files[file].row(row)
    }

    /// Bytes of a row in its file.
    pub fn bytes(&self, index: usize) -> usize {
        let (file, row) = self.find(index);
        let offsets = &self.files[file].offsets;
        (offsets[row + 1] - offsets[row]) as usize
    }

    fn find(&self, index: usize) -> (usize, usize) {
        let file = self.starts.partition_point(|start| *start <= index) - 1;
        (file, index - self.starts[file])
    }
}

impl Source {
    fn open(
        path: &Path,
        format: Format,
        stop: &dyn Fn() -> bool,
        visit: &mut dyn FnMut(&Row) -> Result<()>,
    ) -> Result<Self> {
        let mut file = open_regular(path)?;
        let mut source = Self {
            path: path.into(),
            format,
            file: file.try_clone().map_err(|error| io(path, &error))?,
            header: Vec::new(),
            offsets: Vec::new(),
        };
        match format {
            Format::Csv | Format::Tsv => source.scan_table(&mut file, stop, visit)?,
            Format::Jsonl | Format::Text => source.scan_lines(&file, stop, visit)?,
        }
        Ok(source)
    }

    fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    fn scan_lines(
        &mut self,
        file: &File,
        stop: &dyn Fn() -> bool,
        visit: &mut dyn FnMut(&Row) -> Result<()>,
    ) -> Result<()> {
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut line = Vec::new();
        let (mut offset, mut number) = (0u64, 0u64);
        loop {
            if number.is_multiple_of(256) && stop() {
                return Err(TrainError::Aborted);
            }
            line.clear();
            let read = (&mut reader).take(MAX_ROW_BYTES + 1).read_until(b'\n', &mut line);
            let read = read.map_err(|error| io(&self.path, &error))? as u64;
            number += 1;
            if read > MAX_ROW_BYTES {
                let reason = format!("a line of more than {MAX_ROW_BYTES} bytes");
                return Err(TrainError::DataInvalid { place: place(&self.path, At::Line(number)), reason });
            }
            if read > 0 && !blank(&line) {
                // A row ends where the next begins: blank lines between them belong to the one before.
                self.offsets.push(offset);
                visit(&self.parse_line(&line, At::Line(number))?)?;
            }
            offset += read;
            if read == 0 {
                break;
            }
        }
        self.offsets.push(offset);
        Ok(())
    }

    fn scan_table(
        &mut self,
        file: &mut File,
        stop: &dyn Fn() -> bool,
        visit: &mut dyn FnMut(&Row) -> Result<()>,
    ) -> Result<()> {
        let room = Rc::new(Cell::new(MAX_ROW_BYTES));
        let mut reader = self.table_reader(true, Bounded { inner: file, room: room.clone() });
        let header = reader.headers().map_err(|error| table_error(&self.path, At::Line(1), &error))?.clone();
        self.header = header.iter().map(|name| name.trim_start_matches('\u{feff}').to_string()).collect();
        let mut record = csv::StringRecord::new();
        let mut offsets = Vec::new();
        loop {
            if offsets.len().is_multiple_of(256) && stop() {
                return Err(TrainError::Aborted);
            }
            let offset = reader.position().byte();
            room.set(MAX_ROW_BYTES);
            let at = At::Offset(offset);
            if !reader.read_record(&mut record).map_err(|error| table_error(&self.path, at, &error))? {
                break;
            }
            offsets.push(offset);
            visit(&self.table_row(&record, at))?;
        }
        offsets.push(reader.position().byte());
        self.offsets = offsets;
        Ok(())
    }

    fn table_reader<R: Read>(&self, headers: bool, from: R) -> csv::Reader<R> {
        let delimiter = if self.format == Format::Tsv { b'\t' } else { b',' };
        csv::ReaderBuilder::new().has_headers(headers).delimiter(delimiter).from_reader(from)
    }

    fn table_row(&self, record: &csv::StringRecord, at: At) -> Row {
        let fields = self.header.iter().zip(record.iter());
        let fields = fields.map(|(name, value)| (name.clone(), Value::from(value))).collect();
        Row { fields, path: self.path.clone(), at }
    }

    fn parse_line(&self, line: &[u8], at: At) -> Result<Row> {
        let wrong = |reason: String| TrainError::DataInvalid { place: place(&self.path, at), reason };
        let row = |fields| Row { fields, path: self.path.clone(), at };
        let text = std::str::from_utf8(line).map_err(|error| wrong(format!("no UTF-8: {error}")))?;
        let text = text.trim_start_matches('\u{feff}');
        if self.format == Format::Text {
            let text = text.trim_end_matches(['\n', '\r']);
            return Ok(row(Map::from_iter([("text".into(), Value::from(text))])));
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(row(fields)),
            Ok(_) => Err(wrong("a line of JSON lines is an object: {\"text\": …}".into())),
            Err(error) => Err(wrong(format!("no JSON: {error}"))),
        }
    }

    fn row(&mut self, row: usize) -> Result<Row> {
        let (start, end) = (self.offsets[row], self.offsets[row + 1]);
        // Blank lines after a row must not enlarge its buffer.
        let mut bytes = vec![0; (end - start).min(2 * MAX_ROW_BYTES) as usize];
        let read = self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|error| io(&self.path, &error))?;
        let at = At::Offset(start);
        if matches!(self.format, Format::Csv | Format::Tsv) {
            let mut record = csv::StringRecord::new();
            self.table_reader(false, bytes.as_slice())
                .read_record(&mut record)
                .map_err(|error| table_error(&self.path, at, &error))?;
            return Ok(self.table_row(&record, at));
        }
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        self.parse_line(line, at)
    }
}

/// An error that no file system reports for a read.
const TOO_LONG: std::io::ErrorKind = std::io::ErrorKind::InvalidData;

/// An unclosed quotation mark makes one row of the rest of a table: the row limit stops the reading.
struct Bounded<'a> {
    inner: &'a mut File,
    room: Rc<Cell<u64>>,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.room.get() == 0 {
            let reason = format!("a row of more than {MAX_ROW_BYTES} bytes");
            return Err(std::io::Error::new(TOO_LONG, reason));
        }
        let read = self.inner.read(buffer)?;
        self.room.set(self.room.get().saturating_sub(read as u64));
        Ok(read)
    }
}

/// Opens a regular file: a pipe would block, a device never end.
pub(super) fn open_regular(path: &Path) -> Result<File> {
    if !std::fs::metadata(path).map_err(|error| io(path, &error))?.is_file() {
        return Err(TrainError::Io { path: path.into(), reason: "not a regular file".into() });
    }
    File::open(path).map_err(|error| io(path, &error))
}

fn blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

fn io(path: &Path, error: &std::io::Error) -> TrainError {
    match error.kind() {
        std::io::ErrorKind::NotFound => TrainError::DataNotFound(path.display().to_string()),
        _ => TrainError::io(path, error),
    }
}

fn table_error(path: &Path, at: At, error: &csv::Error) -> TrainError {
    if let csv::ErrorKind::Io(error) = error.kind()
        && error.kind() != TOO_LONG
    {
        return io(path, error);
    }
    TrainError::DataInvalid { place: place(path, at), reason: error.to_string() }
}
