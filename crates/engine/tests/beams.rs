//! Beam search against an exhaustive one, on a vocabulary small enough to try everything.

mod support;

use candlewick_engine::*;
use support::*;

const SMALL: usize = 3;
const LONGEST: usize = 4;

fn toy(end: Vec<u32>) -> Generator {
    let toy = Toy::hashed().with(|info| (info.vocab_size, info.eos_token_ids) = (SMALL, end));
    Generator::from_parts(Box::new(toy), None, Limits::default()).unwrap()
}

/// Every complete continuation (an end token, or `LONGEST` tokens) with its sum of log-probabilities.
fn complete(prompt: &[u32], end: Option<u32>) -> Vec<(Vec<u32>, f64)> {
    let mut open = vec![(Vec::new(), 0.0)];
    let mut all = Vec::new();
    while let Some((tokens, sum)) = open.pop() {
        if tokens.len() == LONGEST || tokens.last().copied() == end && end.is_some() {
            all.push((tokens, sum));
            continue;
        }
        let mut logits = vec![0.0; SMALL];
        hashed(&[prompt, &tokens].concat(), &mut logits);
        let log_sum = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        for id in 0..SMALL as u32 {
            let mut longer = tokens.clone();
            longer.push(id);
            open.push((longer, sum + f64::from(logits[id as usize]) - log_sum));
        }
    }
    all
}

fn search(
    model: &Generator,
    prompt: &[u32],
    change: impl FnOnce(&mut GenerateOptions),
) -> Vec<SequenceResult> {
    let request = request(vec![Prompt::Ids(prompt.to_vec())], |o| {
        o.max_new_tokens = Some(LONGEST);
        change(o);
    });
    run(model, request).unwrap().sequences
}

/// 64 beams hold every unfinished prefix (at most 3³ of them), so that nothing is pruned and the best are the true
/// best.
#[test]
fn with_room_for_everything_it_finds_the_best() {
    for (end, penalty) in [(None, 1.0f32), (Some(0), 1.0), (Some(2), 0.0), (Some(1), 2.0), (Some(1), -1.0)] {
        let model = toy(end.into_iter().collect());
        for prompt in 0..20u32 {
            let prompt = [prompt % 3, prompt / 3 % 3, prompt / 9];
            let mut best = complete(&prompt, end);
            let score = |(tokens, sum): &(Vec<u32>, f64)| sum / (tokens.len() as f64).powf(penalty.into());
            best.sort_by(|a, b| score(b).total_cmp(&score(a)));
            let found = search(&model, &prompt, |o| {
                (o.num_beams, o.num_return_sequences, o.length_penalty) = (64, 6, penalty);
            });
            assert_eq!(found.len(), 6);
            for (found, best) in found.iter().zip(&best) {
                assert_eq!(ids(found), best.0, "{end:?} {penalty} {prompt:?}");
                assert!((f64::from(found.score.unwrap()) - score(best)).abs() < 1e-5);
                let ended = best.0.last().copied() == end;
                assert_eq!(
                    found.finish_reason,
                    if ended { FinishReason::Stop } else { FinishReason::Length }
                );
            }
        }
    }
}

#[test]
fn more_beams_find_no_worse() {
    let model = toy(vec![]);
    for prompt in 0..20 {
        let best = |beams| {
            search(&model, &[prompt % 3, prompt / 3 % 3, prompt / 9], |o| o.num_beams = beams)[0]
                .score
                .unwrap()
        };
        let greedy = search(&model, &[prompt % 3, prompt / 3 % 3, prompt / 9], |o| {
            (o.temperature, o.logprobs) = (0.0, Some(0))
        });
        let greedy = greedy[0].tokens.iter().map(|t| t.logprob.unwrap()).sum::<f32>() / LONGEST as f32;
        assert!(best(64) >= best(2) - 1e-6 && best(64) >= greedy - 1e-6);
    }
}

#[test]
fn logprobs_of_a_beam_add_up_to_its_score() {
    let model = toy(vec![0]);
    for found in
        search(&model, &[1, 2], |o| (o.num_beams, o.num_return_sequences, o.logprobs) = (4, 4, Some(2)))
    {
        let sum: f32 = found.tokens.iter().map(|token| token.logprob.unwrap()).sum();
        assert!((sum / found.tokens.len() as f32 - found.score.unwrap()).abs() < 1e-5);
        assert!(found.tokens.iter().all(|token| token.top_logprobs.as_ref().unwrap().len() == 2));
    }
}

/// `earlyStopping: true` is done when as many as there are beams have ended, `false` when the best running one looks
/// worse at its present length, `"never"` when it would at any.
#[test]
fn early_stopping_saves_steps() {
    let steps = |early| {
        let total = |seed: u32| {
            let toy = Toy::hashed().with(|info| info.eos_token_ids = (0..64).collect());
            let watch = toy.watch();
            let model = toy.start();
            let prompt = vec![Prompt::Ids(vec![seed])];
            let request = request(prompt, |o| {
                (o.num_beams, o.early_stopping, o.max_new_tokens, o.length_penalty) =
                    (3, early, Some(40), 1.5);
            });
            run(&model, request).unwrap();
            watch.passes()
        };
        (0..10).map(total).sum::<usize>()
    };
    let [yes, no, never] = [EarlyStopping::True, EarlyStopping::False, EarlyStopping::Never].map(steps);
    assert!(yes < no && no < never, "{yes} {no} {never}");
}

#[test]
fn beams_stop_at_strings_and_respect_bans() {
    let model = Toy::hashed().start();
    let free = run_one(&model, "beams", |o| o.num_beams = 4).unwrap();
    let stop = free.text.chars().nth(3).unwrap().to_string();
    let stopped = run(
        &model,
        request(vec![text("beams")], |o| {
            (o.num_beams, o.num_return_sequences, o.stop) = (4, 4, vec![stop.clone()]);
        }),
    );
    for sequence in stopped.unwrap().sequences {
        assert!(!sequence.text.contains(&stop));
        assert_eq!(sequence.finish_reason == FinishReason::Stop, sequence.stop_sequence.is_some());
    }
    let first = free.tokens[0].id;
    let banned = run_one(&model, "beams", |o| {
        (o.num_beams, o.logit_bias) = (4, vec![(first, f32::NEG_INFINITY)]);
    });
    assert!(!ids(&banned.unwrap()).contains(&first));
}

#[test]
fn a_stopped_search_gives_its_best_so_far() {
    let mut toy = Toy::hashed();
    toy.delay = std::time::Duration::from_millis(1);
    let watch = toy.watch();
    let model = toy.start();
    let stream = begin(&model, "stop", |o| (o.num_beams, o.max_new_tokens) = (4, Some(900)));
    until("some steps", || watch.passes() > 5);
    stream.cancel();
    let result = wait(|done| stream.result(done)).unwrap();
    assert_eq!(result.sequences.len(), 1);
    assert_eq!(result.sequences[0].finish_reason, FinishReason::Aborted);
    assert!(!result.sequences[0].tokens.is_empty());
}
