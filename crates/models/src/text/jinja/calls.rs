//! The arguments of a call.

use super::failure::broken;
use super::value::{Result, Value};

pub(super) struct Given<'t> {
    pub positional: Vec<Value<'t>>,
    pub named: Vec<(&'t str, Value<'t>)>,
}

impl<'t> Given<'t> {
    /// The arguments by the names of the parameters.
    pub fn bind<const N: usize>(self, names: [&str; N]) -> Result<[Option<Value<'t>>; N]> {
        if self.positional.len() > N {
            return Err(broken(format!("{} arguments where there may be {N}", self.positional.len())));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let at = names.iter().position(|own| *own == name).filter(|at| bound[*at].is_none());
            let at = at.ok_or_else(|| broken(format!("an argument '{name}' that is not taken")))?;
            bound[at] = Some(value);
        }
        Ok(bound)
    }
}

/// An argument that is an integer; `None` counts as not given.
pub(super) fn integer(value: Option<Value<'_>>) -> Result<Option<i64>> {
    match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => {
            let number = value.as_int();
            number.map(Some).ok_or_else(|| broken(format!("an integer is needed, not {}", value.kind())))
        }
    }
}

/// An argument that counts as true or false.
pub(super) fn flag(value: Option<Value<'_>>) -> bool {
    value.is_some_and(|value| value.is_true())
}

/// An argument that must be a string.
pub(super) fn string<'v>(value: Option<&'v Value<'_>>) -> Result<&'v str> {
    match value {
        Some(Value::Str(text)) => Ok(text),
        Some(other) => Err(broken(format!("a string is needed, not {}", other.kind()))),
        None => Err(broken("an argument is missing")),
    }
}
