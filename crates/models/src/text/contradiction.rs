//! Where files contradict each other. A class of transformers with a pipeline of its own takes that for what
//! `tokenizer_config.json` says, whatever `tokenizer.json` says. Where the configuration says it, that is a rule, and
//! followed. Where it says nothing, the class's default would silently come before what a file says: refused.

use ahash::{AHashMap, AHashSet};
use serde_json::Value;
use tokenizers::tokenizer::{Encoding, PostProcessor, Token as Piece};
use tokenizers::{NormalizedString, Normalizer, PostProcessorWrapper, Tokenizer};

use crate::files::reading::short;
use crate::text::classes::Class;
use crate::text::encoding::invalid;
use crate::text::pipeline::bert_normalizer;
use crate::text::settings::{CONFIG, JSON, Settings};
use crate::text::special::{Listed, Special};
use crate::text::token::Token;
use crate::{ModelError, Result};

/// `tokenizer.json` says what `class` would pass over.
fn passed_over(class: Class, what: &str, field: Option<&str>) -> ModelError {
    let field = field.map(|name| format!("{name}, or ")).unwrap_or_default();
    ModelError::Tokenizer(format!(
        "{JSON} and {CONFIG} contradict each other: {what}, and a {} does otherwise where {CONFIG} does not say; \
         write there {field}\"tokenizer_class\": \"PreTrainedTokenizerFast\" to have {JSON} read as it is",
        class.name()
    ))
}

/// Refuses a `tokenizer.json` whose model is another than the class's, or does what the class leaves out.
pub(crate) fn check_model(class: Class, model: &Value, special: &Special) -> Result<()> {
    let kind = match class {
        Class::Backend => return Ok(()),
        Class::Bert | Class::MPNet => "WordPiece",
        Class::Gpt2 | Class::Roberta => "BPE",
        Class::XlmRoberta | Class::Camembert => "Unigram",
    };
    let over = |what: String| Err(passed_over(class, &what, None));
    if let Some(other) = model["type"].as_str().filter(|own| *own != kind) {
        return over(format!("the model is {other}"));
    }
    let is_said = |name: &str, inert: &[Value]| {
        model
            .get(name)
            .filter(|value| !value.is_null() && !inert.contains(value))
            .map(|value| format!("the model's {name} is {}", short(value)))
    };
    let said = match kind {
        "WordPiece" => is_said("continuing_subword_prefix", &["##".into()])
            .or_else(|| is_said("max_input_chars_per_word", &[100.into()])),
        "BPE" => is_said("dropout", &[0.into(), 0.0.into()])
            .or_else(|| is_said("continuing_subword_prefix", &["".into()]))
            .or_else(|| is_said("end_of_word_suffix", &["".into()]))
            .or_else(|| is_said("ignore_merges", &[false.into()])),
        _ => is_said("byte_fallback", &[false.into()]),
    };
    if let Some(what) = said {
        return over(what);
    }
    if kind == "WordPiece" {
        let unknown = special.need("unk_token", class)?.content.as_str();
        let own = model["unk_token"].as_str().filter(|own| *own != unknown && !special.is_said("unk_token"));
        if let Some(own) = own {
            return Err(passed_over(class, &format!("the unknown token is {own:?}"), Some("unk_token")));
        }
    }
    if kind == "Unigram" {
        // transformers gives XLM-RoBERTa's as 3, CamemBERT's by its name.
        let unknown = special.need("unk_token", class)?.content.as_str();
        let pieces = model["vocab"].as_array();
        let named = pieces.and_then(|list| list.iter().position(|piece| piece[0] == unknown)).unwrap_or(0);
        let expected = if class == Class::XlmRoberta { 3 } else { named };
        if model["unk_id"].as_u64() != Some(expected as u64) {
            return over(format!("the unknown token's id is {} (unk_id)", model["unk_id"]));
        }
    }
    Ok(())
}

/// Refuses what a `tokenizer.json` says of normalising, splitting and decoding that the class would pass over.
pub(crate) fn check_parts(class: Class, parts: &Value, settings: &Settings) -> Result<()> {
    let [normalizer, splitter, decoder] = ["normalizer", "pre_tokenizer", "decoder"].map(|name| &parts[name]);
    let over = |what: &str, field| Err(passed_over(class, what, field));
    let kind = |part: &Value| part["type"].as_str().unwrap_or("none").to_string();
    let decodes = match class {
        Class::Backend => return Ok(()),
        Class::Bert | Class::MPNet => {
            check_bert(class, normalizer, settings)?;
            if splitter["type"] != "BertPreTokenizer" {
                return over(&format!("its pre_tokenizer is {}", kind(splitter)), None);
            }
            decoder["type"] == "WordPiece" && decoder["prefix"] == "##" && decoder["cleanup"] != false
        }
        Class::Gpt2 | Class::Roberta => {
            if !normalizer.is_null() {
                return over(&format!("its normalizer is {}", kind(normalizer)), None);
            }
            if splitter["type"] != "ByteLevel" || splitter["use_regex"] == false {
                return over(&format!("its pre_tokenizer is {}", kind(splitter)), None);
            }
            if splitter["add_prefix_space"] == true && !settings.has("add_prefix_space") {
                return over("its add_prefix_space is true", Some("add_prefix_space"));
            }
            decoder["type"] == "ByteLevel"
        }
        Class::XlmRoberta | Class::Camembert => {
            // Beside the table, files have what comes to the same: runs of spaces become one, ends are stripped.
            let listed = normalizer["normalizers"].as_array().map(Vec::as_slice);
            let steps = listed.unwrap_or(std::slice::from_ref(normalizer));
            let known = |step: &Value| {
                step.is_null() || matches!(step["type"].as_str(), Some("Precompiled" | "Replace" | "Strip"))
            };
            if let Some(step) = steps.iter().find(|step| !known(step)) {
                return over(&format!("its normalizer is {}", kind(step)), None);
            }
            let listed = splitter["pretokenizers"].as_array().map(Vec::as_slice);
            for step in listed.unwrap_or(std::slice::from_ref(splitter)) {
                let never = step["prepend_scheme"] == "never" || step["add_prefix_space"] == false;
                match step["type"].as_str() {
                    Some("WhitespaceSplit") => {}
                    Some("Metaspace") if step["replacement"] != "▁" => {
                        return over("its pre_tokenizer's replacement is another", None);
                    }
                    Some("Metaspace") if never && !settings.has("add_prefix_space") => {
                        return over("its pre_tokenizer adds no space", Some("add_prefix_space"));
                    }
                    Some("Metaspace") => {}
                    _ => return over(&format!("its pre_tokenizer is {}", kind(step)), None),
                }
            }
            decoder["type"] == "Metaspace"
        }
    };
    if decoder.is_null() || decodes {
        Ok(())
    } else {
        over(&format!("its decoder is {}", kind(decoder)), None)
    }
}

fn check_bert(class: Class, normalizer: &Value, settings: &Settings) -> Result<()> {
    let over = |what: &str, field| Err(passed_over(class, what, Some(field)));
    let own = bert_normalizer(settings)?;
    if normalizer["type"] != "BertNormalizer" {
        let kind = normalizer["type"].as_str().unwrap_or("none");
        let said = settings.has("do_lower_case");
        return if said { Ok(()) } else { over(&format!("its normalizer is {kind}"), "do_lower_case") };
    }
    if normalizer["clean_text"] == false {
        return Err(passed_over(class, "its clean_text is false", None));
    }
    let differs = |name: &str, own: bool| normalizer[name].as_bool().is_some_and(|given| given != own);
    if differs("lowercase", own.lowercase) && !settings.has("do_lower_case") {
        return over(&format!("its lowercase is {}", !own.lowercase), "do_lower_case");
    }
    if differs("handle_chinese_chars", own.handle_chinese_chars) && !settings.has("tokenize_chinese_chars") {
        let said = format!("its handle_chinese_chars is {}", !own.handle_chinese_chars);
        return over(&said, "tokenize_chinese_chars");
    }
    let strips = own.strip_accents.unwrap_or(own.lowercase);
    let said = settings.has("strip_accents") || settings.has("do_lower_case");
    let theirs = normalizer["strip_accents"].as_bool().or(normalizer["lowercase"].as_bool());
    if theirs.is_some_and(|theirs| theirs != strips) && !said {
        return over(&format!("it strips accents: {}", !strips), "strip_accents");
    }
    Ok(())
}

/// Refuses a `tokenizer.json` that puts other tokens around texts than the class, unless another file names the
/// class's.
pub(crate) fn check_ends(
    class: Class,
    parts: &Value,
    own: &PostProcessorWrapper,
    special: &Special,
) -> Result<()> {
    let Some(names) = class.around().filter(|names| !names.iter().any(|name| special.is_said(name))) else {
        return Ok(());
    };
    if parts["post_processor"].is_null() {
        return Ok(());
    }
    let theirs: PostProcessorWrapper = serde_json::from_value(parts["post_processor"].clone())
        .map_err(|error| ModelError::Tokenizer(format!("{JSON}: post_processor: {error}")))?;
    for pair in [false, true] {
        if ends_of(&theirs, pair)? != ends_of(own, pair)? {
            let what = "its post_processor puts other tokens around a text";
            return Err(passed_over(class, what, Some(&names.join(" and "))));
        }
    }
    Ok(())
}

/// The ids that `processor` makes of a text of one token, or of two texts.
fn ends_of(processor: &PostProcessorWrapper, pair: bool) -> Result<Vec<u32>> {
    let text = |id| Encoding::from_tokens(vec![Piece::new(id, "a".into(), (0, 1))], 0);
    let second = pair.then(|| text(u32::MAX - 1));
    let encoding = processor.process(text(u32::MAX), second, true).map_err(invalid)?;
    Ok(encoding.get_ids().to_vec())
}

/// Refuses a tokenizer in which a token has another id than a file gives it: an id that is no vocabulary's next one, or
/// one for a token that the vocabulary has elsewhere. transformers gives such a token the id that is free, and says
/// nothing.
pub(crate) fn check_ids(tokenizer: &Tokenizer, listed: &[Listed], vocabulary: &str) -> Result<()> {
    for Listed { id, token, file } in listed.iter().filter(|listed| !listed.token.content.is_empty()) {
        let own = tokenizer.token_to_id(&token.content);
        if own != Some(*id) {
            let own = own.map_or("none".to_string(), |own| own.to_string());
            return Err(ModelError::Tokenizer(format!(
                "{file} and {vocabulary} contradict each other: {:?} has the id {id} there and {own} with this \
                 vocabulary",
                token.content
            )));
        }
    }
    Ok(())
}

/// Refuses two added tokens that are the same text once it is normalised ("Covid" and "covid" in lower case): which of
/// them a text has is chance in transformers, by the order of a hash map.
pub(crate) fn check_texts(tokenizer: &Tokenizer, listed: &[Listed]) -> Result<()> {
    let Some(normalizer) = tokenizer.get_normalizer() else { return Ok(()) };
    let mut seen = AHashMap::new();
    for (id, token) in tokenizer.get_added_tokens_decoder().iter().filter(|(_, token)| token.normalized) {
        let mut text = NormalizedString::from(token.content.as_str());
        normalizer.normalize(&mut text).map_err(invalid)?;
        if let Some(other) = seen.insert(text.get().to_string(), &token.content) {
            let file = listed.iter().find(|listed| listed.id == *id).map_or(CONFIG, |listed| listed.file);
            let mut both = [other, &token.content];
            both.sort();
            return Err(ModelError::Tokenizer(format!(
                "{file}: the added tokens {:?} and {:?} are the same text once it is normalised",
                both[0], both[1]
            )));
        }
    }
    Ok(())
}

/// Refuses tokens that `tokenizer.json` adds and the list in `tokenizer_config.json` lacks: transformers would take
/// them apart.
pub(crate) fn check_added(tokenizer: &Tokenizer, added: &[(u32, Token)]) -> Result<()> {
    let there = tokenizer.get_added_vocabulary().get_vocab();
    match added.iter().find(|(_, token)| !token.content.is_empty() && !there.contains_key(&token.content)) {
        None => Ok(()),
        Some((id, token)) => Err(ModelError::Tokenizer(format!(
            "{JSON} and {CONFIG} contradict each other: {:?} ({id}) is an added token there, and missing in \
             added_tokens_decoder here",
            token.content
        ))),
    }
}

/// Refuses a vocabulary in which two tokens have one id.
pub(crate) fn check_vocabulary<'a>(
    file: &str,
    vocabulary: impl Iterator<Item = (&'a str, u64)>,
    size: usize,
) -> Result<()> {
    // Ids are nearly always those below the size.
    let mut seen = vec![false; size];
    let mut others = AHashSet::new();
    for (token, id) in vocabulary {
        let place = usize::try_from(id).ok().and_then(|id| seen.get_mut(id));
        let is_new = match place {
            Some(seen) => !std::mem::replace(seen, true),
            None => others.insert(id),
        };
        if !is_new {
            let token: String = token.chars().take(40).collect();
            return Err(ModelError::Tokenizer(format!(
                "{file}: the id {id} is given twice, once to {token:?}"
            )));
        }
    }
    Ok(())
}
