//! Attributes, items and methods: those of Python's strings, lists and dictionaries that templates use and that change
//! nothing. Jinja's sandbox forbids the others to chat templates too.

use std::rc::Rc;

use super::calls::{Given, flag, integer, string};
use super::failure::{Failure, broken, undefined};
use super::lexer::is_space;
use super::operators::slice;
use super::value::{Result, Value, Work};

const OF_STRINGS: [&str; 34] = [
    "capitalize",
    "count",
    "endswith",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "islower",
    "isnumeric",
    "isspace",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "title",
    "upper",
];
const OF_DICTIONARIES: [&str; 5] = ["copy", "get", "items", "keys", "values"];
const OF_LISTS: [&str; 2] = ["count", "index"];
const OF_LOOPS: [&str; 2] = ["changed", "cycle"];

fn has(value: &Value<'_>, name: &str) -> bool {
    match value {
        Value::Str(_) => OF_STRINGS.contains(&name),
        Value::Dict(_) => OF_DICTIONARIES.contains(&name),
        Value::List(_) | Value::Tuple(_) => OF_LISTS.contains(&name),
        Value::Loop(_) => OF_LOOPS.contains(&name),
        _ => false,
    }
}

/// `of.name`: a method comes before an entry.
pub(super) fn attribute<'t>(work: &Work, of: &Value<'t>, name: &'t str) -> Result<Value<'t>> {
    if has(of, name) {
        return Ok(Value::Method(Rc::new((of.clone(), name))));
    }
    match of {
        Value::Undefined(missing) => Err(undefined(missing)),
        Value::Dict(_) => {
            let found = of.entry(work, &Value::text(name))?;
            Ok(found.unwrap_or(Value::Undefined(name)))
        }
        Value::Namespace(kept) => Ok(kept.borrow().get(name).cloned().unwrap_or(Value::Undefined(name))),
        Value::Loop(state) => {
            let (index, length) = (state.index.get(), state.items.len());
            let item = |at: Option<usize>| at.and_then(|at| state.items.get(at)).cloned();
            let count = |number: usize| Value::Int(number as i64);
            Ok(match name {
                "index" => count(index + 1),
                "index0" => count(index),
                "revindex" => count(length - index),
                "revindex0" => count(length - index - 1),
                "first" => Value::Bool(index == 0),
                "last" => Value::Bool(index + 1 == length),
                "length" => count(length),
                // Of a loop that does not call itself.
                "depth" => count(1),
                "depth0" => count(0),
                "previtem" => item(index.checked_sub(1)).unwrap_or(Value::Undefined("loop.previtem")),
                "nextitem" => item(Some(index + 1)).unwrap_or(Value::Undefined("loop.nextitem")),
                _ => Value::Undefined(name),
            })
        }
        _ => Ok(Value::Undefined(name)),
    }
}

/// `of[key]`: an entry, an item or a character.
pub(super) fn item<'t>(work: &Work, of: &Value<'t>, key: &Value<'t>) -> Result<Value<'t>> {
    let place = |length: usize| {
        let at = key.as_int()?;
        usize::try_from(if at < 0 { at + length as i64 } else { at }).ok().filter(|at| *at < length)
    };
    let missing = Value::Undefined("an item that is not there");
    match of {
        Value::Undefined(name) => Err(undefined(name)),
        Value::Dict(_) => Ok(of.entry(work, key)?.unwrap_or(missing)),
        Value::List(items) | Value::Tuple(items) => {
            Ok(place(items.all.len()).map_or(missing, |at| items.all[at].clone()))
        }
        Value::Str(text) => {
            work.spend_text(text.len())?;
            let Some(at) = place(text.chars().count()) else { return Ok(missing) };
            slice(work, of, [Some(at as i64), Some(at as i64 + 1), None])
        }
        Value::Namespace(kept) => {
            Ok(key.as_str().and_then(|key| kept.borrow().get(key).cloned()).unwrap_or(missing))
        }
        _ => Ok(missing),
    }
}

pub(super) fn call<'t>(work: &Work, of: &Value<'t>, name: &str, given: Given<'t>) -> Result<Value<'t>> {
    match of {
        Value::Str(text) => of_string(work, text, name, given),
        Value::Dict(dict) => match name {
            "get" => {
                let [key, default] = given.bind(["key", "default"])?;
                let key = key.ok_or_else(|| broken("get needs a key"))?;
                Ok(of.entry(work, &key)?.or(default).unwrap_or(Value::None))
            }
            "keys" => Value::list(work, of.iterate(work)?),
            "values" => Value::list(work, dict.entries.iter().map(|(_, value)| value.clone()).collect()),
            "items" => items(work, of),
            _ => Ok(of.clone()),
        },
        Value::List(items) | Value::Tuple(items) => {
            let [sought] = given.bind(["value"])?;
            let sought = sought.ok_or_else(|| broken("a value is needed"))?;
            let mut found = Vec::new();
            for (index, item) in items.all.iter().enumerate() {
                if item.equals(work, &sought)? {
                    found.push(index as i64);
                }
            }
            match name {
                "count" => Ok(Value::Int(found.len() as i64)),
                _ => found
                    .first()
                    .map(|at| Value::Int(*at))
                    .ok_or_else(|| broken("the value is not in the list")),
            }
        }
        Value::Loop(state) => match name {
            "cycle" if !given.positional.is_empty() => {
                Ok(given.positional[state.index.get() % given.positional.len()].clone())
            }
            "cycle" => Err(broken("loop.cycle needs values")),
            _ => {
                let now = Value::tuple(work, given.positional)?;
                let before = state.last.replace(Some(now.clone()));
                let same = before.map(|before| before.equals(work, &now)).transpose()?.unwrap_or(false);
                Ok(Value::Bool(!same))
            }
        },
        other => Err(broken(format!("{} has no {name}", other.kind()))),
    }
}

/// Keys and values, as pairs.
pub(super) fn items<'t>(work: &Work, of: &Value<'t>) -> Result<Value<'t>> {
    let Value::Dict(dict) = of else { return Err(broken(format!("{} has no items", of.kind()))) };
    let pair = |(key, value): &(Value<'t>, Value<'t>)| Value::tuple(work, vec![key.clone(), value.clone()]);
    Value::list(work, dict.entries.iter().map(pair).collect::<Result<_>>()?)
}

fn of_string<'t>(work: &Work, text: &str, name: &str, given: Given<'t>) -> Result<Value<'t>> {
    // Read once, and written once at the most unless it says so itself.
    work.spend_text(2 * text.len())?;
    let all = |test: fn(char) -> bool| Ok(Value::Bool(!text.is_empty() && text.chars().all(test)));
    let index_of = |at: Option<usize>| at.map_or(-1, |at| text[..at].chars().count() as i64);
    match name {
        "upper" => Ok(Value::text(text.to_uppercase())),
        "lower" => Ok(Value::text(text.to_lowercase())),
        "capitalize" => Ok(Value::text(capitalized(text))),
        "title" => Ok(Value::text(title(text))),
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => Ok(Value::Bool(text.is_ascii())),
        "isdigit" | "isnumeric" | "isdecimal" => all(char::is_numeric),
        "isspace" => all(is_space),
        "islower" => {
            Ok(Value::Bool(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)))
        }
        "isupper" => {
            Ok(Value::Bool(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)))
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = given.bind(["chars"])?;
            Ok(Value::text(strip(text, chars.as_ref(), name != "rstrip", name != "lstrip")?))
        }
        "startswith" | "endswith" => {
            let [affix] = given.bind(["affix"])?;
            let fits = |affix: &str| {
                if name == "startswith" { text.starts_with(affix) } else { text.ends_with(affix) }
            };
            let any = match &affix {
                Some(Value::Tuple(affixes)) => {
                    let each = affixes.all.iter().map(|affix| string(Some(affix)).map(fits));
                    work.spend(affixes.all.len())?;
                    each.collect::<Result<Vec<_>>>()?.contains(&true)
                }
                other => fits(string(other.as_ref())?),
            };
            Ok(Value::Bool(any))
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = given.bind(["affix"])?;
            let affix = string(affix.as_ref())?;
            let rest =
                if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            Ok(Value::text(rest.unwrap_or(text)))
        }
        "find" | "rfind" | "index" | "count" => {
            let [part] = given.bind(["sub"])?;
            let part = string(part.as_ref())?;
            match name {
                "find" => Ok(Value::Int(index_of(text.find(part)))),
                "rfind" => Ok(Value::Int(index_of(text.rfind(part)))),
                "count" => Ok(Value::Int(text.matches(part).count() as i64)),
                _ if text.contains(part) => Ok(Value::Int(index_of(text.find(part)))),
                _ => Err(broken("the substring is not found")),
            }
        }
        "replace" => {
            let [old, new, count] = given.bind(["old", "new", "count"])?;
            replace(work, text, string(old.as_ref())?, string(new.as_ref())?, integer(count)?)
        }
        "split" | "rsplit" => {
            let [separator, most] = given.bind(["sep", "maxsplit"])?;
            let most = integer(most)?.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
            let separator = separator.filter(|separator| !matches!(separator, Value::None));
            let mut parts: Vec<Value<'t>> = Vec::new();
            let mut push = |part: &str| {
                work.spend_text(part.len())?;
                parts.push(Value::text(part));
                Ok(())
            };
            match &separator {
                None => split_at_spaces(text, most, name == "rsplit", &mut push)?,
                Some(separator) => match string(Some(separator))? {
                    "" => return Err(broken("an empty separator")),
                    separator if name == "split" => {
                        text.splitn(most.saturating_add(1), separator).try_for_each(push)?;
                    }
                    separator => text.rsplitn(most.saturating_add(1), separator).try_for_each(push)?,
                },
            }
            if name == "rsplit" {
                parts.reverse();
            }
            Value::list(work, parts)
        }
        "splitlines" => {
            let [keep] = given.bind(["keepends"])?;
            let keep = flag(keep);
            let ends = |c: char| {
                matches!(
                    c,
                    '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
                )
            };
            let mut lines = Vec::new();
            let mut rest = text;
            while !rest.is_empty() {
                let end = rest.find(ends).unwrap_or(rest.len());
                let mark = match rest[end..].chars().next() {
                    Some('\r') if rest[end..].starts_with("\r\n") => 2,
                    Some(c) => c.len_utf8(),
                    None => 0,
                };
                work.spend_text(end)?;
                lines.push(Value::text(&rest[..if keep { end + mark } else { end }]));
                rest = &rest[end + mark..];
            }
            Value::list(work, lines)
        }
        "partition" | "rpartition" => {
            let [separator] = given.bind(["sep"])?;
            let separator = string(separator.as_ref())?;
            let at = if name == "partition" { text.find(separator) } else { text.rfind(separator) };
            let parts = match at {
                Some(at) => [&text[..at], separator, &text[at + separator.len()..]],
                None if name == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            Value::tuple(work, parts.map(Value::text).to_vec())
        }
        "ljust" | "rjust" => {
            let [width, fill] = given.bind(["width", "fillchar"])?;
            let width = integer(width)?.and_then(|width| usize::try_from(width).ok()).unwrap_or(0);
            let fill = if fill.is_some() { string(fill.as_ref())? } else { " " };
            let missing = width.saturating_sub(text.chars().count());
            work.spend_text(missing.saturating_mul(fill.len()))?;
            let fill = fill.repeat(missing);
            Ok(Value::text(if name == "ljust" { format!("{text}{fill}") } else { format!("{fill}{text}") }))
        }
        "join" => {
            let [parts] = given.bind(["iterable"])?;
            let parts = parts.ok_or_else(|| broken("join needs a list"))?.iterate(work)?;
            if let Some(other) = parts.iter().find(|part| part.as_str().is_none()) {
                return Err(broken(format!("join of {}", other.kind())));
            }
            join(work, &parts, text)
        }
        _ => format(work, text, given),
    }
}

/// Without the characters of `chars` (whitespace, if none are given) at its ends.
pub(super) fn strip<'s>(
    text: &'s str,
    chars: Option<&Value<'_>>,
    left: bool,
    right: bool,
) -> Result<&'s str> {
    let set: Option<Vec<char>> = match chars {
        None | Some(Value::None) => None,
        Some(chars) => Some(string(Some(chars))?.chars().take(256).collect()),
    };
    let goes = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(&c));
    let text = if left { text.trim_start_matches(goes) } else { text };
    Ok(if right { text.trim_end_matches(goes) } else { text })
}

pub(super) fn join<'t>(work: &Work, parts: &[Value<'t>], between: &str) -> Result<Value<'t>> {
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            work.spend_text(between.len())?;
            text.push_str(between);
        }
        part.write(work, &mut text, false)?;
    }
    Ok(Value::text(text))
}

pub(super) fn replace<'t>(
    work: &Work,
    text: &str,
    old: &str,
    new: &str,
    count: Option<i64>,
) -> Result<Value<'t>> {
    let most = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let times = text.matches(old).take(most).count();
    work.spend(times)?;
    work.spend_text(text.len() + times.saturating_mul(new.len()))?;
    Ok(Value::text(text.replacen(old, new, times)))
}

/// The parts in the order in which they are found.
fn split_at_spaces(
    text: &str,
    most: usize,
    from_end: bool,
    push: &mut impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut rest = text.trim_matches(is_space);
    let mut count = 0;
    while !rest.is_empty() {
        if count == most {
            // What is left keeps its outer whitespace on the far side, as in Python.
            return push(if from_end { &text[..end_of(text, rest)] } else { rest_of(text, rest) });
        }
        count += 1;
        let cut = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(cut) = cut else { return push(rest) };
        if from_end {
            let width = rest[cut..].chars().next().map_or(1, char::len_utf8);
            push(&rest[cut + width..])?;
            rest = rest[..cut].trim_end_matches(is_space);
        } else {
            push(&rest[..cut])?;
            rest = rest[cut..].trim_start_matches(is_space);
        }
    }
    Ok(())
}

/// From where `rest`, a part of `text`, begins to the end of `text`.
fn rest_of<'s>(text: &'s str, rest: &str) -> &'s str {
    &text[rest.as_ptr() as usize - text.as_ptr() as usize..]
}

fn end_of(text: &str, rest: &str) -> usize {
    rest.as_ptr() as usize - text.as_ptr() as usize + rest.len()
}

/// Python's `str.title`: a letter after none is large, the others are small.
fn title(text: &str) -> String {
    let mut inside = false;
    let mut titled = String::with_capacity(text.len());
    for c in text.chars() {
        if inside {
            titled.extend(c.to_lowercase())
        } else {
            titled.extend(c.to_uppercase())
        }
        inside = c.is_alphabetic();
    }
    titled
}

/// `str.format` with `{}`, `{0}` and `{name}`.
fn format<'t>(work: &Work, text: &str, given: Given<'t>) -> Result<Value<'t>> {
    let wrong = || -> Failure { broken("a format other than {}, {0} and {name}") };
    let mut out = String::new();
    let mut rest = text;
    let mut next = 0;
    while let Some(at) = rest.find(['{', '}']) {
        work.spend(4)?;
        out.push_str(&rest[..at]);
        let mark = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(mark) {
            out.push_str(mark);
            rest = after;
            continue;
        }
        let end = rest.find('}').filter(|_| mark == "{").ok_or_else(wrong)?;
        let field = &rest[..end];
        rest = &rest[end + 1..];
        let value = if field.is_empty() {
            next += 1;
            given.positional.get(next - 1)
        } else if let Ok(index) = field.parse::<usize>() {
            given.positional.get(index)
        } else {
            given.named.iter().find(|(name, _)| *name == field).map(|(_, value)| value)
        };
        value.ok_or_else(wrong)?.write(work, &mut out, false)?;
    }
    out.push_str(rest);
    work.spend_text(out.len())?;
    Ok(Value::text(out))
}

pub(super) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase).collect::<String>();
    first + &chars.as_str().to_lowercase()
}
