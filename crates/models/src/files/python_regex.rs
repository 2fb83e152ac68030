//! Regular expressions as Python's `re` reads them, matched in linear time by the `regex` crate.
//!
//! The two languages differ in places that would be silent: `a++`, `[a&&b]`, `{,3}`, `\<`, `\Z`. So an expression is
//! read by Python's rules and written anew with nothing but what means the same in both. What a linear engine cannot
//! match (look-around, back-references, atomic groups) is refused by name. Texts are names of modules: ASCII, one line.
//! Syntax: <https://docs.python.org/3/library/re.html>.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::CharIndices;

use regex::{Regex, RegexBuilder};

/// A list of all modules of a model with a hundred layers has about 50 kB.
pub(crate) const MAX_PATTERN_BYTES: usize = 64 << 10;
/// Of a compiled expression: what `(a{100}){100}` asks for is refused.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// An expression and where in a text it must match.
#[derive(Debug, Clone)]
pub(crate) struct PythonRegex(Regex);

impl PythonRegex {
    /// `re.fullmatch(pattern, …)`.
    pub fn full(pattern: &str) -> Result<Self, String> {
        Self::compile(pattern, r"\z")
    }

    /// `re.match(pattern, …)`.
    pub fn prefix(pattern: &str) -> Result<Self, String> {
        Self::compile(pattern, "")
    }

    fn compile(pattern: &str, end: &str) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!("it has {} bytes, over {MAX_PATTERN_BYTES}", pattern.len()));
        }
        let translated = translate(pattern)?;
        RegexBuilder::new(&format!(r"\A(?:{translated}){end}"))
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_COMPILED_BYTES)
            .build()
            .map(Self)
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => "its repetitions make it too large".to_string(),
                _ => "it is nested too deeply, or repeats too often".to_string(),
            })
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// What the group `name` of the match holds, as Python's backtracking would find it.
    pub fn group<'t>(&self, text: &'t str, name: &str) -> Option<Option<&'t str>> {
        Some(self.0.captures(text)?.name(name).map(|group| group.as_str()))
    }
}

/// What a quantifier would repeat.
#[derive(PartialEq, Clone, Copy)]
enum Last {
    /// The beginning of an alternative, or a position (`^`, `\b`).
    Nothing,
    Item,
    Repeated,
}

/// The same expression in the `regex` crate's language.
///
/// # Errors
/// What is wrong with it in Python, or what it has that a linear engine lacks.
fn translate(pattern: &str) -> Result<String, String> {
    let mut reader = Reader { chars: pattern.char_indices().peekable(), pattern };
    let mut out = String::with_capacity(2 * pattern.len());
    let (mut depth, mut last, mut begun) = (0usize, Last::Nothing, false);
    while let Some((_, c)) = reader.chars.next() {
        let mut item = Last::Item;
        match c {
            '.' => out.push('.'),
            '^' | '$' => {
                out.push_str(if c == '^' { r"\A" } else { r"\z" });
                item = Last::Nothing;
            }
            '|' => {
                out.push('|');
                item = Last::Nothing;
            }
            '(' => match reader.group(begun || depth > 0)? {
                Group::Opens(opening) => {
                    out.push_str(&opening);
                    depth += 1;
                    item = Last::Nothing;
                }
                Group::Flags(flags) => {
                    out.push_str(flags);
                    continue;
                }
                Group::Comment => continue,
            },
            ')' => {
                depth = depth.checked_sub(1).ok_or("unbalanced )")?;
                out.push(')');
            }
            '[' => reader.class(&mut out)?,
            '\\' => match reader.escape(false)? {
                Escape::Char(c) => literal(&mut out, c),
                Escape::Class(class) => out.push_str(class),
                Escape::Position(position) => {
                    out.push_str(position);
                    item = Last::Nothing;
                }
            },
            '*' | '+' | '?' | '{' => {
                let Some(quantifier) = reader.quantifier(c)? else {
                    literal(&mut out, c);
                    (last, begun) = (item, true);
                    continue;
                };
                match last {
                    Last::Nothing => return Err(format!("nothing to repeat before {c}")),
                    Last::Repeated => return Err(format!("a repetition of a repetition at {c}")),
                    Last::Item => out.push_str(&quantifier),
                }
                item = Last::Repeated;
                match reader.peek() {
                    Some('+') => return Err(format!("the possessive {c}+, which a linear engine lacks")),
                    Some('?') => {
                        reader.chars.next();
                        out.push('?');
                    }
                    _ => (),
                }
            }
            c => literal(&mut out, c),
        }
        (last, begun) = (item, true);
    }
    if depth > 0 { Err("a group without its )".into()) } else { Ok(out) }
}

/// `c` as itself, inside a class and outside of it.
fn literal(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() || c == '_' {
        out.push(c);
    } else {
        // Writing to a string does not fail.
        let _ = write!(out, "\\x{{{:X}}}", u32::from(c));
    }
}

enum Group {
    Opens(String),
    /// `(?i)`, of the whole expression.
    Flags(&'static str),
    Comment,
}

enum Escape {
    Char(char),
    Class(&'static str),
    Position(&'static str),
}

struct Reader<'a> {
    chars: Peekable<CharIndices<'a>>,
    pattern: &'a str,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn next(&mut self) -> Option<char> {
        self.chars.next().map(|(_, c)| c)
    }

    fn next_if(&mut self, c: char) -> bool {
        self.chars.next_if(|(_, next)| *next == c).is_some()
    }

    /// What is not read yet.
    fn rest(&mut self) -> &'a str {
        self.chars.peek().map_or("", |(at, _)| &self.pattern[*at..])
    }

    fn skip(&mut self, chars: usize) {
        for _ in 0..chars {
            self.chars.next();
        }
    }

    /// Up to `end`, which is read too.
    fn until(&mut self, end: char) -> Option<&'a str> {
        let rest = self.rest();
        let at = rest.find(end)?;
        self.skip(rest[..at].chars().count() + 1);
        Some(&rest[..at])
    }

    /// After `(`. `begun`: something came before it.
    fn group(&mut self, begun: bool) -> Result<Group, String> {
        if !self.next_if('?') {
            return Ok(Group::Opens("(".into()));
        }
        let lacks = |what: &str| Err(format!("{what}, which a linear engine lacks"));
        match self.next() {
            Some(':') => Ok(Group::Opens("(?:".into())),
            Some('#') => match self.until(')') {
                Some(_) => Ok(Group::Comment),
                None => Err("a comment without its )".into()),
            },
            Some('=') => lacks("the look-ahead (?="),
            Some('!') => lacks("the look-ahead (?!"),
            Some('<') => match self.peek() {
                Some('=') => lacks("the look-behind (?<="),
                Some('!') => lacks("the look-behind (?<!"),
                _ => Err("(?<, which Python does not know: a group's name is (?P<name>…)".into()),
            },
            Some('>') => lacks("the atomic group (?>"),
            Some('(') => lacks("the condition (?("),
            Some('P') => match self.next() {
                Some('=') => lacks("the back-reference (?P="),
                Some('<') => {
                    let name = self.until('>').ok_or("a group's name without its >")?;
                    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
                    if !begins || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                        return Err("a group's name that is no ASCII identifier".into());
                    }
                    Ok(Group::Opens(format!("(?P<{name}>")))
                }
                _ => Err("(?P followed by neither < nor =".into()),
            },
            Some(c) if c == '-' || c.is_ascii_alphabetic() => self.flags(c, begun),
            _ => Err("an unknown extension after (?".into()),
        }
    }

    /// `(?i)`, `(?i:…)`, `(?-i:…)`. Of the flags only `i` changes what an expression matches among ASCII names of one
    /// line; `x` changes how it is read.
    fn flags(&mut self, first: char, begun: bool) -> Result<Group, String> {
        let (mut on, mut off, mut removes) = (false, false, false);
        let mut next = Some(first);
        loop {
            match next {
                Some('-') if !removes => removes = true,
                Some('i') if removes => off = true,
                Some('i') => on = true,
                Some('s' | 'm') => (),
                Some('a' | 'u') if !removes => (),
                Some('x') => return Err("the flag x (verbose), which is not supported".into()),
                Some(')') if removes => return Err("flags that are taken from the whole expression".into()),
                Some(')') if begun => return Err("global flags that are not at its beginning".into()),
                Some(')') => return Ok(Group::Flags(if on { "(?i)" } else { "" })),
                Some(':') if on && off => return Err("a flag that is set and taken".into()),
                Some(':') => {
                    let flags = ["(?:", "(?i:", "(?-i:"][if off { 2 } else { usize::from(on) }];
                    return Ok(Group::Opens(flags.into()));
                }
                _ => return Err("an unknown flag".into()),
            }
            next = self.next();
        }
    }

    /// `{2,3}` and the like after its first character; `None`: a brace that is itself.
    fn quantifier(&mut self, first: char) -> Result<Option<String>, String> {
        if first != '{' {
            return Ok(Some(first.to_string()));
        }
        let rest = self.rest();
        let Some(end) = rest.find('}') else { return Ok(None) };
        let (low, high) = rest[..end].split_once(',').unwrap_or((&rest[..end], &rest[..end]));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if end == 0 || !digits(low) || !digits(high) {
            return Ok(None);
        }
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text} repetitions"));
        let low = if low.is_empty() { 0 } else { number(low)? };
        let high = if high.is_empty() { None } else { Some(number(high)?) };
        if high.is_some_and(|high| high < low) {
            return Err("at least more repetitions than at most".into());
        }
        self.skip(end + 1);
        Ok(Some(match high {
            Some(high) => format!("{{{low},{high}}}"),
            None => format!("{{{low},}}"),
        }))
    }

    /// After `[`.
    fn class(&mut self, out: &mut String) -> Result<(), String> {
        const OPEN: &str = "a class without its ]";
        out.push('[');
        if self.next_if('^') {
            out.push('^');
        }
        let mut first = true;
        loop {
            let c = self.next().ok_or(OPEN)?;
            if c == ']' && !first {
                break;
            }
            first = false;
            let low = if c == '\\' { self.escape(true)? } else { Escape::Char(c) };
            let low = match low {
                Escape::Char(c) => c,
                Escape::Class(class) => {
                    if self.rest().starts_with('-') && !self.rest().starts_with("-]") {
                        return Err("a range from a class".into());
                    }
                    out.push_str(class);
                    continue;
                }
                Escape::Position(_) => return Err("a position in a class".into()),
            };
            literal(out, low);
            let rest = self.rest();
            if rest.starts_with('-') && rest.len() > 1 && !rest.starts_with("-]") {
                self.skip(1);
                let c = self.next().ok_or(OPEN)?;
                let high = if c == '\\' { self.escape(true)? } else { Escape::Char(c) };
                let Escape::Char(high) = high else { return Err("a range to a class".into()) };
                if high < low {
                    return Err("a range that ends before it begins".into());
                }
                out.push('-');
                literal(out, high);
            }
        }
        out.push(']');
        Ok(())
    }

    /// After a backslash.
    fn escape(&mut self, in_class: bool) -> Result<Escape, String> {
        let c = self.next().ok_or("a backslash at its end")?;
        Ok(match c {
            // `\d` and its like among ASCII names; Python's white space has the separators 1C to 1F.
            'd' => Escape::Class("[0-9]"),
            'D' => Escape::Class("[^0-9]"),
            'w' => Escape::Class("[0-9A-Za-z_]"),
            'W' => Escape::Class("[^0-9A-Za-z_]"),
            's' => Escape::Class(r"[\x09-\x0D\x1C-\x20]"),
            'S' => Escape::Class(r"[^\x09-\x0D\x1C-\x20]"),
            'b' if in_class => Escape::Char('\u{8}'),
            'b' => Escape::Position(r"\b"),
            'B' if !in_class => Escape::Position(r"\B"),
            'A' if !in_class => Escape::Position(r"\A"),
            'Z' | 'z' if !in_class => Escape::Position(r"\z"),
            'a' => Escape::Char('\u{7}'),
            'f' => Escape::Char('\u{C}'),
            'n' => Escape::Char('\n'),
            'r' => Escape::Char('\r'),
            't' => Escape::Char('\t'),
            'v' => Escape::Char('\u{B}'),
            'x' => Escape::Char(self.code(c, 2)?),
            'u' => Escape::Char(self.code(c, 4)?),
            'U' => Escape::Char(self.code(c, 8)?),
            'N' => return Err(r"\N{…}, which is not supported".into()),
            '0'..='9' => Escape::Char(self.octal(c, in_class)?),
            c if c.is_ascii_alphabetic() => return Err(format!(r"the unknown escape \{c}")),
            c => Escape::Char(c),
        })
    }

    fn code(&mut self, kind: char, digits: usize) -> Result<char, String> {
        let hex = self.rest().get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
        self.skip(digits);
        code.ok_or_else(|| format!(r"\{kind} without {digits} hexadecimal digits of a character"))
    }

    /// `\0`, `\07`, `\101`; other numbers refer to a group.
    fn octal(&mut self, first: char, in_class: bool) -> Result<char, String> {
        let more = self.rest().bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
        if first != '0' && !in_class && (first > '7' || more < 2) {
            return Err(format!(r"the back-reference \{first}, which a linear engine lacks"));
        }
        if first > '7' {
            return Err(format!(r"the unknown escape \{first}"));
        }
        let digits = format!("{first}{}", &self.rest()[..more]);
        self.skip(more);
        let code = u32::from_str_radix(&digits, 8).ok().filter(|code| *code <= 0o377);
        code.and_then(char::from_u32).ok_or_else(|| format!(r"the octal number \{digits}, over \377"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_two_languages_read_differently_is_read_as_python_does() {
        let full = |pattern: &str, text: &str| PythonRegex::full(pattern).map(|regex| regex.is_match(text));
        for (pattern, text, expected) in [
            ("h{,2}", "hh", true),
            ("h{,}", "hhhh", true),
            ("h{}", "h{}", true),
            ("h{a}", "h{a}", true),
            ("h{1", "h{1", true),
            ("[a&&b]", "&", true),
            ("[a--b]", "a", false),
            ("[[a]", "[", true),
            ("[]a]", "]", true),
            (r"\<a\>", "<a>", true),
            (r"a\Z", "a", true),
            (r"\b{start}", "{start}", false),
            (r"\101\x42\u0043", "ABC", true),
            (r"[\b]", "\u{8}", true),
            ("(?#no)a(?#c)*", "aaa", true),
            ("(?i)H", "h", true),
            ("(?i:h)H", "hh", false),
            ("a|b|", "", true),
            ("(a|ab)(c|bcd)(d*)", "abcd", true),
            ("(a+)+", &"a".repeat(100_000), true),
        ] {
            // `[a--b]` is a range from `a` to `-`, which is an error in Python.
            let found = full(pattern, text);
            assert_eq!(found.unwrap_or(false), expected, "{pattern} {}", &text[..text.len().min(20)]);
        }
        for (pattern, names) in [
            ("a++", "possessive"),
            ("(?=a)", "look-ahead"),
            ("(?<!a)b", "look-behind"),
            (r"(a)\1", "back-reference"),
            ("(?P<x>a)(?P=x)", "back-reference"),
            ("(?>a)", "atomic"),
            ("a**", "repetition"),
            ("*a", "repeat"),
            ("a(?i)", "global flags"),
            ("(?x)a", "verbose"),
            (r"\p{L}", "escape"),
            ("(a", "group"),
            ("a)", "unbalanced"),
            ("[a", "class"),
            ("(a{1000}){1000}", "too large"),
            ("a{4294967296}", "repetitions"),
        ] {
            let error = PythonRegex::full(pattern).expect_err(pattern);
            assert!(error.contains(names), "{pattern}: {error}");
        }
        let nested = "(".repeat(20_000) + &")".repeat(20_000);
        assert!(PythonRegex::full(&nested).is_err());
    }
}
