//! The tokens while they are parsed, and how deep what is parsed lies.

use super::failure::{Failure, broken};
use super::lexer::Token;

/// How deep statements and expressions may lie in each other, chains of operators counted: what is parsed is evaluated
/// and dropped by recursion, on a thread's stack.
const DEEPEST: usize = 200;

pub(super) struct Parser {
    pub tokens: Vec<(usize, Token)>,
    pub at: usize,
    depth: usize,
    /// Loops around what is parsed, inside its macro.
    pub loops: usize,
}

pub(super) type Parsed<T> = Result<T, Failure>;

impl Parser {
    pub fn new(tokens: Vec<(usize, Token)>) -> Self {
        Self { tokens, at: 0, depth: 0, loops: 0 }
    }

    pub fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.0)
    }

    pub fn error(&self, problem: impl std::fmt::Display) -> Failure {
        broken(format!("line {}: {problem}", self.line()))
    }

    pub fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    pub fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get_mut(self.at)?;
        self.at += 1;
        // Texts are read once, and names are small; a replaced token is never looked at again.
        Some(match &mut token.1 {
            Token::Text(text) => Token::Text(std::mem::take(text)),
            Token::Str(text) => Token::Str(std::mem::take(text)),
            other => other.clone(),
        })
    }

    pub fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(Token::Sign(found)) if *found == sign)
    }

    pub fn takes(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    pub fn need(&mut self, sign: &str) -> Parsed<()> {
        if self.takes(sign) { Ok(()) } else { Err(self.error(format!("expected '{sign}'"))) }
    }

    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if found == name)
    }

    pub fn takes_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub fn name(&mut self) -> Parsed<String> {
        match self.peek() {
            Some(Token::Name(_)) => match self.take() {
                Some(Token::Name(name)) => Ok(name),
                _ => unreachable!(),
            },
            _ => Err(self.error("expected a name")),
        }
    }

    pub fn block_end(&mut self) -> Parsed<()> {
        if self.peek() == Some(&Token::BlockEnd) {
            self.at += 1;
            return Ok(());
        }
        Err(self.error("expected the end of the tag"))
    }

    /// What `parse` reads lies one deeper.
    pub fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let depth = self.depth;
        self.nest()?;
        let parsed = parse(self);
        self.depth = depth;
        parsed
    }

    pub fn nest(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEEPEST { Err(self.error("it is nested too deeply")) } else { Ok(()) }
    }
}
