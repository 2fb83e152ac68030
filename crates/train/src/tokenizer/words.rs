//! The words of a corpus and how often each is there, as the tokenizer will see them.

use ahash::AHashMap;
use compact_str::CompactString;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::options::{Kind, TokenizerOptions};
use crate::data::{Piece, texts};
use crate::{Observer, Result, TrainError};

pub(super) struct Words {
    pub counts: AHashMap<CompactString, u64>,
    pub bytes: u64,
}

impl Words {
    /// Memory grows with the distinct words, not with the corpus.
    pub fn count(options: &TokenizerOptions, observer: &dyn Observer) -> Result<Self> {
        let sizes = options.data.iter().map(|path| std::fs::metadata(path).map_or(0, |file| file.len()));
        let total: u64 = sizes.sum();
        let splitter = Splitter::new(options);
        let mut words = Self { counts: AHashMap::new(), bytes: 0 };
        let mut reported = 0;
        texts(&options.data, &options.options, true, &|| observer.stop(), &mut |piece| {
            let Piece::Text(text) = piece else { return Ok(()) };
            splitter.count(text, &mut words.counts)?;
            words.bytes += text.len() as u64;
            if words.bytes - reported > 1 << 20 {
                reported = words.bytes;
                observer.progress(words.bytes.min(total), total);
            }
            Ok(())
        })?;
        observer.progress(total, total);
        Ok(words)
    }
}

/// The normaliser and pre-tokeniser of the tokenizer to be.
pub(super) struct Splitter {
    normalizer: Option<BertNormalizer>,
    byte_level: ByteLevel,
}

impl Splitter {
    pub fn new(options: &TokenizerOptions) -> Self {
        let byte_level = ByteLevel::new(false, true, true);
        let normalizer = (options.kind != Kind::ByteLevelBpe)
            .then(|| BertNormalizer::new(true, true, None, options.lowercase));
        Self { normalizer, byte_level }
    }

    fn count(&self, text: &str, counts: &mut AHashMap<CompactString, u64>) -> Result<()> {
        let internal = |error: tokenizers::Error| TrainError::Internal(error.to_string());
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = &self.normalizer {
            normalizer.normalize(&mut normalized).map_err(internal)?;
        }
        let mut words = PreTokenizedString::from(normalized);
        match &self.normalizer {
            Some(_) => BertPreTokenizer.pre_tokenize(&mut words),
            None => self.byte_level.pre_tokenize(&mut words),
        }
        .map_err(internal)?;
        for (word, ..) in words.get_splits(OffsetReferential::Original, OffsetType::None) {
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(counts.insert(word.into(), 1)),
            }
        }
        Ok(())
    }
}
