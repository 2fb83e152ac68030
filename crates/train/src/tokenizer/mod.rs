//! Training a tokenizer: GPT-2's byte-level BPE, BERT's WordPiece, or a vocabulary of characters for Chinese.
//!
//! `options.rs` says what is trained; `words.rs` counts the words of a corpus; the `tokenizers` crate merges them;
//! `files.rs` writes what `loadGPT2`, `loadBERT` and transformers read. The same corpus and options give the same
//! files, byte for byte.

mod files;
mod options;
mod words;

pub use options::{Kind, TokenizerOptions};

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use ahash::AHashMap;
use serde::Serialize;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Model};

use crate::{Observer, Result, TrainError};
use files::{Trained, internal};
use options::{BERT_TOKENS, END_OF_TEXT};
use words::Words;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrainedTokenizer {
    pub output: PathBuf,
    pub vocabulary_size: usize,
    /// Names of the files that were written.
    pub files: Vec<String>,
    /// Different words, and all of them.
    pub distinct_words: usize,
    pub words: u64,
    /// Bytes of text that were read.
    pub bytes: u64,
}

const CONTINUES: &str = "##";

/// Progress is in bytes read. The merging that comes after the reading runs to its end once it has begun: the
/// `tokenizers` crate (0.23) does it in one call that asks nobody, takes all words at once, and cannot go on from
/// merges that were made before.
pub fn train_tokenizer(options: &TokenizerOptions, observer: &dyn Observer) -> Result<TrainedTokenizer> {
    let special = special_tokens(options);
    let least = special.len() + if options.kind == Kind::ByteLevelBpe { 256 } else { 1 };
    if options.vocabulary_size < least {
        let reason = format!("expected at least {least}, got {}", options.vocabulary_size);
        return Err(TrainError::option("vocabularySize", reason));
    }
    check_output(&options.output)?;
    let words = Words::count(options, observer)?;
    if observer.stop() {
        return Err(TrainError::Aborted);
    }
    let trained = match options.kind {
        Kind::ByteLevelBpe => Trained::Bpe(byte_level(options, &special, &words)?),
        Kind::Wordpiece => Trained::WordPiece(word_piece(options, &special, &words)?),
        Kind::Characters => Trained::WordPiece(characters(options, &special, &words)?),
    };
    if observer.stop() {
        return Err(TrainError::Aborted);
    }
    let vocabulary_size = match &trained {
        Trained::Bpe(model) => model.get_vocab_size(),
        Trained::WordPiece(model) => model.get_vocab_size(),
    };
    let files = files::write(options, &special, trained)?;
    Ok(TrainedTokenizer {
        output: options.output.clone(),
        vocabulary_size,
        files,
        distinct_words: words.counts.len(),
        words: words.counts.values().sum(),
        bytes: words.bytes,
    })
}

/// The model's own first, so that their ids do not depend on the corpus.
fn special_tokens(options: &TokenizerOptions) -> Vec<String> {
    let own: &[&str] = if options.kind == Kind::ByteLevelBpe { &[END_OF_TEXT] } else { &BERT_TOKENS };
    let mut tokens: Vec<String> = own.iter().map(|token| token.to_string()).collect();
    for token in &options.special_tokens {
        if !tokens.contains(token) {
            tokens.push(token.clone());
        }
    }
    tokens
}

/// Fails early if the folder cannot be written.
fn check_output(output: &Path) -> Result<()> {
    std::fs::create_dir_all(output).map_err(|error| TrainError::io(output, &error))?;
    tempfile::tempfile_in(output).map(drop).map_err(|error| TrainError::io(output, &error))
}

fn trainer(
    options: &TokenizerOptions,
    first: impl Iterator<Item = String>,
    words: &Words,
) -> tokenizers::models::bpe::BpeTrainerBuilder {
    let first: Vec<_> = first.map(|token| AddedToken::from(token, true)).collect();
    // The trainer allocates for as many entries as it is asked for; there are no more than characters in distinct
    // words.
    let most = first.len() + 256 + words.counts.keys().map(|word| word.len()).sum::<usize>();
    BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(options.vocabulary_size.min(most))
        .min_frequency(options.min_frequency)
        .special_tokens(first)
}

fn byte_level(options: &TokenizerOptions, special: &[String], words: &Words) -> Result<BPE> {
    let mut model = BPE::default();
    trainer(options, special.iter().cloned(), words)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build()
        .do_train(&words.counts, &mut model)
        .map_err(internal)?;
    Ok(model)
}

fn word_piece(options: &TokenizerOptions, special: &[String], words: &Words) -> Result<WordPiece> {
    let room = options.vocabulary_size - special.len();
    let mut alphabet = BTreeMap::<char, Letter>::new();
    for ((c, inside), count) in letters(words) {
        let letter = alphabet.entry(c).or_default();
        letter.count += count;
        letter.inside |= inside;
    }
    let mut letters: Vec<_> =
        alphabet.into_iter().filter(|(_, letter)| letter.count >= options.min_frequency).collect();
    letters.sort_by_key(|(_, letter)| std::cmp::Reverse(letter.count));
    letters.truncate(options.alphabet.unwrap_or(room));
    // A letter inside of words has two pieces; the trainer needs both.
    let mut pieces = Vec::new();
    let mut kept = HashSet::new();
    for (c, letter) in letters {
        if pieces.len() + 1 + usize::from(letter.inside) > room {
            break;
        }
        kept.insert(c);
        pieces.push(c.to_string());
        pieces.extend(letter.inside.then(|| format!("{CONTINUES}{c}")));
    }
    // A word with a letter that is not kept will be unknown. The trainer would leave the letter out and join what is
    // around it.
    let known = words.counts.iter().filter(|(word, _)| word.chars().all(|c| kept.contains(&c)));
    let known: AHashMap<_, _> = known.map(|(word, count)| (word.clone(), *count)).collect();
    let mut model = BPE::default();
    // The trainer would number the pieces in the order in which it meets them, which is a hash map's; given beforehand
    // they have theirs.
    trainer(options, special.iter().chain(&pieces).cloned(), words)
        .continuing_subword_prefix(CONTINUES.into())
        .build()
        .do_train(&known, &mut model)
        .map_err(internal)?;
    Ok(WordPiece::from_bpe(&model))
}

#[derive(Default)]
struct Letter {
    count: u64,
    /// It occurs inside a word, not only at the start.
    inside: bool,
}

fn characters(options: &TokenizerOptions, special: &[String], words: &Words) -> Result<WordPiece> {
    let room = options.vocabulary_size - special.len();
    let mut pieces: Vec<_> =
        letters(words).into_iter().filter(|(_, count)| *count >= options.min_frequency).collect();
    pieces.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let name = |((c, inside), _): ((char, bool), u64)| {
        if inside { format!("{CONTINUES}{c}") } else { c.to_string() }
    };
    let pieces = pieces.into_iter().take(options.alphabet.unwrap_or(room).min(room)).map(name);
    let ids = special.iter().cloned().chain(pieces).enumerate().map(|(id, piece)| (piece, id as u32));
    let vocabulary: AHashMap<String, u32> = ids.collect();
    WordPiece::builder().vocab(vocabulary).build().map_err(internal)
}

/// How often each character is there, at the start of a word and inside, by code point: what is sorted by count then is
/// the same each time.
fn letters(words: &Words) -> BTreeMap<(char, bool), u64> {
    let mut counts = BTreeMap::new();
    for (word, count) in &words.counts {
        for (at, c) in word.chars().enumerate() {
            *counts.entry((c, at > 0)).or_default() += count;
        }
    }
    counts
}
