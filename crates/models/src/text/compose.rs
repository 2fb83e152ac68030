//! A tokenizer from all files of a folder, as transformers 5 composes it: a vocabulary (`tokenizer.json`, or
//! `vocab.txt`, or `vocab.json` with `merges.txt`), what is done to a text (classes.rs, pipeline.rs), and the tokens
//! beside the vocabulary (special.rs). What files say that is neither followed nor refused has no part in ids or texts
//! in transformers 5 either: `errors`, `never_split`, `do_basic_tokenize`, `padding_side` (nothing is padded here).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ahash::AHashMap;
use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;

use crate::files::foreign;
use crate::files::reading::{Entries, file_name, open_regular, read_json, read_text_within};
use crate::text::classes::{Class, has_tokenizer, no_vocabulary};
use crate::text::contradiction::{
    check_added, check_ends, check_ids, check_model, check_parts, check_texts, check_vocabulary,
};
use crate::text::encoding::invalid;
use crate::text::pipeline::{Parts, ends, read_model, without_ends};
use crate::text::settings::{JSON, Settings, entries};
use crate::text::special::{Listed, Special};
use crate::text::token::Token;
use crate::{ModelError, Result};

/// Vocabularies of a quarter of a million tokens have some 20 MB.
const LARGEST: u64 = 512 << 20;

/// A tokenizer and what its files say of its use.
pub(crate) struct Composed {
    pub tokenizer: tokenizers::Tokenizer,
    /// Tokens by name: `mask_token`, `[MASK]`.
    pub named: Vec<(String, String)>,
    /// Decoding takes away spaces that English does not write.
    pub clean_up: bool,
    /// Tokens that texts are cut to, special ones included.
    pub max_length: Option<usize>,
    /// Texts are cut on the left.
    pub cut_left: bool,
}

/// The tokenizer of a model's folder, or `None` where it has no tokenizer's files.
pub(crate) fn open(folder: &Path) -> Result<Option<Composed>> {
    if !has_tokenizer(folder) {
        return Ok(None);
    }
    let settings = Settings::read(folder)?;
    settings.refuse_foreign()?;
    let class = class_of(folder, &settings)?;
    let json = folder.join(JSON);
    let (parts, of_json) = if json.is_file() { Some(read_parts(&json)?).unzip() } else { (None, None) };
    let added = parts.as_ref().map(|parts| parts.added.as_slice());
    let padding = parts.as_ref().and_then(|parts| parts.value["padding"]["pad_token"].as_str());
    let special = Special::read(&settings, class, added, padding)?;

    let value = parts.as_ref().map(|parts| &parts.value);
    let (file, vocabulary) = match (value, of_json) {
        (Some(value), Some(model)) => {
            check_model(class, &model, &special)?;
            check_parts(class, value, &settings)?;
            if let Some(vocabulary) = model["vocab"].as_object() {
                let ids = vocabulary.iter().filter_map(|(token, id)| Some((token.as_str(), id.as_u64()?)));
                check_vocabulary(JSON, ids, vocabulary.len())?;
            }
            (JSON, read_model(model)?)
        }
        _ => (class.vocabulary().first().copied().unwrap_or(JSON), read_vocabulary(folder, class)?),
    };
    let mut tokenizer = without_ends(class, vocabulary, &settings, &special, value)?;
    // Of a pipeline of its own the class has only the tokens that it is given; the other is all of tokenizer.json.
    let there = added.filter(|_| class == Class::Backend).unwrap_or_default();
    tokenizer.add_tokens(there.iter().map(|(_, token)| token.added())).map_err(invalid)?;
    tokenizer.add_tokens(special.to_add(there)).map_err(invalid)?;
    if let Some(added) = added {
        check_added(&tokenizer, added)?;
        let listed = added.iter().map(|(id, token)| Listed { id: *id, token: token.clone(), file: JSON });
        check_ids(&tokenizer, &listed.collect::<Vec<_>>(), "the vocabulary in it")?;
    }
    check_ids(&tokenizer, &special.listed, file)?;
    check_texts(&tokenizer, &special.listed)?;
    for name in ["add_bos_token", "add_eos_token"] {
        settings.flag_or_null(name, false)?;
    }
    let ends = ends(class, &tokenizer, &settings, &special, value)?;
    if let Some(value) = value {
        check_ends(class, value, &ends, &special)?;
    }
    tokenizer.with_post_processor(Some(ends));
    tokenizer.set_encode_special_tokens(settings.flag("split_special_tokens", false)?);
    // An older file's padding and truncation are those of the program that saved it; the caller sets both here.
    let json_left = value.is_some_and(|value| value["truncation"]["direction"] == "Left");
    settings.is_left("padding_side", false)?;
    let is_bpe = matches!(tokenizer.get_model(), ModelWrapper::BPE(_));
    let anyway = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
    // transformers cleans up for every model but BPE, whose tokens hold the text's own spaces.
    let clean_up = settings.flag_or_null("clean_up_tokenization_spaces", false)?
        && (!is_bpe || settings.flag_or_null(anyway, false)?);
    Ok(Some(Composed {
        named: special.named.iter().map(|(name, token)| (name.clone(), token.content.clone())).collect(),
        clean_up,
        max_length: settings.max_length()?,
        cut_left: settings.is_left("truncation_side", json_left)?,
        tokenizer,
    }))
}

fn class_of(folder: &Path, settings: &Settings) -> Result<Class> {
    let path = folder.join("config.json");
    let model = if path.is_file() { read_json(&path)? } else { Value::Null };
    Class::of(settings, &model)
}

/// The name of the class of a folder's tokenizer, if it has one.
pub(crate) fn class_in(folder: &Path) -> Result<Option<&'static str>> {
    if !has_tokenizer(folder) {
        return Ok(None);
    }
    Ok(Some(class_of(folder, &Settings::read(folder)?)?.name()))
}

/// Why a tokenizer's file could not be read: what it is instead, or else `error`.
fn foreign_or(path: &Path, error: impl std::fmt::Display) -> ModelError {
    let found = File::open(path).ok().and_then(|file| foreign::content_of(&file));
    ModelError::Tokenizer(format!("{}: {}", file_name(path), found.unwrap_or_else(|| error.to_string())))
}

/// A `tokenizer.json`, and apart from it its model.
fn read_parts(path: &Path) -> Result<(Parts, Value)> {
    let mut bytes = Vec::new();
    let failed =
        |error: std::io::Error| ModelError::Io { path: path.to_path_buf(), reason: error.to_string() };
    open_regular(path)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(foreign_or(path, format!("over {LARGEST} bytes")));
    }
    let mut value: Value = serde_json::from_slice(&bytes).map_err(|error| foreign_or(path, error))?;
    let model = value["model"].take();
    if !model.is_object() {
        return Err(foreign_or(path, "no tokenizer: it has no model"));
    }
    if let Some(version) = value.get("version").filter(|version| *version != "1.0") {
        return Err(foreign_or(path, format!("its version is {version}")));
    }
    let mut added = Vec::new();
    for token in value["added_tokens"].take().as_array().into_iter().flatten() {
        let id = token["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| foreign_or(path, format!("added_tokens: the id {}", token["id"])))?;
        added.push((id, Token::read(token, &format!("{JSON}: added_tokens"))?));
    }
    Ok((Parts { value, added }, model))
}

/// The vocabulary of a folder without a `tokenizer.json`.
fn read_vocabulary(folder: &Path, class: Class) -> Result<ModelWrapper> {
    let files = class.vocabulary();
    if files.is_empty() || files.iter().any(|name| !folder.join(name).is_file()) {
        return Err(no_vocabulary(folder, class));
    }
    let path = folder.join(files[0]);
    if let Some(reason) = File::open(&path).ok().and_then(|file| foreign::content_of(&file)) {
        return Err(ModelError::Tokenizer(format!("{}: {reason}", files[0])));
    }
    if let [_, merges] = files {
        return Ok(ModelWrapper::BPE(byte_pairs(&path, &folder.join(merges))?));
    }
    // A token on two lines has the later one's id, in every program that reads the format.
    let model = WordPiece::from_file(&path.to_string_lossy()).build();
    Ok(ModelWrapper::WordPiece(
        model.map_err(|error| ModelError::Tokenizer(format!("{}: {error}", files[0])))?,
    ))
}

/// `vocab.json` and `merges.txt`.
fn byte_pairs(vocabulary: &Path, merges: &Path) -> Result<BPE> {
    let Entries(tokens) = entries::<u32>(vocabulary)
        .map_err(|error| ModelError::Tokenizer(error.to_string()))?
        .unwrap_or_default();
    let ids = tokens.iter().map(|(token, id)| (token.as_str(), u64::from(*id)));
    check_vocabulary("vocab.json", ids, tokens.len())?;
    let text = read_text_within(merges, LARGEST)?;
    let lines = text.lines().filter(|line| !line.starts_with("#version")).enumerate();
    let pair = |(at, line): (usize, &str)| match line.split_once(' ') {
        Some((left, right)) if !right.contains(' ') => Ok((left.to_string(), right.to_string())),
        _ => Err(ModelError::Tokenizer(format!("merges.txt: merge {} is no pair of tokens", at + 1))),
    };
    let pairs = lines.map(pair).collect::<Result<Vec<_>>>()?;
    let tokens: AHashMap<_, _> = tokens.into_iter().collect();
    let model = BPE::builder().vocab_and_merges(tokens, pairs).build();
    model.map_err(|error| ModelError::Tokenizer(format!("vocab.json and merges.txt: {error}")))
}
