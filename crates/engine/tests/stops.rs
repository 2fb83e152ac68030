//! Where a text ends, and what is never said: stop strings that see special tokens, stop ids, bad words, suppressed
//! tokens.

mod support;

use std::sync::Arc;

use candlewick_engine::*;
use support::*;

/// Says `pieces` after one token; `<end>` is a special token in the middle, which ends nothing.
fn says(pieces: &[&str]) -> Toy {
    let ids: Vec<u32> = pieces
        .iter()
        .flat_map(|piece| match *piece {
            "<end>" => vec![EOS],
            text => text.bytes().map(u32::from).collect(),
        })
        .collect();
    Toy::new(move |tokens, logits| {
        logits.fill(-10.0);
        logits[ids.get(tokens.len() - 1).copied().unwrap_or(u32::from(b'.')) as usize] = 10.0;
    })
}

fn stopping(stop: &[&str]) -> impl Fn(&mut GenerateOptions) + use<> {
    let stop: Vec<String> = stop.iter().map(ToString::to_string).collect();
    move |o| (o.stop, o.temperature) = (stop.clone(), 0.0)
}

const STORY: [&str; 5] = ["one ", "<end>", "two", "<end>", "<end>"];

/// Stop strings; the text that is left of `STORY`, and which of them ended it.
const ENDS: [(&[&str], &str, &str); 12] = [
    (&["<end>"], "one ", "<end>"),
    (&[" <end>"], "one", " <end>"),
    (&["<end>tw"], "one ", "<end>tw"),
    (&["e <end>t"], "on", "e <end>t"),
    (&["nd>two<e"], "one ", "nd>two<e"),
    (&["<end><end>"], "one two", "<end><end>"),
    (&["two<end>"], "one ", "two<end>"),
    // As it is read, without names.
    (&["ne tw"], "o", "ne tw"),
    (&["one two<", "two<"], "one ", "two<"),
    (&["two", "<end>two"], "one ", "<end>two"),
    (&["absent<end>", "wo<end><"], "one t", "wo<end><"),
    (&["two.", "<end>x", "one two<"], "one ", "two."),
];

#[test]
fn stop_strings_see_special_tokens() {
    for (stop, text, which) in ENDS {
        let sequence = run_one(&says(&STORY).start(), ">", stopping(stop)).unwrap();
        assert_eq!(sequence.text, text, "{stop:?}");
        assert_eq!(sequence.finish_reason, FinishReason::Stop, "{stop:?}");
        assert_eq!(sequence.stop_sequence.as_deref(), Some(which), "{stop:?}");
        assert_eq!(sequence.stop_token_id, None);
    }
    let none = run_one(&says(&STORY).start(), ">", stopping(&["<end>one", "end>>"])).unwrap();
    assert_eq!((none.text.as_str(), none.finish_reason), ("one two..........", FinishReason::Length));
}

/// Log-probabilities, samples, beams, guesses, and a text that goes on from any token of it.
#[test]
fn whatever_else_is_asked_a_text_ends_at_the_same_place() {
    let ways: [fn(&mut GenerateOptions); 6] = [
        |o| o.logprobs = Some(3),
        |o| (o.n, o.temperature) = (3, 1.0),
        |o| (o.num_beams, o.temperature) = (3, 1.0),
        |o| o.speculation = Speculation::Off,
        |o| o.speculation = Speculation::Draft(says(&STORY).start().as_draft()),
        |o| o.speculation = Speculation::Draft(says(&["one ", "<end>", "<end>"]).start().as_draft()),
    ];
    for (stop, ..) in ENDS {
        let expected = run_one(&says(&STORY).start(), ">", stopping(stop)).unwrap();
        for (at, way) in ways.iter().enumerate() {
            let request = request(vec![text(">")], |o| {
                stopping(stop)(o);
                way(o);
            });
            for found in run(&says(&STORY).start(), request).unwrap().sequences {
                assert_eq!(found.text, expected.text, "{stop:?}, way {at}");
                assert_eq!(ids(&found), ids(&expected), "{stop:?}, way {at}");
                assert_eq!(found.stop_sequence, expected.stop_sequence);
                assert_eq!(found.finish_reason, expected.finish_reason);
            }
        }
        let model = says(&STORY).start();
        for cut in 0..ids(&expected).len() {
            let on = request(vec![text(">")], |o| {
                stopping(stop)(o);
                o.continue_from = vec![ids(&expected)[..cut].to_vec()];
            });
            let stream = model.generate(on).unwrap();
            read(&stream).unwrap();
            let found = wait(|done| stream.result(done)).unwrap().sequences.swap_remove(0);
            assert_eq!(
                (found.text, found.stop_sequence),
                (expected.text.clone(), expected.stop_sequence.clone())
            );
        }
    }
}

#[test]
fn a_stop_string_may_hold_the_models_own_end_token() {
    let model = || says(&["done\n", "<end>"]).with(|info| info.eos_token_ids = vec![EOS]).start();
    let cases: [(&[&str], &str, Option<&str>); 5] = [
        (&["<end>"], "done\n", Some("<end>")),
        (&["\n<end>"], "done", Some("\n<end>")),
        (&["e\n<"], "don", Some("e\n<")),
        (&["<end>x"], "done\n", None),
        (&["\nx"], "done\n", None),
    ];
    for (stop, text, which) in cases {
        let sequence = run_one(&model(), ">", stopping(stop)).unwrap();
        assert_eq!((sequence.text.as_str(), sequence.stop_sequence.as_deref()), (text, which), "{stop:?}");
        assert_eq!(sequence.finish_reason, FinishReason::Stop);
        assert_eq!(ids(&sequence).last(), Some(&EOS));
        assert_eq!(sequence.stop_token_id, None, "nobody has asked for it");
    }
    let on = run_one(&model(), ">", |o| {
        stopping(&["<end>"])(o);
        o.ignore_eos = true;
    });
    assert_eq!(on.unwrap().stop_sequence.as_deref(), Some("<end>"));
    let late = run_one(&says(&["ab", "<end>", "cd", "<end>"]).start(), ">", |o| {
        stopping(&["<end>"])(o);
        o.min_new_tokens = 4;
    });
    assert_eq!(late.unwrap().text, "abcd", "the first comes too early to stop at");
}

#[test]
fn a_stop_id_ends_a_text_and_is_told() {
    for (id, text) in [(EOS, "one "), (b't'.into(), "one "), (b'w'.into(), "one t"), (b' '.into(), "one")] {
        let sequence = run_one(&says(&STORY).start(), ">", |o| {
            (o.stop_token_ids, o.temperature) = (vec![id, 0], 0.0);
        });
        let sequence = sequence.unwrap();
        assert_eq!(sequence.text, text);
        assert_eq!(sequence.finish_reason, FinishReason::Stop);
        assert_eq!((sequence.stop_token_id, sequence.stop_sequence), (Some(id), None));
    }
    // A stop string that ends with the same token is told, since the text ends before it.
    let both = run_one(&says(&STORY).start(), ">", |o| {
        stopping(&["e <end>"])(o);
        o.stop_token_ids = vec![EOS];
    });
    let both = both.unwrap();
    assert_eq!((both.text.as_str(), both.stop_token_id), ("on", None));
    let length =
        run_one(&says(&STORY).start(), ">", |o| (o.stop_token_ids, o.max_new_tokens) = (vec![0], Some(3)));
    assert_eq!(length.unwrap().stop_token_id, None);
}

/// Tokens of a few letters, not bytes; the last one is unknown.
struct Letters;

const LETTERS: [&str; 6] = ["ab", "c", "好", "[SEP]", "##d", "[UNK]"];

impl TextCodec for Letters {
    fn encode(&self, text: &str, _: bool) -> std::result::Result<Vec<u32>, candlewick_models::ModelError> {
        let id = |c: char| LETTERS.iter().position(|token| token.contains(c)).unwrap_or(5) as u32;
        Ok(text.chars().filter(|c| !c.is_whitespace()).map(id).collect())
    }
    fn encode_pair(
        &self,
        _: &str,
        _: Option<&str>,
        _: &candlewick_models::Cut,
    ) -> std::result::Result<EncoderInput, candlewick_models::ModelError> {
        unreachable!()
    }
    fn decode(
        &self,
        ids: &[u32],
        skip_special: bool,
    ) -> std::result::Result<String, candlewick_models::ModelError> {
        let kept = ids.iter().filter(|id| !skip_special || !self.is_special(**id));
        Ok(kept.map(|id| LETTERS[*id as usize]).collect::<Vec<_>>().join(" ").replace(" ##", ""))
    }
    fn token_bytes(&self, _: u32) -> Option<Vec<u8>> {
        None
    }
    fn vocab_size(&self) -> usize {
        LETTERS.len()
    }
    fn is_special(&self, id: u32) -> bool {
        id == 3 || id == 5
    }
    fn id_to_token(&self, id: u32) -> Option<String> {
        LETTERS.get(id as usize).map(ToString::to_string)
    }
    fn token_to_id(&self, token: &str) -> Option<u32> {
        LETTERS.iter().position(|known| *known == token).map(|id| id as u32)
    }
    fn unknown_token(&self) -> Option<&str> {
        Some("[UNK]")
    }
}

/// A model of `Letters` that says these tokens, then the first one.
fn letters(said: &'static [u32]) -> Generator {
    let toy = Toy::new(move |tokens, logits| {
        logits.fill(-10.0);
        for (rank, id) in [said.get(tokens.len() - 1).copied().unwrap_or(0), 1, 2].into_iter().enumerate() {
            logits[id as usize] = logits[id as usize].max(10.0 - rank as f32);
        }
    });
    Generator::from_parts(
        Box::new(toy.with(|info| info.vocab_size = LETTERS.len())),
        Some(Arc::new(Letters)),
        Limits::default(),
    )
    .unwrap()
}

#[test]
fn special_tokens_are_seen_as_a_decoder_writes_them() {
    let cases: [(&str, &str); 5] =
        [("[SEP]", "ab c"), ("c [SEP]", "ab "), ("[SEP] 好", "ab c"), ("P] 好d", "ab c"), ("c 好", "ab ")];
    for (stop, text) in cases {
        let prompt = vec![Prompt::Ids(vec![1])];
        let result = run(&letters(&[0, 1, 3, 2, 4, 1]), request(prompt, stopping(&[stop]))).unwrap();
        let sequence = &result.sequences[0];
        assert_eq!(
            (sequence.text.trim_start(), sequence.finish_reason),
            (text, FinishReason::Stop),
            "{stop:?}"
        );
        assert_eq!(sequence.stop_sequence.as_deref(), Some(stop));
    }
}

#[test]
fn a_stop_string_that_no_text_can_have_is_refused() {
    let model = letters(&[]);
    let with = |stop: &str| {
        model
            .generate(request(vec![Prompt::Ids(vec![1])], stopping(&[stop])))
            .map(|_| ())
            .map_err(|e| e.code())
    };
    for never in ["x", "abx", "ab 坏", "é", "[SEP]!", "\u{FFFD}", "A"] {
        assert_eq!(with(never), Err("OPTION_INVALID"), "{never:?}");
    }
    for possible in ["ab", "c 好", "[SEP]", "dc", "[UNK]", "UN", " "] {
        assert_eq!(with(possible), Ok(()), "{possible:?}");
    }
    // A vocabulary of all bytes can write anything, a torn character as well.
    let bytes = Toy::hashed().start();
    for possible in ["坏", "🙂", "\u{FFFD}", "\0"] {
        assert!(bytes.generate(request(vec![text(">")], stopping(&[possible]))).is_ok(), "{possible:?}");
    }
}

#[test]
fn bad_words_are_banned_in_both_spellings() {
    let said = |pieces: &[&str], words: &[&str], more: fn(&mut GenerateOptions)| {
        let sequence = run_one(&says(pieces).start(), ">", |o| {
            (o.temperature, o.max_new_tokens) = (0.0, Some(12));
            o.bad_words = words.iter().map(ToString::to_string).collect();
            more(o);
        });
        sequence.unwrap().text
    };
    assert_eq!(said(&["a bad word"], &[], |_| {}), "a bad word..");
    // Every other token is as unlikely as the next, so the first one is taken.
    for word in ["bad", " bad"] {
        assert_eq!(said(&["a bad word"], &[word], |_| {}), "a ba\0 word..", "{word:?}");
    }
    assert_eq!(said(&["a bad word"], &["word"], |_| {}), "a bad wor\0..");
    assert_eq!(said(&["abad word"], &[" bad"], |_| {}), "abad word...", "with the space that was given");
    assert_eq!(said(&["xbadx bad"], &["bad"], |_| {}), "xba\0x ba\0...");
    assert_eq!(said(&["one two"], &["t", "absent"], |_| {}), "one \0wo.....");
    let ids =
        |o: &mut GenerateOptions| o.bad_word_ids = vec![vec![b'o'.into(), b'n'.into()], vec![b'w'.into()]];
    assert_eq!(said(&["one two on"], &[], ids), "o\0e t\0o o\0..");
    // The prompt's end counts.
    let after = |o: &mut GenerateOptions| o.bad_word_ids = vec![vec![b'>'.into(), b'o'.into()]];
    assert_eq!(said(&["one o"], &[], after), "\0ne o.......");
}

#[test]
fn words_that_the_vocabulary_cannot_write_ban_nothing() {
    let with = |word: &str| {
        let prompt = vec![Prompt::Ids(vec![1])];
        let change = |o: &mut GenerateOptions| {
            (o.bad_words, o.temperature, o.max_new_tokens) = (vec![word.to_string()], 0.0, Some(3));
        };
        ids(&run(&letters(&[5, 2, 4]), request(prompt, change)).unwrap().sequences[0])
    };
    assert_eq!(with("x"), [5, 2, 4], "the unknown token is not the word");
    assert_eq!(with("坏好"), [5, 2, 4]);
    assert_eq!(with("好"), [5, 1, 4]);
    assert_eq!(with("好d"), [5, 2, 1]);
}

#[test]
fn suppressed_tokens_are_never_said_or_never_first() {
    let with = |change: fn(&mut GenerateOptions)| {
        let sequence = run_one(&says(&["abab"]).start(), ">", |o| {
            (o.temperature, o.max_new_tokens) = (0.0, Some(4));
            change(o);
        });
        sequence.unwrap().text
    };
    assert_eq!(with(|o| o.suppress_tokens = vec![b'b'.into(), 5]), "a\0a\0");
    assert_eq!(with(|o| o.suppress_tokens = vec![b'b'.into(), 0]), "a\u{1}a\u{1}");
    assert_eq!(with(|o| o.begin_suppress_tokens = vec![b'a'.into(), b'b'.into()]), "\0bab");
    assert_eq!(with(|o| o.begin_suppress_tokens = vec![b'b'.into()]), "abab");
    let both = |o: &mut GenerateOptions| {
        (o.suppress_tokens, o.begin_suppress_tokens) = (vec![b'b'.into()], vec![b'a'.into()]);
    };
    assert_eq!(with(both), "\0\0a\0");
    // A bias cannot bring back what is suppressed.
    let bias = |o: &mut GenerateOptions| {
        (o.suppress_tokens, o.logit_bias) = (vec![b'b'.into()], vec![(b'b'.into(), 1e5)]);
    };
    assert_eq!(with(bias), "a\0a\0");
}

/// What is banned does not come about in samples, in beams, beside guesses, nor after what existed.
#[test]
fn what_is_banned_is_banned_in_every_kind_of_generation() {
    let model = Toy::hashed().start();
    let free = run_one(&model, "banned", |o| o.temperature = 0.0).unwrap();
    let word = ids(&free)[..2].to_vec();
    let (never, first) = (ids(&free)[5], ids(&free)[0]);
    let bans = |o: &mut GenerateOptions| {
        o.bad_word_ids = vec![word.clone(), vec![ids(&free)[3]]];
        o.suppress_tokens = vec![never];
        o.begin_suppress_tokens = vec![first];
    };
    let draft = Toy::hashed().start();
    let ways: [&dyn Fn(&mut GenerateOptions); 6] = [
        &|o| o.temperature = 0.0,
        &|o| (o.n, o.temperature) = (4, 1.5),
        &|o| (o.num_beams, o.num_return_sequences) = (4, 4),
        &|o| o.speculation = Speculation::Off,
        &|o| o.speculation = Speculation::Draft(draft.as_draft()),
        &|o| o.logprobs = Some(5),
    ];
    for (at, way) in ways.iter().enumerate() {
        let request = request(vec![text("banned")], |o| {
            bans(o);
            way(o);
        });
        for sequence in run(&model, request).unwrap().sequences {
            let ids_of = ids(&sequence);
            assert!(!ids_of.contains(&never) && !ids_of.contains(&ids(&free)[3]), "way {at}");
            assert!(ids_of.windows(2).all(|pair| pair != word), "way {at}");
            assert_ne!(ids_of[0], first, "way {at}");
        }
    }
    let whole = run_one(&model, "banned", bans).unwrap();
    let on = request(vec![text("banned")], |o| {
        bans(o);
        o.continue_from = vec![ids(&whole)[..7].to_vec()];
    });
    let stream = model.generate(on).unwrap();
    read(&stream).unwrap();
    assert_eq!(ids(&wait(|done| stream.result(done)).unwrap().sequences[0]), ids(&whole));
}

#[test]
fn where_every_token_is_banned_the_option_is_named() {
    let all: Vec<u32> = (0..VOCAB as u32).collect();
    let each: Vec<Vec<u32>> = all.iter().map(|id| vec![*id]).collect();
    for beams in [1, 3] {
        let with = |change: &dyn Fn(&mut GenerateOptions)| {
            let error = run_one(&Toy::hashed().start(), "x", |o| {
                o.num_beams = beams;
                change(o);
            });
            error.unwrap_err().to_string()
        };
        assert!(with(&|o| o.suppress_tokens = all.clone()).contains("suppressTokens"));
        assert!(with(&|o| o.begin_suppress_tokens = all.clone()).contains("beginSuppressTokens"));
        assert!(with(&|o| o.bad_word_ids = each.clone()).contains("badWords"));
        let bias = |o: &mut GenerateOptions| {
            o.logit_bias = all.iter().map(|id| (*id, f32::NEG_INFINITY)).collect();
        };
        assert!(with(&bias).contains("logitBias"));
    }
}
