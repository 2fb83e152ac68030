//! What BERT is used for, as calls and columns. Answers are columns because a thousand objects made through napi hold
//! the JavaScript thread for tens of milliseconds; `src/pipelines/` makes objects of them.

use candlewick_engine as engine;
use engine::{Aggregation, EmbedOptions, EntitiesOptions, FillOptions, Question};
use napi::bindgen_prelude::{Float32Array, Uint32Array};
use napi_derive::napi;

use crate::answer::Answer;
use crate::convert::{EncodeOptions, Texts};
use crate::encoder::Encoder;
use crate::error::{Result, thrown};
use crate::mailbox::{Cancel, Mailbox};
use crate::names::{pooling, unknown};
use crate::packed::{Packed, PackedFloats};

#[napi]
impl Encoder {
    /// Answers with `PackedFloats`: a vector for each text.
    #[napi]
    #[allow(clippy::too_many_arguments)]
    pub fn embed(
        &self,
        mailbox: &Mailbox,
        id: u32,
        texts: Texts,
        options: EncodeOptions,
        embedding: EmbeddingOptions,
        cancel: &Cancel,
    ) -> Result<()> {
        let (progress, encode) = options.split(mailbox, id);
        let pooling = embedding.pooling.map(|name| pooling(&name)).transpose().map_err(thrown)?;
        let EmbeddingOptions { normalize, prompt, .. } = embedding;
        let options = EmbedOptions { encode, pooling, normalize, prompt };
        let done =
            mailbox.cancellable(id, cancel, |rows: Vec<_>| Answer::of::<PackedFloats>(Packed::new(rows)));
        self.encoder.embed(texts.into(), options, cancel.control(progress), done);
        Ok(())
    }

    /// Answers with `PackedTokens`.
    #[napi]
    pub fn tokens(&self, mailbox: &Mailbox, id: u32, texts: Texts, options: EncodeOptions, cancel: &Cancel) {
        let (_, options) = options.split(mailbox, id);
        let done = mailbox.cancellable(id, cancel, |tokens: Vec<_>| Answer::of::<PackedTokens>(tokens));
        self.encoder.tokens(texts.into(), options, cancel.token(), done);
    }

    /// Answers with `PackedFills`.
    #[napi]
    #[allow(clippy::too_many_arguments)]
    pub fn fill(
        &self,
        mailbox: &Mailbox,
        id: u32,
        texts: Texts,
        options: EncodeOptions,
        top_k: u32,
        targets: Vec<String>,
        cancel: &Cancel,
    ) {
        let (progress, encode) = options.split(mailbox, id);
        let options = FillOptions { encode, top_k: top_k as usize, targets };
        let done = mailbox.cancellable(id, cancel, |filled: Vec<_>| Answer::of::<PackedFills>(filled));
        self.encoder.fill(texts.into(), options, cancel.control(progress), done);
    }

    /// Answers with `PackedEntities`.
    #[napi]
    #[allow(clippy::too_many_arguments)]
    pub fn entities(
        &self,
        mailbox: &Mailbox,
        id: u32,
        texts: Vec<String>,
        options: EncodeOptions,
        aggregation: String,
        ignore: Vec<String>,
        stride: Option<u32>,
        cancel: &Cancel,
    ) -> Result<()> {
        let (progress, encode) = options.split(mailbox, id);
        let aggregation = aggregation_of(&aggregation).map_err(thrown)?;
        let stride = stride.map(|stride| stride as usize);
        let options = EntitiesOptions { encode, aggregation, ignore, stride };
        let done = mailbox.cancellable(id, cancel, |found: Vec<_>| Answer::of::<PackedEntities>(found));
        self.encoder.entities(texts, options, cancel.control(progress), done);
        Ok(())
    }

    /// Answers with `PackedAnswers`.
    #[napi]
    pub fn answer(
        &self,
        mailbox: &Mailbox,
        id: u32,
        texts: Texts,
        options: EncodeOptions,
        answering: AnsweringOptions,
        cancel: &Cancel,
    ) {
        let (progress, encode) = options.split(mailbox, id);
        let options = engine::AnswerOptions {
            encode,
            stride: answering.stride as usize,
            top_k: answering.top_k as usize,
            max_answer_length: answering.max_answer_length as usize,
            impossible: answering.impossible,
            align_to_words: answering.align_to_words,
        };
        let questions = texts
            .texts
            .into_iter()
            .flatten()
            .zip(texts.pairs.into_iter().flatten().map(Option::unwrap_or_default));
        let questions = questions.map(|(question, context)| Question { question, context }).collect();
        let done = mailbox.cancellable(id, cancel, |answers: Vec<_>| Answer::of::<PackedAnswers>(answers));
        self.encoder.answer(questions, options, cancel.control(progress), done);
    }
}

#[napi(object, object_to_js = false)]
pub struct EmbeddingOptions {
    #[napi(ts_type = "'cls' | 'max' | 'mean' | 'meanSqrtLength' | 'weightedMean' | 'last'")]
    pub pooling: Option<String>,
    pub normalize: Option<bool>,
    pub prompt: Option<String>,
}

fn aggregation_of(name: &str) -> engine::Result<Aggregation> {
    Ok(match name {
        "none" => Aggregation::None,
        "simple" => Aggregation::Simple,
        "first" => Aggregation::First,
        "average" => Aggregation::Average,
        "max" => Aggregation::Max,
        _ => return Err(unknown("aggregation", name)),
    })
}

#[napi(object, object_to_js = false)]
pub struct AnsweringOptions {
    pub stride: u32,
    pub top_k: u32,
    pub max_answer_length: u32,
    pub impossible: bool,
    pub align_to_words: bool,
}

#[napi(object, object_from_js = false)]
pub struct PackedTokens {
    /// Tokens of each text.
    pub lengths: Uint32Array,
    pub ids: Uint32Array,
    pub tokens: Vec<String>,
    /// 0 or 1: of which text; 2: a special token.
    pub texts: Uint32Array,
    pub starts: Uint32Array,
    pub ends: Uint32Array,
}

impl From<Vec<engine::Tokenised>> for PackedTokens {
    fn from(texts: Vec<engine::Tokenised>) -> Self {
        let windows = || texts.iter().map(|text| &text.window);
        let offsets = || windows().flat_map(|window| &window.offsets);
        let of = |window: &engine::Window| {
            window.texts.iter().map(|text| text.map_or(2, u32::from)).collect::<Vec<_>>()
        };
        Self {
            lengths: windows().map(|window| window.ids.len() as u32).collect::<Vec<_>>().into(),
            ids: windows().flat_map(|window| window.ids.iter().copied()).collect::<Vec<_>>().into(),
            texts: windows().flat_map(of).collect::<Vec<_>>().into(),
            starts: offsets().map(|offset| offset.0).collect::<Vec<_>>().into(),
            ends: offsets().map(|offset| offset.1).collect::<Vec<_>>().into(),
            tokens: texts.into_iter().flat_map(|text| text.tokens).collect(),
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct PackedFills {
    /// Masks of each text.
    pub masks: Uint32Array,
    /// Tokens of each mask.
    pub lengths: Uint32Array,
    pub tokens: Uint32Array,
    pub scores: Float32Array,
    pub texts: Vec<String>,
    pub sequences: Vec<String>,
}

impl From<Vec<engine::Filled>> for PackedFills {
    fn from(filled: Vec<engine::Filled>) -> Self {
        let masks = filled.iter().map(|masks| masks.len() as u32).collect::<Vec<_>>();
        let lengths = filled.iter().flatten().map(|fills| fills.len() as u32).collect::<Vec<_>>();
        let (mut tokens, mut scores, mut texts, mut sequences) = (vec![], vec![], vec![], vec![]);
        for fill in filled.into_iter().flatten().flatten() {
            tokens.push(fill.token);
            scores.push(fill.score);
            texts.push(fill.text);
            sequences.push(fill.sequence);
        }
        Self {
            masks: masks.into(),
            lengths: lengths.into(),
            tokens: tokens.into(),
            scores: scores.into(),
            texts,
            sequences,
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct PackedEntities {
    /// Entities of each text.
    pub lengths: Uint32Array,
    /// What `labels` index.
    pub label_names: Vec<String>,
    pub labels: Uint32Array,
    pub scores: Float32Array,
    /// Empty where tokens were put together.
    pub indices: Uint32Array,
    pub words: Vec<String>,
    pub starts: Uint32Array,
    pub ends: Uint32Array,
}

impl From<Vec<Vec<engine::Entity>>> for PackedEntities {
    fn from(found: Vec<Vec<engine::Entity>>) -> Self {
        let lengths = found.iter().map(|entities| entities.len() as u32).collect::<Vec<_>>();
        let mut label_names: Vec<String> = Vec::new();
        let (mut labels, mut scores, mut indices) = (vec![], vec![], vec![]);
        let (mut words, mut starts, mut ends) = (vec![], vec![], vec![]);
        for entity in found.into_iter().flatten() {
            let known = label_names.iter().position(|name| *name == entity.label);
            labels.push(known.unwrap_or(label_names.len()) as u32);
            if known.is_none() {
                label_names.push(entity.label);
            }
            scores.push(entity.score);
            indices.extend(entity.index);
            words.push(entity.word);
            starts.push(entity.start);
            ends.push(entity.end);
        }
        Self {
            lengths: lengths.into(),
            label_names,
            labels: labels.into(),
            scores: scores.into(),
            indices: indices.into(),
            words,
            starts: starts.into(),
            ends: ends.into(),
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct PackedAnswers {
    /// Answers to each question.
    pub lengths: Uint32Array,
    pub scores: Float32Array,
    pub starts: Uint32Array,
    pub ends: Uint32Array,
}

impl From<Vec<Vec<engine::Answer>>> for PackedAnswers {
    fn from(answers: Vec<Vec<engine::Answer>>) -> Self {
        let lengths = answers.iter().map(|answers| answers.len() as u32).collect::<Vec<_>>();
        let column = |of: fn(&engine::Answer) -> u32| answers.iter().flatten().map(of).collect::<Vec<_>>();
        Self {
            lengths: lengths.into(),
            scores: answers.iter().flatten().map(|answer| answer.score).collect::<Vec<_>>().into(),
            starts: column(|answer| answer.start).into(),
            ends: column(|answer| answer.end).into(),
        }
    }
}
