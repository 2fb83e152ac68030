//! Expressions, by Jinja's precedence.

use super::ast::*;
use super::cursor::{Parsed, Parser};
use super::lexer::Token;

impl Parser {
    /// `a|b` without the first bar.
    pub fn filters(&mut self) -> Parsed<Vec<Call>> {
        let mut filters = vec![self.filter()?];
        while self.takes("|") {
            filters.push(self.filter()?);
        }
        Ok(filters)
    }

    pub fn filter(&mut self) -> Parsed<Call> {
        let name = self.name()?;
        let arguments = if self.takes("(") { self.arguments()? } else { Arguments::default() };
        Ok(Call { name, arguments })
    }

    /// After the opening bracket.
    pub fn arguments(&mut self) -> Parsed<Arguments> {
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.takes(")") {
            if !std::mem::take(&mut first) {
                self.need(",")?;
                if self.takes(")") {
                    break;
                }
            }
            if self.is_sign("*") || self.is_sign("**") {
                return Err(self.error("arguments out of a list or a dictionary are not supported"));
            }
            let named = matches!(self.tokens.get(self.at + 1), Some((_, Token::Sign("="))));
            if named && matches!(self.peek(), Some(Token::Name(_))) {
                let name = self.name()?;
                self.need("=")?;
                arguments.named.push((name, self.expression(true)?));
            } else if arguments.named.is_empty() {
                arguments.positional.push(self.expression(true)?);
            } else {
                return Err(self.error("a positional argument after a named one"));
            }
        }
        Ok(arguments)
    }

    /// An expression, or several with commas between them; `choices`: `a if b else c` may be among them.
    pub fn tuple(&mut self, choices: bool) -> Parsed<Expr> {
        let first = self.expression(choices)?;
        if !self.is_sign(",") {
            return Ok(first);
        }
        let mut all = vec![first];
        while self.takes(",") {
            let over = matches!(self.peek(), Some(Token::PrintEnd | Token::BlockEnd) | None);
            if over || self.is_sign(")") || self.is_sign("=") {
                break;
            }
            all.push(self.expression(choices)?);
        }
        Ok(Expr::Tuple(all))
    }

    pub fn expression(&mut self, choices: bool) -> Parsed<Expr> {
        self.deeper(|this| {
            let mut value = this.or()?;
            while choices && this.takes_name("if") {
                this.nest()?;
                let condition = this.or()?;
                let otherwise = match this.takes_name("else") {
                    true => Some(Box::new(this.expression(true)?)),
                    false => None,
                };
                value = Expr::Choice(Box::new(condition), Box::new(value), otherwise);
            }
            Ok(value)
        })
    }

    fn or(&mut self) -> Parsed<Expr> {
        let mut left = self.and()?;
        while self.takes_name("or") {
            self.nest()?;
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    pub fn and(&mut self) -> Parsed<Expr> {
        let mut left = self.not()?;
        while self.takes_name("and") {
            self.nest()?;
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    pub fn not(&mut self) -> Parsed<Expr> {
        if self.takes_name("not") {
            return self.deeper(|this| Ok(Expr::Not(Box::new(this.not()?))));
        }
        self.compare()
    }

    pub fn compare(&mut self) -> Parsed<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let not_in = self.is_name("not")
                && matches!(self.tokens.get(self.at + 1), Some((_, Token::Name(name))) if name == "in");
            let comparison = match self.peek() {
                Some(Token::Sign("==")) => Comparison::Equal,
                Some(Token::Sign("!=")) => Comparison::Unequal,
                Some(Token::Sign("<")) => Comparison::Less,
                Some(Token::Sign("<=")) => Comparison::LessOrEqual,
                Some(Token::Sign(">")) => Comparison::Greater,
                Some(Token::Sign(">=")) => Comparison::GreaterOrEqual,
                Some(Token::Name(name)) if name == "in" => Comparison::In,
                _ if not_in => Comparison::NotIn,
                _ if rest.is_empty() => return Ok(first),
                _ => return Ok(Expr::Compare(Box::new(first), rest)),
            };
            self.at += 1 + usize::from(not_in);
            rest.push((comparison, self.sum()?));
        }
    }

    pub fn sum(&mut self) -> Parsed<Expr> {
        let mut left = self.concatenation()?;
        loop {
            let operator = match self.peek() {
                Some(Token::Sign("+")) => Operator::Add,
                Some(Token::Sign("-")) => Operator::Subtract,
                _ => return Ok(left),
            };
            self.at += 1;
            self.nest()?;
            left = Expr::Binary(operator, Box::new(left), Box::new(self.concatenation()?));
        }
    }

    pub fn concatenation(&mut self) -> Parsed<Expr> {
        let first = self.product()?;
        if !self.is_sign("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.takes("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concatenate(parts))
    }

    pub fn product(&mut self) -> Parsed<Expr> {
        let mut left = self.power()?;
        loop {
            let operator = match self.peek() {
                Some(Token::Sign("*")) => Operator::Multiply,
                Some(Token::Sign("/")) => Operator::Divide,
                Some(Token::Sign("//")) => Operator::FloorDivide,
                Some(Token::Sign("%")) => Operator::Remainder,
                _ => return Ok(left),
            };
            self.at += 1;
            self.nest()?;
            left = Expr::Binary(operator, Box::new(left), Box::new(self.power()?));
        }
    }

    pub fn power(&mut self) -> Parsed<Expr> {
        let mut left = self.unary(true)?;
        while self.takes("**") {
            self.nest()?;
            left = Expr::Binary(Operator::Power, Box::new(left), Box::new(self.unary(true)?));
        }
        Ok(left)
    }

    pub fn unary(&mut self, filters: bool) -> Parsed<Expr> {
        let node = if self.takes("-") {
            Expr::Negative(Box::new(self.deeper(|this| this.unary(false))?))
        } else if self.takes("+") {
            Expr::Positive(Box::new(self.deeper(|this| this.unary(false))?))
        } else {
            self.primary()?
        };
        let node = self.postfix(node)?;
        if filters { self.filtered(node) } else { Ok(node) }
    }

    pub fn primary(&mut self) -> Parsed<Expr> {
        match self.take() {
            Some(Token::Name(name)) => Ok(match name.as_str() {
                "true" | "True" => Expr::Bool(true),
                "false" | "False" => Expr::Bool(false),
                "none" | "None" => Expr::None,
                _ => Expr::Name(name),
            }),
            Some(Token::Str(mut text)) => {
                while let Some(Token::Str(more)) = self.peek() {
                    text.push_str(more);
                    self.at += 1;
                }
                Ok(Expr::Str(text))
            }
            Some(Token::Int(value)) => Ok(Expr::Int(value)),
            Some(Token::Float(value)) => Ok(Expr::Float(value)),
            Some(Token::Sign("(")) => {
                if self.takes(")") {
                    return Ok(Expr::Tuple(Vec::new()));
                }
                let inner = self.tuple(true)?;
                self.need(")")?;
                Ok(inner)
            }
            Some(Token::Sign("[")) => Ok(Expr::List(self.listed("]", |this| this.expression(true))?)),
            Some(Token::Sign("{")) => {
                let entry = |this: &mut Self| {
                    let key = this.expression(true)?;
                    this.need(":")?;
                    Ok((key, this.expression(true)?))
                };
                Ok(Expr::Dict(self.listed("}", entry)?))
            }
            Some(_) => {
                self.at -= 1;
                Err(self.error("expected an expression"))
            }
            None => Err(self.error("expected an expression")),
        }
    }

    /// Items up to `end`, with commas between them.
    pub fn listed<T>(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.takes(end) {
            if !items.is_empty() {
                self.need(",")?;
                if self.takes(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub fn postfix(&mut self, mut node: Expr) -> Parsed<Expr> {
        loop {
            if self.takes(".") {
                self.nest()?;
                node = match self.peek() {
                    Some(Token::Int(index)) => {
                        let index = *index;
                        self.at += 1;
                        Expr::Item(Box::new(node), Box::new(Expr::Int(index)))
                    }
                    _ => Expr::Attribute(Box::new(node), self.name()?),
                };
            } else if self.takes("[") {
                self.nest()?;
                node = self.subscript(node)?;
            } else if self.takes("(") {
                self.nest()?;
                node = Expr::Call(Box::new(node), self.arguments()?);
            } else {
                return Ok(node);
            }
        }
    }

    /// After the opening bracket.
    pub fn subscript(&mut self, node: Expr) -> Parsed<Expr> {
        let mut parts: [Option<Box<Expr>>; 3] = [None, None, None];
        let mut colons = 0;
        loop {
            if self.takes("]") {
                break;
            }
            if self.takes(":") {
                colons += 1;
                if colons > 2 {
                    return Err(self.error("a slice has three parts at the most"));
                }
                continue;
            }
            if parts[colons].is_some() {
                return Err(self.error("expected ']'"));
            }
            parts[colons] = Some(Box::new(self.expression(true)?));
        }
        match parts {
            [Some(index), None, None] if colons == 0 => Ok(Expr::Item(Box::new(node), index)),
            _ if colons == 0 => Err(self.error("expected an expression")),
            parts => Ok(Expr::Slice(Box::new(node), parts)),
        }
    }

    pub fn filtered(&mut self, mut node: Expr) -> Parsed<Expr> {
        loop {
            if self.takes("|") {
                self.nest()?;
                node = Expr::Filter(Box::new(node), self.filter()?);
            } else if self.takes_name("is") {
                self.nest()?;
                node = self.test(node)?;
            } else if self.takes("(") {
                self.nest()?;
                node = Expr::Call(Box::new(node), self.arguments()?);
            } else {
                return Ok(node);
            }
        }
    }

    /// After `is`.
    pub fn test(&mut self, node: Expr) -> Parsed<Expr> {
        let negated = self.takes_name("not");
        let name = self.name()?;
        let mut arguments = Arguments::default();
        if self.takes("(") {
            arguments = self.arguments()?;
        } else {
            let argument = match self.peek() {
                Some(Token::Name(name)) => {
                    !matches!(name.as_str(), "else" | "or" | "and" | "if" | "is" | "in" | "not")
                }
                Some(Token::Str(_) | Token::Int(_) | Token::Float(_)) => true,
                _ => self.is_sign("[") || self.is_sign("{"),
            };
            if argument {
                let argument = self.primary()?;
                arguments.positional.push(self.postfix(argument)?);
            }
        }
        Ok(Expr::Test(Box::new(node), Call { name, arguments }, negated))
    }
}
