//! An encoder as JavaScript sees it.

use candlewick_engine as engine;
use napi::bindgen_prelude::Uint32Array;
use napi_derive::napi;

use crate::answer::{Answer, counts};
use crate::convert::{EncodeOptions, EncoderWant, LoadOptions, Texts};
use crate::error::Result;
use crate::info::EncoderInfo;
use crate::mailbox::{Cancel, Mailbox};
use crate::packed::{Inputs, Outputs, PackedInputs, PackedOutputs};
use crate::stats::EncoderStats;

/// Loads a model from a path. Answers with an `Encoder`; reports progress before.
#[napi]
pub fn load_encoder(mailbox: &Mailbox, id: u32, options: LoadOptions, cancel: &Cancel) -> Result<()> {
    let request = options.into_request(mailbox, id, cancel)?;
    engine::EncoderHandle::load(request, mailbox.cancellable(id, cancel, Answer::of::<Encoder>));
    Ok(())
}

#[napi]
pub struct Encoder {
    pub(crate) encoder: engine::EncoderHandle,
}

impl From<engine::EncoderHandle> for Encoder {
    fn from(encoder: engine::EncoderHandle) -> Self {
        Self { encoder }
    }
}

#[napi]
impl Encoder {
    #[napi(getter)]
    pub fn info(&self) -> EncoderInfo {
        EncoderInfo::new(self.encoder.info(), self.encoder.tokenizer_vocab_size())
    }

    /// What the model's thread is doing.
    #[napi]
    pub fn stats(&self) -> EncoderStats {
        self.encoder.stats().into()
    }

    /// Answers with `PackedInputs`.
    #[napi]
    pub fn encode(&self, mailbox: &Mailbox, id: u32, texts: Texts, options: EncodeOptions, cancel: &Cancel) {
        let done = mailbox
            .cancellable(id, cancel, |inputs: Vec<_>| Answer::of::<PackedInputs>(Inputs::from(inputs)));
        let (_, options) = options.split(mailbox, id);
        self.encoder.encode(texts.into(), options, cancel.token(), done);
    }

    /// Answers with `PackedOutputs`.
    #[napi]
    pub fn run(
        &self,
        mailbox: &Mailbox,
        id: u32,
        texts: Texts,
        options: EncodeOptions,
        want: EncoderWant,
        cancel: &Cancel,
    ) {
        let answer = |outputs: Vec<_>| Answer::of::<PackedOutputs>(Outputs::from(outputs));
        let done = mailbox.cancellable(id, cancel, answer);
        let (progress, options) = options.split(mailbox, id);
        self.encoder.run(texts.into(), options, want.into(), cancel.control(progress), done);
    }

    /// Answers with a string for each list of ids.
    #[napi]
    pub fn decode(&self, mailbox: &Mailbox, id: u32, ids: Vec<Uint32Array>, skip_special: bool) {
        let ids = ids.iter().map(|ids| ids.to_vec()).collect();
        self.encoder.decode(ids, skip_special, mailbox.reply(id, Answer::plain));
    }

    /// Answers with a number for each text.
    #[napi]
    pub fn count_tokens(&self, mailbox: &Mailbox, id: u32, texts: Vec<String>) {
        self.encoder.count_tokens(texts, mailbox.reply(id, counts));
    }

    /// Answers when the model's threads have ended and its memory is free.
    #[napi]
    pub fn close(&self, mailbox: &Mailbox, id: u32) {
        self.encoder.close(mailbox.reply(id, Answer::plain));
    }
}
