//! The values of a template, which are Python's: how they print, compare and count as true.
//!
//! Whatever walks into a value spends on the way, so that a list which holds itself a thousand million times over costs
//! its template the end, and not the process its memory.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt::Write;
use std::rc::Rc;

use super::ast::Macro;
use super::failure::{Failure, broken};

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// Work that a rendering may still do: a unit is an operation, a value in a list, or 64 bytes of text.
pub(super) struct Work {
    left: Cell<u64>,
    /// The local time, which is the same throughout a rendering.
    pub now: i64,
}

impl Work {
    pub fn new(units: u64, now: i64) -> Self {
        Self { left: Cell::new(units), now }
    }

    pub fn spend(&self, units: usize) -> Result<()> {
        match self.left.get().checked_sub(units as u64) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.left.set(0);
                Err(broken("it has no end, or makes too much"))
            }
        }
    }

    /// For a text that is made or read.
    pub fn spend_text(&self, bytes: usize) -> Result<()> {
        self.spend(1 + bytes / 64)
    }
}

/// How deep lists and dictionaries may lie in each other: they are walked and dropped by recursion.
const DEEPEST: u8 = 64;

#[derive(Clone)]
pub(super) enum Value<'t> {
    /// With the name that was looked for.
    Undefined(&'t str),
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    List(Rc<Items<'t>>),
    Tuple(Rc<Items<'t>>),
    Dict(Rc<Dict<'t>>),
    Namespace(Rc<RefCell<HashMap<&'t str, Value<'t>>>>),
    Loop(Rc<Loop<'t>>),
    Macro(&'t Macro),
    /// One of the functions that every template has, by name.
    Function(&'static str),
    /// A method of a value, not yet called.
    Method(Rc<(Value<'t>, &'t str)>),
}

pub(super) struct Items<'t> {
    pub all: Vec<Value<'t>>,
    depth: u8,
}

/// In the order of insertion.
pub(super) struct Dict<'t> {
    pub entries: Vec<(Value<'t>, Value<'t>)>,
    depth: u8,
}

pub(super) struct Loop<'t> {
    pub items: Vec<Value<'t>>,
    pub index: Cell<usize>,
    /// What `loop.changed` was asked last.
    pub last: RefCell<Option<Value<'t>>>,
}

fn depth_of<'v, 't: 'v>(values: impl Iterator<Item = &'v Value<'t>>) -> Result<u8> {
    let mut deepest = 0;
    for value in values {
        let depth = match value {
            Value::List(items) | Value::Tuple(items) => items.depth,
            Value::Dict(dict) => dict.depth,
            // They could come to hold themselves.
            Value::Namespace(_) | Value::Loop(_) | Value::Method(_) => {
                return Err(broken(format!("{} cannot be put into a list or a dictionary", value.kind())));
            }
            _ => 0,
        };
        deepest = deepest.max(depth);
    }
    if deepest == DEEPEST {
        Err(broken("lists and dictionaries lie too deep in each other"))
    } else {
        Ok(deepest + 1)
    }
}

impl<'t> Value<'t> {
    pub fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Str(text.into())
    }

    pub fn list(work: &Work, all: Vec<Value<'t>>) -> Result<Self> {
        work.spend(all.len())?;
        let depth = depth_of(all.iter())?;
        Ok(Self::List(Rc::new(Items { all, depth })))
    }

    pub fn tuple(work: &Work, all: Vec<Value<'t>>) -> Result<Self> {
        work.spend(all.len())?;
        let depth = depth_of(all.iter())?;
        Ok(Self::Tuple(Rc::new(Items { all, depth })))
    }

    /// Of entries of which a later one replaces an earlier one with the same key.
    pub fn dict(work: &Work, given: Vec<(Value<'t>, Value<'t>)>) -> Result<Self> {
        let mut entries: Vec<(Value<'t>, Value<'t>)> = Vec::with_capacity(given.len());
        for (key, value) in given {
            match key {
                Self::List(_) | Self::Dict(_) => return Err(broken("a list or a dictionary is no key")),
                _ => {}
            }
            work.spend(1 + entries.len())?;
            let mut same = None;
            for (index, (old, _)) in entries.iter().enumerate() {
                if old.equals(work, &key)? {
                    same = Some(index);
                    break;
                }
            }
            match same {
                Some(index) => entries[index].1 = value,
                None => entries.push((key, value)),
            }
        }
        let depth = depth_of(entries.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(Self::Dict(Rc::new(Dict { entries, depth })))
    }

    /// For messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "an undefined value",
            Self::None => "None",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Str(_) => "a string",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dictionary",
            Self::Namespace(_) => "a namespace",
            Self::Loop(_) => "a loop",
            Self::Macro(_) => "a macro",
            Self::Function(_) => "a function",
            Self::Method(_) => "a method",
        }
    }

    pub fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.all.is_empty(),
            Self::Dict(dict) => !dict.entries.is_empty(),
            _ => true,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// A truth value counts as 0 or 1.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    pub fn as_float(&self) -> Option<f64> {
        if let Self::Float(value) = self { Some(*value) } else { self.as_int().map(|value| value as f64) }
    }

    pub fn length(&self) -> Option<usize> {
        match self {
            Self::Undefined(_) => Some(0),
            Self::Str(text) => Some(text.chars().count()),
            Self::List(items) | Self::Tuple(items) => Some(items.all.len()),
            Self::Dict(dict) => Some(dict.entries.len()),
            _ => None,
        }
    }

    /// What a loop goes through: characters, items, or keys.
    pub fn iterate(&self, work: &Work) -> Result<Vec<Value<'t>>> {
        let items: Vec<Value<'t>> = match self {
            Self::Undefined(_) => Vec::new(),
            Self::Str(text) => {
                work.spend(text.len())?;
                text.chars().map(|c| Self::text(c.encode_utf8(&mut [0; 4]) as &str)).collect()
            }
            Self::List(items) | Self::Tuple(items) => items.all.clone(),
            Self::Dict(dict) => dict.entries.iter().map(|(key, _)| key.clone()).collect(),
            other => return Err(broken(format!("{} cannot be iterated over", other.kind()))),
        };
        work.spend(items.len())?;
        Ok(items)
    }

    /// The value under a key, if there is one.
    pub fn entry(&self, work: &Work, key: &Value<'t>) -> Result<Option<Value<'t>>> {
        let Self::Dict(dict) = self else { return Ok(None) };
        work.spend(dict.entries.len())?;
        for (own, value) in &dict.entries {
            if own.equals(work, key)? {
                return Ok(Some(value.clone()));
            }
        }
        Ok(None)
    }

    pub fn equals(&self, work: &Work, other: &Value<'t>) -> Result<bool> {
        work.spend(1)?;
        Ok(match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Str(a), Self::Str(b)) => {
                work.spend_text(if a.len() == b.len() { a.len() } else { 0 })?;
                a == b
            }
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                if a.all.len() != b.all.len() {
                    return Ok(false);
                }
                for (a, b) in a.all.iter().zip(&b.all) {
                    if !a.equals(work, b)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Dict(a), Self::Dict(b)) => {
                if a.entries.len() != b.entries.len() {
                    return Ok(false);
                }
                for (key, value) in &a.entries {
                    match other.entry(work, key)? {
                        Some(found) if value.equals(work, &found)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            _ => match (self.as_int(), other.as_int()) {
                (Some(a), Some(b)) => a == b,
                _ => match (self.as_float(), other.as_float()) {
                    (Some(a), Some(b)) => a == b,
                    _ => false,
                },
            },
        })
    }

    pub fn compare(&self, work: &Work, other: &Value<'t>) -> Result<Ordering> {
        work.spend(1)?;
        match (self, other) {
            (Self::Str(a), Self::Str(b)) => {
                work.spend_text(a.len().min(b.len()))?;
                return Ok(a.cmp(b));
            }
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                for (a, b) in a.all.iter().zip(&b.all) {
                    if !a.equals(work, b)? {
                        return a.compare(work, b);
                    }
                }
                return Ok(a.all.len().cmp(&b.all.len()));
            }
            _ => {}
        }
        let numbers = self.as_float().zip(other.as_float());
        let exact = self.as_int().zip(other.as_int()).map(|(a, b)| a.cmp(&b));
        let order = exact.or_else(|| numbers.and_then(|(a, b)| a.partial_cmp(&b)));
        order.ok_or_else(|| broken(format!("{} cannot be compared with {}", self.kind(), other.kind())))
    }

    /// `other in self`.
    pub fn contains(&self, work: &Work, other: &Value<'t>) -> Result<bool> {
        match (self, other) {
            (Self::Str(text), Self::Str(part)) => {
                work.spend_text(text.len())?;
                Ok(text.contains(&**part))
            }
            (Self::Str(_), _) => Err(broken(format!("{} cannot be in a string", other.kind()))),
            (Self::Dict(_), _) => Ok(self.entry(work, other)?.is_some()),
            (Self::List(items) | Self::Tuple(items), _) => {
                for item in &items.all {
                    if item.equals(work, other)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Self::Undefined(_), _) => Ok(false),
            _ => Err(broken(format!("nothing can be in {}", self.kind()))),
        }
    }

    /// Python's `str`.
    pub fn show(&self, work: &Work) -> Result<Rc<str>> {
        if let Self::Str(text) = self {
            return Ok(text.clone());
        }
        let mut text = String::new();
        self.write(work, &mut text, false)?;
        Ok(text.into())
    }

    /// Appends Python's `str`, or its `repr`.
    pub fn write(&self, work: &Work, out: &mut String, quoted: bool) -> Result<()> {
        work.spend(1)?;
        match self {
            Self::Undefined(_) => out.push_str(if quoted { "Undefined" } else { "" }),
            Self::None => out.push_str("None"),
            Self::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
            Self::Int(value) => drop(write!(out, "{value}")),
            Self::Float(value) => out.push_str(&float(*value)),
            Self::Str(text) => {
                // Quoting takes a look at each character.
                work.spend(1 + text.len() / if quoted { 8 } else { 64 })?;
                if quoted { quote(text, out) } else { out.push_str(text) }
            }
            Self::List(items) => Self::write_items(work, out, ("[", "]"), &items.all)?,
            Self::Tuple(items) if items.all.len() == 1 => {
                Self::write_items(work, out, ("(", ",)"), &items.all)?
            }
            Self::Tuple(items) => Self::write_items(work, out, ("(", ")"), &items.all)?,
            Self::Dict(dict) => {
                out.push('{');
                for (index, (key, value)) in dict.entries.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    key.write(work, out, true)?;
                    out.push_str(": ");
                    value.write(work, out, true)?;
                }
                out.push('}');
            }
            other => drop(write!(out, "<{}>", other.kind())),
        }
        Ok(())
    }

    fn write_items(work: &Work, out: &mut String, brackets: (&str, &str), items: &[Value<'t>]) -> Result<()> {
        out.push_str(brackets.0);
        for (index, item) in items.iter().enumerate() {
            out.push_str(if index > 0 { ", " } else { "" });
            item.write(work, out, true)?;
        }
        out.push_str(brackets.1);
        Ok(())
    }
}

/// Python's `repr` of a float: the fewest digits that say which it is.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

/// Python's `repr` of a string.
fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if c == mark => {
                out.push('\\');
                out.push(c);
            }
            ' ' => out.push(' '),
            _ if c.is_control() || c.is_whitespace() || is_format(c) => {
                let code = c as u32;
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
            _ => out.push(c),
        }
    }
    out.push(mark);
}

/// Characters that are no signs: Unicode's Cf, and those that are none.
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{fff0}'..='\u{fffb}'
        | '\u{fffe}'..='\u{ffff}' | '\u{e0000}'..='\u{10ffff}')
}
