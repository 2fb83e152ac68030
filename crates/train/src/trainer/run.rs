//! The loop: windows of batches, steps, evaluations, checkpoints.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use candlewick_kernels::Isa;
use candlewick_kernels::train::Precision;
use candlewick_models::Tokenizer;
use serde_json::{Map, Value, json};

use super::checkpoint::{self, Checkpoints, PRECISION, State};
use super::event::{Event, Finish, TrainObserver};
use super::log::Log;
use super::lora::Adapter;
use super::network::Network;
use super::opening::Opening;
use super::optimizer::Optimizer;
use super::options::{FinetuneOptions, PrecisionOption};
use super::predict::{InTraining, Silent};
use crate::data::{self, DataOptions, Example, Examples, Opened, Plan, ProblemType, Setup, Target, Task};
use crate::evaluate::{self, EvaluateOptions, Generation, Model};
use crate::model::{Cpu, Outcome, Pass};
use crate::{Observer, Result, TrainError, unknown};

/// Rows of a batch of an evaluation: no gradients, so a few suffice to fill the kernels.
const EVALUATION_ROWS: usize = 16;

/// The metric that every evaluation has; by default it decides which checkpoint is the best.
const LOSS: &str = "loss";

/// Trains a model from its folder into the output's. Everything that can be known to be wrong is an error before the
/// first step.
pub fn finetune(options: &FinetuneOptions, observer: &dyn TrainObserver) -> Result<()> {
    options.check()?;
    let stop = || observer.stop();
    let opening = Opening::new(options)?;
    let open = |paths, data: &DataOptions| {
        let setup = Setup {
            task: options.task,
            options: data,
            tokenizer: &opening.tokenizer,
            positions: opening.positions,
            eos: opening.eos,
            checkpoint_labels: &opening.labels,
            seed: options.seed,
            trains: true,
            stop: &stop,
        };
        data::open(paths, &setup)
    };
    let mut train = open(&options.train, &options.options)?;
    if options.task == Task::FeatureExtraction
        && options.batch_size.min(train.examples.len()) == 1
        && train.examples.get(0)?.target == Target::None
    {
        return Err(TrainError::option("batchSize", "a pair alone has none that it could be told from"));
    }
    let mut data = options.options.clone();
    if !train.labels.is_empty() {
        data.labels = Some(train.labels.clone());
        data.label_by = train.label_by;
    }
    data.problem_type = train.problem_type;
    let validation = if options.validation.is_empty() {
        None
    } else {
        let examples = open(&options.validation, &data)?.examples;
        let (labels, problem_type) = (train.labels.clone(), train.problem_type);
        let evaluate = EvaluateOptions {
            task: options.task,
            data: options.validation.clone(),
            batch_size: EVALUATION_ROWS,
            samples: 0,
            generate: Some(false),
            generation: Generation::default(),
            bleu_tokenizer: None,
            seed: options.seed,
            options: data,
        };
        Some(Validation { examples, labels, problem_type, options: evaluate })
    };
    let name = options.metric_for_best_model.as_str();
    if let Some(validation) = &validation
        && name != LOSS
    {
        let classes = validation.labels.len().max(1);
        let vocabulary = opening.tokenizer.vocab_size();
        let mut silent = Silent { task: options.task, classes, vocabulary };
        let model = validation.model(&opening.tokenizer, opening.positions, opening.eos);
        let measured = evaluate::evaluate(&mut silent, &model, &validation.options, &Stop(observer))?;
        metric(&measured.metrics, name)?;
    }
    let mut cpu = Cpu::new(options.threads);
    cpu.precision = precision(options);
    let tokenizer = opening.tokenizer.clone();
    let (positions, eos) = (opening.positions, opening.eos);
    let network = Network::new(opening, options, &train)?;
    let facts = Facts { tokenizer, positions, eos };
    Run::new(options, observer, network, train, validation, facts, &cpu)?.go(&mut cpu)
}

/// What `auto` means is the checkpoint's to say, where the run goes on from one.
fn precision(options: &FinetuneOptions) -> Precision {
    let recorded = || options.resume.then(|| checkpoint::fact(&options.output, PRECISION)).flatten();
    match options.precision {
        PrecisionOption::F32 => Precision::F32,
        PrecisionOption::Bf16 => Precision::Bf16,
        PrecisionOption::Auto => match recorded().as_deref() {
            Some(name) if name == Precision::F32.name() => Precision::F32,
            Some(_) => Precision::Bf16,
            None if candlewick_kernels::isa() == Isa::Avx512Bf16 => Precision::Bf16,
            None => Precision::F32,
        },
    }
}

/// What is known about the model.
struct Facts {
    tokenizer: Tokenizer,
    positions: usize,
    eos: Option<u32>,
}

struct Validation {
    examples: Box<dyn Examples>,
    labels: Vec<String>,
    problem_type: Option<ProblemType>,
    options: EvaluateOptions,
}

impl Validation {
    fn model<'a>(&'a self, tokenizer: &'a Tokenizer, positions: usize, eos: Option<u32>) -> Model<'a> {
        let (labels, problem_type) = (&self.labels, self.problem_type);
        Model { tokenizer, positions, eos, labels, problem_type }
    }
}

/// A metric by its name, or its path: `macro.f1`. One that is not defined, such as a correlation of equal numbers, is
/// NaN.
fn metric(metrics: &Map<String, Value>, name: &str) -> Result<f64> {
    let mut parts = name.split('.');
    let first = parts.next().and_then(|part| metrics.get(part));
    let found = first.and_then(|value| parts.try_fold(value, |value, part| value.get(part)));
    let number = found.and_then(|value| if value.is_null() { Some(f64::NAN) } else { value.as_f64() });
    number.ok_or_else(|| {
        let known: Vec<&str> = metrics.keys().map(String::as_str).collect();
        let reason = format!("{name} is no number among {}", known.join(", "));
        TrainError::option("metricForBestModel", reason)
    })
}

/// A run's observer, for an evaluation.
struct Stop<'a>(&'a dyn TrainObserver);

impl Observer for Stop<'_> {
    fn stop(&self) -> bool {
        self.0.stop()
    }
}

struct Run<'a> {
    options: &'a FinetuneOptions,
    observer: &'a dyn TrainObserver,
    network: Network,
    examples: Box<dyn Examples>,
    validation: Option<Validation>,
    facts: Facts,
    plan: Plan,
    steps_per_epoch: u64,
    total: u64,
    optimizer: Optimizer,
    checkpoints: Checkpoints,
    state: State,
    log: Log,
    /// Losses of the last steps.
    recent: VecDeque<f64>,
    /// Step of the last written checkpoint; `None` before the first.
    saved: Option<u64>,
}

impl<'a> Run<'a> {
    fn new(
        options: &'a FinetuneOptions,
        observer: &'a dyn TrainObserver,
        mut network: Network,
        train: Opened,
        validation: Option<Validation>,
        facts: Facts,
        cpu: &Cpu,
    ) -> Result<Self> {
        let mut examples = train.examples;
        if examples.is_empty() || validation.as_ref().is_some_and(|v| v.examples.is_empty()) {
            return Err(TrainError::DataEmpty("the data set".into()));
        }
        let lengths = (0..examples.len())
            .map(|index| Ok(examples.length_hint(index)?.min(u32::MAX as usize) as u32))
            .collect::<Result<Vec<u32>>>()?;
        let plan = Plan::new(options.seed, &lengths, options.batch_size);
        let steps_per_epoch = plan.batches().div_ceil(options.gradient_accumulation_steps) as u64;
        let epochs = (options.epochs * steps_per_epoch as f64).ceil() as u64;
        let total = options.max_steps.unwrap_or(epochs);
        let same = facts_of(options, cpu.precision, &network, &lengths, total);
        let checkpoints =
            Checkpoints::open(&options.output, same, options.save_total_limit, options.keeps_best())?;
        let (restored, skipped) =
            if options.resume { checkpoints.restore(&mut network)? } else { (None, Vec::new()) };
        let (state, resumed_from) = match restored {
            Some(restored) => (restored.state, Some(restored.path)),
            None => (State::default(), None),
        };
        let count = |trainable: bool| {
            let params = network.params.all.iter().filter(|param| param.trainable || !trainable);
            params.map(|param| param.value.len() as u64).sum()
        };
        let unknown_tokens = unknown::share_of(examples.as_mut(), &facts.tokenizer)?;
        observer.event(Event::Start {
            total_steps: total,
            step: state.step,
            steps_per_epoch,
            parameters: count(false),
            trainable_parameters: count(true),
            examples: examples.len() as u64,
            precision: cpu.precision.name(),
            instruction_set: cpu.pool.isa().to_string(),
            unknown_tokens,
            new_parameters: network.new.clone(),
            notes: train.notes,
            resumed_from,
            skipped,
        });
        Ok(Self {
            log: Log::open(&options.output, state.step)?,
            optimizer: Optimizer::new(options, total),
            saved: (state.step > 0).then_some(state.step),
            validation,
            facts,
            recent: VecDeque::new(),
            options,
            observer,
            network,
            examples,
            plan,
            steps_per_epoch,
            total,
            checkpoints,
            state,
        })
    }

    fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.steps_per_epoch as f64
    }

    fn go(mut self, cpu: &mut Cpu) -> Result<()> {
        let mut order = None;
        let finish = loop {
            match self.turn(cpu, &mut order) {
                Ok(None) => {}
                Ok(Some(finish)) => break finish,
                Err(TrainError::Aborted) => break Finish::Cancelled,
                Err(error) => return Err(error),
            }
        };
        if self.saved != Some(self.state.step) && self.state.step > 0 {
            self.save()?;
        }
        if finish != Finish::Cancelled {
            if self.options.keeps_best()
                && let Some(best) = self.state.best_step.filter(|best| *best != self.state.step)
            {
                self.checkpoints.load_weights(best, &mut self.network)?;
            }
            self.network.publish(cpu, &self.options.output)?;
        }
        let recent = self.recent.iter().sum::<f64>() / self.recent.len() as f64;
        self.observer.event(Event::Done {
            step: self.state.step,
            epoch: self.epoch(self.state.step),
            finish_reason: finish,
            loss: (!self.recent.is_empty()).then_some(recent),
            best_step: self.state.best_step,
            best_metric: self.state.best_metric,
            output: self.options.output.clone(),
            tokens: self.state.tokens,
            seconds: self.state.seconds,
        });
        Ok(())
    }

    /// Evaluates and writes checkpoints as due after the last step (which a resumed run may still owe), then takes the
    /// next step, if there is one.
    fn turn(&mut self, cpu: &mut Cpu, order: &mut Option<(u64, Vec<Vec<u32>>)>) -> Result<Option<Finish>> {
        let step = self.state.step;
        let last = step == self.total;
        let due = |steps: Option<u64>| {
            last || step > 0 && step.is_multiple_of(steps.unwrap_or(self.steps_per_epoch))
        };
        let (evaluates, saves) = (due(self.options.eval_steps), due(self.options.save_steps));
        let evaluates = evaluates && self.validation.is_some() && self.state.evaluated != Some(step);
        let best = evaluates && self.evaluate(cpu)?;
        if self.saved != Some(step) && (saves || (best && self.options.keeps_best())) {
            self.save()?;
        }
        if self.options.early_stopping_patience.is_some_and(|patience| self.state.worse >= patience) {
            return Ok(Some(Finish::EarlyStopping));
        }
        if last {
            return Ok(Some(Finish::Completed));
        }
        let epoch = step / self.steps_per_epoch;
        let batches = match order.take() {
            Some((of, batches)) if of == epoch => batches,
            _ => {
                self.examples.set_epoch(epoch);
                self.plan.epoch(epoch)
            }
        };
        let stepped = self.step(cpu, epoch, &batches);
        *order = Some((epoch, batches));
        stepped.map(|()| None)
    }

    /// One optimiser step over a window of batches. The loss is the mean over all targets of the window, so it does not
    /// matter into how many batches they are split.
    fn step(&mut self, cpu: &mut Cpu, epoch: u64, batches: &[Vec<u32>]) -> Result<()> {
        let started = Instant::now();
        let accumulation = self.options.gradient_accumulation_steps;
        let first = (self.state.step % self.steps_per_epoch) as usize * accumulation;
        let window = &batches[first..batches.len().min(first + accumulation)];
        let mut loaded: Vec<Vec<Example>> = Vec::with_capacity(window.len());
        for batch in window {
            loaded.push(batch.iter().map(|row| self.examples.get(*row as usize)).collect::<Result<_>>()?);
        }
        let mut targets = 0;
        let mut tokens = 0;
        for batch in &loaded {
            targets += self.network.targets(batch)?;
            let of = |example: &Example| {
                example.input_ids.len() + example.pair.as_ref().map_or(0, |pair| pair.input_ids.len())
            };
            tokens += batch.iter().map(|example| of(example) as u64).sum::<u64>();
        }
        let pass =
            Pass::Train { scale: 1.0 / targets.max(1) as f32, smoothing: self.options.label_smoothing };
        let mut outcome = Outcome::default();
        let not_finite = |loss: f64, batch: usize| TrainError::LossNotFinite {
            loss: loss as f32,
            step: self.state.step + 1,
            epoch,
            batch: (first + batch) as u64,
        };
        self.network.params.forget_gradients();
        {
            let observer = self.observer;
            let stop = || observer.stop();
            for (micro, batch) in loaded.iter().enumerate() {
                cpu.train(self.options.seed, self.state.step, micro as u64);
                let part = self.network.run(cpu, batch, pass, &stop)?;
                if !part.loss.is_finite() {
                    return Err(not_finite(part.mean(), micro));
                }
                outcome.add(part);
            }
        }
        let norm = self.optimizer.gradient_norm(cpu, &mut self.network.params);
        if !norm.is_finite() {
            return Err(not_finite(f64::NAN, 0));
        }
        let learning_rate = self.optimizer.learning_rate(self.state.step);
        self.optimizer.step(cpu, &mut self.network.params, self.state.step, norm);
        self.state.step += 1;
        self.state.tokens += tokens;
        let seconds = started.elapsed().as_secs_f64();
        self.state.seconds += seconds;
        let loss = outcome.mean();
        self.recent.push_back(loss);
        if self.recent.len() > 100 {
            self.recent.pop_front();
        }
        self.tell(Event::Step {
            step: self.state.step,
            total_steps: self.total,
            epoch: self.epoch(self.state.step),
            loss,
            learning_rate,
            gradient_norm: norm,
            tokens,
            seconds,
        })
    }

    fn tell(&mut self, event: Event) -> Result<()> {
        self.log.write(&event)?;
        self.observer.event(event);
        Ok(())
    }

    /// Whether it is the best so far.
    fn evaluate(&mut self, cpu: &mut Cpu) -> Result<bool> {
        let started = Instant::now();
        let (observer, validation) =
            (self.observer, self.validation.as_ref().expect("the caller has looked"));
        let stop = || observer.stop();
        let model = validation.model(&self.facts.tokenizer, self.facts.positions, self.facts.eos);
        let mut predictor = InTraining { network: &mut self.network, cpu, stop: &stop };
        let evaluation = evaluate::evaluate(&mut predictor, &model, &validation.options, &Stop(observer))?;
        let mut metrics = evaluation.metrics;
        if !metrics.contains_key(LOSS) {
            // The contrastive loss of pairs is defined within a batch only.
            let loss = self.loss(cpu)?;
            metrics.insert(LOSS.into(), json!(loss));
        }
        let Some(loss) = metrics[LOSS].as_f64() else { return Err(self.not_finite()) };
        let metric = metric(&metrics, &self.options.metric_for_best_model)?;
        let better = |best| if self.options.greater_is_better() { metric > best } else { metric < best };
        let best = !metric.is_nan() && self.state.best_metric.is_none_or(better);
        if best {
            (self.state.best_step, self.state.best_metric) = (Some(self.state.step), Some(metric));
            self.state.worse = 0;
        } else {
            self.state.worse += 1;
        }
        self.state.evaluated = Some(self.state.step);
        let (step, epoch) = (self.state.step, self.epoch(self.state.step));
        let seconds = started.elapsed().as_secs_f64();
        self.tell(Event::Evaluation { step, epoch, loss, metrics, best, seconds })?;
        Ok(best)
    }

    /// The mean over the validation set's targets, in batches as in training.
    fn loss(&mut self, cpu: &mut Cpu) -> Result<f64> {
        cpu.evaluate();
        let mut outcome = Outcome::default();
        let observer = self.observer;
        let stop = || observer.stop();
        let examples = &mut self.validation.as_mut().expect("the caller has looked").examples;
        for first in (0..examples.len()).step_by(self.options.batch_size) {
            let rows = first..examples.len().min(first + self.options.batch_size);
            let batch = rows.map(|row| examples.get(row)).collect::<Result<Vec<_>>>()?;
            outcome.add(self.network.run(cpu, &batch, Pass::Evaluate, &stop)?);
        }
        Ok(outcome.mean())
    }

    /// The last step gave values that are not finite: they are not saved, so that no good checkpoint is replaced.
    fn not_finite(&self) -> TrainError {
        let last = self.state.step.saturating_sub(1);
        let (epoch, window) = (last / self.steps_per_epoch, last % self.steps_per_epoch);
        let batch = window * self.options.gradient_accumulation_steps as u64;
        TrainError::LossNotFinite { loss: f32::NAN, step: self.state.step, epoch, batch }
    }

    fn save(&mut self) -> Result<()> {
        if !self.network.is_finite() {
            return Err(self.not_finite());
        }
        let path = self.checkpoints.save(&self.network, &self.state)?;
        self.saved = Some(self.state.step);
        self.tell(Event::Checkpoint { step: self.state.step, path })
    }
}

/// The facts that must be equal for a run to resume a checkpoint; then it continues with the same bits.
fn facts_of(
    options: &FinetuneOptions,
    precision: Precision,
    network: &Network,
    lengths: &[u32],
    total: u64,
) -> BTreeMap<String, String> {
    let mut shapes = crc32fast::Hasher::new();
    for param in &network.params.all {
        shapes.update(format!("{} {:?} {};", param.name, param.shape, param.trainable).as_bytes());
    }
    let mut rows = crc32fast::Hasher::new();
    lengths.iter().for_each(|length| rows.update(&length.to_le_bytes()));
    let optimizer = (
        (options.learning_rate, options.weight_decay, options.max_grad_norm, options.lr_scheduler_type),
        (options.optimizer, options.adam_beta1, options.adam_beta2, options.adam_epsilon),
        (options.warmup_steps, options.warmup_ratio, options.label_smoothing, options.dropout),
    );
    let facts = [
        ("task", format!("{:?}", options.task)),
        ("model's parameters", format!("{:08x}", shapes.finalize())),
        ("training data", format!("{} rows, {:08x}", lengths.len(), rows.finalize())),
        ("seed", options.seed.to_string()),
        (PRECISION, precision.name().to_owned()),
        ("batchSize", options.batch_size.to_string()),
        ("gradientAccumulationSteps", options.gradient_accumulation_steps.to_string()),
        ("steps", total.to_string()),
        ("optimiser's options", format!("{optimizer:?}")),
        ("lora", network.adapter.as_ref().map_or_else(String::new, Adapter::facts)),
    ];
    facts.map(|(name, value)| (name.to_string(), value)).into_iter().collect()
}
