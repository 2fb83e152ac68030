//! What the engine answers, on its way to JavaScript. The conversion happens on the JavaScript thread, when the mailbox
//! is emptied; large arrays are handed over, not copied.

use candlewick_engine as engine;
use napi::bindgen_prelude::{Null, ToNapiValue, TypeName};
use napi::{Result, ValueType, sys};

use crate::encoder::Encoder;
use crate::generator::Generator;
use crate::packed::{Inputs, Outputs, Packed, PackedFloats, PackedIds, PackedInputs, PackedOutputs};
use crate::tasks::{
    Answers, Entities, Fills, PackedAnswers, PackedEntities, PackedFills, PackedTokens, Tokens,
};
use crate::tokens::{GenerationResult, Token};
use crate::vectors::{Hits, PackedHits};

pub enum Answer {
    Nothing(()),
    Generator(engine::Generator),
    Encoder(engine::EncoderHandle),
    Tokens(Option<Vec<engine::TokenEvent>>),
    Result(Box<engine::GenerationResult>),
    Ids(Packed<u32>),
    Inputs(Inputs),
    Outputs(Box<Outputs>),
    Floats(Packed<f32>),
    TextTokens(Box<Tokens>),
    Fills(Box<Fills>),
    Entities(Box<Entities>),
    Answers(Answers),
    Hits(Hits),
    Texts(Vec<String>),
    Count(usize),
    Counts(Vec<u32>),
    /// What is nested, small, and read once.
    Json(String),
}

impl ToNapiValue for Answer {
    unsafe fn to_napi_value(env: sys::napi_env, answer: Self) -> Result<sys::napi_value> {
        match answer {
            Self::Nothing(()) => value(env, ()),
            Self::Generator(generator) => value(env, Generator::from(generator)),
            Self::Encoder(encoder) => value(env, Encoder::from(encoder)),
            Self::Tokens(None) => value(env, Null),
            Self::Tokens(Some(tokens)) => value(env, tokens.into_iter().map(Token::from).collect::<Vec<_>>()),
            Self::Result(result) => value(env, GenerationResult::from(*result)),
            Self::Ids(ids) => value(env, PackedIds::from(ids)),
            Self::Inputs(inputs) => value(env, PackedInputs::from(inputs)),
            Self::Outputs(outputs) => value(env, PackedOutputs::from(*outputs)),
            Self::Floats(rows) => value(env, PackedFloats::from(rows)),
            Self::TextTokens(tokens) => value(env, PackedTokens::from(*tokens)),
            Self::Fills(filled) => value(env, PackedFills::from(*filled)),
            Self::Entities(entities) => value(env, PackedEntities::from(*entities)),
            Self::Answers(answers) => value(env, PackedAnswers::from(answers)),
            Self::Hits(hits) => value(env, PackedHits::from(hits)),
            Self::Texts(texts) => value(env, texts),
            Self::Count(count) => value(env, count as f64),
            Self::Counts(counts) => value(env, counts),
            Self::Json(text) => value(env, text),
        }
    }
}

fn value(env: sys::napi_env, value: impl ToNapiValue) -> Result<sys::napi_value> {
    // SAFETY: `Answer::to_napi_value` is called on the JavaScript thread of `env`.
    unsafe { ToNapiValue::to_napi_value(env, value) }
}

impl TypeName for Answer {
    fn type_name() -> &'static str {
        "unknown"
    }

    fn value_type() -> ValueType {
        ValueType::Unknown
    }
}

pub fn counts(counts: Vec<usize>) -> Answer {
    Answer::Counts(counts.into_iter().map(|count| count as u32).collect())
}
