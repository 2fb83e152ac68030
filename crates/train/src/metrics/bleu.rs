//! sacrebleu's corpus BLEU (Papineni et al. 2002; Post 2018): orders 1 to 4, case kept, exponential smoothing,
//! tokenisers 13a and zh.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

const ORDERS: usize = 4;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BleuTokenizer {
    /// mteval-v13a's, for languages with spaces.
    #[default]
    #[serde(rename = "13a")]
    V13a,
    /// Each Chinese character is a word.
    Zh,
    /// At white space alone.
    None,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bleu {
    /// 0 to 100.
    pub score: f64,
    /// Of 1 to 4 words, in per cent.
    pub precisions: [f64; ORDERS],
    pub brevity_penalty: f64,
    pub length: u64,
    pub reference_length: u64,
    pub tokenizer: BleuTokenizer,
}

/// Each row: what was said, and what it should have been, one reference or several.
pub fn bleu<'a, R: AsRef<str> + 'a>(
    rows: impl Iterator<Item = (&'a str, &'a [R])>,
    tokenizer: BleuTokenizer,
) -> Bleu {
    let (mut right, mut total) = ([0u64; ORDERS], [0u64; ORDERS]);
    let (mut length, mut reference_length) = (0u64, 0u64);
    for (said, references) in rows {
        let said = tokens(said, tokenizer);
        let references: Vec<_> = references.iter().map(|text| tokens(text.as_ref(), tokenizer)).collect();
        length += said.len() as u64;
        // The nearest in length, of equally near ones the shorter.
        let nearest = references.iter().map(Vec::len).min_by_key(|n| (n.abs_diff(said.len()), *n));
        reference_length += nearest.unwrap_or(0) as u64;
        for order in 1..=ORDERS {
            let mut allowed: HashMap<&[String], u64> = HashMap::new();
            for reference in &references {
                for (ngram, count) in ngrams(reference, order) {
                    let most = allowed.entry(ngram).or_default();
                    *most = count.max(*most);
                }
            }
            for (ngram, count) in ngrams(&said, order) {
                right[order - 1] += count.min(allowed.get(ngram).copied().unwrap_or(0));
                total[order - 1] += count;
            }
        }
    }
    let brevity_penalty = match length {
        0 => 0.0,
        _ if length >= reference_length => 1.0,
        _ => (1.0 - reference_length as f64 / length as f64).exp(),
    };
    let (score, precisions) = score(&right, &total, brevity_penalty);
    Bleu { score, precisions, brevity_penalty, length, reference_length, tokenizer }
}

fn score(right: &[u64; ORDERS], total: &[u64; ORDERS], brevity_penalty: f64) -> (f64, [f64; ORDERS]) {
    let mut precisions = [0.0; ORDERS];
    if right.iter().all(|count| *count == 0) {
        return (0.0, precisions);
    }
    // An order without a match counts as half a match, the next such as a quarter, and so on.
    let mut halved = 1.0;
    for order in 0..ORDERS {
        if total[order] == 0 {
            return (0.0, precisions);
        }
        precisions[order] = 100.0 * right[order] as f64 / total[order] as f64;
        if right[order] == 0 {
            halved *= 2.0;
            precisions[order] = 100.0 / (halved * total[order] as f64);
        }
    }
    let logs: f64 = precisions.iter().map(|p| p.ln()).sum();
    (brevity_penalty * (logs / ORDERS as f64).exp(), precisions)
}

fn ngrams(tokens: &[String], order: usize) -> HashMap<&[String], u64> {
    let mut counts = HashMap::new();
    for ngram in tokens.windows(order) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// Python's `str.split()`.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn tokens(text: &str, tokenizer: BleuTokenizer) -> Vec<String> {
    let text = text.trim_end_matches(is_space);
    let text = match tokenizer {
        BleuTokenizer::None => text.to_string(),
        BleuTokenizer::V13a => {
            let plain = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
            let plain = plain.replace("&quot;", "\"").replace("&amp;", "&");
            western(&format!(" {} ", plain.replace("&lt;", "<").replace("&gt;", ">")))
        }
        BleuTokenizer::Zh => {
            let mut spread = String::with_capacity(2 * text.len());
            for c in text.trim_matches(is_space).chars() {
                if is_chinese(c) { spread.extend([' ', c, ' ']) } else { spread.push(c) }
            }
            western(&spread)
        }
    };
    split(&text).map(str::to_string).collect()
}

/// mteval's language-dependent part: four replacements, one after the other, each left to right without overlap.
fn western(text: &str) -> String {
    let mut spread = String::with_capacity(2 * text.len());
    for c in text.chars() {
        match c {
            '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/' => spread.extend([' ', c, ' ']),
            c => spread.push(c),
        }
    }
    let digit = |c: char| c.is_ascii_digit();
    let stop = |c: char| matches!(c, '.' | ',');
    let spread = replace_pairs(&spread, |a, b| !digit(a) && stop(b), |a, b| [a, ' ', b, ' ']);
    let spread = replace_pairs(&spread, |a, b| stop(a) && !digit(b), |a, b| [' ', a, ' ', b]);
    replace_pairs(&spread, |a, b| digit(a) && b == '-', |a, b| [a, ' ', b, ' '])
}

fn replace_pairs(
    text: &str,
    fits: impl Fn(char, char) -> bool,
    with: impl Fn(char, char) -> [char; 4],
) -> String {
    let mut replaced = String::with_capacity(2 * text.len());
    let mut chars = text.chars().peekable();
    while let Some(a) = chars.next() {
        match chars.peek() {
            Some(b) if fits(a, *b) => {
                replaced.extend(with(a, *b));
                chars.next();
            }
            _ => replaced.push(a),
        }
    }
    replaced
}

/// sacrebleu's ranges. Two of them are written with five digits there, which Python reads as a character of four and a
/// digit: what comes of that comparison of strings is U+2001 to U+2A6D and U+2F81 to U+2FA1, dashes and quotation marks
/// among them, and it is what scores are published with. The ranges of symbols and dingbats that follow there lie
/// within the first.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4db5}' | '\u{4e00}'..='\u{9fa5}' | '\u{9fa6}'..='\u{9fbb}' | '\u{f900}'..='\u{fa2d}'
        | '\u{fa30}'..='\u{fa6a}' | '\u{fa70}'..='\u{fad9}' | '\u{2001}'..='\u{2a6d}' | '\u{2f81}'..='\u{2fa1}'
        | '\u{ff00}'..='\u{ffef}' | '\u{2e80}'..='\u{2eff}' | '\u{3000}'..='\u{303f}' | '\u{31c0}'..='\u{31ef}'
        | '\u{2f00}'..='\u{2fdf}' | '\u{2ff0}'..='\u{2fff}' | '\u{3100}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}'
        | '\u{fe10}'..='\u{fe1f}' | '\u{fe30}'..='\u{fe4f}'
        | '\u{3200}'..='\u{32ff}' | '\u{3300}'..='\u{33ff}')
}
