//! Rows of which something holds. As in MongoDB, a list meets a test if one of its values does, and `null` is also what
//! is missing; values of different types are never equal, nor one above the other.

use std::cmp::Ordering;
use std::collections::HashSet;

use candlewick_models::RowSet;
use serde_json::Value as Json;

use super::metadata::{Cell, Metadata};
use super::values::{Value, parse};
use crate::error::{EngineError, Result};

#[derive(Debug, Clone)]
pub enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Field { name: String, test: Test },
}

#[derive(Debug, Clone)]
pub enum Test {
    In(Vec<Value>),
    /// Whether the order of a value to this one is among those.
    Order(Value, &'static [Ordering]),
    Exists(bool),
}

impl Filter {
    /// As `src/vectors/filter.ts` writes it: `{"and": […]}`, `{"or": […]}`, `{"not": …}`, `{"field", "op", "value"}`.
    pub fn parse(text: &str) -> Result<Self> {
        Self::of(&parse(text)?)
    }

    fn of(json: &Json) -> Result<Self> {
        let list =
            |json: &Json| json.as_array().into_iter().flatten().map(Self::of).collect::<Result<Vec<_>>>();
        if !json["and"].is_null() {
            return Ok(Self::All(list(&json["and"])?));
        }
        if !json["or"].is_null() {
            return Ok(Self::Any(list(&json["or"])?));
        }
        if !json["not"].is_null() {
            return Ok(Self::Not(Box::new(Self::of(&json["not"])?)));
        }
        let name = json["field"].as_str().unwrap_or_default().to_string();
        let value = Value::of(&json["value"])?;
        let values = |value: Value| if let Value::List(list) = value { list } else { vec![value] };
        let field = |test| Self::Field { name: name.clone(), test };
        Ok(match json["op"].as_str().unwrap_or_default() {
            "in" => field(Test::In(values(value))),
            "nin" => Self::Not(Box::new(field(Test::In(values(value))))),
            "gt" => field(Test::Order(value, &[Ordering::Greater])),
            "gte" => field(Test::Order(value, &[Ordering::Greater, Ordering::Equal])),
            "lt" => field(Test::Order(value, &[Ordering::Less])),
            "lte" => field(Test::Order(value, &[Ordering::Less, Ordering::Equal])),
            "exists" => field(Test::Exists(value == Value::Bool(true))),
            other => return Err(EngineError::Internal(format!("no filter {other}"))),
        })
    }

    /// The rows, of `metadata.rows`, that it holds for.
    pub(super) fn rows(&self, metadata: &Metadata) -> RowSet {
        let rows = metadata.rows;
        match self {
            Self::All(all) => all.iter().fold(RowSet::new(rows, true), |mut set, filter| {
                set.and(&filter.rows(metadata));
                set
            }),
            Self::Any(any) => any.iter().fold(RowSet::new(rows, false), |mut set, filter| {
                set.or(&filter.rows(metadata));
                set
            }),
            Self::Not(not) => {
                let mut set = not.rows(metadata);
                set.invert();
                set
            }
            Self::Field { name, test } => {
                let cells = metadata.find(name).map_or(&[][..], |field| &field.cells);
                let cell = |row: usize| cells.get(row).unwrap_or(&Cell::Missing);
                match test {
                    Test::Exists(wanted) => RowSet::of(rows, |row| (*cell(row) != Cell::Missing) == *wanted),
                    Test::In(values) => {
                        let among = Among::new(values, metadata);
                        RowSet::of(rows, |row| among.has(cell(row)))
                    }
                    Test::Order(value, wanted) => RowSet::of(rows, |row| {
                        any(cell(row), |cell| {
                            order(cell, value, metadata).is_some_and(|order| wanted.contains(&order))
                        })
                    }),
                }
            }
        }
    }
}

/// Values that one may be equal to: numbers by their bits, texts by their places.
#[derive(Default)]
struct Among {
    null: bool,
    bools: [bool; 2],
    numbers: HashSet<u64>,
    texts: HashSet<u32>,
}

impl Among {
    fn new(values: &[Value], metadata: &Metadata) -> Self {
        let mut among = Self::default();
        for value in values {
            match value {
                Value::Null => among.null = true,
                Value::Bool(value) => among.bools[usize::from(*value)] = true,
                // -0 is 0.
                Value::Number(number) => _ = among.numbers.insert((number + 0.0).to_bits()),
                Value::Text(text) => among.texts.extend(metadata.texts.find(text)),
                Value::List(_) => {}
            }
        }
        among
    }

    fn has(&self, cell: &Cell) -> bool {
        any(cell, |cell| match cell {
            Cell::Missing | Cell::Null => self.null,
            Cell::Bool(value) => self.bools[usize::from(*value)],
            Cell::Number(number) => self.numbers.contains(&(number + 0.0).to_bits()),
            Cell::Text(text) => self.texts.contains(text),
            Cell::List(_) => false,
        })
    }
}

fn any(cell: &Cell, test: impl Fn(&Cell) -> bool) -> bool {
    if let Cell::List(list) = cell { list.iter().any(test) } else { test(cell) }
}

/// Texts by UTF-16 units, as JavaScript orders them.
fn order(cell: &Cell, value: &Value, metadata: &Metadata) -> Option<Ordering> {
    match (cell, value) {
        (Cell::Number(a), Value::Number(b)) => a.partial_cmp(b),
        (Cell::Text(a), Value::Text(b)) => {
            Some(metadata.texts.all[*a as usize].encode_utf16().cmp(b.encode_utf16()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(filter: &str) -> Vec<usize> {
        let mut metadata = Metadata::default();
        for row in [
            r#"{"lang": "sen", "year": "n2020", "tags": ["sa", "n1"]}"#,
            r#"{"lang": "sde", "year": "n2021.5", "ok": true}"#,
            r#"{"lang": "s", "year": "s2021", "ok": false, "tags": []}"#,
            r#"{"lang": null, "year": "n-0"}"#,
            "null",
            r#"{"lang": "s\ud83d\ude00"}"#,
            r#"{"lang": "s\uffee"}"#,
        ] {
            metadata.push(&parse(row).unwrap()).unwrap();
        }
        Filter::parse(filter).unwrap().rows(&metadata).iter().collect()
    }

    fn field(name: &str, op: &str, value: &str) -> String {
        format!(r#"{{"field": "{name}", "op": "{op}", "value": {value}}}"#)
    }

    #[test]
    fn tests_hold_for_the_rows_that_they_should() {
        for (name, op, value, expected) in [
            ("lang", "in", r#"["sen"]"#, &[0][..]),
            ("lang", "in", r#"["sen", "sde", "sxx"]"#, &[0, 1]),
            ("lang", "nin", r#"["sen"]"#, &[1, 2, 3, 4, 5, 6]),
            ("lang", "in", "[null]", &[3, 4]),
            ("year", "gte", r#""n2020""#, &[0, 1]),
            ("year", "gt", r#""n2020""#, &[1]),
            ("year", "lt", r#""n2020""#, &[3]),
            ("year", "lte", r#""s2021""#, &[2]),
            ("year", "in", r#"["n0"]"#, &[3]),
            ("year", "in", r#"["n2021"]"#, &[]),
            ("tags", "in", r#"["sa"]"#, &[0]),
            ("tags", "gte", r#""n1""#, &[0]),
            ("tags", "exists", "true", &[0, 2]),
            ("tags", "exists", "false", &[1, 3, 4, 5, 6]),
            ("ok", "in", "[true]", &[1]),
            ("ok", "in", "[false]", &[2]),
            ("none", "in", "[true]", &[]),
            ("none", "in", "[null]", &[0, 1, 2, 3, 4, 5, 6]),
            // An emoji's first unit is d83d, below ffee, though its code point is above.
            ("lang", "gt", r#""s\ud83d\ude00""#, &[6]),
        ] {
            assert_eq!(found(&field(name, op, value)), expected, "{name} {op} {value}");
        }
    }

    #[test]
    fn filters_are_joined() {
        let (en, old) = (field("lang", "in", r#"["sen"]"#), field("year", "lt", r#""n2021""#));
        assert_eq!(found(&format!(r#"{{"and": [{en}, {old}]}}"#)), [0]);
        assert_eq!(found(&format!(r#"{{"or": [{en}, {old}]}}"#)), [0, 3]);
        assert_eq!(found(&format!(r#"{{"not": {{"or": [{en}, {old}]}}}}"#)), [1, 2, 4, 5, 6]);
        assert_eq!(found(r#"{"and": []}"#), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(found(r#"{"or": []}"#), [0usize; 0]);
    }
}
