//! The handle of a causal language model.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use candlewick_models::{
    CausalBackend, CausalInfo, ChatRequest, ChatTemplate, KvSpec, Tokenizer, load_causal,
};

use crate::error::{EngineError, Result};
use crate::generation::batch::Priority;
use crate::generation::kv::prefix::Realm;
use crate::generation::options::{GenerateOptions, Prompt, Truncate};
use crate::generation::request::{Deadline, Job};
use crate::generation::sampling::bans::{Bans, spellings};
use crate::generation::scheduler::{Command, Scheduler};
use crate::generation::score::{ScoreJob, ScoreOptions, Scores, read_all, unknown_id};
use crate::generation::speculative::Speculation;
use crate::generation::speculative::draft::{DraftModel, DraftSpeed};
use crate::generation::stream::{Producer, TokenStream};
use crate::runtime::admission::{Limits, Queue};
use crate::runtime::cancel::CancelToken;
use crate::runtime::codec::{Codec, TextCodec, count_all, decode_all, encode_all, need, vocabulary};
use crate::runtime::lifecycle::{Life, ThreadSlot, start_owner, start_owner_and_wait};
use crate::runtime::load::LoadRequest;
use crate::runtime::reply::{Done, Reply};
use crate::runtime::stats::{Board, GeneratorStats};

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
    chat: Option<Arc<ChatTemplate>>,
    commands: mpsc::Sender<Command>,
    closing: Arc<AtomicBool>,
    life: Arc<Life>,
    /// Calls so far: each is a client of its own.
    clients: AtomicU64,
    queue: Arc<Queue>,
    board: Arc<Board<GeneratorStats>>,
    kv: KvSpec,
    codec: Option<Codec>,
    draft_speed: Arc<DraftSpeed>,
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
            Self::assemble(loaded.model, codec, loaded.chat, request.limits, slot)
        };
        let _ = start_owner(assemble, Scheduler::run, Reply::new(done));
    }

    /// A generator over a model that is already loaded.
    pub fn from_parts(
        model: Box<dyn CausalBackend>,
        codec: Option<Arc<dyn TextCodec>>,
        limits: Limits,
    ) -> Result<Generator> {
        start_owner_and_wait(move |slot| Self::assemble(model, codec, None, limits, slot), Scheduler::run)
    }

    fn assemble(
        model: Box<dyn CausalBackend>,
        codec: Option<Arc<dyn TextCodec>>,
        chat: Option<ChatTemplate>,
        limits: Limits,
        slot: ThreadSlot,
    ) -> Result<(Generator, Scheduler)> {
        let info = model.info().clone();
        let codec = codec.map(Codec::new);
        let vocabulary = codec.as_ref().map(|codec| codec.text.vocab_size());
        let tokenizer = codec.as_ref().and_then(|codec| codec.text.tokenizer());
        let closing = Arc::new(AtomicBool::new(false));
        let kv = model.kv();
        let (commands, inbox) = mpsc::channel();
        let wake = waker(&commands);
        let life = Life::start(codec.clone(), slot, closing.clone(), wake)?;
        let queue = Queue::new(limits);
        let board = Arc::new(Board::new(queue.clone()));
        let scheduler =
            Scheduler::new(model, codec.clone(), inbox, closing.clone(), queue.clone(), board.clone());
        let inner = Inner {
            info,
            vocabulary,
            tokenizer,
            chat: chat.map(Arc::new),
            commands,
            closing,
            life,
            clients: AtomicU64::new(0),
            queue,
            board,
            kv,
            codec,
            draft_speed: Arc::default(),
        };
        Ok((Generator(Arc::new(inner)), scheduler))
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

    /// Whether the model's files have a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.0.chat.is_some()
    }

    /// This model as one that guesses for others.
    pub fn as_draft(&self) -> DraftModel {
        let inner = self.0.clone();
        DraftModel {
            vocab_size: inner.info.vocab_size,
            codec: inner.codec.clone(),
            closing: inner.closing.clone(),
            speed: inner.draft_speed.clone(),
            n_positions: inner.info.n_positions,
            send: Arc::new(move |command| drop(inner.commands.send(Command::Draft(command)))),
        }
    }

    /// Starts a generation. Options are checked at once; what is wrong with a prompt comes through the stream.
    pub fn generate(&self, request: GenerateRequest) -> Result<TokenStream> {
        let inner = &self.0;
        if inner.life.is_closing() {
            return Err(EngineError::Closed);
        }
        let GenerateRequest { prompts, options } = request;
        options.validate(&inner.info, inner.codec.as_ref())?;
        options.check_continued(prompts.len())?;
        if let Speculation::Draft(draft) = &options.speculation {
            draft.check(&inner.info, &inner.closing)?;
        }
        if prompts.is_empty() {
            return Err(EngineError::PromptEmpty);
        }
        let submitted = Instant::now();
        // Ids need no tokenizing, so they skip the queue of the text thread.
        let is_drafted = matches!(options.speculation, Speculation::Draft(_));
        let needs_text = is_drafted
            || !options.bad_words.is_empty()
            || prompts.iter().any(|prompt| matches!(prompt, Prompt::Text(_)));
        let end_ids = options.end_ids(&inner.info);
        let wake = waker(&inner.commands);
        let (stream, producer) =
            TokenStream::new(options.cancel.clone(), inner.closing.clone(), wake, self.clone());
        let (commands, queue) = (inner.commands.clone(), inner.queue.clone());
        let client = self.client(options.client.as_deref());
        let ticket = inner.queue.enter();
        let deadline = options.deadline.and_then(|after| {
            Some(Deadline { at: submitted.checked_add(after)?, ms: after.as_millis() as u64 })
        });
        let (n_positions, kv) = (inner.info.n_positions, inner.kv);
        let vocab_size = inner.info.vocab_size;
        let mut ticket = match ticket {
            Ok(ticket) => ticket,
            Err(error) => {
                producer.finish(Err(error));
                return Ok(stream);
            }
        };
        let tokenise = move |codec: Option<&Codec>| {
            let bans = match bans(&options, &end_ids, codec, &producer) {
                Ok(bans) => bans,
                Err(error) => return producer.finish(Err(error)),
            };
            if let Speculation::Draft(draft) = &options.speculation
                && let Err(error) = draft.check_tokens(codec)
            {
                return producer.finish(Err(error));
            }
            let several = prompts.len() > 1;
            let ids = |prompt| {
                let prompt = prompt_ids(prompt, codec, &producer, &options, n_positions, vocab_size)?;
                fits(&prompt, &options, kv).map(|()| prompt)
            };
            let ids = |(index, prompt)| match ids(prompt) {
                Err(error) if several => Err(error.of_input(index)),
                result => result,
            };
            match prompts.into_iter().enumerate().map(ids).collect::<Result<Vec<_>>>() {
                Ok(prompts) => {
                    let tokens = prompts.iter().map(|(ids, _)| ids.len()).sum();
                    if let Err(error) = ticket.add(tokens) {
                        return producer.finish(Err(error));
                    }
                    if producer.stop().is_none() {
                        producer.accept(tokens);
                    }
                    let job = Job { producer, options, bans, prompts, submitted, client, ticket, deadline };
                    // A model that closed meanwhile drops the job, and its stream says so.
                    queue.arrives();
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

    /// Who asks: a hash of the name, or a number of its own.
    fn client(&self, name: Option<&str>) -> u64 {
        const NAMED: u64 = 1 << 63;
        match name {
            Some(name) => {
                let mut hasher = DefaultHasher::new();
                name.hash(&mut hasher);
                hasher.finish() | NAMED
            }
            None => self.0.clients.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// What the model's thread is doing. Never waits for it.
    pub fn stats(&self) -> GeneratorStats {
        self.0.board.read()
    }

    /// How likely each token of each prompt is after those before it, the same that a generation reports of it. A
    /// prompt has at most as many tokens as the model has positions. It waits in the queue as a generation does.
    pub fn score(&self, prompts: Vec<Prompt>, options: ScoreOptions, done: Done<Vec<Scores>>) {
        let (inner, reply) = (&self.0, Reply::new(done));
        let entered = options.check(&inner.info).and_then(|realm| Ok((realm, inner.queue.enter()?)));
        let (realm, mut ticket) = match entered {
            Ok(entered) => entered,
            Err(error) => return reply.send(Err(error)),
        };
        let client = self.client(options.client.as_deref());
        let CausalInfo { n_positions, vocab_size, .. } = inner.info;
        let (commands, queue) = (inner.commands.clone(), inner.queue.clone());
        // Ids need no tokenizing, so they skip the queue of the text thread.
        let needs_text = prompts.iter().any(|prompt| matches!(prompt, Prompt::Text(_)));
        let tokenise = move |codec: Option<&Codec>| {
            let ScoreOptions { top_logprobs, priority, cancel, .. } = options;
            let read = read_all(prompts, codec, &cancel, n_positions, vocab_size);
            let read = read.and_then(|sequences| {
                ticket.add(sequences.iter().map(Vec::len).sum())?;
                Ok(sequences)
            });
            let sequences = match read {
                Ok(sequences) => sequences,
                Err(error) => return reply.send(Err(error)),
            };
            let (publishes, ticket, _wake) = (true, Some(ticket), cancel.on_cancel(waker(&commands)));
            let job = ScoreJob {
                client,
                priority,
                top_logprobs,
                realm,
                publishes,
                sequences,
                ticket,
                cancel,
                _wake,
                reply,
            };
            // A model that closed meanwhile drops the job, and its reply says so.
            queue.arrives();
            let _ = commands.send(Command::Score(Box::new(job)));
        };
        if needs_text {
            inner.life.text(tokenise);
        } else {
            tokenise(None);
        }
    }

    /// As [`score`](Self::score), of many sequences of a data set: of one token more than the model has positions at
    /// most, beside the limits of the queue, with what others leave of the steps. Prompts share nothing with them.
    pub fn score_data(&self, sequences: Vec<Vec<u32>>, cancel: CancelToken, done: Done<Vec<Scores>>) {
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
        let job = ScoreJob {
            client: self.client(None),
            priority: Priority::Batch,
            top_logprobs: 0,
            realm: Realm { adapter: None, scope: None },
            publishes: false,
            sequences,
            ticket: None,
            _wake: cancel.on_cancel(waker(&self.0.commands)),
            cancel,
            reply,
        };
        self.0.queue.arrives();
        let _ = self.0.commands.send(Command::Score(Box::new(job)));
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

    /// Ids of a conversation, by the model's chat template. On the text thread.
    pub fn chat_prompt(&self, request: ChatRequest, cancel: CancelToken, done: Done<Vec<u32>>) {
        let reply = Reply::new(done);
        let (chat, tokenizer) = (self.0.chat.clone(), self.0.tokenizer.clone());
        let limit = self.0.info.n_positions;
        self.0.life.text(move |codec| {
            let ids = || -> Result<Vec<u32>> {
                if cancel.is_cancelled() {
                    return Err(EngineError::Aborted);
                }
                let chat = chat.ok_or_else(no_template)?;
                let (codec, tokenizer) = (need(codec)?, tokenizer.ok_or(EngineError::TokenizerMissing)?);
                let text = chat.text(&tokenizer, &request, limit)?;
                // More than fits by far would hold up the texts behind it, a second for each megabyte.
                let prompt = codec.least_tokens(&text.text);
                if prompt > limit {
                    return Err(EngineError::ContextOverflow { prompt, requested: 1, limit });
                }
                Ok(text.ids(&tokenizer)?)
            };
            reply.send(ids());
        });
    }

    /// The token that ends the assistant's turn in the model's chat template, if one does. On the text thread.
    pub fn chat_end(&self, done: Done<Option<u32>>) {
        let reply = Reply::new(done);
        let (chat, tokenizer) = (self.0.chat.clone(), self.0.tokenizer.clone());
        let positions = self.0.info.n_positions;
        self.0.life.text(move |_| {
            let end =
                chat.zip(tokenizer).and_then(|(chat, tokenizer)| chat.end_of_turn(&tokenizer, positions));
            reply.send(Ok(end));
        });
    }

    pub fn decode(&self, ids: Vec<Vec<u32>>, skip_special: bool, done: Done<Vec<String>>) {
        let reply = Reply::new(done);
        self.0.life.text(move |codec| reply.send(decode_all(codec, &ids, skip_special)));
    }

    /// The bytes of every id of the model, in their order. Of ids that the tokenizer lacks: none.
    pub fn vocabulary(&self, done: Done<Vec<Vec<u8>>>) {
        let (reply, size) = (Reply::new(done), self.0.info.vocab_size as u32);
        self.0.life.text(move |codec| reply.send(vocabulary(codec, size)));
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

fn no_template() -> EngineError {
    EngineError::Internal("a conversation for a model without a chat template".into())
}

/// Wakes the scheduler, so that it looks at its flags.
fn waker(commands: &mpsc::Sender<Command>) -> impl Fn() + Clone + Send + Sync + 'static {
    let commands = commands.clone();
    move || {
        let _ = commands.send(Command::Wake);
    }
}

/// The sequences of tokens that the options ban.
fn bans(
    options: &GenerateOptions,
    end_ids: &[u32],
    codec: Option<&Codec>,
    producer: &Producer,
) -> Result<Bans> {
    let mut sequences = options.bad_word_ids.clone();
    for word in &options.bad_words {
        if producer.stop().is_some() {
            break;
        }
        sequences.extend(spellings(need(codec)?, word)?);
    }
    Ok(Bans::new(&sequences, end_ids))
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

/// Whether a beam search has memory enough if it runs alone and its beams part after the prompt. (Samples need not run
/// side by side, and one sequence always fits.)
fn fits((ids, max_new_tokens): &(Vec<u32>, usize), options: &GenerateOptions, kv: KvSpec) -> Result<()> {
    let beams = options.num_beams;
    let blocks = ids.len() / kv.positions + beams * (max_new_tokens.div_ceil(kv.positions) + 1);
    if beams == 1 || blocks <= kv.blocks {
        return Ok(());
    }
    let (need, have) = (blocks as u64 * kv.bytes as u64, kv.blocks as u64 * kv.bytes as u64);
    Err(EngineError::OutOfMemory(format!(
        "{beams} beams of {} tokens may need {need} bytes for keys and values, kvCacheBytes is {have}",
        ids.len() + max_new_tokens
    )))
}
