//! What is generated: the same alone and in company, and what each option does to it.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use candlewick_engine::*;
use support::*;

fn greedy(prompt: &str, count: usize) -> Vec<u32> {
    let mut tokens: Vec<u32> = prompt.bytes().map(u32::from).collect();
    let mut logits = vec![0.0; VOCAB];
    for _ in 0..count {
        hashed(&tokens, &mut logits);
        let best = (0..VOCAB).reduce(|a, b| if logits[b] > logits[a] { b } else { a }).unwrap();
        tokens.push(best as u32);
    }
    tokens.split_off(prompt.len())
}

#[test]
fn greedy_is_the_likeliest_token_each_time() {
    let model = Toy::hashed().start();
    for prompt in ["a", "a longer prompt", &"x".repeat(900)] {
        let sequence = run_one(&model, prompt, |o| o.temperature = 0.0).unwrap();
        assert_eq!(ids(&sequence), greedy(prompt, 20));
        assert_eq!(sequence.finish_reason, FinishReason::Length);
    }
}

/// A prompt is read in chunks, and each shares its pass over the weights with those who decode.
#[test]
fn a_long_prompt_is_read_in_chunks_beside_those_who_decode() {
    let mut toy = Toy::hashed();
    toy.delay = Duration::from_micros(100);
    let watch = toy.watch();
    let model = toy.start();
    run_one(&model, &"p".repeat(900), |o| o.max_new_tokens = Some(1)).unwrap();
    let alone: Vec<usize> = watch.steps.lock().unwrap().iter().map(|step| step[0].1).collect();
    assert_eq!(alone, [256, 256, 256, 132], "nobody is held up");
    let decoding = begin(&model, "short", |o| o.max_new_tokens = Some(60));
    next(&decoding, 1).unwrap().unwrap();
    let from = watch.passes();
    let long = begin(&model, &"q".repeat(900), |o| o.max_new_tokens = Some(1));
    read(&long).unwrap();
    let steps = watch.steps.lock().unwrap()[from..].to_vec();
    let reading: Vec<_> = steps.iter().filter(|step| step.iter().any(|(_, tokens)| *tokens > 1)).collect();
    assert!(reading.len() >= 4, "{steps:?}");
    assert!(reading.iter().all(|step| step.len() == 2), "the other one goes on in every step: {steps:?}");
    assert_eq!(read(&decoding).unwrap().len(), 59);
}

#[test]
fn no_step_takes_longer_than_it_may() {
    let mut toy = Toy::hashed();
    // A token takes 0.2 ms in each of 4 layers.
    toy.per_token = Duration::from_micros(200);
    toy.limits.max_step = Duration::from_millis(20);
    let watch = toy.watch();
    let model = toy.start();
    let decoding: Vec<_> =
        (0..4).map(|i| begin(&model, &format!("{i}"), |o| o.max_new_tokens = Some(60))).collect();
    read(&begin(&model, &"q".repeat(600), |o| o.max_new_tokens = Some(1))).unwrap();
    decoding.iter().for_each(|stream| drop(read(stream).unwrap()));
    let sizes: Vec<usize> =
        watch.steps.lock().unwrap().iter().map(|step| step.iter().map(|(_, tokens)| tokens).sum()).collect();
    // 64 tokens in the first step, whose speed nobody knows, then what fits.
    let late = sizes.iter().skip(4).filter(|tokens| **tokens > 25).count();
    assert!(late == 0, "{sizes:?}");
    assert!(sizes.iter().filter(|tokens| **tokens > 8).count() > 20, "{sizes:?}");
}

/// Alone, a prompt is read in long chunks. Who comes meanwhile does not wait for the end of one: it is left, and read
/// again in shorter ones.
#[test]
fn a_newcomer_ends_a_long_step() {
    let toy = Toy::hashed().with(|info| info.layers = 100);
    let watch = toy.watch();
    let model = toy.start();
    let expected = run_one(&Toy::hashed().start(), &"long ".repeat(150), |_| {}).unwrap();
    watch.hold();
    let long = begin(&model, &"long ".repeat(150), |_| {});
    until("in the first layer", || watch.layers.load(Ordering::SeqCst) == 1);
    let ids = Prompt::Ids(b"short".map(u32::from).to_vec());
    let short = model.generate(request(vec![ids], |_| {})).unwrap();
    watch.release();
    assert_eq!(read(&short).unwrap().len(), 20);
    assert_eq!(read(&long).unwrap(), expected.tokens);
    let steps = watch.steps.lock().unwrap();
    assert_eq!(steps[0], [(0, 256)]);
    assert_eq!(steps[1].iter().map(|(start, _)| *start).collect::<Vec<_>>(), [0, 0], "{:?}", steps[1]);
    assert!(
        !watch.layers.load(Ordering::SeqCst).is_multiple_of(100),
        "the first step was left in the middle"
    );
}

/// Sampled, greedy, penalised, several samples, beams: all at once or each alone.
#[test]
fn company_changes_nothing() {
    let requests = || -> Vec<GenerateRequest> {
        let prompts = |i: usize| vec![text(&format!("{}{i}", "p".repeat(i * 40))), text("second")];
        (0..8)
            .map(|i| {
                request(prompts(i), |o| {
                    o.seed = Some(i as u64);
                    o.max_new_tokens = Some(10 + 5 * i);
                    o.logprobs = (i % 3 == 0).then_some(2);
                    match i % 4 {
                        0 => o.temperature = 0.0,
                        1 => (o.n, o.top_k, o.temperature) = (3, 20, 0.7),
                        2 => (o.num_beams, o.num_return_sequences) = (4, 2),
                        _ => (o.repetition_penalty, o.top_p, o.frequency_penalty) = (1.2, 0.9, 0.1),
                    }
                })
            })
            .collect()
    };
    let model = Toy::hashed().start();
    let alone: Vec<_> = requests().into_iter().map(|r| run(&model, r).unwrap().sequences).collect();
    let model = Toy::hashed().start();
    let together: Vec<_> = std::thread::scope(|scope| {
        let model = &model;
        let threads: Vec<_> =
            requests().into_iter().map(|r| scope.spawn(move || run(model, r).unwrap().sequences)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
    // A prompt of several is the same as that prompt by itself.
    for (index, request) in requests().into_iter().enumerate() {
        let only = GenerateRequest { prompts: vec![request.prompts[1].clone()], options: request.options };
        let only = run(&model, only).unwrap().sequences;
        let whole = &alone[index][alone[index].len() - only.len()..];
        for (a, b) in only.iter().zip(whole) {
            assert_eq!((ids(a), &a.text, a.score), (ids(b), &b.text, b.score));
        }
    }
}

#[test]
fn hundreds_of_prompts_share_the_model_with_a_newcomer() {
    let mut toy = Toy::hashed();
    toy.delay = Duration::from_micros(20);
    let watch = toy.watch();
    let model = toy.start();
    let many: Vec<Prompt> = (0..300).map(|i| text(&format!("prompt {i}"))).collect();
    let stream = model.generate(request(many, |_| {})).unwrap();
    let reader = std::thread::spawn({
        let stream = stream.clone();
        move || read(&stream).unwrap().len()
    });
    next(&stream, 1).unwrap().unwrap();
    // The other request's forty prompts end before the three hundred: a freed place goes to the request with the
    // fewest running sequences.
    let few: Vec<Prompt> = (0..40).map(|i| text(&format!("newcomer {i}"))).collect();
    run(&model, request(few, |_| {})).unwrap();
    assert!(call(|done| stream.result(done)).is_ready().is_none(), "the newcomer did not wait for all");
    let rest = reader.join().unwrap();
    assert_eq!(rest + 1, 300 * 20);
    let widest = watch.steps.lock().unwrap().iter().map(Vec::len).max().unwrap();
    assert!((60..=128).contains(&widest), "{widest}");
    let result = wait(|done| stream.result(done)).unwrap();
    assert!(result.sequences.iter().enumerate().all(|(i, s)| s.prompt == i && s.tokens.len() == 20));
}

#[test]
fn seeds_repeat_and_differ() {
    let model = Toy::hashed().start();
    let with = |seed| run(&model, request(vec![text("seed")], |o| o.seed = seed)).unwrap();
    let seven = with(Some(7));
    assert_eq!(seven.seed, 7);
    assert_eq!(with(Some(7)).sequences, seven.sequences);
    assert_ne!(with(Some(8)).sequences, seven.sequences);
    let fresh = with(None);
    assert_ne!(with(None).seed, fresh.seed);
    assert_eq!(with(Some(fresh.seed)).sequences, fresh.sequences, "the reported seed repeats the result");
}

#[test]
fn a_stream_resumes_at_any_token() {
    let model = Toy::hashed().start();
    let change = |o: &mut GenerateOptions| (o.temperature, o.repetition_penalty) = (0.9, 1.1);
    let whole = ids(&run_one(&model, "resume me", change).unwrap());
    for cut in [1, 7, 19] {
        let mut so_far: Vec<u32> = "resume me".bytes().map(u32::from).collect();
        so_far.extend(&whole[..cut]);
        let rest = request(vec![Prompt::Ids(so_far)], |o| {
            change(o);
            o.max_new_tokens = Some(20 - cut);
        });
        assert_eq!(ids(&run(&model, rest).unwrap().sequences[0]), whole[cut..]);
    }
}

#[test]
fn n_samples_share_one_prefill_and_nothing_else() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    let one = run_one(&model, "several samples", |_| {}).unwrap();
    let before = watch.passes();
    let prompt = "another prompt".to_string();
    let result = run(&model, request(vec![text(&prompt)], |o| o.n = 4)).unwrap();
    let steps = watch.steps.lock().unwrap()[before..].to_vec();
    assert_eq!(steps[0], [(0, prompt.len())], "prefilled once");
    assert!(steps[1..].iter().all(|step| step.len() == 4));
    assert_eq!(result.usage.prompt_tokens, prompt.len());
    assert_eq!(result.usage.completion_tokens, 80);
    let texts: std::collections::HashSet<_> = result.sequences.iter().map(ids).collect();
    assert_eq!(texts.len(), 4, "four different samples");
    let again = run(&model, request(vec![text("several samples")], |o| o.n = 4)).unwrap();
    assert_eq!(again.sequences[0].tokens, one.tokens, "the first of n is the one of one");
}

#[test]
fn several_prompts_come_back_in_their_order() {
    let model = Toy::hashed().start();
    let prompts: Vec<Prompt> = ["one", "two", "three"].map(text).to_vec();
    let result = run(&model, request(prompts, |o| o.n = 2)).unwrap();
    assert_eq!(result.sequences.iter().map(|s| s.prompt).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2]);
    assert_eq!(result.usage.prompt_tokens, 11);
}

#[test]
fn a_known_beginning_is_not_computed_again() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    let system = "the same long instructions for every question; ".to_string();
    let cold = run(&model, request(vec![text(&(system.clone() + "first"))], |_| {})).unwrap();
    assert_eq!(cold.usage.cached_tokens, 0);
    let before = watch.passes();
    let warm = run(&model, request(vec![text(&(system.clone() + "second"))], |_| {})).unwrap();
    assert_eq!(warm.usage.cached_tokens, system.len());
    assert_eq!(watch.steps.lock().unwrap()[before], [(system.len(), "second".len())]);
    let fresh = Toy::hashed().start();
    let expected = run(&fresh, request(vec![text(&(system.clone() + "second"))], |_| {})).unwrap();
    assert_eq!(warm.sequences, expected.sequences);
    // The same prompt again: all but its last token, whose logits are needed.
    let again = run(&model, request(vec![text(&(system.clone() + "second"))], |_| {})).unwrap();
    assert_eq!(again.usage.cached_tokens, system.len() + "second".len() - 1);
    assert_eq!(again.sequences, expected.sequences);
    // The next turn of a dialogue: prompt and answer of the last.
    let mut dialogue: Vec<u32> = (system.clone() + "second").bytes().map(u32::from).collect();
    dialogue.extend(ids(&again.sequences[0]));
    let known = dialogue.len() - 1;
    dialogue.extend(b"and".map(u32::from));
    let turn = run(&model, request(vec![Prompt::Ids(dialogue.clone())], |_| {})).unwrap();
    assert_eq!(turn.usage.cached_tokens, known, "the last token of the answer was never fed");
    let expected = run(&fresh, request(vec![Prompt::Ids(dialogue)], |_| {})).unwrap();
    assert_eq!(turn.sequences, expected.sequences);
    let stats = model.stats();
    assert_eq!(stats.prompt_tokens, 52 + 53 + 53 + 76);
    assert_eq!(stats.cached_tokens as usize, 2 * system.len() + "secon".len() + known);
}

/// What was asked in one scope is not to be found out in another: neither counted nor, as the model's steps show, by
/// the time it takes.
#[test]
fn a_beginning_is_shared_within_its_scope_only() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    let ask = |scope: Option<&str>| {
        let before = watch.passes();
        let scope = scope.map(str::to_owned);
        let prompt = text(&"a secret that somebody told the model ".repeat(2));
        let result = run(&model, request(vec![prompt], |o| o.scope = scope)).unwrap();
        let first = watch.steps.lock().unwrap()[before][0];
        assert_eq!(first.0, result.usage.cached_tokens, "{first:?}");
        (result.usage.cached_tokens, result.sequences)
    };
    let (cached, expected) = ask(Some("alice"));
    assert_eq!(cached, 0);
    for (scope, cached) in [(Some("bob"), 0), (None, 0), (Some("alice"), 75), (Some("bob"), 75), (None, 75)] {
        assert_eq!(ask(scope), (cached, expected.clone()), "{scope:?}");
    }
}

/// A beginning is shared as soon as it is computed, by whoever comes while the first one runs.
#[test]
fn a_running_sequence_shares_its_beginning() {
    let mut toy = Toy::hashed();
    toy.delay = Duration::from_micros(200);
    let model = toy.start();
    let first = begin(&model, &"shared ".repeat(20), |o| o.max_new_tokens = Some(400));
    next(&first, 1).unwrap().unwrap();
    let second = run(&model, request(vec![text(&("shared ".repeat(20) + "and more"))], |_| {})).unwrap();
    // Whole blocks, and of the next one what is known, once the first sequence has filled it.
    assert!((136..=140).contains(&second.usage.cached_tokens), "{}", second.usage.cached_tokens);
    assert!(call(|done| first.result(done)).is_ready().is_none(), "the first one still runs");
}

#[test]
fn logprobs_are_of_the_raw_model() {
    let model = Toy::hashed().start();
    let sequence = run_one(&model, "logprobs", |o| {
        (o.logprobs, o.temperature, o.top_k, o.repetition_penalty) = (Some(3), 0.3, 5, 1.5);
    })
    .unwrap();
    let mut tokens: Vec<u32> = "logprobs".bytes().map(u32::from).collect();
    let mut logits = vec![0.0; VOCAB];
    for token in &sequence.tokens {
        hashed(&tokens, &mut logits);
        let log_sum = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        let expected = |id: u32| f64::from(logits[id as usize]) - log_sum;
        assert!((f64::from(token.logprob.unwrap()) - expected(token.id)).abs() < 1e-5);
        let top = token.top_logprobs.as_ref().unwrap();
        assert_eq!(top.len(), 3);
        let mut order: Vec<u32> = (0..VOCAB as u32).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        for ((id, text, logprob), best) in top.iter().zip(order) {
            assert_eq!(*id, best);
            assert!((f64::from(*logprob) - expected(best)).abs() < 1e-5);
            let shown =
                if *id == EOS { "<end>".into() } else { String::from_utf8_lossy(&[*id as u8]).into_owned() };
            assert_eq!(*text, shown);
        }
        tokens.push(token.id);
    }
    let none = run_one(&model, "logprobs", |o| o.logprobs = Some(0)).unwrap();
    assert!(none.tokens.iter().all(|t| t.logprob.is_some() && t.top_logprobs.as_deref() == Some(&[])));
}

#[test]
fn an_end_token_is_the_last_token_and_not_in_the_text() {
    let model = Toy::says(1, "done".as_bytes()).start();
    let sequence = run_one(&model, ">", |_| {}).unwrap();
    assert_eq!((sequence.text.as_str(), sequence.finish_reason), ("done", FinishReason::Stop));
    assert_eq!(ids(&sequence).last(), Some(&EOS));
    assert_eq!(sequence.stop_sequence, None);
    let on = run_one(&model, ">", |o| o.ignore_eos = true).unwrap();
    assert_eq!((on.tokens.len(), on.text.as_str(), on.finish_reason), (20, "done", FinishReason::Length));
    let min = run_one(&model, ">", |o| (o.min_new_tokens, o.temperature) = (6, 0.0)).unwrap();
    assert_eq!(min.tokens.len(), 7, "banned until there are six");
    let at = run_one(&model, ">", |o| o.stop_token_ids = vec![u32::from(b'n')]).unwrap();
    assert_eq!((at.text.as_str(), at.finish_reason), ("do", FinishReason::Stop));
}

#[test]
fn stop_strings_cut_the_text_wherever_tokens_end() {
    let model = Toy::says(1, "one two\n\nthree".as_bytes()).start();
    let stopped = |stop: &[&str]| {
        run_one(&model, ">", |o| o.stop = stop.iter().map(ToString::to_string).collect()).unwrap()
    };
    let sequence = stopped(&["\n\n"]);
    assert_eq!((sequence.text.as_str(), sequence.finish_reason), ("one two", FinishReason::Stop));
    assert_eq!(sequence.stop_sequence.as_deref(), Some("\n\n"));
    assert_eq!(sequence.tokens.len(), 9, "no token after the stop string");
    assert_eq!(stopped(&["two\n\nfour", "ree"]).text, "one two\n\nth");
    assert_eq!(
        stopped(&["absent", "three!"]).text,
        "one two\n\nthree",
        "what was held back comes at the end"
    );
    let early = run_one(&model, ">", |o| (o.stop, o.min_new_tokens) = (vec!["o".into()], 4)).unwrap();
    assert_eq!(early.text, "one tw", "the first o comes too early to stop at");
}

#[test]
fn characters_never_tear() {
    let story = "我们很高兴🙂👨‍👩‍👧能够 ok";
    let model = Toy::says(1, story.as_bytes()).start();
    for length in 1..=story.len() + 1 {
        let sequence = run_one(&model, ">", |o| o.max_new_tokens = Some(length)).unwrap();
        let (last, before) = sequence.tokens.split_last().unwrap();
        assert!(before.iter().all(|token| !token.text.contains('\u{FFFD}')));
        // Cut inside a character, the text ends before it; the tokens are all there.
        let whole = (0..=length.min(story.len())).rev().find(|at| story.is_char_boundary(*at)).unwrap();
        assert_eq!(sequence.text, story[..whole]);
        assert!(!last.text.contains('\u{FFFD}'));
        assert_eq!(sequence.tokens.len(), length);
    }
}

#[test]
fn how_many_tokens_fit() {
    let model = Toy::hashed().with(|info| info.n_positions = 100).start();
    let long = "x".repeat(90);
    let length = |prompt: &str, change: fn(&mut GenerateOptions)| {
        run(&model, request(vec![text(prompt)], change))
            .map(|r| (r.usage.prompt_tokens, r.usage.completion_tokens))
    };
    assert_eq!(length("x", |o| o.max_new_tokens = None).unwrap(), (1, 50));
    assert_eq!(length(&long, |o| o.max_new_tokens = None).unwrap(), (90, 10));
    assert_eq!(length(&long, |o| o.max_new_tokens = Some(10)).unwrap(), (90, 10));
    let left = |o: &mut GenerateOptions| (o.max_new_tokens, o.truncate) = (Some(40), Truncate::Left);
    assert_eq!(length(&long, left).unwrap(), (60, 40));
    assert_eq!(
        length(&long.repeat(9), |o| (o.max_new_tokens, o.truncate) = (None, Truncate::Left)).unwrap(),
        (50, 50)
    );
    let overflow = |prompt: &str, change: fn(&mut GenerateOptions)| match length(prompt, change) {
        Err(EngineError::ContextOverflow { prompt, requested, limit }) => (prompt, requested, limit),
        other => panic!("{other:?}"),
    };
    assert_eq!(overflow(&long, |o| o.max_new_tokens = Some(11)), (90, 11, 100));
    // A minimal length is also asked for.
    assert_eq!(length("x", |o| (o.max_new_tokens, o.min_new_tokens) = (None, 60)).unwrap(), (1, 60));
    assert_eq!(overflow(&long, |o| (o.max_new_tokens, o.min_new_tokens) = (None, 11)), (90, 11, 100));
    assert_eq!(overflow(&long.repeat(2), |o| o.max_new_tokens = None), (180, 1, 100));
    assert_eq!(
        overflow("x", |o| (o.max_new_tokens, o.truncate) = (Some(100), Truncate::Left)),
        (1, 100, 100)
    );
    // The end is what is kept.
    let tail = run_one(&model, &(long.clone() + "tail"), |o| {
        (o.truncate, o.max_new_tokens) = (Truncate::Left, Some(96));
    });
    assert_eq!(ids(&tail.unwrap()), ids(&run_one(&model, "tail", |o| o.max_new_tokens = Some(96)).unwrap()));
}

#[test]
fn wrong_prompts_come_through_the_stream() {
    let model = Toy::hashed().start();
    let cases = [
        (text(""), "PROMPT_EMPTY"),
        (Prompt::Ids(vec![]), "PROMPT_EMPTY"),
        (Prompt::Ids(vec![1, 257]), "INPUT_INVALID"),
        (text(&"x".repeat(2000)), "CONTEXT_OVERFLOW"),
    ];
    for (prompt, expected) in cases {
        let stream = model.generate(request(vec![text("fine"), prompt], |_| {})).unwrap();
        assert_eq!(code(read(&stream)), expected);
        assert_eq!(code(wait(|done| stream.result(done))), expected);
    }
    assert_eq!(code(model.generate(request(vec![], |_| {})).map(drop)), "PROMPT_EMPTY");
}

#[test]
fn wrong_options_are_refused_at_once_and_by_name() {
    let model = Toy::hashed().start();
    type Change = Box<dyn Fn(&mut GenerateOptions)>;
    let set = |f: fn(&mut GenerateOptions)| -> Change { Box::new(f) };
    let mut cases: Vec<(&str, Change)> = vec![
        ("maxNewTokens", set(|o| o.max_new_tokens = Some(0))),
        ("minNewTokens", set(|o| o.min_new_tokens = 21)),
        ("temperature", set(|o| o.temperature = -0.1)),
        ("temperature", set(|o| o.temperature = 1e-9)),
        ("topP", set(|o| o.top_p = 1.01)),
        ("minP", set(|o| o.min_p = -0.5)),
        ("repetitionPenalty", set(|o| o.repetition_penalty = 0.0)),
        ("repetitionPenalty", set(|o| o.repetition_penalty = -1.0)),
        ("logprobs", set(|o| o.logprobs = Some(21))),
        ("n", set(|o| o.n = 0)),
        ("n", set(|o| o.n = 65)),
        ("numBeams", set(|o| o.num_beams = 0)),
        ("numBeams", set(|o| o.num_beams = 65)),
        ("numReturnSequences", set(|o| o.num_return_sequences = 0)),
        ("numReturnSequences", set(|o| o.num_return_sequences = 2)),
        ("numReturnSequences", set(|o| (o.num_beams, o.num_return_sequences) = (2, 3))),
        ("n", set(|o| (o.num_beams, o.n) = (2, 2))),
        ("temperature", set(|o| (o.num_beams, o.temperature) = (2, 0.7))),
        ("topK", set(|o| (o.num_beams, o.top_k) = (2, 5))),
        ("topP", set(|o| (o.num_beams, o.top_p) = (2, 0.5))),
        ("minP", set(|o| (o.num_beams, o.min_p) = (2, 0.5))),
        ("lengthPenalty", set(|o| o.length_penalty = 2.0)),
        ("earlyStopping", set(|o| o.early_stopping = EarlyStopping::Never)),
        ("logitBias", set(|o| o.logit_bias = vec![(257, 1.0)])),
        ("logitBias", set(|o| o.logit_bias = vec![(1, f32::INFINITY)])),
        ("stop", set(|o| o.stop = vec![String::new()])),
        ("stop", set(|o| o.stop = vec!["x".into(); 65])),
        ("stop", set(|o| o.stop = vec!["x".repeat(4097)])),
        ("stopTokenIds", set(|o| o.stop_token_ids = vec![257])),
        ("stopTokenIds", set(|o| o.stop_token_ids = vec![1; 1025])),
        ("badWords", set(|o| o.bad_words = vec![String::new()])),
        ("badWords", set(|o| o.bad_words = vec!["x".into(); 10_001])),
        ("badWords", set(|o| o.bad_words = vec!["x".repeat(4097)])),
        ("badWords", set(|o| o.bad_word_ids = vec![vec![]])),
        ("badWords", set(|o| o.bad_word_ids = vec![vec![1, 257]])),
        ("badWords", set(|o| o.bad_word_ids = vec![vec![1; 1025]])),
        ("suppressTokens", set(|o| o.suppress_tokens = vec![257])),
        ("suppressTokens", set(|o| o.suppress_tokens = vec![1; 100_001])),
        ("beginSuppressTokens", set(|o| o.begin_suppress_tokens = vec![1, 257])),
    ];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        type Setter = fn(&mut GenerateOptions, f32);
        let each: [(&str, Setter); 7] = [
            ("temperature", |o, x| o.temperature = x),
            ("topP", |o, x| o.top_p = x),
            ("minP", |o, x| o.min_p = x),
            ("repetitionPenalty", |o, x| o.repetition_penalty = x),
            ("presencePenalty", |o, x| o.presence_penalty = x),
            ("frequencyPenalty", |o, x| o.frequency_penalty = x),
            ("lengthPenalty", |o, x| o.length_penalty = x),
        ];
        for (name, change) in each {
            cases.push((name, Box::new(move |o| change(o, bad))));
        }
    }
    cases.push(("logitBias", set(|o| o.logit_bias = vec![(1, f32::NAN)])));
    for (number, (name, change)) in cases.into_iter().enumerate() {
        match model.generate(request(vec![text("x")], change)).map(drop) {
            Err(EngineError::OptionInvalid { option, .. }) => assert_eq!(option, name, "case {number}"),
            other => panic!("case {number}, {name}: {other:?}"),
        }
    }
    let banned = (0..VOCAB as u32).map(|id| (id, f32::NEG_INFINITY)).collect::<Vec<_>>();
    for temperature in [0.0, 1.0] {
        let all = run_one(&model, "x", |o| (o.logit_bias, o.temperature) = (banned.clone(), temperature));
        assert_eq!(code(all), "OPTION_INVALID");
    }
}

/// A vocabulary of words: no bytes, a decoder that puts spaces between.
struct Words;
const WORDS: [&str; 5] = ["[SEP]", "hello", "big", "world", "好"];

impl TextCodec for Words {
    fn encode(&self, text: &str, _: bool) -> Result<Vec<u32>, ModelError> {
        let id = |word: &str| WORDS.iter().position(|w| *w == word).unwrap() as u32;
        Ok(text.split(' ').map(id).collect())
    }
    fn encode_pair(&self, _: &str, _: Option<&str>, _: &Cut) -> Result<EncoderInput, ModelError> {
        unreachable!()
    }
    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        let words = ids.iter().filter(|id| !skip_special || **id != 0).map(|id| WORDS[*id as usize]);
        Ok(words.collect::<Vec<_>>().join(" "))
    }
    fn token_bytes(&self, _: u32) -> Option<Vec<u8>> {
        None
    }
    fn vocab_size(&self) -> usize {
        WORDS.len()
    }
    fn is_special(&self, id: u32) -> bool {
        id == 0
    }
}

#[test]
fn words_are_spaced_as_in_the_whole_text() {
    let says = [2, 0, 3, 4];
    let toy = Toy::new(move |tokens, logits| logits[says[tokens.len() - 1]] = 10.0)
        .with(|info| info.vocab_size = 5);
    let model =
        Generator::from_parts(Box::new(toy), Some(std::sync::Arc::new(Words)), Limits::default()).unwrap();
    let sequence = run_one(&model, "hello", |o| (o.max_new_tokens, o.temperature) = (Some(4), 0.0)).unwrap();
    let texts: Vec<&str> = sequence.tokens.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(texts, [" big", "", " world", " 好"]);
    let stopped = run_one(&model, "hello", |o| {
        (o.max_new_tokens, o.temperature, o.stop) = (Some(4), 0.0, vec!["g wor".into()]);
    });
    assert_eq!(stopped.unwrap().text, " bi");
}
