//! The head of a GGUF file: numbers, strings, and the metadata's pairs of key and value, each of a stated type.
//!
//! Nothing is trusted: a count is checked against the bytes that are left before anything is allocated for it. A value
//! of another type than its key should have is an error that names both.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use crate::files::reading::corrupt;
use crate::{ModelError, Result};

/// Entries of a vocabulary or of a list of merges: far above any GPT-2's, and a bound on what a hostile file can make
/// us hold.
const MAX_ENTRIES: u64 = 1 << 20;
const MAX_STRING: u64 = 1 << 20;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Meta {
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i64>),
    /// One that is not read, but is there: what it is.
    Other(&'static str),
}

impl Meta {
    /// What it is, for messages.
    fn kind(&self) -> &'static str {
        match self {
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a bool",
            Self::Text(_) => "a string",
            Self::Texts(_) => "an array of strings",
            Self::Integers(_) => "an array of integers",
            Self::Other(kind) => kind,
        }
    }
}

/// What is done with a key's value.
#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Value,
    /// That it is there, and of which type.
    Presence,
    /// It describes the file: its author, its source.
    Nothing,
}

fn keep(key: &str) -> Keep {
    match key {
        "general.architecture" | "general.type" | "general.alignment" | "general.quantization_version" => {
            Keep::Value
        }
        "tokenizer.huggingface.json" => Keep::Presence,
        _ if ["gpt2.", "tokenizer.", "split."].iter().any(|family| key.starts_with(family)) => Keep::Value,
        _ => Keep::Nothing,
    }
}

/// Arrays that are read; of the others it is enough that they are there.
const ARRAYS: [&str; 3] = ["tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"];

/// A file that is read from its beginning, with how far it has come.
pub(crate) struct Reader<'a> {
    name: &'a str,
    inner: BufReader<&'a File>,
    pub at: u64,
    pub size: u64,
}

impl<'a> Reader<'a> {
    pub fn new(name: &'a str, file: &'a File, size: u64) -> std::io::Result<Self> {
        let mut inner = BufReader::with_capacity(1 << 16, file);
        inner.seek(SeekFrom::Start(0))?;
        Ok(Self { name, inner, at: 0, size })
    }

    pub fn bad(&self, reason: impl Into<String>) -> ModelError {
        corrupt(self.name, format!("at byte {}: {}", self.at, reason.into()))
    }

    /// Checks that `count` items of at least `each` bytes are left in the file.
    pub fn room(&self, count: u64, each: u64, what: &str) -> Result<()> {
        match count.checked_mul(each) {
            Some(bytes) if bytes <= self.size - self.at => Ok(()),
            _ => Err(self.bad(format!("{count} {what} do not fit in the file"))),
        }
    }

    pub fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.room(N as u64, 1, "bytes")?;
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(|e| self.bad(e.to_string()))?;
        self.at += N as u64;
        Ok(bytes)
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        self.room(bytes, 1, "bytes")?;
        // Bounded by the file's size, which fits.
        self.inner.seek_relative(bytes as i64).map_err(|e| self.bad(e.to_string()))?;
        self.at += bytes;
        Ok(())
    }

    pub fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        if length > MAX_STRING {
            return Err(self.bad(format!("a string of {length} bytes")));
        }
        self.room(length, 1, "bytes of a string")?;
        let mut bytes = vec![0; length as usize];
        self.inner.read_exact(&mut bytes).map_err(|e| self.bad(e.to_string()))?;
        self.at += length;
        String::from_utf8(bytes).map_err(|_| self.bad("a string that is not UTF-8"))
    }

    /// A scalar of type `kind`, or a text.
    fn scalar(&mut self, kind: u32) -> Result<Meta> {
        Ok(match kind {
            0 => Meta::Integer(self.bytes::<1>()?[0].into()),
            1 => Meta::Integer(i8::from_le_bytes(self.bytes()?).into()),
            2 => Meta::Integer(u16::from_le_bytes(self.bytes()?).into()),
            3 => Meta::Integer(i16::from_le_bytes(self.bytes()?).into()),
            4 => Meta::Integer(self.u32()?.into()),
            5 => Meta::Integer(i32::from_le_bytes(self.bytes()?).into()),
            6 => Meta::Float(f32::from_le_bytes(self.bytes()?).into()),
            7 => Meta::Bool(match self.bytes::<1>()?[0] {
                0 => false,
                1 => true,
                other => return Err(self.bad(format!("a bool of {other}"))),
            }),
            8 => Meta::Text(self.text()?),
            10 => Meta::Integer(self.u64()?.try_into().map_err(|_| self.bad("an integer over 2^63"))?),
            11 => Meta::Integer(i64::from_le_bytes(self.bytes()?)),
            12 => Meta::Float(f64::from_le_bytes(self.bytes()?)),
            _ => return Err(self.bad(format!("metadata of unknown type {kind}"))),
        })
    }

    fn skip_scalar(&mut self, kind: u32) -> Result<&'static str> {
        let (width, name) = match kind {
            8 => (self.u64()?, "a string"),
            9 => return Err(self.bad("an array of arrays")),
            _ => width_of(kind).ok_or_else(|| self.bad(format!("metadata of unknown type {kind}")))?,
        };
        self.skip(width).map(|()| name)
    }

    /// The value after a key. `None`: it is passed over.
    fn value(&mut self, key: &str) -> Result<Option<Meta>> {
        let (keep, kind) = (keep(key), self.u32()?);
        if kind != 9 {
            if keep == Keep::Value {
                return self.scalar(kind).map(Some);
            }
            let other = Meta::Other(self.skip_scalar(kind)?);
            return Ok((keep == Keep::Presence).then_some(other));
        }
        let (kind, count) = (self.u32()?, self.u64()?);
        let width = match kind {
            8 => 8, // at least the length
            9 => return Err(self.bad("an array of arrays")),
            _ => width_of(kind).ok_or_else(|| self.bad(format!("an array of unknown type {kind}")))?.0,
        };
        self.room(count, width, "array items")?;
        let wanted = ARRAYS.contains(&key);
        if wanted && count > MAX_ENTRIES {
            return Err(self.bad(format!("{key} has {count} items")));
        }
        Ok(match kind {
            8 if wanted => Some(Meta::Texts((0..count).map(|_| self.text()).collect::<Result<_>>()?)),
            0..=5 | 10 | 11 if wanted => {
                let integer = |value: Meta| if let Meta::Integer(i) = value { i } else { i64::MIN };
                let items = (0..count).map(|_| self.scalar(kind).map(integer));
                Some(Meta::Integers(items.collect::<Result<_>>()?))
            }
            8 => {
                (0..count).try_for_each(|_| self.skip_scalar(kind).map(drop))?;
                (keep != Keep::Nothing).then_some(Meta::Other("an array of strings"))
            }
            _ => {
                self.skip(count * width)?;
                (keep != Keep::Nothing).then_some(Meta::Other("an array of numbers"))
            }
        })
    }
}

/// Bytes of a number or bool, and what it is.
fn width_of(kind: u32) -> Option<(u64, &'static str)> {
    Some(match kind {
        0 | 1 => (1, "an integer"),
        2 | 3 => (2, "an integer"),
        4 | 5 => (4, "an integer"),
        10 | 11 => (8, "an integer"),
        6 => (4, "a float"),
        12 => (8, "a float"),
        7 => (1, "a bool"),
        _ => return None,
    })
}

/// A string of a file, as long as a message may show it.
pub fn short(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// What a file says of itself, by key: what is used, and what would be ignored in silence.
pub struct Metadata {
    /// The file's name.
    file: String,
    values: BTreeMap<String, Meta>,
}

impl Metadata {
    pub(crate) fn read(reader: &mut Reader, pairs: u64) -> Result<Self> {
        let (mut values, mut keys) = (BTreeMap::new(), HashSet::new());
        for _ in 0..pairs {
            let key = reader.text()?;
            if let Some(value) = reader.value(&key)? {
                values.insert(key.clone(), value);
            }
            // As llama.cpp: of two values one would be obeyed and one not.
            if let Some(key) = keys.replace(key) {
                return Err(reader.bad(format!("{} is there twice", short(&key))));
            }
        }
        Ok(Self { file: reader.name.to_string(), values })
    }

    /// An error about `key`: its code says whether the model or its tokenizer is at fault.
    pub fn bad(&self, key: &str, reason: impl std::fmt::Display) -> ModelError {
        let shown = if key.len() > 100 { &short(key) } else { key };
        let message = format!("{}: {shown} {reason}", self.file);
        match key.starts_with("tokenizer.") {
            true => ModelError::Tokenizer(message),
            false => ModelError::Config(message),
        }
    }

    /// The keys that begin with `family`.
    pub fn keys(&self, family: &str) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str).filter(move |key| key.starts_with(family))
    }

    pub fn contains(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The value of `key` as `take` has it, which is `expected`.
    fn of<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        take: impl Fn(&'a Meta) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        match take(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.bad(key, format!("is {}, expected {expected}", value.kind()))),
        }
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.of(key, "a string", |meta| if let Meta::Text(text) = meta { Some(text.as_str()) } else { None })
    }

    pub fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        self.of(key, "an array of strings", |meta| {
            if let Meta::Texts(texts) = meta { Some(texts.as_slice()) } else { None }
        })
    }

    pub fn integers(&self, key: &str) -> Result<Option<&[i64]>> {
        self.of(key, "an array of integers", |meta| {
            if let Meta::Integers(items) = meta { Some(items.as_slice()) } else { None }
        })
    }

    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.of(key, "a float", |meta| if let Meta::Float(value) = meta { Some(*value) } else { None })
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.of(key, "a bool", |meta| if let Meta::Bool(value) = meta { Some(*value) } else { None })
    }

    /// A size or id.
    pub fn size_if_any(&self, key: &str) -> Result<Option<usize>> {
        let value =
            self.of(key, "an integer", |meta| if let Meta::Integer(i) = meta { Some(*i) } else { None })?;
        value
            .map(|value| usize::try_from(value).map_err(|_| self.bad(key, format!("is {value}"))))
            .transpose()
    }

    /// A size that must be there.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.size_if_any(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }
}
