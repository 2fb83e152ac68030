//! A loaded model as `train` evaluates it: on a thread of its own that asks the engine and waits.

use std::sync::mpsc;

use candlewick_engine as engine;
use candlewick_train::data::ProblemType;
use candlewick_train::evaluate::{EvaluateOptions, Generation, Guess, Input, Model, Predictor};
use candlewick_train::{TrainError, evaluate};
use engine::{CancelToken, Control, Done, EncodeOptions, EncoderText, EncoderWant, EngineError};
use napi_derive::napi;

use crate::answer::Answer;
use crate::encoder::Encoder;
use crate::error::{Failure, Result, thrown};
use crate::generator::Generator;
use crate::mailbox::{Cancel, Mailbox};
use crate::watch::Watch;

#[napi]
impl Generator {
    /// `options`: `EvaluateOptions` as JSON. Answers with an `Evaluation` as JSON; reports progress, in rows, before.
    #[napi]
    pub fn evaluate(
        &self,
        mailbox: &Mailbox,
        id: u32,
        options: String,
        cancel: &Cancel,
        progress: bool,
    ) -> Result<()> {
        let model = Causal { generator: self.generator.clone(), cancel: cancel.token() };
        let tokenizer = self.generator.tokenizer().ok_or_else(|| thrown(EngineError::TokenizerMissing))?;
        let info = self.generator.info().clone();
        let watch = Watch::new(mailbox, id, cancel, progress);
        mailbox.work(id, cancel, move || {
            let facts = Model {
                tokenizer: &tokenizer,
                positions: info.n_positions,
                eos: info.eos_token_ids.first().copied(),
                labels: &[],
                problem_type: None,
            };
            run(model, &facts, &options, &watch)
        });
        Ok(())
    }
}

#[napi]
impl Encoder {
    /// As `Generator.evaluate`.
    #[napi]
    pub fn evaluate(
        &self,
        mailbox: &Mailbox,
        id: u32,
        options: String,
        cancel: &Cancel,
        progress: bool,
    ) -> Result<()> {
        let model = Bidirectional { encoder: self.encoder.clone(), cancel: cancel.token() };
        let tokenizer = self.encoder.tokenizer().ok_or_else(|| thrown(EngineError::TokenizerMissing))?;
        let info = self.encoder.info().clone();
        let watch = Watch::new(mailbox, id, cancel, progress);
        mailbox.work(id, cancel, move || {
            let facts = Model {
                tokenizer: &tokenizer,
                positions: info.max_positions,
                eos: None,
                labels: &info.labels,
                problem_type: info.usage.problem_type.as_deref().and_then(ProblemType::named),
            };
            let mut options = read(&options)?;
            options.read_as(&info.usage, info.max_positions);
            measure(model, &facts, &options, &watch)
        });
        Ok(())
    }
}

fn read(options: &str) -> std::result::Result<EvaluateOptions, Failure> {
    serde_json::from_str(options).map_err(|error| Failure::new("INTERNAL", error.to_string()))
}

fn run<P: Predictor<Error = Failure>>(
    model: P,
    facts: &Model<'_>,
    options: &str,
    watch: &Watch,
) -> std::result::Result<Answer, Failure> {
    measure(model, facts, &read(options)?, watch)
}

fn measure<P: Predictor<Error = Failure>>(
    mut model: P,
    facts: &Model<'_>,
    options: &EvaluateOptions,
    watch: &Watch,
) -> std::result::Result<Answer, Failure> {
    let internal = |error: serde_json::Error| Failure::new("INTERNAL", error.to_string());
    let evaluation = evaluate::evaluate(&mut model, facts, options, watch)?;
    serde_json::to_string(&evaluation).map(Answer::plain).map_err(internal)
}

type Outcome<T> = std::result::Result<T, Failure>;

/// Calls the engine and waits for its answer.
fn wait<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Outcome<T> {
    let (send, receive) = mpsc::channel();
    call(Box::new(move |answer| drop(send.send(answer))));
    let gone = || EngineError::Internal("an answer was lost".into());
    receive.recv().unwrap_or_else(|_| Err(gone())).map_err(Failure::from)
}

fn of_another_kind<T>(what: &str) -> Outcome<T> {
    Err(TrainError::option("task", format!("this model has no {what}")).into())
}

struct Causal {
    generator: engine::Generator,
    cancel: CancelToken,
}

impl Predictor for Causal {
    type Error = Failure;

    fn logits(&mut self, _: Vec<Input>) -> Outcome<Vec<Vec<f32>>> {
        of_another_kind("classes")
    }

    fn logits_at(&mut self, _: Vec<Input>, _: &[Vec<usize>]) -> Outcome<Vec<Vec<f32>>> {
        of_another_kind("masks")
    }

    fn embeddings(&mut self, _: Vec<Input>) -> Outcome<Vec<Vec<f32>>> {
        of_another_kind("embeddings")
    }

    fn guesses(&mut self, sequences: Vec<Vec<u32>>) -> Outcome<Vec<Vec<Guess>>> {
        let scores = wait(|done| self.generator.score_data(sequences, self.cancel.clone(), done))?;
        let guess = |score: engine::TokenScore| Guess { logprob: score.logprob, best: score.best };
        Ok(scores.into_iter().map(|scores| scores.tokens.into_iter().map(guess).collect()).collect())
    }

    fn generate(&mut self, prompts: Vec<Vec<u32>>, generation: Generation) -> Outcome<Vec<String>> {
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let options = engine::GenerateOptions {
            max_new_tokens: Some(generation.max_new_tokens),
            temperature: 0.0,
            num_beams: generation.num_beams,
            length_penalty: generation.length_penalty,
            repetition_penalty: generation.repetition_penalty,
            no_repeat_ngram_size: generation.no_repeat_ngram_size,
            cancel: self.cancel.clone(),
            ..Default::default()
        };
        let prompts = prompts.into_iter().map(engine::Prompt::Ids).collect();
        let stream = self.generator.generate(engine::GenerateRequest { prompts, options })?;
        while wait(|done| stream.next(engine::QUEUE_LIMIT, done))?.is_some() {}
        let result = wait(|done| stream.result(done))?;
        Ok(result.sequences.into_iter().map(|sequence| sequence.text).collect())
    }
}

struct Bidirectional {
    encoder: engine::EncoderHandle,
    cancel: CancelToken,
}

impl Bidirectional {
    fn head(&self, texts: Vec<EncoderText>) -> Outcome<Vec<Vec<f32>>> {
        let want = EncoderWant { logits: true, ..Default::default() };
        let control = Control::of(&self.cancel);
        let outputs = wait(|done| self.encoder.run(texts, EncodeOptions::default(), want, control, done))?;
        Ok(outputs.into_iter().map(|output| output.logits).collect())
    }
}

fn text(Input { ids, type_ids }: Input) -> EncoderText {
    EncoderText::Ids(engine::EncoderInput { ids, type_ids, ..Default::default() })
}

impl Predictor for Bidirectional {
    type Error = Failure;

    fn logits(&mut self, inputs: Vec<Input>) -> Outcome<Vec<Vec<f32>>> {
        self.head(inputs.into_iter().map(text).collect())
    }

    fn logits_at(&mut self, inputs: Vec<Input>, places: &[Vec<usize>]) -> Outcome<Vec<Vec<f32>>> {
        let at = |(Input { ids, type_ids }, places): (Input, &Vec<usize>)| {
            let logits_at = places.iter().map(|at| *at as u32).collect();
            EncoderText::Ids(engine::EncoderInput { ids, type_ids, logits_at })
        };
        let texts = inputs.into_iter().zip(places).map(at).collect();
        self.head(texts)
    }

    /// As the model's own files say: pooling, normalisation. The prompt is in the ids; the pooling may leave it out.
    fn embeddings(&mut self, inputs: Vec<Input>) -> Outcome<Vec<Vec<f32>>> {
        let texts = inputs.into_iter().map(text).collect();
        let prompt = self.encoder.info().usage.prompt().map(str::to_string);
        let options = engine::EmbedOptions { prompt, ..Default::default() };
        wait(|done| self.encoder.embed(texts, options, Control::of(&self.cancel), done))
    }

    fn guesses(&mut self, _: Vec<Vec<u32>>) -> Outcome<Vec<Vec<Guess>>> {
        of_another_kind("next token: it is a BERT")
    }

    fn generate(&mut self, _: Vec<Vec<u32>>, _: Generation) -> Outcome<Vec<String>> {
        of_another_kind("next token: it is a BERT")
    }
}
