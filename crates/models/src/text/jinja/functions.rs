//! The functions that every chat template has: Jinja's, and transformers' `raise_exception` and `strftime_now`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::calls::{Given, integer, string};
use super::failure::{Failure, broken};
use super::moment::{Moment, strftime};
use super::value::{Result, Value, Work};

/// As in Jinja's sandbox.
const LONGEST_RANGE: usize = 100_000;

pub(super) fn named<'t>(name: &str) -> Option<Value<'t>> {
    let known = ["range", "namespace", "dict", "raise_exception", "strftime_now"];
    known.into_iter().find(|own| *own == name).map(Value::Function)
}

pub(super) fn call<'t>(work: &Work, name: &str, given: Given<'t>) -> Result<Value<'t>> {
    match name {
        "range" => range(work, given),
        "namespace" => {
            let namespace = RefCell::new(HashMap::new());
            let Given { positional, named } = given;
            if !positional.is_empty() {
                return Err(broken("a namespace of a dictionary is not supported"));
            }
            for (name, value) in named {
                keep(&namespace, name, value)?;
            }
            Ok(Value::Namespace(Rc::new(namespace)))
        }
        "dict" => {
            let Given { positional, named } = given;
            let mut entries = Vec::new();
            for other in positional {
                let Value::Dict(dict) = &other else { return Err(broken("dict takes a dictionary")) };
                entries.extend(dict.entries.iter().cloned());
            }
            entries.extend(named.into_iter().map(|(name, value)| (Value::text(name), value)));
            Value::dict(work, entries)
        }
        "raise_exception" => {
            let [message] = given.bind(["message"])?;
            let message = message.ok_or_else(|| broken("raise_exception needs a message"))?.show(work)?;
            Err(Failure::Refused(message.chars().take(1000).collect()))
        }
        _ => {
            let [format] = given.bind(["format"])?;
            let text = strftime(&Moment(work.now), string(format.as_ref())?)?;
            work.spend_text(text.len())?;
            Ok(Value::text(text))
        }
    }
}

/// Puts a value into a namespace. One that could come to hold the namespace itself would never be freed.
pub(super) fn keep<'t>(
    namespace: &RefCell<HashMap<&'t str, Value<'t>>>,
    name: &'t str,
    value: Value<'t>,
) -> Result<()> {
    if name.starts_with('_') {
        return Err(broken(format!("a namespace cannot keep '{name}'")));
    }
    if matches!(value, Value::Namespace(_) | Value::Loop(_) | Value::Method(_)) {
        return Err(broken(format!("a namespace cannot keep {}", value.kind())));
    }
    namespace.borrow_mut().insert(name, value);
    Ok(())
}

fn range<'t>(work: &Work, given: Given<'t>) -> Result<Value<'t>> {
    let whole = |value| integer(value)?.ok_or_else(|| broken("range takes integers"));
    let count = given.positional.len();
    let [first, second, third] = given.bind(["start", "stop", "step"])?;
    let (from, to) = if count == 1 { (0, whole(first)?) } else { (whole(first)?, whole(second)?) };
    let step = integer(third)?.unwrap_or(1);
    let distance =
        if step > 0 { i128::from(to) - i128::from(from) } else { i128::from(from) - i128::from(to) };
    let length = match step {
        0 => return Err(broken("a range's step cannot be 0")),
        _ if distance <= 0 => 0,
        _ => usize::try_from((distance - 1) / i128::from(step).abs() + 1).unwrap_or(usize::MAX),
    };
    if length > LONGEST_RANGE {
        return Err(broken(format!("a range of more than {LONGEST_RANGE} numbers")));
    }
    work.spend(length)?;
    Value::list(work, (0..length as i64).map(|index| Value::Int(from + index * step)).collect())
}
