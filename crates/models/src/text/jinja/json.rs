//! `tojson`, which for chat templates is Python's `json.dumps`.

use std::fmt::Write;

use super::calls::{Given, flag, string};
use super::failure::broken;
use super::value::{Result, Value, Work, float};

struct Form {
    ascii: bool,
    sorted: bool,
    indent: Option<String>,
    item: String,
    key: String,
}

pub(super) fn filter<'t>(work: &Work, value: &Value<'t>, given: Given<'t>) -> Result<Value<'t>> {
    let [ascii, indent, separators, sorted] =
        given.bind(["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text.to_string()),
        Some(other) => {
            let width = other.as_int().ok_or_else(|| broken("an indent is a number or a string"))?;
            Some(" ".repeat(width.clamp(0, 64) as usize))
        }
    };
    let (item, key) = match separators {
        None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
        Some(Value::List(parts) | Value::Tuple(parts)) if parts.all.len() == 2 => {
            (string(parts.all.first())?.to_string(), string(parts.all.last())?.to_string())
        }
        Some(_) => return Err(broken("separators are two strings")),
    };
    let form = Form { ascii: flag(ascii), sorted: flag(sorted), indent, item, key };
    let mut out = String::new();
    write(work, &form, value, &mut out, 0)?;
    Ok(Value::text(out))
}

fn line(work: &Work, form: &Form, out: &mut String, level: usize) -> Result<()> {
    if let Some(indent) = &form.indent {
        work.spend_text(1 + indent.len() * level)?;
        out.push('\n');
        (0..level).for_each(|_| out.push_str(indent));
    }
    Ok(())
}

fn write<'t>(work: &Work, form: &Form, value: &Value<'t>, out: &mut String, level: usize) -> Result<()> {
    work.spend(1)?;
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => drop(write!(out, "{value}")),
        Value::Float(value) => out.push_str(&match float(*value).as_str() {
            "nan" => "NaN".to_string(),
            "inf" => "Infinity".to_string(),
            "-inf" => "-Infinity".to_string(),
            plain => plain.to_string(),
        }),
        Value::Str(text) => quote(work, text, form.ascii, out)?,
        Value::List(items) | Value::Tuple(items) if items.all.is_empty() => out.push_str("[]"),
        Value::List(items) | Value::Tuple(items) => {
            out.push('[');
            for (index, item) in items.all.iter().enumerate() {
                if index > 0 {
                    work.spend_text(form.item.len())?;
                    out.push_str(&form.item);
                }
                line(work, form, out, level + 1)?;
                write(work, form, item, out, level + 1)?;
            }
            line(work, form, out, level)?;
            out.push(']');
        }
        Value::Dict(dict) if dict.entries.is_empty() => out.push_str("{}"),
        Value::Dict(dict) => {
            let mut entries = Vec::with_capacity(dict.entries.len());
            for (key, value) in &dict.entries {
                let key = match key {
                    Value::Str(text) => text.to_string(),
                    Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                        let mut text = String::new();
                        write(work, form, key, &mut text, 0)?;
                        text
                    }
                    other => return Err(broken(format!("{} is no key in JSON", other.kind()))),
                };
                work.spend_text(key.len())?;
                entries.push((key, value));
            }
            if form.sorted {
                entries.sort_by(|a, b| a.0.cmp(&b.0));
            }
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    work.spend_text(form.item.len())?;
                    out.push_str(&form.item);
                }
                line(work, form, out, level + 1)?;
                quote(work, &key, form.ascii, out)?;
                work.spend_text(form.key.len())?;
                out.push_str(&form.key);
                write(work, form, value, out, level + 1)?;
            }
            line(work, form, out, level)?;
            out.push('}');
        }
        other => return Err(broken(format!("{} cannot be written as JSON", other.kind()))),
    }
    Ok(())
}

fn quote(work: &Work, text: &str, ascii: bool, out: &mut String) -> Result<()> {
    // Six bytes for one, at the most, and a look at each character.
    work.spend(1 + text.len() / 8)?;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' || ascii && !c.is_ascii() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(())
}
