//! An index as one file (format 1, little-endian): a header of 72 bytes; the rows, block by block, each with a
//! checksum; then places, ids and metadata, with theirs. It is read block by block into the memory in which it is
//! searched, by positioned reads (a mapped file that shrinks would kill the process). The header says how long the file
//! is, so that what is cut or larger than the file is refused before memory is taken.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use candlewick_models::{
    ModelError, Similarity, VectorPool, VectorPrecision, VectorRows, VectorShape, open_regular, read_exact_at,
};

use super::bytes::{Checksum, Reader, Writer};
use super::metadata::{Cell, MOST_FIELDS, Metadata};
use super::table::{Naming, Table};
use super::values::VectorId;
use crate::error::{EngineError, Result};

const MAGIC: &[u8; 8] = b"\x93CWINDEX";
const FORMAT: u64 = 1;
const HEADER: usize = 72;
const SIMILARITIES: [Similarity; 4] =
    [Similarity::Cosine, Similarity::Dot, Similarity::Euclidean, Similarity::Manhattan];
const PRECISIONS: [VectorPrecision; 3] =
    [VectorPrecision::F32, VectorPrecision::Int8, VectorPrecision::Binary];

struct Header {
    shape: VectorShape,
    /// 0: open, 1: by order, 2: own.
    naming: u8,
    rows: usize,
    next: u64,
    /// Bytes of places, ids and metadata.
    tail: u64,
}

impl Header {
    fn write(&self) -> [u8; HEADER] {
        let code = |at: Option<usize>| at.unwrap_or_default() as u8;
        let precision = |precision| code(PRECISIONS.iter().position(|one| *one == precision));
        let mut to = Writer::default();
        to.0.extend(MAGIC);
        to.u64(FORMAT);
        to.byte(code(SIMILARITIES.iter().position(|one| *one == self.shape.similarity)));
        to.byte(precision(self.shape.precision));
        to.byte(precision(self.shape.rescore));
        to.byte(self.naming);
        to.u32(0);
        for value in [self.shape.width as u64, self.rows as u64, self.next, self.tail] {
            to.u64(value);
        }
        to.u64(self.len().expect("it is in memory"));
        to.u64(Checksum::of(&to.0));
        to.0.try_into().expect("a header's length")
    }

    /// Bytes of the file.
    fn len(&self) -> Option<u64> {
        let blocks = self.rows.div_ceil(self.shape.block_rows()) as u64;
        let rows = (self.rows as u64).checked_mul(self.shape.row_bytes() as u64)?;
        rows.checked_add(8 * blocks)?.checked_add(self.tail)?.checked_add(HEADER as u64 + 8)
    }

    fn read(bytes: &[u8], len: u64) -> std::result::Result<Self, &'static str> {
        const CUT: &str = "it is cut, or has been changed";
        let mut from = Reader(bytes);
        if from.bytes(8) != Some(MAGIC) {
            return Err("it is no index of vectors that save() has written");
        }
        match from.u64() {
            Some(FORMAT) => {}
            Some(_) if len >= HEADER as u64 => {
                return Err("a newer version wrote it, or it has been changed");
            }
            _ => return Err(CUT),
        }
        let read = |from: &mut Reader| {
            let [similarity, precision, rescore, naming] = *from.bytes(4)? else { return None };
            from.u32()?;
            let [width, rows, next, tail, total] =
                [from.u64()?, from.u64()?, from.u64()?, from.u64()?, from.u64()?];
            let sum = from.u64()?;
            let shape = VectorShape {
                width: usize::try_from(width).ok().filter(|width| (1..=1 << 20).contains(width))?,
                similarity: *SIMILARITIES.get(usize::from(similarity))?,
                precision: *PRECISIONS.get(usize::from(precision))?,
                rescore: *PRECISIONS.get(usize::from(rescore))?,
            };
            let allowed = shape.precision == VectorPrecision::Binary || shape.precision == shape.rescore;
            let rows = usize::try_from(rows).ok().filter(|rows| *rows as u64 <= next)?;
            let header = Self { shape, naming, rows, next, tail };
            let whole =
                sum == Checksum::of(&bytes[..HEADER - 8]) && header.len() == Some(total) && total == len;
            let known = naming <= 2 && (naming > 0 || rows == 0) && next <= u64::from(u32::MAX);
            (whole && allowed && known).then_some(header)
        };
        read(&mut from).ok_or(CUT)
    }
}

fn io(path: &Path, error: &std::io::Error) -> EngineError {
    ModelError::Io { path: path.to_path_buf(), reason: error.to_string() }.into()
}

fn invalid(path: &Path, reason: &str) -> EngineError {
    EngineError::IndexInvalid { path: path.display().to_string(), reason: reason.into() }
}

/// Writes the index aside, to the disk, and then to its place, where it is whole or as it was before.
///
/// # Errors
/// `IO`; `ABORTED` if `stop` says so.
pub(super) fn save(table: &Table, path: &Path, stop: &dyn Fn() -> bool) -> Result<()> {
    let mut compacted;
    let table = if table.len() == table.rows.len() {
        table
    } else {
        compacted = table.clone();
        compacted.compact();
        &compacted
    };
    let aside = aside(path);
    let written = write(table, &aside, stop).and_then(|()| {
        std::fs::rename(&aside, path).map_err(|error| io(path, &error))?;
        // What a folder says of its files is a file of its own; not every system lets it be written so.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    written
}

/// A name beside the file's that nobody else has.
fn aside(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name:.100}.{}-{count}.tmp", std::process::id()))
}

fn write(table: &Table, path: &Path, stop: &dyn Fn() -> bool) -> Result<()> {
    let fail = |error: std::io::Error| io(path, &error);
    let tail = tail_of(table);
    let naming = match table.naming {
        Naming::Open => 0,
        Naming::Order => 1,
        Naming::Own { .. } => 2,
    };
    let (shape, rows, next) = (table.rows.shape(), table.rows.len(), table.next);
    let header = Header { shape, naming, rows, next, tail: tail.len() as u64 };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(fail)?;
    file.write_all(&header.write()).map_err(fail)?;
    for sections in table.rows.blocks() {
        if stop() {
            return Err(EngineError::Aborted);
        }
        let mut sum = Checksum::new();
        for section in sections {
            sum.add(section);
            file.write_all(section).map_err(fail)?;
        }
        file.write_all(&sum.finish().to_le_bytes()).map_err(fail)?;
    }
    file.write_all(&tail).map_err(fail)?;
    file.write_all(&Checksum::of(&tail).to_le_bytes()).map_err(fail)?;
    file.sync_all().map_err(fail)
}

fn tail_of(table: &Table) -> Vec<u8> {
    let mut to = Writer::default();
    table.places.iter().for_each(|place| to.u32(*place));
    if let Naming::Own { ids, .. } = &table.naming {
        for id in ids {
            match id {
                VectorId::Number(number) => {
                    to.byte(0);
                    to.u64(number.cast_unsigned());
                }
                VectorId::Text(text) => {
                    to.byte(1);
                    to.text(text);
                }
            }
        }
    }
    to.u32(table.metadata.texts.all.len() as u32);
    table.metadata.texts.all.iter().for_each(|text| to.text(text));
    to.u32(table.metadata.fields.len() as u32);
    for field in &table.metadata.fields {
        to.text(&field.name);
        to.u32(field.cells.len() as u32);
        field.cells.iter().for_each(|cell| write_cell(cell, &mut to));
    }
    to.0
}

fn write_cell(cell: &Cell, to: &mut Writer) {
    match cell {
        Cell::Missing => to.byte(0),
        Cell::Null => to.byte(1),
        Cell::Bool(value) => to.byte(2 + u8::from(*value)),
        Cell::Number(number) => {
            to.byte(4);
            to.u64(number.to_bits());
        }
        Cell::Text(text) => {
            to.byte(5);
            to.u32(*text);
        }
        Cell::List(list) => {
            to.byte(6);
            to.u32(list.len() as u32);
            list.iter().for_each(|cell| write_cell(cell, to));
        }
    }
}

fn read_cell(from: &mut Reader, lists: bool) -> Option<Cell> {
    Some(match from.byte()? {
        0 if lists => Cell::Missing,
        1 => Cell::Null,
        2 => Cell::Bool(false),
        3 => Cell::Bool(true),
        4 => Cell::Number(Some(f64::from_bits(from.u64()?)).filter(|number| number.is_finite())?),
        5 => Cell::Text(from.u32()?),
        6 if lists => {
            let count = from.count(1)?;
            Cell::List(Box::new((0..count).map(|_| read_cell(from, false)).collect::<Option<_>>()?))
        }
        _ => return None,
    })
}

/// Reads what [`save`] wrote.
///
/// # Errors
/// `INDEX_INVALID` for a file that is anything else, `IO`; `ABORTED` if `stop` says so.
pub(super) fn load(path: &Path, pool: &VectorPool, stop: &(dyn Fn() -> bool + Sync)) -> Result<Table> {
    let file = open_regular(path).map_err(|error| match error {
        ModelError::NotFound(_) => {
            ModelError::Io { path: path.into(), reason: "there is no such file".into() }
        }
        other => other,
    })?;
    let len = file.metadata().map_err(|error| io(path, &error))?.len();
    let read = |bytes: &mut [u8], at: u64| {
        read_exact_at(&file, bytes, at).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => invalid(path, "it became shorter while it was read"),
            _ => io(path, &error),
        })
    };
    let mut bytes = [0; HEADER];
    let given = HEADER.min(len as usize);
    read(&mut bytes[..given], 0)?;
    let header = Header::read(&bytes[..given], len).map_err(|reason| invalid(path, reason))?;
    let changed = || invalid(path, "its checksum is another: it has been changed");

    let shape = header.shape;
    let whole = (shape.block_rows() * shape.row_bytes() + 8) as u64;
    let rows = VectorRows::read(shape, header.rows, pool, |at, sections| {
        if stop() {
            return Err(EngineError::Aborted);
        }
        let mut sum = Checksum::new();
        let mut at = HEADER as u64 + at as u64 * whole;
        for section in sections {
            // In parts that stay in a cache until they are summed.
            for part in section.chunks_mut(1 << 18) {
                read(part, at)?;
                sum.add(part);
                at += part.len() as u64;
            }
        }
        let mut stored = [0; 8];
        read(&mut stored, at)?;
        if u64::from_le_bytes(stored) == sum.finish() { Ok(()) } else { Err(changed()) }
    });
    let rows =
        rows.map_err(|error| error.unwrap_or_else(|| invalid(path, "it holds numbers that are not finite")))?;

    let mut tail = vec![0; header.tail as usize];
    read(&mut tail, len - 8 - header.tail)?;
    let mut stored = [0; 8];
    read(&mut stored, len - 8)?;
    if u64::from_le_bytes(stored) != Checksum::of(&tail) {
        return Err(changed());
    }
    read_tail(&header, rows, &mut Reader(&tail))
        .ok_or_else(|| invalid(path, "its ids or metadata are not whole"))
}

fn read_tail(header: &Header, rows: VectorRows, from: &mut Reader) -> Option<Table> {
    let mut table = Table::new(header.shape);
    let places = from.bytes(header.rows.checked_mul(4)?)?;
    table.places = places.as_chunks::<4>().0.iter().map(|place| u32::from_le_bytes(*place)).collect();
    let ascending = table.places.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending || table.places.last().is_some_and(|last| u64::from(*last) >= header.next) {
        return None;
    }
    table.naming = match header.naming {
        0 => Naming::Open,
        1 => Naming::Order,
        _ => {
            let id = |from: &mut Reader| match from.byte()? {
                0 => Some(VectorId::Number(from.u64()?.cast_signed())),
                1 => Some(VectorId::Text(from.text()?.into())),
                _ => None,
            };
            let ids = (0..header.rows).map(|_| id(from)).collect::<Option<Vec<_>>>()?;
            let mut of = HashMap::with_capacity(ids.len());
            for (row, id) in ids.iter().enumerate() {
                if of.insert(id.clone(), row as u32).is_some() {
                    return None;
                }
            }
            Naming::Own { ids, rows: of }
        }
    };
    let mut metadata = Metadata::default();
    metadata.rows = header.rows;
    let texts = from.count(4)?;
    for place in 0..texts {
        let text = from.text()?;
        if metadata.texts.place(text) as usize != place {
            return None;
        }
    }
    let fields = from.count(8).filter(|fields| *fields <= MOST_FIELDS)?;
    for place in 0..fields {
        let name = from.text()?;
        if metadata.field(name).ok()? != place {
            return None;
        }
        let count = from.count(1).filter(|count| *count <= header.rows)?;
        let cell = |from: &mut Reader| read_cell(from, true).filter(|cell| Table::is_cell(cell, texts));
        metadata.fields[place].cells = (0..count).map(|_| cell(from)).collect::<Option<_>>()?;
    }
    (table.rows, table.next, table.metadata) = (rows, header.next, metadata);
    from.0.is_empty().then(|| table.restored())
}
