//! Operators, as Python has them; integers are those of 64 bits.

use std::cmp::Ordering;

use super::ast::{Comparison, Operator};
use super::failure::{Failure, broken, undefined};
use super::value::{Result, Value, Work};

pub(super) fn holds<'t>(
    work: &Work,
    comparison: Comparison,
    left: &Value<'t>,
    right: &Value<'t>,
) -> Result<bool> {
    Ok(match comparison {
        Comparison::Equal => left.equals(work, right)?,
        Comparison::Unequal => !left.equals(work, right)?,
        Comparison::Less => left.compare(work, right)? == Ordering::Less,
        Comparison::LessOrEqual => left.compare(work, right)? != Ordering::Greater,
        Comparison::Greater => left.compare(work, right)? == Ordering::Greater,
        Comparison::GreaterOrEqual => left.compare(work, right)? != Ordering::Less,
        Comparison::In => right.contains(work, left)?,
        Comparison::NotIn => !right.contains(work, left)?,
    })
}

fn unfit(what: &str, left: &Value<'_>, right: &Value<'_>) -> Failure {
    if let Value::Undefined(name) = left {
        return undefined(name);
    }
    if let Value::Undefined(name) = right {
        return undefined(name);
    }
    broken(format!("{what} of {} and {}", left.kind(), right.kind()))
}

pub(super) fn binary<'t>(
    work: &Work,
    operator: Operator,
    left: &Value<'t>,
    right: &Value<'t>,
) -> Result<Value<'t>> {
    let large = || broken("a number that is too large");
    let zero = || broken("a division by zero");
    match operator {
        Operator::Add => match (left, right) {
            (Value::Str(a), Value::Str(b)) => {
                work.spend_text(a.len() + b.len())?;
                return Ok(Value::text([&**a, &**b].concat()));
            }
            (Value::List(a), Value::List(b)) => {
                work.spend(a.all.len() + b.all.len())?;
                return Value::list(work, [a.all.as_slice(), b.all.as_slice()].concat());
            }
            (Value::Tuple(a), Value::Tuple(b)) => {
                work.spend(a.all.len() + b.all.len())?;
                return Value::tuple(work, [a.all.as_slice(), b.all.as_slice()].concat());
            }
            _ => {}
        },
        Operator::Multiply => match (left, right, left.as_int(), right.as_int()) {
            (Value::Str(text), _, _, Some(times)) | (_, Value::Str(text), Some(times), _) => {
                let times = usize::try_from(times).unwrap_or(0);
                work.spend_text(text.len().saturating_mul(times))?;
                return Ok(Value::text(text.repeat(times)));
            }
            (Value::List(items), _, _, Some(times)) | (_, Value::List(items), Some(times), _) => {
                let times = usize::try_from(times).unwrap_or(0);
                work.spend(items.all.len().saturating_mul(times))?;
                let all = (0..times).flat_map(|_| items.all.iter().cloned());
                return Value::list(work, all.collect());
            }
            _ => {}
        },
        Operator::Remainder => {
            if let Value::Str(format) = left {
                return percent(work, format, right);
            }
        }
        _ => {}
    }
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        let value = match operator {
            Operator::Add => a.checked_add(b),
            Operator::Subtract => a.checked_sub(b),
            Operator::Multiply => a.checked_mul(b),
            Operator::Divide if b == 0 => return Err(zero()),
            Operator::Divide => return Ok(Value::Float(a as f64 / b as f64)),
            Operator::FloorDivide | Operator::Remainder if b == 0 => return Err(zero()),
            Operator::FloorDivide => {
                let rest = a.checked_rem(b).ok_or_else(large)?;
                Some(a / b - i64::from(rest != 0 && (rest < 0) != (b < 0)))
            }
            Operator::Remainder => {
                let rest = a.checked_rem(b).ok_or_else(large)?;
                Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
            }
            Operator::Power => match u32::try_from(b) {
                Ok(exponent) => a.checked_pow(exponent),
                Err(_) if b < 0 => return Ok(Value::Float((a as f64).powf(b as f64))),
                Err(_) => None,
            },
        };
        return value.map(Value::Int).ok_or_else(large);
    }
    let what = match operator {
        Operator::Add => "a sum",
        Operator::Subtract => "a difference",
        Operator::Multiply => "a product",
        Operator::Power => "a power",
        _ => "a division",
    };
    let (Some(a), Some(b)) = (left.as_float(), right.as_float()) else {
        return Err(unfit(what, left, right));
    };
    Ok(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Power => a.powf(b),
        _ if b == 0.0 => return Err(zero()),
        Operator::Divide => a / b,
        Operator::FloorDivide => (a / b).floor(),
        Operator::Remainder => a - b * (a / b).floor(),
    }))
}

pub(super) fn negative<'t>(value: &Value<'t>) -> Result<Value<'t>> {
    match (value, value.as_int()) {
        (_, Some(number)) => {
            number.checked_neg().map(Value::Int).ok_or_else(|| broken("a number that is too large"))
        }
        (Value::Float(number), _) => Ok(Value::Float(-number)),
        (Value::Undefined(name), _) => Err(undefined(name)),
        _ => Err(broken(format!("the negative of {}", value.kind()))),
    }
}

pub(super) fn positive<'t>(value: &Value<'t>) -> Result<Value<'t>> {
    match (value, value.as_int()) {
        (_, Some(number)) => Ok(Value::Int(number)),
        (Value::Float(number), _) => Ok(Value::Float(*number)),
        _ => Err(broken(format!("a sign before {}", value.kind()))),
    }
}

/// From, to and step, as Python slices.
pub(super) fn slice<'t>(work: &Work, of: &Value<'t>, bounds: [Option<i64>; 3]) -> Result<Value<'t>> {
    let step = bounds[2].unwrap_or(1);
    if step == 0 {
        return Err(broken("a slice's step cannot be 0"));
    }
    match of {
        Value::Str(text) => {
            work.spend(text.len() / 8)?;
            let chars: Vec<char> = text.chars().collect();
            let text: String = indices(chars.len(), bounds, step).map(|index| chars[index]).collect();
            work.spend_text(text.len())?;
            Ok(Value::text(text))
        }
        Value::List(items) => {
            let all = indices(items.all.len(), bounds, step).map(|index| items.all[index].clone());
            Value::list(work, all.collect())
        }
        Value::Tuple(items) => {
            let all = indices(items.all.len(), bounds, step).map(|index| items.all[index].clone());
            Value::tuple(work, all.collect())
        }
        // As Jinja: what cannot be looked up is undefined.
        Value::Undefined(name) => Err(undefined(name)),
        other => Err(broken(format!("a slice of {}", other.kind()))),
    }
}

fn indices(length: usize, [from, to, _]: [Option<i64>; 3], step: i64) -> impl Iterator<Item = usize> {
    let length = length as i64;
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let place = |bound: Option<i64>, default| match bound {
        None => default,
        Some(bound) if bound < 0 => bound.saturating_add(length).max(lowest),
        Some(bound) => bound.min(highest),
    };
    let (first, end) = match step > 0 {
        true => (place(from, lowest), place(to, highest)),
        false => (place(from, highest), place(to, lowest)),
    };
    let mut next = Some(first);
    std::iter::from_fn(move || {
        let index = next.filter(|index| if step > 0 { *index < end } else { *index > end })?;
        next = index.checked_add(step);
        Some(index as usize)
    })
}

/// `"%s: %d" % (a, b)`: `%s`, `%r`, `%d`, `%i` and `%%`.
pub(super) fn percent<'t>(work: &Work, format: &str, given: &Value<'t>) -> Result<Value<'t>> {
    let mut values: Vec<Value<'t>> = match given {
        Value::Tuple(items) => items.all.clone(),
        other => vec![other.clone()],
    };
    values.reverse();
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        let kind = rest.as_bytes().get(at + 1).copied();
        rest = rest.get(at + 2..).ok_or_else(|| broken("a format that ends with '%'"))?;
        if kind == Some(b'%') {
            text.push('%');
            continue;
        }
        let value = values.pop().ok_or_else(|| broken("a format with too few values"))?;
        match (kind, value.as_float()) {
            (Some(b's'), _) => value.write(work, &mut text, false)?,
            (Some(b'r'), _) => value.write(work, &mut text, true)?,
            (Some(b'd' | b'i'), Some(number)) => {
                let whole = value.as_int().unwrap_or(number as i64);
                text.push_str(&whole.to_string());
            }
            _ => return Err(broken("a format other than %s, %r and %d")),
        }
    }
    if !values.is_empty() && matches!(given, Value::Tuple(_)) {
        return Err(broken("a format with too many values"));
    }
    text.push_str(rest);
    work.spend_text(text.len())?;
    Ok(Value::text(text))
}
