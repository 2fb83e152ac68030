//! A causal language model as JavaScript sees it: the handle and the reading end of its streams.

use candlewick_engine as engine;
use engine::{GenerateRequest, Speculation};
use napi::bindgen_prelude::Uint32Array;
use napi_derive::napi;

use crate::answer::{Answer, counts};
use crate::convert::{Conversation, GenerateOptions, LoadOptions, Prompts, ScoreOptions};
use crate::error::{Result, thrown};
use crate::info::GeneratorInfo;
use crate::mailbox::{Cancel, Mailbox};
use crate::packed::{Packed, PackedBytes, PackedIds, PackedScores, Scores};
use crate::stats::GeneratorStats;
use crate::tokens::{GenerationResult, Token};

/// Loads a model from a path. Answers with a `Generator`; reports progress before.
#[napi]
pub fn load_generator(mailbox: &Mailbox, id: u32, options: LoadOptions, cancel: &Cancel) -> Result<()> {
    let request = options.into_request(mailbox, id, cancel)?;
    engine::Generator::load(request, mailbox.cancellable(id, cancel, Answer::of::<Generator>));
    Ok(())
}

#[napi]
pub struct Generator {
    pub(crate) generator: engine::Generator,
}

impl From<engine::Generator> for Generator {
    fn from(generator: engine::Generator) -> Self {
        Self { generator }
    }
}

#[napi]
impl Generator {
    #[napi(getter)]
    pub fn info(&self) -> GeneratorInfo {
        let generator = &self.generator;
        GeneratorInfo::new(generator.info(), generator.tokenizer_vocab_size(), generator.has_chat_template())
    }

    /// What the model's thread is doing.
    #[napi]
    pub fn stats(&self) -> GeneratorStats {
        self.generator.stats().into()
    }

    /// Options are checked at once; what is wrong with a prompt comes through the stream. `draft` guesses for this
    /// model.
    #[napi]
    pub fn generate(
        &self,
        prompts: Prompts,
        options: GenerateOptions,
        draft: Option<&Generator>,
    ) -> Result<TokenStream> {
        let mut request = GenerateRequest { prompts: prompts.into(), options: options.into() };
        if let Some(draft) = draft {
            request.options.speculation = Speculation::Draft(draft.generator.as_draft());
        }
        self.generator.generate(request).map(|stream| TokenStream { stream }).map_err(thrown)
    }

    /// Answers with `PackedScores`.
    #[napi]
    pub fn score(
        &self,
        mailbox: &Mailbox,
        id: u32,
        prompts: Prompts,
        options: ScoreOptions,
        cancel: &Cancel,
    ) {
        let answer = |scores: Vec<_>| Answer::of::<PackedScores>(Scores::from(scores));
        let done = mailbox.cancellable(id, cancel, answer);
        self.generator.score(prompts.into(), options.of(cancel), done);
    }

    /// Answers with `PackedBytes`: of every id.
    #[napi]
    pub fn vocabulary(&self, mailbox: &Mailbox, id: u32) {
        let answer = |bytes: Vec<_>| Answer::of::<PackedBytes>(Packed::new(bytes));
        self.generator.vocabulary(mailbox.reply(id, answer));
    }

    /// Answers with `PackedIds`.
    #[napi]
    pub fn encode(&self, mailbox: &Mailbox, id: u32, texts: Vec<String>, special: bool, cancel: &Cancel) {
        let done = mailbox.cancellable(id, cancel, |ids: Vec<_>| Answer::of::<PackedIds>(Packed::new(ids)));
        self.generator.encode(texts, special, cancel.token(), done);
    }

    /// Answers with `PackedIds`: one list.
    #[napi]
    pub fn chat_prompt(&self, mailbox: &Mailbox, id: u32, conversation: Conversation, cancel: &Cancel) {
        let answer = |ids: Vec<u32>| Answer::of::<PackedIds>(Packed::new(vec![ids]));
        self.generator.chat_prompt(
            conversation.into(),
            cancel.token(),
            mailbox.cancellable(id, cancel, answer),
        );
    }

    /// Answers with the id of the token that ends the assistant's turn, or with null.
    #[napi]
    pub fn chat_end(&self, mailbox: &Mailbox, id: u32) {
        self.generator.chat_end(mailbox.reply(id, Answer::plain));
    }

    /// Answers with a string for each list of ids.
    #[napi]
    pub fn decode(&self, mailbox: &Mailbox, id: u32, ids: Vec<Uint32Array>, skip_special: bool) {
        let ids = ids.iter().map(|ids| ids.to_vec()).collect();
        self.generator.decode(ids, skip_special, mailbox.reply(id, Answer::plain));
    }

    /// Answers with a number for each text.
    #[napi]
    pub fn count_tokens(&self, mailbox: &Mailbox, id: u32, texts: Vec<String>) {
        self.generator.count_tokens(texts, mailbox.reply(id, counts));
    }

    /// Answers when the model's threads have ended and its memory is free.
    #[napi]
    pub fn close(&self, mailbox: &Mailbox, id: u32) {
        self.generator.close(mailbox.reply(id, Answer::plain));
    }
}

/// The reading end of a generation. Collected as garbage it cancels the generation.
#[napi]
pub struct TokenStream {
    stream: engine::TokenStream,
}

#[napi]
impl TokenStream {
    /// Answers with the tokens that are ready, 1 to `most` of them, or with null after the last.
    #[napi]
    pub fn next(&self, mailbox: &Mailbox, id: u32, most: u32) {
        self.stream.next(most as usize, mailbox.reply(id, tokens));
    }

    /// Answers with the number of prompt tokens when the prompts are tokenised, checked and queued.
    #[napi]
    pub fn accepted(&self, mailbox: &Mailbox, id: u32) {
        self.stream.accepted(mailbox.reply(id, |count| Answer::plain(count as f64)));
    }

    #[napi]
    pub fn cancel(&self) {
        self.stream.cancel();
    }

    /// Answers with the `GenerationResult` when the generation has ended.
    #[napi]
    pub fn result(&self, mailbox: &Mailbox, id: u32) {
        self.stream.result(mailbox.reply(id, Answer::of::<GenerationResult>));
    }
}

/// A batch of tokens; null at the end of the stream.
fn tokens(batch: Option<Vec<engine::TokenEvent>>) -> Answer {
    Answer::new(|| batch.map(|tokens| tokens.into_iter().map(Token::from).collect::<Vec<_>>()))
}
