//! Runs a template's statements and evaluates its expressions.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::ast::*;
use super::calls::Given;
use super::failure::{broken, undefined};
use super::value::{Loop, Result, Value, Work};
use super::{checks, filters, functions, methods, operators};

/// How deep statements, expressions and macros may run in each other, on a thread's stack.
const DEEPEST: usize = 400;

/// Whether a loop goes on after a statement.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

type Frame<'t> = HashMap<&'t str, Value<'t>>;

pub(super) struct Run<'t, 'w> {
    work: &'w Work,
    variables: Frame<'t>,
    /// The template's own variables, then those of each scope.
    frames: Vec<Frame<'t>>,
    /// The first scope that is seen, beside the template's own: a macro's.
    base: usize,
    out: String,
    most: usize,
    depth: usize,
}

impl<'t, 'w> Run<'t, 'w> {
    /// `most`: bytes of the text.
    pub fn new(work: &'w Work, variables: Frame<'t>, most: usize) -> Self {
        let (frames, out) = (vec![Frame::new()], String::new());
        Self { work, variables, frames, base: 1, out, most, depth: 0 }
    }

    pub fn render(mut self, body: &'t Body) -> Result<String> {
        self.body(body)?;
        Ok(self.out)
    }

    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(broken("it calls itself without end, or is nested too deeply"));
        }
        let done = run(self);
        self.depth -= 1;
        done
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.work.spend_text(text.len())?;
        if self.out.len() + text.len() > self.most {
            return Err(broken(format!("it makes more than {} bytes of these messages", self.most)));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn body(&mut self, body: &'t Body) -> Result<Flow> {
        self.deeper(|run| {
            for node in body {
                let flow = run.statement(&node.statement).map_err(|failure| failure.at(node.line))?;
                if flow != Flow::On {
                    return Ok(flow);
                }
            }
            Ok(Flow::On)
        })
    }

    /// A body with variables of its own.
    fn scope(&mut self, frame: Frame<'t>, body: &'t Body) -> Result<Flow> {
        self.frames.push(frame);
        let flow = self.body(body);
        self.frames.pop();
        flow
    }

    /// What a body writes. A loop cannot be left from inside of it.
    fn captured(&mut self, frame: Frame<'t>, body: &'t Body) -> Result<String> {
        let before = std::mem::take(&mut self.out);
        let flow = self.scope(frame, body);
        let text = std::mem::replace(&mut self.out, before);
        if flow? == Flow::On { Ok(text) } else { Err(broken("a loop is left from inside of a block")) }
    }

    fn statement(&mut self, statement: &'t Statement) -> Result<Flow> {
        self.work.spend(1)?;
        match statement {
            Statement::Text(text) => self.write(text)?,
            Statement::Print(printed) => {
                let text = self.value(printed)?.show(self.work)?;
                self.write(&text)?;
            }
            Statement::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.value(condition)?.is_true() {
                        return self.body(body);
                    }
                }
                return self.body(otherwise);
            }
            Statement::For(parts) => return self.for_loop(parts),
            Statement::Set(target, value) => {
                let value = self.value(value)?;
                self.assign(target, value)?;
            }
            Statement::SetBlock(target, filters, body) => {
                let text = self.captured(Frame::new(), body)?;
                let value = self.filtered(Value::text(text), filters)?;
                self.assign(target, value)?;
            }
            Statement::With(assigned, body) => {
                let mut frame = Frame::new();
                for (target, value) in assigned {
                    let value = self.value(value)?;
                    if let Target::Name(name) = target {
                        frame.insert(name, value);
                    }
                }
                return self.scope(frame, body);
            }
            Statement::Scope(body) => return self.scope(Frame::new(), body),
            Statement::Filter(filters, body) => {
                let text = self.captured(Frame::new(), body)?;
                let text = self.filtered(Value::text(text), filters)?.show(self.work)?;
                self.write(&text)?;
            }
            Statement::Macro(made) => self.set(&made.name, Value::Macro(made)),
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn filtered(&mut self, mut value: Value<'t>, filters: &'t [Call]) -> Result<Value<'t>> {
        for Call { name, arguments } in filters {
            let given = self.given(arguments)?;
            value = filters::filter(self.work, name, value, given)?;
        }
        Ok(value)
    }

    fn for_loop(&mut self, parts: &'t For) -> Result<Flow> {
        let mut items = self.value(&parts.items)?.iterate(self.work)?;
        if let Some(condition) = &parts.condition {
            let mut kept = Vec::new();
            for item in items {
                self.frames.push(Frame::new());
                let keeps = self.assign(&parts.target, item.clone()).and_then(|()| self.value(condition));
                self.frames.pop();
                if keeps?.is_true() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            return self.body(&parts.otherwise);
        }
        let state = Rc::new(Loop { items, index: Cell::new(0), last: RefCell::new(None) });
        for (index, item) in state.items.iter().enumerate() {
            self.work.spend(1)?;
            state.index.set(index);
            self.frames.push(Frame::from([("loop", Value::Loop(state.clone()))]));
            let flow = self.assign(&parts.target, item.clone()).and_then(|()| self.body(&parts.body));
            self.frames.pop();
            if flow? == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, name: &'t str, value: Value<'t>) {
        self.frames.last_mut().expect("the template's own").insert(name, value);
    }

    fn assign(&mut self, target: &'t Target, value: Value<'t>) -> Result<()> {
        self.work.spend(1)?;
        match target {
            Target::Name(name) => self.set(name, value),
            Target::Attribute(name, attribute) => {
                let Value::Namespace(namespace) = self.lookup(name)? else {
                    return Err(broken(format!("{name} is no namespace")));
                };
                functions::keep(&namespace, attribute, value)?;
            }
            Target::Tuple(targets) => {
                let values = value.iterate(self.work)?;
                if values.len() != targets.len() {
                    return Err(broken(format!("{} values for {} names", values.len(), targets.len())));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value)?;
                }
            }
        }
        Ok(())
    }

    fn lookup(&self, name: &'t str) -> Result<Value<'t>> {
        let own = &self.frames[self.base.min(self.frames.len())..];
        self.work.spend(1 + own.len())?;
        let found = own.iter().rev().chain(&self.frames[..1]).find_map(|frame| frame.get(name));
        let found = found.or_else(|| self.variables.get(name)).cloned();
        Ok(found.or_else(|| functions::named(name)).unwrap_or(Value::Undefined(name)))
    }

    fn given(&mut self, arguments: &'t Arguments) -> Result<Given<'t>> {
        let positional = arguments.positional.iter().map(|value| self.value(value)).collect::<Result<_>>()?;
        let named = arguments.named.iter().map(|(name, value)| Ok((name.as_str(), self.value(value)?)));
        Ok(Given { positional, named: named.collect::<Result<_>>()? })
    }

    fn value(&mut self, expression: &'t Expr) -> Result<Value<'t>> {
        self.work.spend(1)?;
        match expression {
            Expr::None => Ok(Value::None),
            Expr::Bool(value) => Ok(Value::Bool(*value)),
            Expr::Int(value) => Ok(Value::Int(*value)),
            Expr::Float(value) => Ok(Value::Float(*value)),
            Expr::Str(text) => {
                self.work.spend_text(text.len())?;
                Ok(Value::text(text.as_str()))
            }
            Expr::Name(name) => self.lookup(name),
            other => self.deeper(|run| run.compound(other)),
        }
    }

    fn values(&mut self, expressions: &'t [Expr]) -> Result<Vec<Value<'t>>> {
        expressions.iter().map(|expression| self.value(expression)).collect()
    }

    fn compound(&mut self, expression: &'t Expr) -> Result<Value<'t>> {
        match expression {
            Expr::List(items) => {
                let items = self.values(items)?;
                Value::list(self.work, items)
            }
            Expr::Tuple(items) => {
                let items = self.values(items)?;
                Value::tuple(self.work, items)
            }
            Expr::Dict(entries) => {
                let entry = |(key, value): &'t (Expr, Expr)| Ok((self.value(key)?, self.value(value)?));
                let entries = entries.iter().map(entry).collect::<Result<_>>()?;
                Value::dict(self.work, entries)
            }
            Expr::Attribute(of, name) => {
                let of = self.value(of)?;
                methods::attribute(self.work, &of, name)
            }
            Expr::Item(of, key) => {
                let (of, key) = (self.value(of)?, self.value(key)?);
                methods::item(self.work, &of, &key)
            }
            Expr::Slice(of, parts) => {
                let of = self.value(of)?;
                let mut bounds = [None; 3];
                for (bound, part) in bounds.iter_mut().zip(parts) {
                    let Some(part) = part else { continue };
                    *bound = match self.value(part)? {
                        Value::None => None,
                        other => Some(other.as_int().ok_or_else(|| broken("a slice's bounds are integers"))?),
                    };
                }
                operators::slice(self.work, &of, bounds)
            }
            Expr::Call(called, arguments) => {
                let called = self.value(called)?;
                let given = self.given(arguments)?;
                self.call(&called, given)
            }
            Expr::Filter(of, Call { name, arguments }) => {
                let of = self.value(of)?;
                let given = self.given(arguments)?;
                filters::filter(self.work, name, of, given)
            }
            Expr::Test(of, Call { name, arguments }, negated) => {
                let of = self.value(of)?;
                let given = self.given(arguments)?;
                Ok(Value::Bool(checks::holds(self.work, name, &of, given)? != *negated))
            }
            Expr::Not(value) => Ok(Value::Bool(!self.value(value)?.is_true())),
            Expr::Negative(value) => operators::negative(&self.value(value)?),
            Expr::Positive(value) => operators::positive(&self.value(value)?),
            Expr::And(left, right) => {
                let left = self.value(left)?;
                if left.is_true() { self.value(right) } else { Ok(left) }
            }
            Expr::Or(left, right) => {
                let left = self.value(left)?;
                if left.is_true() { Ok(left) } else { self.value(right) }
            }
            Expr::Compare(first, rest) => {
                let mut left = self.value(first)?;
                for (comparison, right) in rest {
                    let right = self.value(right)?;
                    if !operators::holds(self.work, *comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::Binary(operator, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                operators::binary(self.work, *operator, &left, &right)
            }
            Expr::Concatenate(parts) => {
                let parts: Vec<Rc<str>> =
                    self.values(parts)?.iter().map(|part| part.show(self.work)).collect::<Result<_>>()?;
                self.work.spend_text(parts.iter().map(|part| part.len()).sum())?;
                Ok(Value::text(parts.concat()))
            }
            Expr::Choice(condition, then, otherwise) => match (self.value(condition)?.is_true(), otherwise) {
                (true, _) => self.value(then),
                (false, Some(otherwise)) => self.value(otherwise),
                (false, None) => Ok(Value::Undefined("the value of an if without else")),
            },
            // Above.
            Expr::None | Expr::Bool(_) | Expr::Int(_) | Expr::Float(_) | Expr::Str(_) | Expr::Name(_) => {
                self.value(expression)
            }
        }
    }

    fn call(&mut self, called: &Value<'t>, given: Given<'t>) -> Result<Value<'t>> {
        match called {
            Value::Function(name) => functions::call(self.work, name, given),
            Value::Method(method) => methods::call(self.work, &method.0, method.1, given),
            Value::Macro(made) => self.deeper(|run| run.call_macro(made, given)),
            Value::Undefined(name) => Err(undefined(name)),
            other => Err(broken(format!("{} cannot be called", other.kind()))),
        }
    }

    fn call_macro(&mut self, made: &'t Macro, given: Given<'t>) -> Result<Value<'t>> {
        let Given { positional, named } = given;
        if positional.len() > made.parameters.len() {
            return Err(broken(format!("the macro {} has {} parameters", made.name, made.parameters.len())));
        }
        let mut frame = Frame::new();
        for ((name, _), value) in made.parameters.iter().zip(positional) {
            frame.insert(name, value);
        }
        for (name, value) in named {
            let known = made.parameters.iter().any(|(own, _)| own == name);
            if !known || frame.insert(name, value).is_some() {
                return Err(broken(format!("the macro {} does not take {name}", made.name)));
            }
        }
        let before = std::mem::replace(&mut self.base, self.frames.len());
        self.frames.push(frame);
        let filled = self.defaults(made);
        let frame = self.frames.pop().expect("pushed above");
        let text = filled.and_then(|()| self.captured(frame, &made.body));
        self.base = before;
        Ok(Value::text(text?))
    }

    /// Parameters that were not given, in the macro's scope.
    fn defaults(&mut self, made: &'t Macro) -> Result<()> {
        for (name, default) in &made.parameters {
            if self.frames.last().is_some_and(|frame| frame.contains_key(name.as_str())) {
                continue;
            }
            let value = match default {
                Some(default) => self.value(default)?,
                None => Value::Undefined(name),
            };
            self.set(name, value);
        }
        Ok(())
    }
}
