//! The handle of an encoder (BERT): texts in, vectors out.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};

use candlewick_models::{
    Encoder, EncoderHead, EncoderInfo, EncoderInput, EncoderOutput, EncoderWant, Tokenizer, load_encoder,
};

use crate::encoding::input::{EncodeOptions, EncoderText, InputLimits, Tokenised};
use crate::encoding::thread::{Command, EncoderThread, Progress, Run, Sink};
use crate::error::{EngineError, Result};
use crate::runtime::admission::{Limits, Queue, Ticket};
use crate::runtime::cancel::CancelToken;
use crate::runtime::codec::{Codec, TextCodec, count_all, decode_all, need};
use crate::runtime::lifecycle::{Life, ThreadSlot, start_owner, start_owner_and_wait};
use crate::runtime::load::LoadRequest;
use crate::runtime::reply::{Done, Reply};
use crate::runtime::stats::{Board, EncoderStats};

/// How the caller follows and cancels a call.
pub struct Control {
    pub cancel: CancelToken,
    pub progress: Option<Progress>,
}

impl Control {
    pub fn of(cancel: &CancelToken) -> Self {
        Self { cancel: cancel.clone(), progress: None }
    }
}

/// A handle; clones share one model. The model lives on a thread of its own, its tokenizer on another. When the last
/// handle is gone the model closes by itself.
#[derive(Clone)]
pub struct EncoderHandle(Arc<Inner>);

struct Inner {
    info: EncoderInfo,
    vocabulary: Option<usize>,
    tokenizer: Option<Tokenizer>,
    commands: mpsc::Sender<Command>,
    life: Arc<Life>,
    queue: Arc<Queue>,
    board: Arc<Board<EncoderStats>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.life.close(None);
    }
}

impl EncoderHandle {
    /// Loads on the thread that will own the model.
    pub fn load(request: LoadRequest, done: Done<EncoderHandle>) {
        let assemble = move |slot| {
            let loaded = load_encoder(&request.source, &request.options, &request)?;
            let codec = loaded.tokenizer.map(|tokenizer| Arc::new(tokenizer) as Arc<dyn TextCodec>);
            Self::assemble(loaded.model, codec, request.limits, slot)
        };
        let _ = start_owner(assemble, EncoderThread::run, Reply::new(done));
    }

    /// A handle over a model that is already loaded.
    pub fn from_parts(
        model: Box<dyn Encoder>,
        codec: Option<Arc<dyn TextCodec>>,
        limits: Limits,
    ) -> Result<EncoderHandle> {
        start_owner_and_wait(move |slot| Self::assemble(model, codec, limits, slot), EncoderThread::run)
    }

    fn assemble(
        model: Box<dyn Encoder>,
        codec: Option<Arc<dyn TextCodec>>,
        limits: Limits,
        slot: ThreadSlot,
    ) -> Result<(EncoderHandle, EncoderThread)> {
        let info = model.info().clone();
        let codec = codec.map(Codec::new);
        let vocabulary = codec.as_ref().map(|codec| codec.text.vocab_size());
        let tokenizer = codec.as_ref().and_then(|codec| codec.text.tokenizer());
        let closing = Arc::new(AtomicBool::new(false));
        let (commands, inbox) = mpsc::channel();
        let bell = commands.clone();
        let wake = move || drop(bell.send(Command::Wake));
        let life = Life::start(codec, slot, closing.clone(), wake)?;
        let queue = Queue::new(limits);
        let board = Arc::new(Board::new(queue.clone()));
        let thread = EncoderThread::new(model, inbox, closing, queue.clone(), board.clone());
        let inner = Inner { info, vocabulary, tokenizer, commands, life, queue, board };
        Ok((EncoderHandle(Arc::new(inner)), thread))
    }

    pub fn info(&self) -> &EncoderInfo {
        &self.0.info
    }

    /// Entries of the tokenizer, special ones included; `None`: ids in, vectors out.
    pub fn tokenizer_vocab_size(&self) -> Option<usize> {
        self.0.vocabulary
    }

    /// The tokenizer, for callers that tokenise data themselves. A clone is free.
    pub fn tokenizer(&self) -> Option<Tokenizer> {
        self.0.tokenizer.clone()
    }

    /// What the model's thread is doing. Never waits for it.
    pub fn stats(&self) -> EncoderStats {
        self.0.board.read()
    }

    /// Ids and token types as the model reads them.
    pub fn encode(
        &self,
        texts: Vec<EncoderText>,
        options: EncodeOptions,
        cancel: CancelToken,
        done: Done<Vec<EncoderInput>>,
    ) {
        let reply = Reply::new(done);
        let limits = InputLimits::of(&self.0.info, options);
        self.0.life.text(move |codec| reply.send(limits.inputs(codec, texts, &cancel)));
    }

    /// The tokens of texts (not of ids), as the model reads them.
    pub fn tokens(
        &self,
        texts: Vec<EncoderText>,
        options: EncodeOptions,
        cancel: CancelToken,
        done: Done<Vec<Tokenised>>,
    ) {
        let reply = Reply::new(done);
        let limits = InputLimits::of(&self.0.info, options);
        self.0.life.text(move |codec| reply.send(limits.tokens(codec, texts, &cancel)));
    }

    /// Runs the model over the texts, in batches shared with other calls. Outputs are in the texts' order and do not
    /// depend on what shared a batch with them.
    pub fn run(
        &self,
        texts: Vec<EncoderText>,
        options: EncodeOptions,
        want: EncoderWant,
        control: Control,
        done: Done<Vec<EncoderOutput>>,
    ) {
        let reply = Reply::new(done);
        let door = match self.enter(&want) {
            Ok(door) => door,
            Err(error) => return reply.send(Err(error)),
        };
        // Ids need no tokenizing, so they skip the queue of the text thread.
        let needs_text = texts.iter().any(|text| !matches!(text, EncoderText::Ids(_)));
        let limits = InputLimits::of(&self.0.info, options);
        let tokenise = move |codec: Option<&Codec>| match limits.inputs(codec, texts, &control.cancel) {
            Ok(inputs) => {
                let outputs = vec![EncoderOutput::default(); inputs.len()];
                door.start(inputs, want, control, Box::new(Outputs { outputs, reply }));
            }
            Err(error) => reply.send(Err(error)),
        };
        if needs_text {
            self.0.life.text(tokenise);
        } else {
            tokenise(None);
        }
    }

    /// A task: on the text thread `prepare` makes inputs of what was asked, on the model's thread `keep` takes of each
    /// output what is needed (which may be much less), and back on the text thread `finish` makes the answer of what
    /// was kept, in the inputs' order. `P` is what `prepare` leaves for the other two.
    pub(crate) fn task<P, K, T>(
        &self,
        mut want: EncoderWant,
        control: Control,
        prepare: impl FnOnce(&Codec, &CancelToken, &mut EncoderWant) -> Result<(Vec<EncoderInput>, P)>
        + Send
        + 'static,
        keep: impl Fn(&P, usize, &EncoderInput, EncoderOutput) -> Result<K> + Send + 'static,
        finish: impl FnOnce(&Codec, P, Vec<K>) -> Result<T> + Send + 'static,
        done: Done<T>,
    ) where
        P: Send + 'static,
        K: Send + 'static,
        T: 'static,
    {
        let reply = Reply::new(done);
        let door = match self.enter(&want) {
            Ok(door) => door,
            Err(error) => return reply.send(Err(error)),
        };
        let life = self.0.life.clone();
        self.0.life.text(move |codec| {
            match need(codec).and_then(|codec| prepare(codec, &control.cancel, &mut want)) {
                Ok((inputs, plan)) => {
                    let kept = inputs.iter().map(|_| None).collect();
                    let sink = Kept { plan, kept, keep, finish, life, reply };
                    door.start(inputs, want, control, Box::new(sink));
                }
                Err(error) => reply.send(Err(error)),
            }
        });
    }

    /// A place in the queue for a call that the model can answer.
    fn enter(&self, want: &EncoderWant) -> Result<Door> {
        if want.pooled && !self.0.info.has_pooler {
            return Err(EngineError::option("pooled", "this model has no pooler"));
        }
        if want.logits && self.0.info.head == EncoderHead::None {
            return Err(EngineError::option("logits", "this model has no head"));
        }
        let (commands, queue) = (self.0.commands.clone(), self.0.queue.clone());
        Ok(Door { ticket: queue.enter()?, commands, queue })
    }

    pub fn decode(&self, ids: Vec<Vec<u32>>, skip_special: bool, done: Done<Vec<String>>) {
        let reply = Reply::new(done);
        self.0.life.text(move |codec| reply.send(decode_all(codec, &ids, skip_special)));
    }

    pub fn count_tokens(&self, texts: Vec<String>, done: Done<Vec<usize>>) {
        let reply = Reply::new(done);
        self.0.life.text(move |codec| reply.send(count_all(codec, &texts)));
    }

    /// Ends running calls with `MODEL_CLOSED` at the next layer and answers when the threads have ended and the memory
    /// is free. May be called any number of times.
    pub fn close(&self, done: Done<()>) {
        self.0.life.close(Some(Reply::new(done)));
    }
}

/// The way of a call from its text to the model's thread.
struct Door {
    ticket: Ticket,
    commands: mpsc::Sender<Command>,
    queue: Arc<Queue>,
}

impl Door {
    /// A model that closed meanwhile drops the run, and its reply says so.
    fn start(
        mut self,
        inputs: Vec<EncoderInput>,
        want: EncoderWant,
        Control { cancel, progress }: Control,
        sink: Box<dyn Sink>,
    ) {
        let tokens = inputs.iter().map(|input| input.ids.len()).sum();
        if let Err(error) = self.ticket.add(tokens) {
            return sink.end(Err(error));
        }
        self.queue.arrives();
        let run = Run::new(inputs, want, cancel, progress, sink, self.ticket);
        let _ = self.commands.send(Command::Run(Box::new(run)));
    }
}

struct Outputs {
    outputs: Vec<EncoderOutput>,
    reply: Reply<Vec<EncoderOutput>>,
}

impl Sink for Outputs {
    fn take(&mut self, index: usize, _: &EncoderInput, output: EncoderOutput) -> Result<()> {
        self.outputs[index] = output;
        Ok(())
    }

    fn end(self: Box<Self>, result: Result<()>) {
        let Self { outputs, reply } = *self;
        reply.send(result.map(|()| outputs));
    }
}

/// What a task keeps of the outputs, and makes of what it kept.
struct Kept<P, K, T, Keep, Finish> {
    plan: P,
    kept: Vec<Option<K>>,
    keep: Keep,
    finish: Finish,
    life: Arc<Life>,
    reply: Reply<T>,
}

impl<P, K, T, Keep, Finish> Sink for Kept<P, K, T, Keep, Finish>
where
    P: Send + 'static,
    K: Send + 'static,
    T: 'static,
    Keep: Fn(&P, usize, &EncoderInput, EncoderOutput) -> Result<K> + Send,
    Finish: FnOnce(&Codec, P, Vec<K>) -> Result<T> + Send + 'static,
{
    fn take(&mut self, index: usize, input: &EncoderInput, output: EncoderOutput) -> Result<()> {
        self.kept[index] = Some((self.keep)(&self.plan, index, input, output)?);
        Ok(())
    }

    fn end(self: Box<Self>, result: Result<()>) {
        let Self { plan, kept, finish, life, reply, .. } = *self;
        if let Err(error) = result {
            return reply.send(Err(error));
        }
        life.text(move |codec| {
            let kept = kept.into_iter().flatten().collect();
            reply.send(need(codec).and_then(|codec| finish(codec, plan, kept)));
        });
    }
}
