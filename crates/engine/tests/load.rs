//! Exact under load: what a request gets alone it gets beside 31 others, with a shared beginning, in a memory that is
//! too small for all, with guesses and without, while others leave, with one thread and two, in every dtype.
//!
//! `CANDLEWICK_LOAD=1000 cargo test --release -p candlewick-engine --test load` is the long form; without it a few
//! dozen requests run.

mod support;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use candlewick_engine::*;
use support::*;

const TOGETHER: usize = 32;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A model that is asked, and what it is asked.
struct Subject {
    source: PathBuf,
    adapters: Vec<(String, String)>,
    request: fn(usize) -> GenerateRequest,
}

fn subjects() -> [Subject; 2] {
    let fixtures = root().join("__test__/fixtures");
    let adapter = |name: &str| (name.to_string(), fixtures.join("adapters").join(name).display().to_string());
    [
        Subject { source: root().join("models/default"), adapters: Vec::new(), request: of_text },
        Subject {
            source: fixtures.join("gpt2-base"),
            adapters: vec![adapter("all"), adapter("stabilised")],
            request: of_ids,
        },
    ]
}

impl Subject {
    fn load(&self, dtype: Dtype, threads: usize, kv_cache_bytes: Option<u64>) -> Generator {
        let mut request = LoadRequest::new(self.source.display().to_string());
        request.options = LoadOptions {
            dtype: Some(dtype),
            device: Device::Cpu,
            threads,
            kv_cache_bytes,
            adapters: self.adapters.clone(),
            ..LoadOptions::default()
        };
        wait(|done| Generator::load(request, done)).unwrap()
    }
}

fn vary(i: usize, o: &mut GenerateOptions) {
    (o.seed, o.max_new_tokens) = (Some(i as u64), Some(8 + hash(&[i as u32], 2) as usize % 40));
    match i % 8 {
        0 => o.temperature = 0.0,
        1 => (o.n, o.top_p) = (3, 0.9),
        2 => (o.num_beams, o.num_return_sequences) = (3, 2),
        3 => (o.temperature, o.repetition_penalty, o.logprobs) = (0.7, 1.2, Some(3)),
        4 => (o.temperature, o.stop) = (0.9, vec!["。".into(), " the".into(), "\n".into()]),
        5 => (o.top_k, o.frequency_penalty, o.presence_penalty) = (30, 0.3, 0.1),
        6 => (o.min_p, o.no_repeat_ngram_size, o.logprobs) = (0.05, 3, Some(0)),
        _ => (o.temperature, o.min_new_tokens) = (0.0, 6),
    }
}

/// English and Chinese, with beginnings in common; some with several prompts, some that repeat themselves.
fn of_text(i: usize) -> GenerateRequest {
    const SHARED: [&str; 4] = [
        "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of \
         a wife. However little known the feelings or views of such a man may be on his first entering a \
         neighbourhood, this truth is so well fixed in the minds of the surrounding families. ",
        "我们很高兴能够与您合作！我们的产品已经在许多国家销售，客户的反馈非常好。请您介绍一下贵公司的情况，我们希望能够尽快开始合作。",
        "one two three, one two three, one two three, one two three, one two three, one two ",
        "",
    ];
    const ENDS: [&str; 5] = ["The", "今天天气", "She said", "他", "{\"name\": \"a\", \"name\": "];
    let prompt = |k: usize| {
        let shared: String = SHARED[(i + k) % 4].chars().take(40 + i * 7 % 300).collect();
        text(&format!("{shared}{}", ENDS[(i / 4 + k) % 5]))
    };
    request((0..1 + i % 3 / 2).map(prompt).collect(), |o| vary(i, o))
}

fn of_ids(i: usize) -> GenerateRequest {
    let shared = (0..40).map(|k| (k * k + i as u32 % 3) % 200);
    let own = (0..1 + i as u32 % 30).map(|k| (k * 7 + i as u32) % 200);
    request(vec![Prompt::Ids(shared.chain(own).collect())], |o| {
        vary(i, o);
        o.stop.clear();
        o.adapter = [None, Some("all"), Some("stabilised")][i / 8 % 3].map(str::to_owned);
    })
}

#[test]
fn nobody_else_changes_a_byte() {
    let all: usize = std::env::var("CANDLEWICK_LOAD").ok().and_then(|n| n.parse().ok()).unwrap_or(96);
    for subject in subjects() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Q8_0, Dtype::Q4_0] {
            let count = all.div_ceil(8);
            let without_tokenizer = |request: &mut GenerateRequest, model: &Generator| {
                if model.tokenizer_vocab_size().is_none() {
                    request.options.stop.clear();
                }
            };
            let ask = |model: &Generator, i: usize, speculation| {
                let mut request = (subject.request)(i);
                without_tokenizer(&mut request, model);
                if request.options.num_beams == 1 {
                    request.options.speculation = speculation;
                }
                request
            };
            let alone = subject.load(dtype, 1, None);
            // Guesses for the others, in other numbers than theirs.
            let drafting = subject.load(if dtype == Dtype::Q4_0 { Dtype::F32 } else { Dtype::Q4_0 }, 1, None);
            let expected: Vec<_> = (0..count)
                .map(|i| {
                    // A scope of its own for each: nothing is shared.
                    let mut request = ask(&alone, i, Speculation::Off);
                    request.options.scope = Some(i.to_string());
                    run(&alone, request).unwrap().sequences
                })
                .collect();
            // Blocks for two sequences, for 32 requests of up to three.
            let stats = alone.stats();
            let one = alone.info().n_positions.div_ceil(stats.block_positions) * stats.block_bytes;
            for threads in [1, 2] {
                let bytes = (2 * one).max(10 * stats.block_bytes);
                let model = subject.load(dtype, threads, Some(bytes as u64));
                let next = AtomicUsize::new(0);
                std::thread::scope(|scope| {
                    for worker in 0..TOGETHER {
                        let (model, next, expected, ask, drafting) =
                            (&model, &next, &expected, &ask, &drafting);
                        scope.spawn(move || {
                            loop {
                                let i = next.fetch_add(1, Ordering::SeqCst);
                                if i >= count {
                                    return;
                                }
                                let speculation = || match i % 5 {
                                    0 | 1 => Speculation::Lookup,
                                    2 | 3 => Speculation::Draft(drafting.as_draft()),
                                    _ => Speculation::Off,
                                };
                                if hash(&[i as u32, worker as u32], 3).is_multiple_of(4) {
                                    // Somebody who leaves, now or after a token.
                                    let stream = model.generate(ask(model, i + 1, speculation())).unwrap();
                                    if i % 2 == 0 {
                                        let _ = support::next(&stream, 1);
                                    }
                                }
                                let found = run(model, ask(model, i, speculation())).unwrap().sequences;
                                assert!(
                                    found == expected[i],
                                    "{dtype:?}, {threads} threads, request {i}\n{:?}\n{:?}",
                                    found.iter().map(ids).collect::<Vec<_>>(),
                                    expected[i].iter().map(ids).collect::<Vec<_>>()
                                );
                            }
                        });
                    }
                });
                let stats = model.stats();
                let name = subject.source.file_name().unwrap_or_default().to_string_lossy().into_owned();
                eprintln!(
                    "{name} {dtype:?} {threads} threads: {count} requests, {} pauses, {} of {} prompt tokens shared, {} of \
                     {} guesses right",
                    stats.pauses,
                    stats.cached_tokens,
                    stats.prompt_tokens,
                    stats.accepted_tokens,
                    stats.drafted_tokens
                );
                until("all given back", || {
                    let stats = model.stats();
                    stats.free_blocks + stats.prefix_blocks == stats.blocks && stats.running == 0
                });
            }
        }
    }
}
