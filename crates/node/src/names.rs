//! Names of enumerations in JavaScript.

use candlewick_engine as engine;
use engine::{EngineError, PoolingMode, Similarity, VectorPrecision};

pub(crate) fn pooling(name: &str) -> engine::Result<PoolingMode> {
    Ok(match name {
        "cls" => PoolingMode::Cls,
        "max" => PoolingMode::Max,
        "mean" => PoolingMode::Mean,
        "meanSqrtLength" => PoolingMode::MeanSqrtLength,
        "weightedMean" => PoolingMode::WeightedMean,
        "last" => PoolingMode::Last,
        _ => return Err(unknown("pooling", name)),
    })
}

pub(crate) fn pooling_name(mode: PoolingMode) -> &'static str {
    match mode {
        PoolingMode::Cls => "cls",
        PoolingMode::Max => "max",
        PoolingMode::Mean => "mean",
        PoolingMode::MeanSqrtLength => "meanSqrtLength",
        PoolingMode::WeightedMean => "weightedMean",
        PoolingMode::Last => "last",
    }
}

pub(crate) fn similarity_of(name: &str) -> engine::Result<Similarity> {
    Ok(match name {
        "cosine" => Similarity::Cosine,
        "dot" => Similarity::Dot,
        "euclidean" => Similarity::Euclidean,
        "manhattan" => Similarity::Manhattan,
        _ => return Err(unknown("similarity", name)),
    })
}

pub(crate) fn similarity_name(similarity: Similarity) -> &'static str {
    match similarity {
        Similarity::Cosine => "cosine",
        Similarity::Dot => "dot",
        Similarity::Euclidean => "euclidean",
        Similarity::Manhattan => "manhattan",
    }
}

pub(crate) fn precision_of(name: &str) -> engine::Result<VectorPrecision> {
    Ok(match name {
        "f32" => VectorPrecision::F32,
        "int8" => VectorPrecision::Int8,
        "binary" => VectorPrecision::Binary,
        _ => return Err(unknown("precision", name)),
    })
}

pub(crate) fn precision_name(precision: VectorPrecision) -> &'static str {
    match precision {
        VectorPrecision::F32 => "f32",
        VectorPrecision::Int8 => "int8",
        VectorPrecision::Binary => "binary",
    }
}

pub(crate) fn unknown(option: &'static str, name: &str) -> EngineError {
    EngineError::OptionInvalid { option, reason: format!("there is no {name}") }
}
