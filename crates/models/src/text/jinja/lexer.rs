//! A template's source as tokens, with the whitespace around tags taken away as Jinja does under `trim_blocks` and
//! `lstrip_blocks`.

use super::failure::{Failure, broken};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Text(String),
    /// `{{` and `}}`.
    PrintBegin,
    PrintEnd,
    /// `{%` and `%}`.
    BlockBegin,
    BlockEnd,
    Name(String),
    Str(String),
    Int(i64),
    Float(f64),
    /// An operator or a bracket.
    Sign(&'static str),
}

/// Longer ones first.
const SIGNS: [&str; 29] = [
    "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{",
    "}", ",", ".", ":", "|", ";", "!", "&", "@",
];

/// The tokens of `source`, each with its line.
pub(super) fn tokens(source: &str) -> Result<Vec<(usize, Token)>, Failure> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { rest: source, line: 1, found: Vec::new(), begins_line: true };
    lexer.run()?;
    Ok(lexer.found)
}

struct Lexer<'s> {
    rest: &'s str,
    line: usize,
    found: Vec<(usize, Token)>,
    /// What comes next is at the beginning of a line.
    begins_line: bool,
}

impl<'s> Lexer<'s> {
    fn run(&mut self) -> Result<(), Failure> {
        loop {
            let opens = |at: &usize| matches!(self.rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
            let Some(at) = self.rest.match_indices('{').map(|(at, _)| at).find(opens) else {
                self.text(self.rest, false, false);
                return Ok(());
            };
            let kind = self.rest.as_bytes()[at + 1];
            let sign = self.rest.as_bytes().get(at + 2).copied();
            let stripped = sign == Some(b'-');
            let indent = !stripped && sign != Some(b'+') && kind != b'{';
            self.text(&self.rest[..at], stripped, indent);
            self.skip(2 + usize::from(matches!(sign, Some(b'-' | b'+'))));
            match kind {
                b'#' => {
                    let length = self.rest.find("#}").ok_or_else(|| self.error("a comment has no end"))?;
                    // The sign belongs to the end, and a comment may be so short that it has none.
                    let sign = self.rest[..length].bytes().next_back();
                    self.skip(length + 2);
                    self.after_block(sign);
                }
                b'{' => self.expression("}}", Token::PrintBegin, Token::PrintEnd)?,
                _ if self.raw()? => {}
                _ => self.expression("%}", Token::BlockBegin, Token::BlockEnd)?,
            }
        }
    }

    fn error(&self, problem: &str) -> Failure {
        broken(format!("line {}: {problem}", self.line))
    }

    fn skip(&mut self, bytes: usize) {
        let (over, rest) = self.rest.split_at(bytes);
        self.line += over.matches('\n').count();
        if let Some(last) = over.bytes().next_back() {
            self.begins_line = last == b'\n';
        }
        self.rest = rest;
    }

    fn push(&mut self, token: Token) {
        self.found.push((self.line, token));
    }

    /// Text before a tag, which takes the whitespace before it away: all of it, or its line's indent.
    fn text(&mut self, text: &'s str, stripped: bool, indent: bool) {
        let line = self.line;
        let mut kept = text;
        if stripped {
            kept = text.trim_end_matches(is_space);
        } else if indent {
            let begin = text.rfind('\n').map_or(0, |at| at + 1);
            let blank = !text[begin..].is_empty() && text[begin..].chars().all(is_space);
            if blank && (begin > 0 || self.begins_line) {
                kept = &text[..begin];
            }
        }
        if !kept.is_empty() {
            self.found.push((line, Token::Text(kept.to_string())));
        }
        self.skip(text.len());
    }

    /// After `%}` or `#}`: whitespace that the tag's end takes away.
    fn after_block(&mut self, sign: Option<u8>) {
        match sign {
            Some(b'-') => self.skip_space(),
            Some(b'+') => {}
            _ if self.rest.starts_with('\n') => self.skip(1),
            _ => {}
        }
    }

    fn skip_space(&mut self) {
        let kept = self.rest.trim_start_matches(is_space);
        self.skip(self.rest.len() - kept.len());
    }

    /// `{% raw %}` to `{% endraw %}`, if that is what stands here.
    fn raw(&mut self) -> Result<bool, Failure> {
        let after = self.rest.trim_start_matches(is_space);
        let Some(after) = after.strip_prefix("raw") else { return Ok(false) };
        let after = after.trim_start_matches(is_space);
        let strips = after.starts_with("-%}");
        let Some(after) = after.strip_prefix(if strips { "-%}" } else { "%}" }) else { return Ok(false) };
        self.skip(self.rest.len() - after.len());
        if strips {
            self.skip_space();
        }
        let mut from = 0;
        loop {
            let at = self.rest[from..].find("{%").ok_or_else(|| self.error("raw has no endraw"))? + from;
            let tag = &self.rest[at + 2..];
            let sign = tag.bytes().next().filter(|sign| matches!(sign, b'-' | b'+'));
            let name = tag[usize::from(sign.is_some())..].trim_start_matches(is_space);
            let end = name.strip_prefix("endraw").map(|end| end.trim_start_matches(is_space));
            let end = end.and_then(|end| {
                let sign = end.bytes().next().filter(|sign| matches!(sign, b'-' | b'+'));
                end[usize::from(sign.is_some())..].strip_prefix("%}").map(|rest| (rest.len(), sign))
            });
            let Some((left, end_sign)) = end else {
                from = at + 2;
                continue;
            };
            let total = self.rest.len();
            self.text(&self.rest[..at], sign == Some(b'-'), sign.is_none());
            self.skip(total - at - left);
            self.after_block(end_sign);
            return Ok(true);
        }
    }

    /// The tokens of a tag, up to its end.
    fn expression(&mut self, end: &'static str, begin: Token, ended: Token) -> Result<(), Failure> {
        self.push(begin);
        // Brackets that are open: `}}` may end two dictionaries.
        let mut open: Vec<&str> = Vec::new();
        loop {
            self.skip_space();
            if open.is_empty() {
                let sign = self.rest.bytes().next().filter(|sign| matches!(sign, b'-' | b'+'));
                let sign = sign.filter(|_| self.rest[1..].starts_with(end));
                // A variable's end knows no plus.
                let sign = sign.filter(|sign| *sign == b'-' || end == "%}");
                if sign.is_some() || self.rest.starts_with(end) {
                    self.push(ended);
                    self.skip(2 + usize::from(sign.is_some()));
                    match (end, sign) {
                        ("}}", Some(_)) => self.skip_space(),
                        ("}}", None) => {}
                        _ => self.after_block(sign),
                    }
                    return Ok(());
                }
            }
            let Some(first) = self.rest.chars().next() else {
                return Err(self.error("a tag has no end"));
            };
            if first == '"' || first == '\'' {
                self.string(first)?;
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if first == '_' || first.is_alphabetic() {
                let end = self.rest.find(|c: char| c != '_' && !c.is_alphanumeric());
                let name = &self.rest[..end.unwrap_or(self.rest.len())];
                self.push(Token::Name(name.to_string()));
                self.skip(name.len());
            } else {
                let sign = SIGNS.iter().find(|sign| self.rest.starts_with(**sign));
                let sign = *sign.ok_or_else(|| self.error(&format!("unexpected {first:?}")))?;
                let opened = |close| match close {
                    ")" => "(",
                    "]" => "[",
                    _ => "{",
                };
                match sign {
                    "(" | "[" | "{" => open.push(sign),
                    ")" | "]" | "}" if open.pop() != Some(opened(sign)) => {
                        return Err(self.error(&format!("unexpected '{sign}'")));
                    }
                    _ => {}
                }
                self.push(Token::Sign(sign));
                self.skip(sign.len());
            }
        }
    }

    fn number(&mut self) -> Result<(), Failure> {
        let bytes = self.rest.as_bytes();
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(|b| b.is_ascii_digit() || *b == b'_') {
                at += 1;
            }
            at
        };
        let mut end = digits(0);
        let mut float = false;
        if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1);
            float = true;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
                end = digits(end + 1 + sign);
                float = true;
            }
        }
        let text = self.rest[..end].replace('_', "");
        let token =
            if float { text.parse().ok().map(Token::Float) } else { text.parse().ok().map(Token::Int) };
        self.push(token.ok_or_else(|| self.error("a number that is too large"))?);
        self.skip(end);
        Ok(())
    }

    /// A string with Python's escapes.
    fn string(&mut self, quote: char) -> Result<(), Failure> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        let end = loop {
            let Some((at, c)) = chars.next() else { return Err(self.error("a string has no end")) };
            if c == quote {
                break at + 1;
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some((at, escape)) = chars.next() else { return Err(self.error("a string has no end")) };
            let mut code = |digits: usize, radix: u32| {
                let from = at + escape.len_utf8() - usize::from(radix == 8);
                let hex = self.rest.as_bytes()[from..].iter().take(digits);
                let hex: String = hex.map(|b| *b as char).take_while(|c| c.is_digit(radix)).collect();
                if radix == 16 && hex.len() < digits {
                    return None;
                }
                let skipped = hex.len() - usize::from(radix == 8);
                for _ in 0..skipped {
                    chars.next();
                }
                char::from_u32(u32::from_str_radix(&hex, radix).ok()?)
            };
            let escaped = match escape {
                '\n' => continue,
                '\\' | '\'' | '"' => Some(escape),
                'n' => Some('\n'),
                't' => Some('\t'),
                'r' => Some('\r'),
                'a' => Some('\x07'),
                'b' => Some('\x08'),
                'f' => Some('\x0c'),
                'v' => Some('\x0b'),
                '0'..='7' => code(3, 8),
                'x' => code(2, 16),
                'u' => code(4, 16),
                'U' => code(8, 16),
                other => {
                    text.push('\\');
                    Some(other)
                }
            };
            text.push(escaped.ok_or_else(|| self.error("a string has an escape that is no character"))?);
        };
        self.push(Token::Str(text));
        self.skip(end);
        Ok(())
    }
}

/// Python's `str.isspace`.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}
