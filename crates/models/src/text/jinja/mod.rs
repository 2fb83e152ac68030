//! Chat templates: the part of Jinja that they are written in, as transformers renders it (Jinja2 with `trim_blocks`,
//! `lstrip_blocks`, loop controls, `{% generation %}`, `raise_exception`, `strftime_now` and `tojson`).
//!
//! A template comes with a model, so it is a stranger's code. [`Work`] is what it may do: each operation, each value in
//! a list and each 64 bytes of text takes a unit, before anything is allocated. The `minijinja` crate's fuel does not
//! hold such a template: twenty-six doublings of a list, `a = [a, a]`, are compared in half a minute with a fuel of
//! 100 000 (`HOSTILE` in `tests/chat.rs` has it). Includes, imports, blocks, recursive loops and calls with a body are
//! not here: chat templates, which are one file, have no use for them.
//!
//! `lexer.rs` makes tokens of the source, `parser.rs` and `expressions.rs` statements (`ast.rs`) of them, `run.rs` runs
//! these. `value.rs` has Python's values, `operators.rs`, `methods.rs`, `filters.rs`, `checks.rs` (tests),
//! `functions.rs`, `json.rs` and `moment.rs` (the time) what is done with them; `cursor.rs` reads tokens, `calls.rs`
//! arguments, `failure.rs` is how it all fails.

mod ast;
mod calls;
mod checks;
mod cursor;
mod expressions;
mod failure;
mod filters;
mod functions;
mod json;
mod lexer;
mod methods;
mod moment;
mod operators;
mod parser;
mod run;
mod value;

use std::collections::HashMap;

pub use failure::Failure;
pub use moment::Moment;
use run::Run;
use value::{Value, Work};

/// What a rendering may do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Operations, values in lists, 64 bytes of text.
    pub work: u64,
    /// Bytes of the rendered text.
    pub output: usize,
}

/// A parsed template.
pub struct Jinja {
    body: ast::Body,
}

impl Jinja {
    pub fn parse(source: &str) -> Result<Self, Failure> {
        Ok(Self { body: parser::parse(source)? })
    }

    /// The text for messages of `(role, content)`; `tokens` are the special tokens by what the tokenizer calls them.
    pub fn render(
        &self,
        messages: &[(String, String)],
        add_generation_prompt: bool,
        tokens: &[(String, String)],
        limits: Limits,
        now: Moment,
    ) -> Result<String, Failure> {
        let work = Work::new(limits.work, now.0);
        let message = |(role, content): &(String, String)| {
            let entry = |key: &str, text: &str| (Value::text(key), Value::text(text));
            Value::dict(&work, vec![entry("role", role), entry("content", content)])
        };
        let messages = messages.iter().map(message).collect::<Result<_, _>>()?;
        let mut variables: HashMap<&str, Value<'_>> =
            tokens.iter().map(|(name, token)| (name.as_str(), Value::text(token.as_str()))).collect();
        variables.insert("messages", Value::list(&work, messages)?);
        variables.insert("add_generation_prompt", Value::Bool(add_generation_prompt));
        // transformers gives both, and None where there are none.
        variables.insert("tools", Value::None);
        variables.insert("documents", Value::None);
        Run::new(&work, variables, limits.output).render(&self.body)
    }
}
