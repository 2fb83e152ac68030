//! Vectors that are searched, as JavaScript sees them.

use candlewick_engine as engine;
use engine::{Filter, VectorPrecision, VectorShape};
use napi::bindgen_prelude::{Float32Array, Uint32Array};
use napi_derive::napi;

use crate::answer::Answer;
use crate::error::{Result, thrown};
use crate::mailbox::{Cancel, Mailbox};
use crate::names::{precision_name, precision_of, similarity_name, similarity_of};

#[napi]
pub struct VectorIndex {
    index: engine::VectorIndex,
    /// Vectors that a file had.
    loaded: u32,
}

#[napi(object, object_to_js = false)]
pub struct VectorSearch {
    pub top_k: u32,
    pub threshold: Option<f64>,
    /// JSON.
    pub filter: Option<String>,
    pub oversample: u32,
}

#[napi]
impl VectorIndex {
    #[napi(constructor)]
    pub fn new(
        dimensions: u32,
        #[napi(ts_arg_type = "'cosine' | 'dot' | 'euclidean' | 'manhattan'")] similarity: String,
        #[napi(ts_arg_type = "'f32' | 'int8' | 'binary'")] precision: String,
        #[napi(ts_arg_type = "'f32' | 'int8' | 'binary'")] rescore: String,
        threads: u32,
    ) -> Result<Self> {
        let precision_of = |name: &str| -> Result<VectorPrecision> { precision_of(name).map_err(thrown) };
        let shape = VectorShape {
            width: dimensions as usize,
            similarity: similarity_of(&similarity).map_err(thrown)?,
            precision: precision_of(&precision)?,
            rescore: precision_of(&rescore)?,
        };
        let index = engine::VectorIndex::new(shape, threads as usize);
        Ok(Self { index: index.map_err(thrown)?, loaded: 0 })
    }

    /// Answers with a `VectorIndex`.
    #[napi]
    pub fn load(mailbox: &Mailbox, id: u32, path: String, threads: u32, cancel: &Cancel) {
        let done = mailbox.cancellable(id, cancel, |(index, loaded): (engine::VectorIndex, usize)| {
            Answer::plain(Self { index, loaded: loaded as u32 })
        });
        engine::VectorIndex::load(path.into(), threads as usize, cancel.token(), done);
    }

    #[napi(getter)]
    pub fn dimensions(&self) -> u32 {
        self.index.shape().width as u32
    }

    #[napi(getter, ts_return_type = "'cosine' | 'dot' | 'euclidean' | 'manhattan'")]
    pub fn similarity(&self) -> String {
        similarity_name(self.index.shape().similarity).into()
    }

    #[napi(getter, ts_return_type = "'f32' | 'int8' | 'binary'")]
    pub fn precision(&self) -> String {
        precision_name(self.index.shape().precision).into()
    }

    #[napi(getter)]
    pub fn loaded(&self) -> u32 {
        self.loaded
    }

    /// Part of a batch: vectors, one behind the other, with JSON of their ids and metadata. Answers with the index's
    /// size.
    #[napi]
    #[allow(clippy::too_many_arguments)] // one for each field
    pub fn add(
        &self,
        mailbox: &Mailbox,
        id: u32,
        batch: u32,
        data: &[f32],
        said: Option<String>,
        last: bool,
        replace: bool,
    ) {
        let add = engine::Add { batch, data: data.to_vec(), said, last, replace };
        self.index.add(add, mailbox.reply(id, size));
    }

    /// Forgets a batch that has not had its last part.
    #[napi]
    pub fn discard(&self, mailbox: &Mailbox, id: u32, batch: u32) {
        self.index.discard(batch, mailbox.reply(id, size));
    }

    /// Answers with how many were deleted: those of the ids, as JSON.
    #[napi]
    pub fn delete(&self, mailbox: &Mailbox, id: u32, ids: String) {
        self.index.delete(ids, mailbox.reply(id, size));
    }

    #[napi]
    pub fn delete_where(&self, mailbox: &Mailbox, id: u32, filter: String) -> Result<()> {
        self.index.delete_where(Filter::parse(&filter).map_err(thrown)?, mailbox.reply(id, size));
        Ok(())
    }

    /// Answers with `PackedHits`.
    #[napi]
    pub fn search(
        &self,
        mailbox: &Mailbox,
        id: u32,
        queries: &[f32],
        search: VectorSearch,
        cancel: &Cancel,
    ) -> Result<()> {
        let filter = search.filter.map(|filter| Filter::parse(&filter)).transpose().map_err(thrown)?;
        let search = engine::Search {
            queries: queries.to_vec(),
            top_k: search.top_k as usize,
            threshold: search.threshold.map(|least| least as f32),
            filter,
            oversample: search.oversample as usize,
        };
        let done = mailbox.cancellable(id, cancel, |found: engine::Found| Answer::of::<PackedHits>(found));
        self.index.search(search, cancel.token(), done);
        Ok(())
    }

    #[napi]
    pub fn save(&self, mailbox: &Mailbox, id: u32, path: String, cancel: &Cancel) {
        let done = mailbox.cancellable(id, cancel, |()| Answer::plain(()));
        self.index.save(path.into(), cancel.token(), done);
    }

    #[napi]
    pub fn close(&self, mailbox: &Mailbox, id: u32) {
        self.index.close(mailbox.reply(id, |()| Answer::plain(())));
    }
}

fn size(size: usize) -> Answer {
    Answer::plain(size as u32)
}

#[napi(object, object_from_js = false)]
pub struct PackedHits {
    /// Hits of each query.
    pub lengths: Uint32Array,
    pub indices: Uint32Array,
    pub scores: Float32Array,
    /// Lists of `[id, metadata]`, as JSON; none if places are all that there is to say.
    pub details: Vec<String>,
}

impl From<engine::Found> for PackedHits {
    fn from(found: engine::Found) -> Self {
        let lengths = found.hits.iter().map(|hits| hits.len() as u32).collect::<Vec<_>>();
        let (indices, scores): (Vec<u32>, Vec<f32>) =
            found.hits.into_iter().flatten().map(|hit| (hit.index, hit.score)).unzip();
        let (lengths, indices) = (lengths.into(), indices.into());
        Self { lengths, indices, scores: scores.into(), details: found.details }
    }
}
