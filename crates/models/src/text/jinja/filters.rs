//! Jinja's filters that templates use, `a|name`.

use std::cmp::Ordering;
use std::rc::Rc;

use super::calls::{Given, flag, integer, string};
use super::failure::broken;
use super::value::{Result, Value, Work};
use super::{checks, json, methods, operators};

pub(super) fn filter<'t>(work: &Work, name: &str, value: Value<'t>, given: Given<'t>) -> Result<Value<'t>> {
    work.spend(1)?;
    match name {
        "string" => {
            given.bind([])?;
            Ok(Value::Str(value.show(work)?))
        }
        // Nothing is escaped, so all is safe.
        "safe" => Ok(value),
        "trim" | "upper" | "lower" | "title" | "capitalize" | "replace" | "indent" => {
            text_filter(work, name, &value, given)
        }
        "length" | "count" => {
            given.bind([])?;
            work.spend_text(value.as_str().map_or(0, str::len))?;
            let length = value.length().ok_or_else(|| broken(format!("the length of {}", value.kind())))?;
            Ok(Value::Int(length as i64))
        }
        "default" | "d" => {
            let [default, boolean] = given.bind(["default_value", "boolean"])?;
            let missing = matches!(value, Value::Undefined(_)) || flag(boolean) && !value.is_true();
            Ok(if missing { default.unwrap_or_else(|| Value::text("")) } else { value })
        }
        "tojson" => json::filter(work, &value, given),
        "format" => {
            let values = Value::tuple(work, given.positional)?;
            operators::percent(work, &value.show(work)?, &values)
        }
        "int" | "float" | "abs" | "round" => number_filter(name, &value, given),
        "attr" => {
            let [attribute] = given.bind(["name"])?;
            path(work, &value, attribute.as_ref())
        }
        "items" => {
            given.bind([])?;
            if matches!(value, Value::Undefined(_)) {
                Value::list(work, Vec::new())
            } else {
                methods::items(work, &value)
            }
        }
        "map" => map(work, &value, given),
        "select" | "reject" | "selectattr" | "rejectattr" => select(work, name, &value, given),
        "sort" | "unique" | "min" | "max" | "sum" | "join" | "dictsort" => listing(work, name, &value, given),
        "list" | "first" | "last" | "reverse" => {
            given.bind([])?;
            let mut items = value.iterate(work)?;
            let missing = Value::Undefined("the item of an empty list");
            match (name, &value) {
                ("first", _) => Ok(items.into_iter().next().unwrap_or(missing)),
                ("last", _) => Ok(items.pop().unwrap_or(missing)),
                ("list", _) => Value::list(work, items),
                (_, Value::Str(text)) => Ok(Value::text(text.chars().rev().collect::<String>())),
                _ => {
                    items.reverse();
                    Value::list(work, items)
                }
            }
        }
        _ => Err(broken(format!("there is no filter '{name}' here"))),
    }
}

fn text_filter<'t>(work: &Work, name: &str, value: &Value<'t>, given: Given<'t>) -> Result<Value<'t>> {
    let text = value.show(work)?;
    work.spend_text(2 * text.len())?;
    match name {
        "trim" => {
            let [chars] = given.bind(["chars"])?;
            Ok(Value::text(methods::strip(&text, chars.as_ref(), true, true)?))
        }
        "replace" => {
            let [old, new, count] = given.bind(["old", "new", "count"])?;
            methods::replace(work, &text, string(old.as_ref())?, string(new.as_ref())?, integer(count)?)
        }
        "indent" => {
            let [width, first, blank] = given.bind(["width", "first", "blank"])?;
            let width = match width {
                Some(Value::Str(text)) => text,
                other => {
                    let spaces = integer(other)?.unwrap_or(4).clamp(0, 1024);
                    Rc::from(" ".repeat(spaces as usize))
                }
            };
            let (first, blank) = (flag(first), flag(blank));
            let mut indented = String::new();
            for (index, line) in text.split('\n').enumerate() {
                if index > 0 {
                    indented.push('\n');
                }
                if if index == 0 { first } else { blank || !line.is_empty() } {
                    work.spend_text(width.len())?;
                    indented.push_str(&width);
                }
                indented.push_str(line);
            }
            Ok(Value::text(indented))
        }
        _ => {
            given.bind([])?;
            Ok(Value::text(match name {
                "upper" => text.to_uppercase(),
                "lower" => text.to_lowercase(),
                "capitalize" => methods::capitalized(&text),
                // Unlike `str.title`: words are parted by spaces, hyphens and opening brackets alone.
                _ => {
                    let mut titled = String::with_capacity(text.len());
                    let mut inside = false;
                    for c in text.chars() {
                        if inside {
                            titled.extend(c.to_lowercase())
                        } else {
                            titled.extend(c.to_uppercase())
                        }
                        inside = !(c.is_whitespace() || matches!(c, '-' | '(' | '{' | '[' | '<'));
                    }
                    titled
                }
            }))
        }
    }
}

fn number_filter<'t>(name: &str, value: &Value<'t>, given: Given<'t>) -> Result<Value<'t>> {
    let text = value.as_str().map(|text| text.trim().replace('_', ""));
    let parsed = text.as_ref().and_then(|text| text.parse::<f64>().ok());
    match name {
        "int" => {
            let [default, _] = given.bind(["default", "base"])?;
            let whole = text.as_ref().and_then(|text| text.parse().ok()).or_else(|| value.as_int());
            let number = parsed.or_else(|| value.as_float()).filter(|number| number.is_finite());
            let number = whole.or_else(|| number.map(|number| number as i64)).map(Value::Int);
            Ok(number.or(default).unwrap_or(Value::Int(0)))
        }
        "float" => {
            let [default] = given.bind(["default"])?;
            let number = parsed.or_else(|| value.as_float()).map(Value::Float);
            Ok(number.or(default).unwrap_or(Value::Float(0.0)))
        }
        "abs" => {
            given.bind([])?;
            match value {
                Value::Float(number) => Ok(Value::Float(number.abs())),
                other => {
                    let number = other.as_int().and_then(i64::checked_abs);
                    number
                        .map(Value::Int)
                        .ok_or_else(|| broken(format!("the absolute value of {}", value.kind())))
                }
            }
        }
        _ => {
            let [precision, method] = given.bind(["precision", "method"])?;
            let method = method.as_ref().and_then(Value::as_str);
            if let (Some(whole), None | Some("common")) = (value.as_int(), method) {
                return Ok(Value::Int(whole));
            }
            let factor = 10f64.powi(integer(precision)?.unwrap_or(0).clamp(-300, 300) as i32);
            let number =
                value.as_float().ok_or_else(|| broken(format!("{} cannot be rounded", value.kind())))?;
            Ok(Value::Float(match method {
                Some("ceil") => (number * factor).ceil() / factor,
                Some("floor") => (number * factor).floor() / factor,
                _ => (number * factor).round_ties_even() / factor,
            }))
        }
    }
}

/// An attribute by name, `a.b` for one of one.
fn path<'t>(work: &Work, value: &Value<'t>, attribute: Option<&Value<'t>>) -> Result<Value<'t>> {
    if let Some(Value::Int(_)) = attribute {
        return methods::item(work, value, attribute.unwrap_or(&Value::None));
    }
    let mut value = value.clone();
    for name in string(attribute)?.split('.') {
        let key = name.parse().map_or_else(|_| Value::text(name), Value::Int);
        value = methods::item(work, &value, &key)?;
    }
    Ok(value)
}

fn map<'t>(work: &Work, value: &Value<'t>, mut given: Given<'t>) -> Result<Value<'t>> {
    let items = value.iterate(work)?;
    let mut mapped = Vec::with_capacity(items.len());
    if given.positional.is_empty() {
        let [attribute, default] = given.bind(["attribute", "default"])?;
        for item in items {
            let found = path(work, &item, attribute.as_ref())?;
            mapped.push(match (&found, &default) {
                (Value::Undefined(_), Some(default)) => default.clone(),
                _ => found,
            });
        }
    } else {
        let name = given.positional.remove(0);
        for item in items {
            let again = Given { positional: given.positional.clone(), named: given.named.clone() };
            mapped.push(filter(work, string(Some(&name))?, item, again)?);
        }
    }
    Value::list(work, mapped)
}

/// The items, or those with an attribute, for which a test holds, or does not; without a test, those that are true.
fn select<'t>(work: &Work, name: &str, value: &Value<'t>, mut given: Given<'t>) -> Result<Value<'t>> {
    let wanted = name.starts_with("select");
    let by_attribute = name.ends_with("attr");
    if given.positional.len() < usize::from(by_attribute) {
        return Err(broken(format!("{name} needs an attribute")));
    }
    let attribute = by_attribute.then(|| given.positional.remove(0));
    let test = (!given.positional.is_empty()).then(|| given.positional.remove(0));
    let mut kept = Vec::new();
    for item in value.iterate(work)? {
        let tested = match &attribute {
            Some(_) => path(work, &item, attribute.as_ref())?,
            None => item.clone(),
        };
        let holds = match &test {
            None => tested.is_true(),
            Some(test) => {
                let again = Given { positional: given.positional.clone(), named: given.named.clone() };
                checks::holds(work, string(Some(test))?, &tested, again)?
            }
        };
        if holds == wanted {
            kept.push(item);
        }
    }
    Value::list(work, kept)
}

/// What is compared where case does not count.
fn folded<'t>(value: Value<'t>, case_sensitive: bool) -> Value<'t> {
    match &value {
        Value::Str(text) if !case_sensitive => Value::text(text.to_lowercase()),
        _ => value,
    }
}

/// By keys; a comparison that fails ends it.
fn sorted<'t>(work: &Work, mut items: Vec<(Value<'t>, Value<'t>)>, reverse: bool) -> Result<Vec<Value<'t>>> {
    let mut failed = None;
    items.sort_by(|(a, _), (b, _)| {
        if failed.is_some() {
            return Ordering::Equal;
        }
        let order = if reverse { b.compare(work, a) } else { a.compare(work, b) };
        order.unwrap_or_else(|failure| {
            failed = Some(failure);
            Ordering::Equal
        })
    });
    failed.map_or_else(|| Ok(items.into_iter().map(|(_, item)| item).collect()), Err)
}

fn listing<'t>(work: &Work, name: &str, value: &Value<'t>, given: Given<'t>) -> Result<Value<'t>> {
    if name == "join" {
        let [between, attribute] = given.bind(["d", "attribute"])?;
        let between = between.unwrap_or_else(|| Value::text("")).show(work)?;
        let mut items = value.iterate(work)?;
        if attribute.is_some() {
            items = items.iter().map(|item| path(work, item, attribute.as_ref())).collect::<Result<_>>()?;
        }
        return methods::join(work, &items, &between);
    }
    if name == "sum" {
        let [attribute, start] = given.bind(["attribute", "start"])?;
        let mut sum = start.unwrap_or(Value::Int(0));
        for item in value.iterate(work)? {
            let item = if attribute.is_some() { path(work, &item, attribute.as_ref())? } else { item };
            sum = operators::binary(work, super::ast::Operator::Add, &sum, &item)?;
        }
        return Ok(sum);
    }
    if name == "dictsort" {
        let [sensitive, by, reverse] = given.bind(["case_sensitive", "by", "reverse"])?;
        let sensitive = flag(sensitive);
        let place = usize::from(by.as_ref().and_then(Value::as_str) == Some("value"));
        let pairs = methods::items(work, value)?.iterate(work)?;
        let key = |pair: Value<'t>| match &pair {
            Value::Tuple(parts) => (folded(parts.all[place].clone(), sensitive), pair.clone()),
            _ => (Value::None, pair),
        };
        return Value::list(work, sorted(work, pairs.into_iter().map(key).collect(), flag(reverse))?);
    }
    let (sensitive, attribute, reverse) = if name == "sort" {
        let [reverse, sensitive, attribute] = given.bind(["reverse", "case_sensitive", "attribute"])?;
        (sensitive, attribute, flag(reverse))
    } else {
        let [sensitive, attribute] = given.bind(["case_sensitive", "attribute"])?;
        (sensitive, attribute, name == "max")
    };
    let sensitive = flag(sensitive);
    let mut keyed = Vec::new();
    for item in value.iterate(work)? {
        let key = if attribute.is_some() { path(work, &item, attribute.as_ref())? } else { item.clone() };
        keyed.push((folded(key, sensitive), item));
    }
    if name == "unique" {
        let mut seen: Vec<Value<'t>> = Vec::new();
        let mut kept = Vec::new();
        for (key, item) in keyed {
            let mut known = false;
            for other in &seen {
                known = known || other.equals(work, &key)?;
            }
            if !known {
                seen.push(key);
                kept.push(item);
            }
        }
        return Value::list(work, kept);
    }
    let items = sorted(work, keyed, reverse)?;
    match name {
        "sort" => Value::list(work, items),
        _ => Ok(items.into_iter().next().unwrap_or(Value::Undefined("the item of an empty list"))),
    }
}
