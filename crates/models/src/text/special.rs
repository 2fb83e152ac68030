//! The tokens that stand beside a tokenizer's vocabulary, from all files that say something of them, each where
//! transformers 5 lets it count (`PreTrainedTokenizerBase._from_pretrained` and `__init__`).
//!
//! - Named ones (`cls_token`, …) are those of `tokenizer_config.json`, else the class's own.
//! - `added_tokens_decoder` there is the list of added tokens. Only a folder without it is an old one, in which
//!   `special_tokens_map.json` comes before the configuration, and `added_tokens.json` and the list in
//!   `tokenizer.json` are the added tokens.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tokenizers::AddedToken;

use crate::text::classes::Class;
use crate::text::settings::{ADDED, CONFIG, JSON, Settings, TOKEN_MAP, few};
use crate::text::token::Token;
use crate::{ModelError, Result};

/// The names that every tokenizer has, in the order in which tokens without an id get theirs.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A token whose id a file gives.
pub(crate) struct Listed {
    pub id: u32,
    pub token: Token,
    pub file: &'static str,
}

pub(crate) struct Special {
    /// By name, those of [`NAMES`] first.
    pub named: Vec<(String, Token)>,
    pub extra: Vec<Token>,
    /// By id.
    pub listed: Vec<Listed>,
    /// The names of [`NAMES`] that a file gives; the others are the class's.
    said: Vec<String>,
}

impl Special {
    /// `json`: the added tokens of `tokenizer.json`, if there is one; `padding`: the token that it pads with.
    pub fn read(
        settings: &Settings,
        class: Class,
        json: Option<&[(u32, Token)]>,
        padding: Option<&str>,
    ) -> Result<Self> {
        let mut given = Given::read(settings, class)?;
        let special = std::mem::take(&mut given.special);
        let said: Vec<String> = given.named.iter().map(|(name, _)| name.clone()).collect();
        if let (Class::Backend, Some(text)) = (class, padding)
            && !said.iter().any(|name| name == "pad_token")
        {
            given.named.push(("pad_token".into(), Some(Token::special(text))));
        }
        let mut named = Vec::new();
        let mut defaults = class.defaults();
        for name in NAMES {
            let default =
                defaults.iter().position(|(own, _)| *own == name).map(|at| defaults.swap_remove(at).1);
            let token = match given.named.iter().find(|(own, _)| own == name) {
                Some((_, token)) => token.clone(),
                None => default,
            };
            named.extend(token.map(|token| (name.to_string(), token)));
        }
        named.extend(given.own);
        let extra = given.extra.unwrap_or_else(|| class.extra());
        let mut listed = match &settings.listed {
            Some(list) => of_config(list)?,
            None => of_files(settings, &special, json.unwrap_or_default())?,
        };
        listed.sort_by_key(|listed| listed.id);
        Ok(Self { named, extra, listed, said })
    }

    pub fn get(&self, name: &str) -> Option<&Token> {
        self.named.iter().find(|(own, _)| own == name).map(|(_, token)| token)
    }

    /// A token that the class cannot do without.
    pub fn need(&self, name: &str, class: Class) -> Result<&Token> {
        let found = self.get(name).filter(|token| !token.content.is_empty());
        found.ok_or_else(|| {
            ModelError::Tokenizer(format!("{CONFIG}: {name} is none, and a {} needs one", class.name()))
        })
    }

    /// Whether a file names this token, and not the class alone.
    pub fn is_said(&self, name: &str) -> bool {
        self.said.iter().any(|own| own == name)
    }

    /// The tokens to add to a tokenizer that has `there` already: the listed ones by their ids, then the named, then
    /// the others. Those that are named are special.
    pub fn to_add(&self, there: &[(u32, Token)]) -> Vec<AddedToken> {
        let same: HashMap<&str, AddedToken> =
            there.iter().map(|(_, token)| (token.content.as_str(), token.added())).collect();
        let listed = self.listed.iter().map(|listed| &listed.token);
        let mut tokens: Vec<&Token> =
            listed.filter(|token| same.get(token.content.as_str()) != Some(&token.added())).collect();
        let mut known: HashSet<&str> = same.keys().copied().collect();
        known.extend(tokens.iter().map(|token| token.content.as_str()));
        // Of a text that is named twice with other flags the later ones count.
        let more = self.named.iter().map(|(_, token)| token).chain(&self.extra);
        let mut seen = HashSet::new();
        tokens.extend(more.filter(|token| !known.contains(token.content.as_str()) && seen.insert(*token)));
        let named: HashSet<&str> = self.named.iter().map(|(_, token)| token.content.as_str()).collect();
        let special = |token: &Token| token.special || named.contains(token.content.as_str());
        tokens.into_iter().map(|token| Token { special: special(token), ..token.clone() }.added()).collect()
    }
}

/// What the files give of named and extra tokens, before the class's own fill the gaps.
#[derive(Default)]
struct Given {
    /// Of [`NAMES`]; `None`: said to be none.
    named: Vec<(String, Option<Token>)>,
    /// Of other names, such as `image_token`.
    own: Vec<(String, Token)>,
    extra: Option<Vec<Token>>,
    /// `additional_special_tokens` where only the absence of the newer name lets it count.
    older: Option<Vec<Token>>,
    /// Texts of tokens that the configuration gives as objects.
    objects: Vec<String>,
    /// The texts that are special in `added_tokens.json`, which does not say it: transformers looks for them among
    /// named and extra tokens before those that the configuration gives as objects have become tokens.
    special: HashSet<String>,
}

impl Given {
    fn read(settings: &Settings, class: Class) -> Result<Self> {
        let mut given = Self::default();
        let (mut own, mut automatic) = (Vec::new(), Vec::new());
        for (name, value) in settings.fields() {
            let place = || format!("{CONFIG}: {name}");
            let is_name = NAMES.contains(&name.as_str());
            match value {
                // No tokens, but whether to add these.
                _ if matches!(name.as_str(), "add_bos_token" | "add_eos_token") => {}
                Value::Null if is_name => given.put(name, None),
                Value::String(text) if is_name => {
                    given.put(name, Some(class.token(name, text)));
                }
                Value::Object(object) if object.get("__type").is_some_and(|kind| kind == "AddedToken") => {
                    let token = Token::read(value, &place())?;
                    given.objects.push(token.content.clone());
                    if is_name {
                        given.put(name, Some(token));
                    } else if name.ends_with("_token") {
                        put(&mut automatic, name, token);
                    }
                }
                _ if is_name => {
                    return Err(settings.refuse(name, "a token: a text, or an AddedToken's fields"));
                }
                Value::String(text) if name.ends_with("_token") => put(&mut own, name, Token::special(text)),
                _ => {}
            }
        }
        let is_empty = |value: &Value| match value {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(object) => object.is_empty(),
            _ => false,
        };
        // The older name counts where the newer one says nothing.
        let extra = settings.get("extra_special_tokens").filter(|extra| !is_empty(extra));
        match (extra, &settings.extra, settings.get("additional_special_tokens")) {
            (Some(_), Some(named), _) => {
                for (name, value) in named {
                    put(&mut own, name, token_of(value, &format!("{CONFIG}: extra_special_tokens"))?);
                }
                let list = settings.get("additional_special_tokens").unwrap_or(&Value::Null);
                given.older = tokens_of(list, CONFIG, "additional_special_tokens")?;
            }
            (Some(list), None, _) => given.extra = tokens_of(list, CONFIG, "extra_special_tokens")?,
            (None, _, Some(list)) => {
                given.extra = Some(tokens_of(list, CONFIG, "additional_special_tokens")?.unwrap_or_default());
            }
            (None, _, None)
                if settings.get("extra_special_tokens").is_some_and(|extra| !extra.is_object()) =>
            {
                given.extra = Some(Vec::new());
            }
            (None, _, None) => {}
        }
        let list = extra.or_else(|| settings.get("additional_special_tokens")).and_then(Value::as_array);
        let objects = list.into_iter().flatten().filter_map(|value| value["content"].as_str());
        given.objects.extend(objects.map(str::to_string));
        if own.is_empty()
            && let Some(Value::Object(named)) = settings.get("model_specific_special_tokens")
        {
            few(CONFIG, named.len())?;
            for (name, value) in named {
                put(&mut own, name, token_of(value, &format!("{CONFIG}: model_specific_special_tokens"))?);
            }
        }
        given.read_map(settings, class, &mut own, &mut automatic)?;
        given.own = automatic;
        for (name, token) in own {
            put(&mut given.own, &name, token);
        }
        Ok(given)
    }

    /// `special_tokens_map.json`, which comes before the configuration.
    fn read_map(
        &mut self,
        settings: &Settings,
        class: Class,
        own: &mut Vec<(String, Token)>,
        automatic: &mut Vec<(String, Token)>,
    ) -> Result<()> {
        for (name, value) in &settings.map {
            let place = format!("{TOKEN_MAP}: {name}");
            let is_name = NAMES.contains(&name.as_str());
            match (name.as_str(), value) {
                ("extra_special_tokens", Value::Array(list)) => {
                    let extra = self.extra.get_or_insert_default();
                    let mut known: HashSet<Token> = extra.iter().cloned().collect();
                    for value in list {
                        let token = match value {
                            Value::Object(_) => Token { special: true, ..Token::read(value, &place)? },
                            other => token_of(other, &place)?,
                        };
                        if known.insert(token.clone()) {
                            extra.push(token);
                        }
                    }
                }
                ("extra_special_tokens", Value::Object(named)) => {
                    for (name, value) in named {
                        put(own, name, token_of(value, &place)?);
                    }
                }
                ("additional_special_tokens", list) => {
                    self.older = tokens_of(list, TOKEN_MAP, "additional_special_tokens")?;
                }
                (_, Value::Null) if is_name => self.put(name, None),
                (_, Value::String(text)) if is_name => self.put(name, Some(class.token(name, text))),
                (_, Value::Object(_)) if is_name || name.ends_with("_token") => {
                    let token = Token { special: true, ..Token::read(value, &place)? };
                    if is_name { self.put(name, Some(token)) } else { put(automatic, name, token) }
                }
                (_, Value::String(text)) if name.ends_with("_token") => {
                    put(automatic, name, Token::special(text));
                }
                _ if is_name => {
                    return Err(ModelError::Tokenizer(format!("{place}: no token")));
                }
                _ => {}
            }
            if is_name {
                let token =
                    self.named.iter().find(|(own, _)| own == name).and_then(|(_, token)| token.as_ref());
                let content = token.map(|token| token.content.clone());
                self.objects.retain(|own| Some(own) != content.as_ref());
            }
        }
        let named = self.named.iter().filter_map(|(_, token)| token.as_ref());
        let special = named.chain(self.extra.iter().flatten()).map(|token| &token.content);
        self.special = special.filter(|content| !self.objects.contains(content)).cloned().collect();
        if self.extra.is_none() {
            self.extra = self.older.take();
        }
        Ok(())
    }

    fn put(&mut self, name: &str, token: Option<Token>) {
        self.named.retain(|(own, _)| own != name);
        self.named.push((name.to_string(), token));
    }
}

/// Python's `dict[name] = token`: a name keeps its place.
fn put(tokens: &mut Vec<(String, Token)>, name: &str, token: Token) {
    match tokens.iter_mut().find(|(own, _)| own == name) {
        Some(entry) => entry.1 = token,
        None => tokens.push((name.to_string(), token)),
    }
}

/// A token as the configuration writes it.
fn token_of(value: &Value, place: &str) -> Result<Token> {
    match value {
        Value::String(text) => Ok(Token::special(text)),
        Value::Object(object) if object.get("__type").is_some_and(|kind| kind == "AddedToken") => {
            Token::read(value, place)
        }
        _ => Err(ModelError::Tokenizer(format!("{place}: no token: a text, or an AddedToken's fields"))),
    }
}

fn tokens_of(list: &Value, file: &str, name: &str) -> Result<Option<Vec<Token>>> {
    let place = format!("{file}: {name}");
    match list {
        Value::Null => Ok(None),
        Value::Array(list) => {
            list.iter().map(|value| token_of(value, &place)).collect::<Result<_>>().map(Some)
        }
        _ => Err(ModelError::Tokenizer(format!("{place}: no list of tokens"))),
    }
}

/// `added_tokens_decoder`.
fn of_config(list: &[(String, Value)]) -> Result<Vec<Listed>> {
    let place = format!("{CONFIG}: added_tokens_decoder");
    let mut listing = Listing::default();
    for (id, value) in list {
        let number = id.trim().parse::<u32>();
        let id = number.map_err(|_| ModelError::Tokenizer(format!("{place}: {id:?} is no id")))?;
        listing.add(Listed { id, token: Token::read(value, &place)?, file: CONFIG })?;
    }
    Ok(listing.list)
}

/// `added_tokens.json`, and the list of `tokenizer.json`, which says more of a token that is in both.
fn of_files(settings: &Settings, special: &HashSet<String>, json: &[(u32, Token)]) -> Result<Vec<Listed>> {
    let mut listing = Listing::default();
    for (id, token) in json {
        listing.add(Listed { id: *id, token: token.clone(), file: JSON })?;
    }
    for (text, id) in &settings.added {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id =
            number.ok_or_else(|| ModelError::Tokenizer(format!("{ADDED}: the id of {text:?} is {id}")))?;
        let is_special = special.contains(text);
        let token = Token { special: is_special, normalized: Some(!is_special), ..Token::special(text) };
        let of_json = listing.ids.get(&id).map(|&at| &listing.list[at]);
        if of_json.is_none_or(|own| own.file != JSON || own.token.content != *text) {
            listing.add(Listed { id, token, file: ADDED })?;
        }
    }
    Ok(listing.list)
}

/// Tokens with ids, each once.
#[derive(Default)]
struct Listing {
    list: Vec<Listed>,
    ids: HashMap<u32, usize>,
    texts: HashMap<String, usize>,
}

impl Listing {
    /// Refuses an id that is given twice, and a token with two ids.
    fn add(&mut self, new: Listed) -> Result<()> {
        let at = self.list.len();
        let same_id = self.ids.insert(new.id, at);
        let same_text = self.texts.insert(new.token.content.clone(), at);
        if let Some(at) = same_id.or(same_text) {
            let own = &self.list[at];
            let files = match own.file == new.file {
                true => new.file.to_string(),
                false => format!("{} and {}", own.file, new.file),
            };
            return Err(ModelError::Tokenizer(if own.id == new.id {
                let (first, second) = (&own.token.content, &new.token.content);
                format!("{files}: the id {} is given twice, to {first:?} and {second:?}", own.id)
            } else {
                format!("{files}: {:?} has two ids, {} and {}", new.token.content, own.id, new.id)
            }));
        }
        self.list.push(new);
        Ok(())
    }
}
