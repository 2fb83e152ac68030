//! A model's chat template: where it lies in the files, and conversations to ids by it, as transformers'
//! `apply_chat_template` does with `sanitize_control_tokens`.

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::Value;

use crate::files::gguf::Gguf;
use crate::files::gguf_metadata::short;
use crate::files::reading::{file_name, read_json, read_text_within};
use crate::text::jinja::{Failure, Jinja, Limits, Moment};
use crate::text::tokenizer::Tokenizer;
use crate::{ModelError, Result};

/// The templates of today's models have up to 20 KB.
const LARGEST: usize = 1 << 20;

/// What a rendering may do beside what its messages ask for: some 50 ms, and 64 MB if all of it is text.
const WORK: u64 = 1_000_000;

/// For each message: a loop's turn over a long template.
const WORK_A_MESSAGE: u64 = 256;

/// Text that a template may write of its own, beside 64 bytes for each position and four for each byte of the messages.
const OUTPUT: usize = 64 << 10;

/// Characters that no text has (Unicode calls them noncharacters). Two of them, the first that neither messages nor
/// template have, mark the names of special tokens in messages while the template moves the text about.
const MARKS: RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    pub role: String,
    pub content: String,
}

/// A conversation that is to become ids.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    pub messages: Vec<ChatMessage>,
    /// Whether what begins the assistant's turn comes last.
    pub add_generation_prompt: bool,
    /// Local time, in milliseconds since 1970, for templates that name the day.
    pub now: i64,
}

pub struct ChatTemplate {
    /// What it was read from, for messages.
    file: String,
    source: String,
    /// A template that is no Jinja hinders nothing but conversations.
    jinja: Result<Jinja, Failure>,
    /// `bos_token`, `eos_token` and the others that a GGUF file names; of a folder, the tokenizer has them.
    tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// The template of a model's folder: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`, else
    /// in `chat_template.json`. A file that is there and holds none is an error.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let config_path = folder.join("tokenizer_config.json");
        let config = if config_path.is_file() { read_json(&config_path)? } else { Value::Null };
        let jinja = folder.join("chat_template.jinja");
        let (path, source) = if jinja.exists() {
            (
                jinja.clone(),
                Some(read_text_within(&jinja, LARGEST as u64).map_err(|error| no_template(&jinja, error))?),
            )
        } else if config.get("chat_template").is_some_and(|given| !given.is_null()) {
            (config_path.clone(), default_of(&config["chat_template"]))
        } else {
            let json = folder.join("chat_template.json");
            if !json.exists() {
                return Ok(None);
            }
            let text =
                read_text_within(&json, 2 * LARGEST as u64).map_err(|error| no_template(&json, error))?;
            let value: Value = serde_json::from_str(&text).map_err(|error| no_template(&json, error))?;
            (json, default_of(&value["chat_template"]))
        };
        let source = source.filter(|source| source.len() <= LARGEST);
        let source = source.ok_or_else(|| {
            no_template(
                &path,
                format!(
                    "chat_template is no string of at most {LARGEST} bytes, nor a list with a \"default\" one"
                ),
            )
        })?;
        Ok(Some(Self::new(file_name(&path), source, Vec::new())))
    }

    pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Option<Self>> {
        let metadata = &gguf.metadata;
        const KEY: &str = "tokenizer.chat_template";
        let Some(source) = metadata.text(KEY)? else {
            return match metadata.keys(KEY).next() {
                Some(other) => Err(metadata.bad(KEY, format!("is missing beside {}", short(other)))),
                None => Ok(None),
            };
        };
        let tokens = metadata.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
        let mut named = Vec::new();
        for (theirs, name) in ["bos", "eos", "unknown", "padding"].iter().zip(["bos", "eos", "unk", "pad"]) {
            let id = metadata.size_if_any(&format!("tokenizer.ggml.{theirs}_token_id"))?;
            named.extend(id.and_then(|id| Some((format!("{name}_token"), tokens.get(id)?.clone()))));
        }
        Ok(Some(Self::new(gguf.name.clone(), source.to_string(), named)))
    }

    fn new(file: String, source: String, tokens: Vec<(String, String)>) -> Self {
        let jinja = Jinja::parse(&source);
        Self { file, source, jinja, tokens }
    }

    /// The conversation's text. Special tokens are those that the template writes: their names in a message are text.
    pub fn text(&self, tokenizer: &Tokenizer, request: &ChatRequest, positions: usize) -> Result<ChatText> {
        let control = self.control_tokens(tokenizer);
        let contents = || request.messages.iter().map(|message| message.content.as_str());
        if !contents().any(|content| control.iter().any(|token| content.contains(*token))) {
            let text = self.render(tokenizer, request, positions, str::to_string)?;
            return Ok(ChatText { text, marks: None });
        }
        let free =
            |mark: &char| !self.source.contains(*mark) && !contents().any(|content| content.contains(*mark));
        let mut free = MARKS.filter(free);
        let marks = free.next().zip(free.next()).ok_or_else(|| {
            ModelError::Input(
                "messages with the name of a special token and all of Unicode's noncharacters".into(),
            )
        })?;
        let text = self.render(tokenizer, request, positions, |content| mark(content, &control, marks))?;
        Ok(ChatText { text, marks: Some(marks) })
    }

    /// The special token that ends the assistant's turn, if the template writes one there.
    pub fn end_of_turn(&self, tokenizer: &Tokenizer, positions: usize) -> Option<u32> {
        const SAID: &str = "candlewick";
        let message = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
        let messages = vec![message("user", "Hello"), message("assistant", SAID)];
        let request = ChatRequest { messages, add_generation_prompt: false, now: 0 };
        let text = self.render(tokenizer, &request, positions, str::to_string).ok()?;
        let after = text[text.rfind(SAID)? + SAID.len()..].trim_start();
        let control = self.control_tokens(tokenizer);
        // Of `</s>` and `</s><s>` the longer one, if both are tokens.
        let ends = control.iter().filter(|token| after.starts_with(**token)).max_by_key(|token| token.len());
        tokenizer.token_to_id(ends?)
    }

    /// Added tokens that are the template's to write: special ones, and others that stand in it. Others still, such as
    /// the runs of spaces of some vocabularies, are no more than text.
    fn control_tokens<'t>(&'t self, tokenizer: &'t Tokenizer) -> Vec<&'t str> {
        let of_template = |token: &str| !token.trim().is_empty() && self.source.contains(token);
        let added = tokenizer.added_tokens();
        let mut control: Vec<&str> =
            added.filter(|(token, special)| *special || of_template(token)).map(|(token, _)| token).collect();
        control.retain(|token| !token.is_empty());
        control.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        control
    }

    fn render(
        &self,
        tokenizer: &Tokenizer,
        request: &ChatRequest,
        positions: usize,
        content: impl Fn(&str) -> String,
    ) -> Result<String> {
        let invalid = |problem: &str| ModelError::ChatTemplate(format!("{}: {problem}", self.file));
        let jinja = match &self.jinja {
            Ok(jinja) => jinja,
            Err(Failure::Refused(problem) | Failure::Broken(problem)) => return Err(invalid(problem)),
        };
        // Templates that do not know the developer's messages take them for the system's.
        let knows_developer = self.source.contains("developer");
        let role =
            |role: &str| if role == "developer" && !knows_developer { "system" } else { role }.to_string();
        let messages: Vec<_> =
            request.messages.iter().map(|message| (role(&message.role), content(&message.content))).collect();
        let bytes: usize = messages.iter().map(|(_, content)| content.len()).sum();
        let limits = Limits {
            work: WORK + WORK_A_MESSAGE * messages.len() as u64 + bytes as u64,
            output: OUTPUT + 64 * positions + 4 * bytes,
        };
        let named = if self.tokens.is_empty() { tokenizer.named_tokens() } else { &self.tokens };
        let rendered =
            jinja.render(&messages, request.add_generation_prompt, named, limits, Moment(request.now));
        rendered.map_err(|failure| match failure {
            Failure::Refused(message) => {
                ModelError::Input(format!("the chat template refuses the messages: {message}"))
            }
            Failure::Broken(problem) => invalid(&problem),
        })
    }
}

fn no_template(path: &Path, problem: impl std::fmt::Display) -> ModelError {
    ModelError::Tokenizer(format!("{}: {problem}", file_name(path)))
}

/// The template itself, or the one called "default" of several.
fn default_of(given: &Value) -> Option<String> {
    let is_default = |entry: &&Value| entry["name"] == "default";
    let source = match given {
        Value::Array(several) => &several.iter().find(is_default)?["template"],
        Value::Object(several) => several.get("default")?,
        one => one,
    };
    source.as_str().map(str::to_string)
}

/// The content with the names of control tokens (longest first) between marks.
fn mark(content: &str, control: &[&str], (begin, end): (char, char)) -> String {
    let control: Vec<&&str> = control.iter().filter(|token| content.contains(**token)).collect();
    let mut marked = String::with_capacity(content.len() + 16);
    let mut rest = content;
    while let Some(c) = rest.chars().next() {
        let token = control.iter().find(|token| rest.starts_with(***token));
        match token {
            Some(token) => {
                marked.push(begin);
                marked.push_str(token);
                marked.push(end);
                rest = &rest[token.len()..];
            }
            None => {
                marked.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    marked
}

/// A conversation as its template writes it.
pub struct ChatText {
    /// With marks about what is text in spite of its name.
    pub text: String,
    marks: Option<(char, char)>,
}

impl ChatText {
    pub fn ids(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        match self.marks {
            Some(marks) => marked_ids(tokenizer, &self.text, marks),
            None => tokenizer.encode(&self.text, false),
        }
    }
}

/// The ids of a text with marks: what is between two of them is text, and a mark that lost the other one, as the
/// template may split a message, parts what is on its sides.
fn marked_ids(tokenizer: &Tokenizer, text: &str, (begin, end): (char, char)) -> Result<Vec<u32>> {
    let names: Vec<&str> = tokenizer.added_tokens().map(|(name, _)| name).collect();
    let newline = tokenizer.encode("\n", false)?;
    let mut ids = Vec::new();
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let at = rest.find([begin, end]).unwrap_or(rest.len());
        let piece = &rest[..at];
        if !piece.is_empty() {
            // After a line feed, so that no vocabulary puts a space before a piece that is in the middle of a text.
            let after = if first { None } else { Some(&newline) };
            ids.extend(piece_ids(piece, after, |text| tokenizer.encode(text, false))?);
        }
        first = false;
        let Some(mark) = rest[at..].chars().next() else { break };
        rest = &rest[at + mark.len_utf8()..];
        if mark == begin
            && let Some(close) = rest.find(end)
            && names.contains(&&rest[..close])
        {
            let name = &rest[..close];
            let plain = piece_ids(name, Some(&newline), |text| tokenizer.encode_plain(text))?;
            if tokenizer.token_to_id(name).is_some_and(|id| plain.contains(&id)) {
                return Err(ModelError::Input(format!(
                    "a message has {name:?}, which this tokenizer cannot write as text"
                )));
            }
            ids.extend(plain);
            rest = &rest[close + end.len_utf8()..];
        }
    }
    Ok(ids)
}

fn piece_ids(
    piece: &str,
    after: Option<&Vec<u32>>,
    encode: impl Fn(&str) -> Result<Vec<u32>>,
) -> Result<Vec<u32>> {
    if let Some(newline) = after {
        let ids = encode(&format!("\n{piece}"))?;
        if let Some(own) = ids.strip_prefix(newline.as_slice()) {
            return Ok(own.to_vec());
        }
    }
    encode(piece)
}
