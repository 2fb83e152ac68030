//! Ids and values of fields, as they come from JavaScript: JSON of `null`, `true`, `false` and strings alone, where
//! "s…" is a text and "n…" a number, so that numbers are read by Rust's own parser, which rounds as JavaScript does.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::error::{EngineError, Result};

/// What a vector is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VectorId {
    Number(i64),
    Text(Arc<str>),
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    /// Of values that are no lists.
    List(Vec<Value>),
}

fn internal(what: &str) -> EngineError {
    EngineError::Internal(format!("what JavaScript gave is no {what}"))
}

impl VectorId {
    pub(super) fn of(json: &Json) -> Result<Self> {
        match Value::of(json)? {
            Value::Number(number) if number.fract() == 0.0 && number.abs() < (1u64 << 53) as f64 => {
                Ok(Self::Number(number as i64))
            }
            Value::Text(text) => Ok(Self::Text(text.into())),
            _ => Err(internal("id")),
        }
    }

    pub(super) fn write(&self, to: &mut String) {
        match self {
            Self::Number(number) => to.push_str(&number.to_string()),
            Self::Text(text) => to.push_str(&Json::from(&**text).to_string()),
        }
    }

    /// For messages.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => {
                let short: String = text.chars().take(40).collect();
                format!("{short:?}{}", if short.len() < text.len() { "…" } else { "" })
            }
        }
    }
}

impl Value {
    pub(super) fn of(json: &Json) -> Result<Self> {
        Ok(match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Array(list) => {
                let of =
                    |value: &Json| if value.is_array() { Err(internal("value")) } else { Self::of(value) };
                Self::List(list.iter().map(of).collect::<Result<_>>()?)
            }
            Json::String(text) => match text.split_at_checked(1) {
                Some(("s", text)) => Self::Text(text.to_string()),
                Some(("n", number)) => Self::Number(number.parse().map_err(|_| internal("number"))?),
                _ => return Err(internal("value")),
            },
            _ => return Err(internal("value")),
        })
    }
}

pub(super) fn parse(text: &str) -> Result<Json> {
    serde_json::from_str(text).map_err(|_| internal("JSON"))
}
