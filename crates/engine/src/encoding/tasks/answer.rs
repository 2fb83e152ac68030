//! Extractive question answering: the span of a context that answers a question. The rules are those of transformers'
//! `QuestionAnsweringPipeline` (which version 5 no longer has; 4.57 is the reference).

use candlewick_models::{EncoderInput, EncoderOutput, EncoderWant, Truncation, Window};

use super::utf16::Utf16;
use super::{inputs_of, softmax};
use crate::encoding::handle::{Control, EncoderHandle};
use crate::encoding::input::{EncodeOptions, InputLimits};
use crate::error::EngineError;
use crate::runtime::codec::{Codec, read_each};
use crate::runtime::reply::Done;

#[derive(Debug, Clone)]
pub struct Question {
    pub question: String,
    pub context: String,
}

#[derive(Debug, Clone)]
pub struct AnswerOptions {
    /// `max_length` is a window's: question, part of the context, special tokens.
    pub encode: EncodeOptions,
    /// Tokens by which the windows of a long context overlap.
    pub stride: usize,
    pub top_k: usize,
    /// Tokens.
    pub max_answer_length: usize,
    /// Whether "there is no answer" is among the answers.
    pub impossible: bool,
    /// Whether answers are whole words.
    pub align_to_words: bool,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub score: f32,
    /// UTF-16 code units of the context; both 0: there is no answer.
    pub start: u32,
    pub end: u32,
}

struct Plan {
    questions: Vec<Question>,
    windows: Vec<Vec<Window>>,
    options: AnswerOptions,
}

impl EncoderHandle {
    pub fn answer(
        &self,
        questions: Vec<Question>,
        options: AnswerOptions,
        control: Control,
        done: Done<Vec<Vec<Answer>>>,
    ) {
        let encode = EncodeOptions { truncation: Truncation::Second, ..options.encode };
        let limits = InputLimits::of(self.info(), encode);
        let want = EncoderWant { logits: true, ..EncoderWant::default() };
        let prepare = move |codec: &Codec, cancel: &crate::CancelToken, _: &mut EncoderWant| {
            limits.check()?;
            let cut = limits.cut(Some(options.stride));
            let windows_of = |asked: &Question| {
                codec.text.windows(&asked.question, Some(&asked.context), &cut).map_err(EngineError::from)
            };
            let windows = read_each(&questions, cancel, windows_of)?;
            let inputs = inputs_of(&windows, &limits)?;
            Ok((inputs, Plan { questions, windows, options }))
        };
        let keep = |_: &Plan, _, _: &EncoderInput, output: EncoderOutput| Ok(output.logits);
        let finish = |_: &Codec, plan: Plan, kept: Vec<Vec<f32>>| {
            let mut kept = kept.into_iter();
            let of_question = |(asked, windows): (&Question, &Vec<Window>)| {
                plan.answers(asked, windows, kept.by_ref().take(windows.len()).collect())
            };
            Ok(plan.questions.iter().zip(&plan.windows).map(of_question).collect())
        };
        self.task(want, control, prepare, keep, finish, done);
    }
}

/// From which token to which, and how likely.
struct Span {
    start: usize,
    end: usize,
    score: f32,
}

impl Plan {
    fn answers(&self, asked: &Question, windows: &[Window], logits: Vec<Vec<f32>>) -> Vec<Answer> {
        let slices = Utf16::new(&asked.context);
        let mut answers: Vec<(Answer, String)> = Vec::new();
        let mut none = f32::INFINITY;
        for (window, logits) in windows.iter().zip(&logits) {
            let (spans, nothing) = self.spans(window, logits);
            none = none.min(nothing);
            for Span { start, end, score } in spans {
                let (start, end) = self.characters(window, start, end);
                let text = slices.slice(start, end).to_lowercase();
                // The same words again, in another window or elsewhere: the more likely.
                match answers.iter_mut().find(|(_, known)| *known == text) {
                    Some((answer, _)) => answer.score += score,
                    None => answers.push((Answer { score, start, end }, text)),
                }
            }
        }
        if self.options.impossible {
            answers.push((Answer { score: none, start: 0, end: 0 }, String::new()));
        }
        answers.sort_by(|(a, _), (b, _)| b.score.total_cmp(&a.score));
        answers.into_iter().take(self.options.top_k).map(|(answer, _)| answer).collect()
    }

    /// A window's likeliest spans, best first, and how likely it is that it has none; of logits (T, 2).
    fn spans(&self, window: &Window, logits: &[f32]) -> (Vec<Span>, f32) {
        let AnswerOptions { top_k, max_answer_length, align_to_words, .. } = self.options;
        // The first token, [CLS], stands for "no answer".
        let of_context = |at: usize| window.texts[at] == Some(1);
        let probabilities = |column: usize| {
            let logit = |at: usize| if at == 0 || of_context(at) { logits[2 * at + column] } else { -1e4 };
            let mut row: Vec<f32> = (0..window.ids.len()).map(logit).collect();
            softmax(&mut row);
            row
        };
        let (starts, ends) = (probabilities(0), probabilities(1));
        let mut spans = Vec::new();
        for start in (0..starts.len()).filter(|at| of_context(*at)) {
            for end in (start..ends.len().min(start + max_answer_length)).take_while(|at| of_context(*at)) {
                spans.push(Span { start, end, score: starts[start] * ends[end] });
            }
        }
        // Words may make one of several.
        let count = if align_to_words { 2 * top_k + 10 } else { top_k };
        let order = |a: &Span, b: &Span| b.score.total_cmp(&a.score);
        if spans.len() > count {
            spans.select_nth_unstable_by(count, order);
            spans.truncate(count);
        }
        spans.sort_by(order);
        (spans, starts[0] * ends[0])
    }

    /// Where a span is in the context, extended to whole words as far as the window has them.
    fn characters(&self, window: &Window, start: usize, end: usize) -> (u32, u32) {
        let (mut start, mut end) = (start, end);
        if self.options.align_to_words {
            let same = |a: usize, b: usize| {
                window.texts[a] == window.texts[b]
                    && window.words[a].is_some()
                    && window.words[a] == window.words[b]
            };
            while start > 0 && same(start - 1, start) {
                start -= 1;
            }
            while end + 1 < window.ids.len() && same(end + 1, end) {
                end += 1;
            }
        }
        (window.offsets[start].0, window.offsets[end].1)
    }
}
