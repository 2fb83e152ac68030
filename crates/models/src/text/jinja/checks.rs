//! Jinja's tests, `a is name`.

use super::ast::Comparison;
use super::calls::Given;
use super::failure::broken;
use super::operators;
use super::value::{Result, Value, Work};

pub(super) fn holds<'t>(work: &Work, name: &str, value: &Value<'t>, given: Given<'t>) -> Result<bool> {
    work.spend(1)?;
    let comparison = match name {
        "eq" | "equalto" | "==" => Some(Comparison::Equal),
        "ne" | "!=" => Some(Comparison::Unequal),
        "lt" | "lessthan" | "<" => Some(Comparison::Less),
        "le" | "<=" => Some(Comparison::LessOrEqual),
        "gt" | "greaterthan" | ">" => Some(Comparison::Greater),
        "ge" | ">=" => Some(Comparison::GreaterOrEqual),
        "in" => Some(Comparison::In),
        _ => None,
    };
    if comparison.is_some() || matches!(name, "divisibleby" | "sameas") {
        let [other] = given.bind(["other"])?;
        let other = other.ok_or_else(|| broken(format!("the test '{name}' needs a value")))?;
        return match (comparison, name) {
            (Some(comparison), _) => operators::holds(work, comparison, value, &other),
            (None, "sameas") => Ok(std::mem::discriminant(value) == std::mem::discriminant(&other)
                && value.equals(work, &other)?),
            _ => {
                let rest = operators::binary(work, super::ast::Operator::Remainder, value, &other)?;
                rest.equals(work, &Value::Int(0))
            }
        };
    }
    given.bind([])?;
    let number = || value.as_int().ok_or_else(|| broken(format!("{} is neither odd nor even", value.kind())));
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "boolean" => matches!(value, Value::Bool(_)),
        "string" => matches!(value, Value::Str(_)),
        "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        // What has a length and items, in Python: an undefined value has neither, and can be iterated over.
        "sequence" => matches!(value, Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_)),
        "iterable" => value.length().is_some(),
        "callable" => matches!(value, Value::Macro(_) | Value::Function(_) | Value::Method(_)),
        "odd" => number()?.rem_euclid(2) == 1,
        "even" => number()?.rem_euclid(2) == 0,
        "lower" | "upper" => {
            let text = value.show(work)?;
            work.spend_text(text.len())?;
            let any = |large: bool| {
                let fits = if large { char::is_uppercase } else { char::is_lowercase };
                text.chars().any(fits)
            };
            any(name == "upper") && !any(name == "lower")
        }
        _ => return Err(broken(format!("there is no test '{name}' here"))),
    })
}
