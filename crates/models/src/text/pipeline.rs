//! What a tokenizer class makes of a vocabulary: normaliser, splitting, decoding and the tokens around a text, as the
//! `__init__` of each class in transformers 5 does. With a class of its own pipeline, `tokenizer.json` gives its
//! vocabulary and added tokens alone (and GPT-2's its post-processor); what it says beyond that is compared in
//! contradiction.rs.

use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{Model, NormalizerWrapper, PostProcessorWrapper, Tokenizer, decoders};

use crate::text::classes::Class;
use crate::text::encoding::invalid;
use crate::text::settings::{JSON, Settings};
use crate::text::special::Special;
use crate::text::token::Token;
use crate::{ModelError, Result};

/// What is in a `tokenizer.json` beside its model.
pub(crate) struct Parts {
    pub value: Value,
    pub added: Vec<(u32, Token)>,
}

/// The model in a `tokenizer.json`. As the `tokenizers` crate reads it, and one copy of the vocabulary less.
pub(crate) fn read_model(mut model: Value) -> Result<ModelWrapper> {
    let failed = |error: serde_json::Error| ModelError::Tokenizer(format!("{JSON}: model: {error}"));
    let kind = model.as_object_mut().and_then(|fields| fields.remove("type"));
    Ok(match kind.as_ref().and_then(Value::as_str) {
        Some("BPE") => ModelWrapper::BPE(serde_json::from_value::<BPE>(model).map_err(failed)?),
        Some("WordPiece") => {
            ModelWrapper::WordPiece(serde_json::from_value::<WordPiece>(model).map_err(failed)?)
        }
        Some("WordLevel") => {
            ModelWrapper::WordLevel(serde_json::from_value::<WordLevel>(model).map_err(failed)?)
        }
        Some("Unigram") => ModelWrapper::Unigram(serde_json::from_value::<Unigram>(model).map_err(failed)?),
        // Files from before the type was written.
        None => serde_json::from_value(model).map_err(failed)?,
        Some(other) => return Err(ModelError::Tokenizer(format!("{JSON}: model: type {other:?}"))),
    })
}

/// A part of `tokenizer.json`; null is none.
fn part<T: serde::de::DeserializeOwned>(parts: &Value, name: &str) -> Result<Option<T>> {
    let part = parts.get(name).filter(|part| !part.is_null());
    let part = part.map(|part| T::deserialize(part)).transpose();
    part.map_err(|error| ModelError::Tokenizer(format!("{JSON}: {name}: {error}")))
}

/// The tokenizer without what stands around a text, which needs the ids of added tokens.
pub(crate) fn without_ends(
    class: Class,
    mut model: ModelWrapper,
    settings: &Settings,
    special: &Special,
    parts: Option<&Value>,
) -> Result<Tokenizer> {
    match &mut model {
        ModelWrapper::WordPiece(model) if class != Class::Backend => {
            model.unk_token = special.need("unk_token", class)?.content.clone();
            if model.token_to_id(&model.unk_token).is_none() {
                return Err(ModelError::Tokenizer(format!(
                    "the vocabulary has no {:?}, which stands for unknown words (unk_token)",
                    model.unk_token
                )));
            }
        }
        ModelWrapper::BPE(model) if class != Class::Backend => {
            model.unk_token = None;
            model.fuse_unk = false;
            model.byte_fallback = false;
        }
        _ => {}
    }
    let mut tokenizer = Tokenizer::new(model);
    match class {
        Class::Bert | Class::MPNet => {
            tokenizer.with_normalizer(Some(bert_normalizer(settings)?)).map_err(invalid)?;
            tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
            tokenizer.with_decoder(Some(decoders::wordpiece::WordPiece::new("##".into(), true)));
        }
        Class::Gpt2 | Class::Roberta => {
            let prefix_space = settings.flag("add_prefix_space", false)?;
            tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix_space, true, true)));
            tokenizer.with_decoder(Some(ByteLevel::default()));
        }
        Class::XlmRoberta | Class::Camembert => {
            let normalizer = parts.and_then(|parts| precompiled(&parts["normalizer"]));
            let normalizer = normalizer.map(serde_json::from_value::<NormalizerWrapper>).transpose();
            tokenizer.with_normalizer(normalizer.map_err(invalid)?).map_err(invalid)?;
            let prefix_space = settings.flag("add_prefix_space", true)?;
            let scheme = if prefix_space { PrependScheme::Always } else { PrependScheme::Never };
            let spaces = Metaspace::new('▁', scheme, true);
            tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
                PreTokenizerWrapper::WhitespaceSplit(WhitespaceSplit),
                PreTokenizerWrapper::Metaspace(spaces.clone()),
            ])));
            tokenizer.with_decoder(Some(spaces));
        }
        Class::Backend => {
            let parts = parts.unwrap_or(&Value::Null);
            tokenizer.with_normalizer(part::<NormalizerWrapper>(parts, "normalizer")?).map_err(invalid)?;
            tokenizer.with_pre_tokenizer(part::<PreTokenizerWrapper>(parts, "pre_tokenizer")?);
            tokenizer.with_decoder(part::<tokenizers::DecoderWrapper>(parts, "decoder")?);
        }
    }
    Ok(tokenizer)
}

/// BERT's normaliser by the configuration.
pub(crate) fn bert_normalizer(settings: &Settings) -> Result<BertNormalizer> {
    let strip = settings.flag_or_null("strip_accents", false)?;
    let strip = settings.get("strip_accents").filter(|given| !given.is_null()).map(|_| strip);
    let chinese = settings.flag("tokenize_chinese_chars", true)?;
    Ok(BertNormalizer::new(true, chinese, strip, settings.flag("do_lower_case", true)?))
}

/// SentencePiece's table of characters, of a normaliser or of one in a sequence.
fn precompiled(normalizer: &Value) -> Option<Value> {
    let is_table = |part: &&Value| part["type"] == "Precompiled";
    let found = match normalizer["normalizers"].as_array() {
        Some(parts) if normalizer["type"] == "Sequence" => parts.iter().find(is_table),
        _ => Some(normalizer).filter(is_table),
    };
    found.cloned()
}

/// What stands around a text or between two: by the class, or as `tokenizer.json` says.
pub(crate) fn ends(
    class: Class,
    tokenizer: &Tokenizer,
    settings: &Settings,
    special: &Special,
    parts: Option<&Value>,
) -> Result<PostProcessorWrapper> {
    let id = |token: &Token| {
        let id = tokenizer.token_to_id(&token.content);
        let id = id.ok_or_else(|| ModelError::Tokenizer(format!("{:?} has no id", token.content)))?;
        Ok::<_, ModelError>((token.content.clone(), id))
    };
    if let Some(names) = class.around() {
        let [first, last] = names.map(|name| special.need(name, class));
        let (first, last) = (id(first?)?, id(last?)?);
        let (begin, end) = (first.0.clone(), last.0.clone());
        return match class {
            Class::Bert => template(
                format!("{begin}:0 $A:0 {end}:0"),
                format!("{begin}:0 $A:0 {end}:0 $B:1 {end}:1"),
                vec![first, last],
            ),
            Class::XlmRoberta | Class::Camembert => template(
                format!("{begin} $A {end}"),
                format!("{begin} $A {end} {end} $B {end}"),
                vec![first, last],
            ),
            _ => {
                let is_roberta = class == Class::Roberta;
                let trim = if is_roberta { settings.flag("trim_offsets", true)? } else { true };
                let prefix_space = is_roberta && settings.flag("add_prefix_space", false)?;
                let processor = RobertaProcessing::new(last, first);
                Ok(processor.trim_offsets(trim).add_prefix_space(prefix_space).into())
            }
        };
    }
    let of_json = parts.map(|parts| part::<PostProcessorWrapper>(parts, "post_processor"));
    if let Some(processor) = of_json.transpose()?.flatten() {
        return Ok(processor);
    }
    // Where there is a tokenizer.json, transformers asks it alone.
    let token = |name: &str, asked: bool| {
        let asked = asked && parts.is_none();
        special.get(name).filter(|_| asked).map(&id).transpose()
    };
    let bos = token("bos_token", settings.flag_or_null("add_bos_token", false)?)?;
    let eos = token("eos_token", settings.flag_or_null("add_eos_token", false)?)?;
    let around = |text: &str, kind: u8| {
        let [before, after] =
            [&bos, &eos].map(|token| token.as_ref().map(|(name, _)| format!("{name}:{kind}")));
        [before, Some(format!("{text}:{kind}")), after].into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    let (single, second) = (around("$A", 0), around("$B", 1));
    template(single.clone(), format!("{single} {second}"), bos.into_iter().chain(eos).collect())
}

fn template(single: String, pair: String, special: Vec<(String, u32)>) -> Result<PostProcessorWrapper> {
    let mut special = special;
    special.dedup();
    let template = TemplateProcessing::builder()
        .try_single(single)
        .and_then(|builder| builder.try_pair(pair))
        .map_err(invalid)?
        .special_tokens(special)
        .build()
        .map_err(invalid)?;
    Ok(template.into())
}
