//! Vectors that are searched, as JavaScript sees them.

use candlewick_engine as engine;
use napi::bindgen_prelude::{Float32Array, Uint32Array};
use napi_derive::napi;

use crate::answer::Answer;
use crate::error::{Result, thrown};
use crate::mailbox::{Cancel, Mailbox};
use crate::names::similarity_of;

#[napi]
pub struct VectorIndex {
    index: engine::VectorIndex,
}

#[napi]
impl VectorIndex {
    #[napi(constructor)]
    pub fn new(
        dimensions: u32,
        #[napi(ts_arg_type = "'cosine' | 'dot' | 'euclidean' | 'manhattan'")] similarity: String,
        threads: u32,
    ) -> Result<Self> {
        let similarity = similarity_of(&similarity).map_err(thrown)?;
        let index = engine::VectorIndex::new(dimensions as usize, similarity, threads as usize);
        Ok(Self { index: index.map_err(thrown)? })
    }

    /// Vectors, one behind the other. Answers when they are in.
    #[napi]
    pub fn add(&self, mailbox: &Mailbox, id: u32, data: &[f32]) {
        self.index.add(data.to_vec(), mailbox.reply(id, Answer::plain));
    }

    /// Answers with `PackedHits`.
    #[napi]
    pub fn search(
        &self,
        mailbox: &Mailbox,
        id: u32,
        queries: &[f32],
        top_k: u32,
        threshold: Option<f64>,
        cancel: &Cancel,
    ) {
        let done = mailbox.cancellable(id, cancel, |hits: Vec<_>| Answer::of::<PackedHits>(hits));
        let threshold = threshold.map(|least| least as f32);
        self.index.search(queries.to_vec(), top_k as usize, threshold, cancel.token(), done);
    }
}

#[napi(object, object_from_js = false)]
pub struct PackedHits {
    /// Hits of each query.
    pub lengths: Uint32Array,
    pub indices: Uint32Array,
    pub scores: Float32Array,
}

impl From<Vec<Vec<engine::Hit>>> for PackedHits {
    fn from(hits: Vec<Vec<engine::Hit>>) -> Self {
        let lengths = hits.iter().map(|hits| hits.len() as u32).collect::<Vec<_>>();
        let (indices, scores): (Vec<u32>, Vec<f32>) =
            hits.into_iter().flatten().map(|hit| (hit.index, hit.score)).unzip();
        Self { lengths: lengths.into(), indices: indices.into(), scores: scores.into() }
    }
}
