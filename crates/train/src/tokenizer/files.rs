//! What is written: `tokenizer.json`, the vocabulary in the model's own format, and `tokenizer_config.json` for
//! transformers.

use std::path::Path;

use serde_json::json;
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Model, Tokenizer, decoders};

use super::options::{BERT_TOKENS, END_OF_TEXT, TokenizerOptions};
use crate::{Result, TrainError};

/// What a tokenizer's files are made of.
pub(super) enum Trained {
    Bpe(BPE),
    WordPiece(WordPiece),
}

pub(super) fn internal(error: tokenizers::Error) -> TrainError {
    TrainError::Internal(error.to_string())
}

/// Writes aside, then moves each file to its place; returns their names.
pub(super) fn write(options: &TokenizerOptions, special: &[String], trained: Trained) -> Result<Vec<String>> {
    let output = options.output.as_path();
    let failed = |error: std::io::Error| TrainError::io(output, &error);
    let aside = tempfile::Builder::new().prefix(".tokenizer-").tempdir_in(output).map_err(failed)?;
    let (tokenizer, config) = match trained {
        Trained::Bpe(model) => {
            save(&model, aside.path())?;
            (gpt2(model)?, gpt2_config())
        }
        Trained::WordPiece(model) => {
            save(&model, aside.path())?;
            (bert(model, options)?, bert_config(options))
        }
    };
    let mut tokenizer = tokenizer;
    let special: Vec<_> = special.iter().map(|token| AddedToken::from(token.clone(), true)).collect();
    tokenizer.add_special_tokens(special).map_err(internal)?;
    let text = tokenizer.to_string(true).map_err(internal)?;
    std::fs::write(aside.path().join("tokenizer.json"), text).map_err(failed)?;
    let config =
        serde_json::to_string_pretty(&config).map_err(|error| TrainError::Internal(error.to_string()))?;
    std::fs::write(aside.path().join("tokenizer_config.json"), config + "\n").map_err(failed)?;
    let mut names = Vec::new();
    for file in std::fs::read_dir(aside.path()).map_err(failed)? {
        let file = file.map_err(failed)?;
        std::fs::rename(file.path(), output.join(file.file_name())).map_err(failed)?;
        names.push(file.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// `vocab.json` and `merges.txt`, or `vocab.txt`.
fn save(model: &impl Model, folder: &Path) -> Result<()> {
    model.save(folder, None).map(drop).map_err(internal)
}

fn gpt2(model: tokenizers::models::bpe::BPE) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.with_post_processor(Some(ByteLevel::new(true, false, true)));
    Ok(tokenizer)
}

fn gpt2_config() -> serde_json::Value {
    json!({
        "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": false,
        "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT,
    })
}

fn bert(model: tokenizers::models::wordpiece::WordPiece, options: &TokenizerOptions) -> Result<Tokenizer> {
    let [_, _, cls, sep, _] = BERT_TOKENS;
    let id = |token: &str| {
        model
            .token_to_id(token)
            .map(|id| (token.to_string(), id))
            .ok_or_else(|| TrainError::Internal(format!("no {token}")))
    };
    let template = TemplateProcessing::builder()
        .try_single(format!("{cls}:0 $A:0 {sep}:0"))
        .and_then(|builder| builder.try_pair(format!("{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1")))
        .map_err(TrainError::Internal)?
        .special_tokens(vec![id(cls)?, id(sep)?])
        .build()
        .map_err(|error| TrainError::Internal(error.to_string()))?;
    let mut tokenizer = Tokenizer::new(model);
    let normalizer = BertNormalizer::new(true, true, None, options.lowercase);
    tokenizer.with_normalizer(Some(normalizer)).map_err(internal)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(decoders::wordpiece::WordPiece::new("##".into(), true)));
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer)
}

fn bert_config(options: &TokenizerOptions) -> serde_json::Value {
    let [pad, unk, cls, sep, mask] = BERT_TOKENS;
    json!({
        "tokenizer_class": "BertTokenizer", "do_lower_case": options.lowercase, "tokenize_chinese_chars": true,
        "pad_token": pad, "unk_token": unk, "cls_token": cls, "sep_token": sep, "mask_token": mask,
    })
}
