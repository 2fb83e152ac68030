//! Statements, by Jinja's grammar.

use super::ast::*;
use super::cursor::{Parsed, Parser};
use super::failure::Failure;
use super::lexer::{Token, tokens};

pub(super) fn parse(source: &str) -> Result<Body, Failure> {
    let mut parser = Parser::new(tokens(source)?);
    let (body, end) = parser.body(&[])?;
    debug_assert!(end.is_empty());
    Ok(body)
}

impl Parser {
    /// Statements up to a tag that has one of the names `ends`, which is read up to its name; or up to the end.
    fn body(&mut self, ends: &[&str]) -> Parsed<(Body, String)> {
        self.deeper(|this| this.body_at(ends))
    }

    fn body_at(&mut self, ends: &[&str]) -> Parsed<(Body, String)> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let statement = match self.take() {
                None if ends.is_empty() => return Ok((body, String::new())),
                None => return Err(self.error(format!("expected {}", ends.join(" or ")))),
                Some(Token::Text(text)) => Statement::Text(text),
                Some(Token::PrintBegin) => {
                    let printed = self.tuple(true)?;
                    if self.take() != Some(Token::PrintEnd) {
                        self.at -= 1;
                        return Err(self.error("expected the end of the expression"));
                    }
                    Statement::Print(printed)
                }
                Some(_) => {
                    let name = self.name()?;
                    if ends.contains(&name.as_str()) {
                        return Ok((body, name));
                    }
                    self.statement(&name)?
                }
            };
            body.push(Node { line, statement });
        }
    }

    /// Statements up to the tag `end`, which has nothing but its name.
    fn body_to(&mut self, end: &str) -> Parsed<Body> {
        let (body, _) = self.body(&[end])?;
        if end == "endmacro" && matches!(self.peek(), Some(Token::Name(_))) {
            self.at += 1;
        }
        self.block_end()?;
        Ok(body)
    }

    fn statement(&mut self, name: &str) -> Parsed<Statement> {
        match name {
            "if" => self.condition(),
            "for" => self.for_loop(),
            "set" => self.set(),
            "with" => {
                let mut assigned = Vec::new();
                while self.peek() != Some(&Token::BlockEnd) {
                    if !assigned.is_empty() {
                        self.need(",")?;
                    }
                    let target = Target::Name(self.name()?);
                    self.need("=")?;
                    assigned.push((target, self.expression(true)?));
                }
                self.block_end()?;
                Ok(Statement::With(assigned, self.body_to("endwith")?))
            }
            "generation" => {
                self.block_end()?;
                Ok(Statement::Scope(self.body_to("endgeneration")?))
            }
            "filter" => {
                let filters = self.filters()?;
                self.block_end()?;
                Ok(Statement::Filter(filters, self.body_to("endfilter")?))
            }
            "macro" => {
                let name = self.name()?;
                let parameters = self.parameters()?;
                self.block_end()?;
                let loops = std::mem::take(&mut self.loops);
                let body = self.body_to("endmacro");
                self.loops = loops;
                Ok(Statement::Macro(Macro { name, parameters, body: body? }))
            }
            "break" | "continue" if self.loops > 0 => {
                self.block_end()?;
                Ok(if name == "break" { Statement::Break } else { Statement::Continue })
            }
            _ => {
                self.at -= 1;
                Err(self.error(format!("there is no tag '{name}' here")))
            }
        }
    }

    fn condition(&mut self) -> Parsed<Statement> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple(false)?;
            self.block_end()?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            if end == "elif" {
                continue;
            }
            self.block_end()?;
            let otherwise = if end == "else" { self.body_to("endif")? } else { Vec::new() };
            return Ok(Statement::If(branches, otherwise));
        }
    }

    fn for_loop(&mut self) -> Parsed<Statement> {
        let target = self.targets()?;
        if !self.takes_name("in") {
            return Err(self.error("expected 'in'"));
        }
        let items = self.tuple(false)?;
        let condition = if self.takes_name("if") { Some(self.expression(true)?) } else { None };
        if self.is_name("recursive") {
            return Err(self.error("recursive loops are not supported"));
        }
        self.block_end()?;
        self.loops += 1;
        let body = self.body(&["else", "endfor"]);
        self.loops -= 1;
        let (body, end) = body?;
        self.block_end()?;
        let otherwise = if end == "else" { self.body_to("endfor")? } else { Vec::new() };
        Ok(Statement::For(Box::new(For { target, items, condition, body, otherwise })))
    }

    fn set(&mut self) -> Parsed<Statement> {
        let target = self.targets()?;
        if self.takes("=") {
            let value = self.tuple(true)?;
            self.block_end()?;
            return Ok(Statement::Set(target, value));
        }
        let filters = if self.takes("|") { self.filters()? } else { Vec::new() };
        self.block_end()?;
        Ok(Statement::SetBlock(target, filters, self.body_to("endset")?))
    }

    /// One target, or several with commas between them.
    fn targets(&mut self) -> Parsed<Target> {
        self.deeper(|this| {
            let first = this.target()?;
            if !this.is_sign(",") {
                return Ok(first);
            }
            let mut all = vec![first];
            while this.takes(",") {
                if matches!(this.peek(), Some(Token::Name(name)) if name != "in") || this.is_sign("(") {
                    all.push(this.target()?);
                }
            }
            Ok(Target::Tuple(all))
        })
    }

    fn target(&mut self) -> Parsed<Target> {
        if self.takes("(") {
            let inner = self.targets()?;
            self.need(")")?;
            return Ok(inner);
        }
        let name = self.name()?;
        if matches!(name.as_str(), "true" | "false" | "none" | "True" | "False" | "None") {
            return Err(self.error(format!("'{name}' cannot be assigned to")));
        }
        Ok(if self.takes(".") { Target::Attribute(name, self.name()?) } else { Target::Name(name) })
    }

    fn parameters(&mut self) -> Parsed<Vec<(String, Option<Expr>)>> {
        self.need("(")?;
        let mut parameters: Vec<(String, Option<Expr>)> = Vec::new();
        while !self.takes(")") {
            if !parameters.is_empty() {
                self.need(",")?;
            }
            let name = self.name()?;
            let default = if self.takes("=") { Some(self.expression(true)?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|(_, default)| default.is_some()) {
                return Err(self.error("a parameter without a default after one with a default"));
            }
            parameters.push((name, default));
        }
        Ok(parameters)
    }
}
