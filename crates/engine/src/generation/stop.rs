//! Stop strings in a text that arrives in pieces.

use std::sync::Arc;

/// Finds the stop string that ends first (of several that end at one place the longest), wherever the pieces are cut,
/// and holds back only text that may still become part of one.
#[derive(Clone)]
pub(crate) struct StopMatcher {
    stops: Arc<[String]>,
    /// Not released yet: a proper prefix of at least one stop string, or empty.
    held: String,
}

impl StopMatcher {
    pub fn new(stops: Arc<[String]>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Text that is certain to be part of the output and, if one was found, which stop string follows it.
    pub fn push(&mut self, piece: &str) -> (String, Option<usize>) {
        if self.stops.is_empty() {
            return (piece.to_owned(), None);
        }
        let scanned = self.held.len();
        self.held.push_str(piece);
        if let Some((start, which)) = self.find(scanned) {
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), Some(which));
        }
        let keep = self.may_continue();
        let held = self.held.split_off(keep);
        (std::mem::replace(&mut self.held, held), None)
    }

    /// Text that no stop string may begin in, released at once.
    pub fn pass(&mut self, piece: &str) -> String {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(piece);
        text
    }

    /// The text that was held back, at the end of the sequence.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Start and index of the stop string with the first end after byte `scanned`.
    fn find(&self, scanned: usize) -> Option<(usize, usize)> {
        let mut best: Option<(usize, usize, usize)> = None;
        for (which, stop) in self.stops.iter().enumerate() {
            let mut from = (scanned + 1).saturating_sub(stop.len());
            while !self.held.is_char_boundary(from) {
                from += 1;
            }
            if let Some(at) = self.held[from..].find(stop.as_str()) {
                let (start, end) = (from + at, from + at + stop.len());
                if best.is_none_or(|(best_end, best_start, _)| (end, start) < (best_end, best_start)) {
                    best = Some((end, start, which));
                }
            }
        }
        best.map(|(_, start, which)| (start, which))
    }

    /// Where the longest suffix begins that is a proper prefix of a stop string.
    fn may_continue(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(1) - 1;
        let from = self.held.len().saturating_sub(longest);
        let mut starts = (from..self.held.len()).filter(|at| self.held.is_char_boundary(*at));
        let held = &self.held;
        starts.find(|at| self.stops.iter().any(|stop| stop.starts_with(&held[*at..]))).unwrap_or(held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pieces: &[&str], stops: &[&str]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops.iter().map(ToString::to_string).collect());
        let mut out = String::new();
        for piece in pieces {
            let (text, stop) = matcher.push(piece);
            out += &text;
            if stop.is_some() {
                return (out, stop);
            }
        }
        (out + &matcher.finish(), None)
    }

    /// Every way to cut `text` into pieces: one bit per inner character border.
    fn splits(text: &str) -> Vec<Vec<&str>> {
        let borders: Vec<usize> = text.char_indices().map(|(at, _)| at).skip(1).collect();
        let mut all = Vec::new();
        for mask in 0..1u32 << borders.len() {
            let cuts = borders.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, at)| *at);
            let (mut pieces, mut from) = (Vec::new(), 0);
            for cut in cuts.chain([text.len()]) {
                pieces.push(&text[from..cut]);
                from = cut;
            }
            all.push(pieces);
        }
        all
    }

    #[test]
    fn every_split_gives_the_same_text_and_stop() {
        let cases: &[(&str, &[&str], &str, Option<usize>)] = &[
            ("one two\n\nthree", &["\n\n"], "one two", Some(0)),
            ("abcd", &["bcd", "c"], "ab", Some(1)),
            ("abcd", &["c", "bc"], "a", Some(1)),
            ("aaab", &["aab"], "a", Some(0)),
            ("ababac", &["abac"], "ab", Some(0)),
            ("no stop here", &["herein", "stopp"], "no stop here", None),
            ("你好。再见。", &["。再"], "你好", Some(0)),
            ("x🙂y", &["🙂y", "🙂z"], "x", Some(0)),
            ("stop", &["stop"], "", Some(0)),
        ];
        for (text, stops, expected, stop) in cases {
            for pieces in splits(text) {
                assert_eq!(run(&pieces, stops), (expected.to_string(), *stop), "{pieces:?} {stops:?}");
            }
        }
    }

    #[test]
    fn random_texts_agree_with_one_character_at_a_time() {
        let pick = |i: u64, n: u64| (crate::generation::sampling::rng::uniform(11, i, 0) * n as f64) as u64;
        let word = |i: u64, longest: u64| -> String {
            (0..1 + pick(i, longest)).map(|k| ['a', 'b', '好'][pick(i + k + 1, 3) as usize]).collect()
        };
        for case in 0..300 {
            let text = word(case * 100, 10);
            let stops: Vec<String> =
                (0..1 + pick(case, 3)).map(|k| word(case * 100 + 20 + 10 * k, 4)).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let all = splits(&text);
            let expected = run(all.last().unwrap(), &stops);
            for pieces in all {
                assert_eq!(run(&pieces, &stops), expected, "{pieces:?} {stops:?}");
            }
        }
    }

    #[test]
    fn holds_back_no_more_than_may_match() {
        let mut matcher = StopMatcher::new(["END".to_string()].into());
        assert_eq!(matcher.push("the E"), ("the ".into(), None));
        assert_eq!(matcher.push("X"), ("EX".into(), None));
        assert_eq!(matcher.push("EN"), (String::new(), None));
        assert_eq!(matcher.finish(), "EN");
    }
}
