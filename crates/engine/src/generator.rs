//! The handle of a causal language model.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use candlewick_models::{CausalInfo, CausalLm, ModelError, Tokenizer, load_causal};

use crate::cancel::CancelToken;
use crate::error::{EngineError, Result};
use crate::life::{Life, ThreadSlot, start_owner, start_owner_and_wait};
use crate::likelihood::{ScoreRun, TokenScore};
use crate::load::LoadRequest;
use crate::options::{GenerateOptions, Prompt, Truncate};
use crate::reply::{Done, Reply};
use crate::request::Job;
use crate::scheduler::{Command, Scheduler};
use crate::stream::{Producer, TokenStream};
use crate::text::{Codec, TextCodec, count_all, decode_all, encode_all, need};

#[derive(Debug, Clone, Default)]
pub struct GenerateRequest {
    pub prompts: Vec<Prompt>,
    pub options: GenerateOptions,
}

/// A handle; clones share one model. The model lives on a thread of its own, its tokenizer on another. When the last
/// handle and the last stream are gone the model closes by itself.
#[derive(Clone)]
pub struct Generator(Arc<Inner>);

struct Inner {
    info: CausalInfo,
    vocabulary: Option<usize>,
    tokenizer: Option<Tokenizer>,
    commands: mpsc::Sender<Command>,
    closing: Arc<AtomicBool>,
    life: Arc<Life>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.life.close(None);
    }
}

impl Generator {
    /// Loads on the thread that will own the model.
    pub fn load(request: LoadRequest, done: Done<Generator>) {
        let assemble = move |slot| {
            let loaded = load_causal(&request.source, &request.options, &request)?;
            let codec = loaded.tokenizer.map(|tokenizer| Arc::new(tokenizer) as Arc<dyn TextCodec>);
            Self::assemble(loaded.model, codec, slot)
        };
        let _ = start_owner(assemble, Scheduler::run, Reply::new(done));
    }

    /// A generator over a model that is already loaded.
    pub fn from_parts(model: Box<dyn CausalLm>, codec: Option<Arc<dyn TextCodec>>) -> Result<Generator> {
        start_owner_and_wait(move |slot| Self::assemble(model, codec, slot), Scheduler::run)
    }

    fn assemble(
        model: Box<dyn CausalLm>,
        codec: Option<Arc<dyn TextCodec>>,
        slot: ThreadSlot,
    ) -> Result<(Generator, Scheduler)> {
        let info = model.info().clone();
        let codec = codec.map(Codec::new);
        let vocabulary = codec.as_ref().map(|codec| codec.text.vocab_size());
        let tokenizer = codec.as_ref().and_then(|codec| codec.text.tokenizer());
        let closing = Arc::new(AtomicBool::new(false));
        let (commands, inbox) = mpsc::channel();
        let wake = waker(&commands);
        let life = Life::start(codec.clone(), slot, closing.clone(), wake)?;
        let scheduler = Scheduler::new(model, codec, inbox, closing.clone());
        Ok((Generator(Arc::new(Inner { info, vocabulary, tokenizer, commands, closing, life })), scheduler))
    }

    pub fn info(&self) -> &CausalInfo {
        &self.0.info
    }

    /// Entries of the tokenizer, special ones included; `None`: ids in, ids out.
    pub fn tokenizer_vocab_size(&self) -> Option<usize> {
        self.0.vocabulary
    }

    /// The tokenizer, for callers that tokenise data themselves. A clone is free.
    pub fn tokenizer(&self) -> Option<Tokenizer> {
        self.0.tokenizer.clone()
    }

    /// Starts a generation. Options are checked at once; what is wrong with a prompt comes through the stream.
    pub fn generate(&self, request: GenerateRequest) -> Result<TokenStream> {
        let inner = &self.0;
        if inner.life.is_closing() {
            return Err(EngineError::Closed);
        }
        let GenerateRequest { prompts, options } = request;
        options.validate(&inner.info, inner.vocabulary.is_some())?;
        if prompts.is_empty() {
            return Err(EngineError::PromptEmpty);
        }
        let submitted = Instant::now();
        // Ids need no tokenizing, so they skip the queue of the text thread.
        let needs_text = prompts.iter().any(|prompt| matches!(prompt, Prompt::Text(_)));
        let wake = waker(&inner.commands);
        let (stream, producer) =
            TokenStream::new(options.cancel.clone(), inner.closing.clone(), wake, self.clone());
        let commands = inner.commands.clone();
        let n_positions = inner.info.n_positions;
        let vocab_size = inner.info.vocab_size;
        let tokenise = move |codec: Option<&Codec>| {
            let ids = |prompt| prompt_ids(prompt, codec, &producer, &options, n_positions, vocab_size);
            match prompts.into_iter().map(ids).collect::<Result<Vec<_>>>() {
                Ok(prompts) => {
                    if producer.stop().is_none() {
                        producer.accept(prompts.iter().map(|(ids, _)| ids.len()).sum());
                    }
                    let job = Job { producer, options, prompts, submitted };
                    // A model that closed meanwhile drops the job, and its stream says so.
                    let _ = commands.send(Command::Start(Box::new(job)));
                }
                Err(error) => producer.finish(Err(error)),
            }
        };
        if needs_text {
            inner.life.text(tokenise);
        } else {
            tokenise(None);
        }
        Ok(stream)
    }

    /// How likely each token of each sequence is after those before it: scores of the second token and those that
    /// follow. A sequence has at most one token more than the model has positions.
    pub fn score(&self, sequences: Vec<Vec<u32>>, cancel: CancelToken, done: Done<Vec<Vec<TokenScore>>>) {
        let reply = Reply::new(done);
        let CausalInfo { n_positions, vocab_size, .. } = self.0.info;
        if let Some(long) = sequences.iter().find(|ids| ids.len() > n_positions + 1) {
            let prompt = long.len();
            return reply.send(Err(EngineError::ContextOverflow {
                prompt,
                requested: 0,
                limit: n_positions,
            }));
        }
        if let Some(id) = sequences.iter().flatten().find(|id| **id as usize >= vocab_size) {
            return reply.send(Err(unknown_id(*id)));
        }
        // A model that closed meanwhile drops the run, and its reply says so.
        let _ = self.0.commands.send(Command::Score(Box::new(ScoreRun::new(sequences, cancel, reply))));
    }

    /// Ids of each text. On the text thread: a long text holds up later texts, never the model.
    pub fn encode(
        &self,
        texts: Vec<String>,
        add_special: bool,
        cancel: CancelToken,
        done: Done<Vec<Vec<u32>>>,
    ) {
        let reply = Reply::new(done);
        self.0.life.text(move |codec| reply.send(encode_all(codec, &texts, add_special, &cancel)));
    }

    pub fn decode(&self, ids: Vec<Vec<u32>>, skip_special: bool, done: Done<Vec<String>>) {
        let reply = Reply::new(done);
        self.0.life.text(move |codec| reply.send(decode_all(codec, &ids, skip_special)));
    }

    pub fn count_tokens(&self, texts: Vec<String>, done: Done<Vec<usize>>) {
        let reply = Reply::new(done);
        self.0.life.text(move |codec| reply.send(count_all(codec, &texts)));
    }

    /// Ends running streams with `MODEL_CLOSED` at the next layer and answers when the threads have ended and the
    /// memory is free. May be called any number of times.
    pub fn close(&self, done: Done<()>) {
        self.0.life.close(Some(Reply::new(done)));
    }
}

/// Wakes the scheduler, so that it looks at its flags.
fn waker(commands: &mpsc::Sender<Command>) -> impl Fn() + Clone + Send + Sync + 'static {
    let commands = commands.clone();
    move || {
        let _ = commands.send(Command::Wake);
    }
}

/// A prompt as ids, truncated to fit, and the number of tokens that may follow.
fn prompt_ids(
    prompt: Prompt,
    codec: Option<&Codec>,
    producer: &Producer,
    options: &GenerateOptions,
    n_positions: usize,
    vocab_size: usize,
) -> Result<(Vec<u32>, usize)> {
    let mut ids = match prompt {
        // A request that was stopped ends in the scheduler, with its zero tokens; that need not wait for a long text.
        _ if producer.stop().is_some() => return Ok((Vec::new(), 1)),
        Prompt::Text(text) => {
            let codec = need(codec)?;
            let least = codec.least_tokens(&text);
            if least > 0 && options.truncate == Truncate::None {
                options.room(least, n_positions)?;
            }
            codec.text.encode(&text, true)?
        }
        Prompt::Ids(ids) => ids,
    };
    if ids.is_empty() {
        return Err(EngineError::PromptEmpty);
    }
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
        return Err(unknown_id(*id));
    }
    let (keep, new_tokens) = options.room(ids.len(), n_positions)?;
    ids.drain(..ids.len() - keep);
    Ok((ids, new_tokens))
}

fn unknown_id(id: u32) -> EngineError {
    EngineError::Model(ModelError::Input(format!("token {id} is not in the vocabulary")))
}
