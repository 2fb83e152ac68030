//! Stop strings in a text that arrives in pieces, some of which nobody reads: the names of special tokens.

use std::ops::Range;
use std::sync::Arc;

/// Finds the stop string that ends first (of several that end at one place the longest), wherever the pieces are cut,
/// and holds back only text that may still become part of one.
///
/// A stop string is found in the text with the names of special tokens in their places, and in the text as it is read,
/// without them.
#[derive(Clone)]
pub(crate) struct StopMatcher {
    stops: Arc<[String]>,
    /// Not released yet: from where a stop string may begin.
    held: String,
    /// Where in `held` the names of special tokens are, in their order.
    hidden: Vec<Range<usize>>,
}

impl StopMatcher {
    pub fn new(stops: Arc<[String]>) -> Self {
        Self { stops, held: String::new(), hidden: Vec::new() }
    }

    /// Whether there is anything to look for.
    pub fn is_idle(&self) -> bool {
        self.stops.is_empty()
    }

    /// Text that is certain to be part of the output and, if one was found, which stop string follows it.
    pub fn push(&mut self, piece: &str) -> (String, Option<usize>) {
        if self.stops.is_empty() {
            return (piece.to_owned(), None);
        }
        let scanned = self.held.len();
        self.held.push_str(piece);
        self.release(scanned)
    }

    /// As [`push`](Self::push), of a special token's name, which is not part of the output.
    pub fn push_hidden(&mut self, name: &str) -> (String, Option<usize>) {
        if self.stops.is_empty() || name.is_empty() {
            return (String::new(), None);
        }
        let scanned = self.held.len();
        self.held.push_str(name);
        self.hidden.push(scanned..self.held.len());
        self.release(scanned)
    }

    /// Text that no stop string may begin in, released at once.
    pub fn pass(&mut self, piece: &str) -> String {
        let mut text = self.finish();
        text.push_str(piece);
        text
    }

    /// The text that was held back, at the end of the sequence.
    pub fn finish(&mut self) -> String {
        self.take(self.held.len())
    }

    fn release(&mut self, scanned: usize) -> (String, Option<usize>) {
        let mut found = find(&self.stops, &self.held, scanned);
        let mut keep = may_continue(&self.stops, &self.held);
        if let Some((text, scanned)) = &self.as_read(scanned) {
            let places = find(&self.stops, text, *scanned).map(|at| Found {
                start: self.place(at.start, true),
                end: self.place(at.end, false),
                ..at
            });
            found = found.into_iter().chain(places).min();
            keep = keep.min(self.place(may_continue(&self.stops, text), true));
        }
        match found {
            Some(Found { start, which, .. }) => {
                let text = self.take(start);
                self.held.clear();
                self.hidden.clear();
                (text, Some(which))
            }
            None => (self.take(keep), None),
        }
    }

    /// Takes the first `end` bytes off what is held, without what is hidden in them.
    fn take(&mut self, end: usize) -> String {
        let rest = self.held.split_off(end);
        let taken = std::mem::replace(&mut self.held, rest);
        if self.hidden.is_empty() {
            return taken;
        }
        let (mut text, mut from) = (String::new(), 0);
        for name in self.hidden.iter().take_while(|name| name.start < end) {
            text += &taken[from..name.start];
            from = name.end.min(end);
        }
        text += &taken[from..];
        let left = |name: &Range<usize>| name.start.saturating_sub(end)..name.end.saturating_sub(end);
        self.hidden = self.hidden.iter().map(left).filter(|name| !name.is_empty()).collect();
        text
    }

    /// What is held without what is hidden in it, and how much of that was looked at when `held` was `scanned` bytes
    /// long; `None`: nothing is hidden.
    fn as_read(&self, scanned: usize) -> Option<(String, usize)> {
        let last = self.hidden.last()?.end;
        let (mut text, mut from) = (String::new(), 0);
        for name in &self.hidden {
            text += &self.held[from..name.start];
            from = name.end;
        }
        text += &self.held[last..];
        let before = self.hidden.iter().filter(|name| name.end <= scanned).map(Range::len);
        Some((text, scanned - before.sum::<usize>()))
    }

    /// Where in `held` a byte of the text as it is read is. Between two bytes that a name parts, the place `after` the
    /// name or before it.
    fn place(&self, at: usize, after: bool) -> usize {
        let mut place = at;
        for name in &self.hidden {
            if name.start < place || after && name.start == place {
                place += name.len();
            }
        }
        place
    }
}

/// The lesser is the one that counts.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    end: usize,
    start: usize,
    which: usize,
}

/// The stop string in `text` with the first end after byte `scanned`.
fn find(stops: &[String], text: &str, scanned: usize) -> Option<Found> {
    let found = stops.iter().enumerate().filter_map(|(which, stop)| {
        let mut from = (scanned + 1).saturating_sub(stop.len());
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let start = from + text.get(from..)?.find(stop.as_str())?;
        Some(Found { end: start + stop.len(), start, which })
    });
    found.min()
}

/// Where the longest suffix of `text` begins that is a proper prefix of a stop string.
fn may_continue(stops: &[String], text: &str) -> usize {
    let longest = stops.iter().map(String::len).max().unwrap_or(1) - 1;
    let from = text.len().saturating_sub(longest);
    let mut starts = (from..text.len()).filter(|at| text.is_char_boundary(*at));
    starts.find(|at| stops.iter().any(|stop| stop.starts_with(&text[*at..]))).unwrap_or(text.len())
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

    /// As `run`; a piece in brackets is a special token's name.
    fn run_marked(pieces: &[&str], stops: &[&str]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops.iter().map(ToString::to_string).collect());
        let mut out = String::new();
        for piece in pieces {
            let hidden = piece.starts_with('<') && piece.ends_with('>');
            let (text, stop) = if hidden { matcher.push_hidden(piece) } else { matcher.push(piece) };
            out += &text;
            if stop.is_some() {
                return (out, stop);
            }
        }
        (out + &matcher.finish(), None)
    }

    /// Pieces and stop strings; what is left, and which one ended it.
    type Marked = (&'static [&'static str], &'static [&'static str], &'static str, Option<usize>);

    #[test]
    fn special_tokens_are_seen_and_not_read() {
        let cases: &[Marked] = &[
            (&["ab", "<e>", "cd"], &["<e>"], "ab", Some(0)),
            (&["ab", "<e>", "cd"], &["b<e>"], "a", Some(0)),
            (&["ab", "<e>", "cd"], &["<e>c"], "ab", Some(0)),
            (&["ab", "<e>", "cd"], &["e>c"], "ab", Some(0)),
            (&["ab", "<e>", "cd"], &["b<e>cd"], "a", Some(0)),
            (&["ab", "<e>", "cd"], &["b<"], "a", Some(0)),
            (&["ab", "<e>", "cd"], &["<e>d"], "abcd", None),
            // As it is read: the name between is no part of the text.
            (&["ab", "<e>", "cd"], &["bc"], "a", Some(0)),
            (&["ab", "<e>", "<e>", "cd"], &["bc"], "a", Some(0)),
            (&["ab", "<e>", "<e>", "cd"], &["<e><e>"], "ab", Some(0)),
            (&["ab", "<e>", "<f>", "cd"], &["<e>c", "<f>c"], "ab", Some(1)),
            (&["<e>", "ab"], &["<e>b", "b"], "a", Some(1)),
            (&["<e>", "<e>"], &["<e><f>"], "", None),
            (&["a", "<e>", "b", "<e>", "c"], &["ab<e>x", "abcd"], "abc", None),
            (&["a", "<e>", "b", "<e>", "c"], &["bc", "b<e>c"], "a", Some(0)),
            (&["a<", "<e>", "b"], &["<<e"], "a", Some(0)),
            (&["好", "<e>", "好"], &["<e>好"], "好", Some(0)),
        ];
        for (pieces, stops, expected, stop) in cases {
            assert_eq!(run_marked(pieces, stops), (expected.to_string(), *stop), "{pieces:?} {stops:?}");
        }
    }

    /// Against the definition: the first end of a stop string in either text.
    #[test]
    fn random_texts_with_special_tokens_end_where_either_text_first_has_a_stop_string() {
        let pick =
            |i: u64, n: usize| (crate::generation::sampling::rng::uniform(12, i, 0) * n as f64) as usize;
        let marked = |from: u64, longest: usize| -> Vec<&str> {
            let kinds = ["a", "b", "好", "<e>", "<f>"];
            (0..1 + pick(from, longest)).map(|k| kinds[pick(from + 1 + k as u64, 5)]).collect()
        };
        for case in 0..3000u64 {
            let pieces = marked(case * 200, 9);
            let count = 1 + pick(case * 200 + 20, 3);
            let stops: Vec<String> = (0..count)
                .map(|k| {
                    let whole = marked(case * 200 + 30 + 20 * k as u64, 4).concat();
                    let skip = pick(case * 200 + 150 + k as u64, 2);
                    whole.chars().skip(if whole.chars().count() > 1 { skip } else { 0 }).collect()
                })
                .collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let is_name = |piece: &&&str| piece.starts_with('<');
            let (mut full, mut read, mut expected) = (String::new(), String::new(), None);
            for (at, piece) in pieces.iter().enumerate() {
                let before = (full.len(), read.len());
                full += piece;
                read += if is_name(&piece) { "" } else { piece };
                // Places in the text as it is read become places in the full one.
                let place = |byte: usize, after: bool| {
                    let (mut left, mut place) = (byte, 0);
                    for piece in &pieces[..=at] {
                        let hidden = is_name(&piece);
                        if left == 0 && !(after && hidden) || !hidden && left < piece.len() {
                            break;
                        }
                        place += piece.len();
                        left -= if hidden { 0 } else { piece.len() };
                    }
                    place + left
                };
                let ends = |text: &str, scanned: usize| {
                    find(&stops.iter().map(ToString::to_string).collect::<Vec<_>>(), text, scanned)
                };
                let in_full = ends(&full, before.0);
                let in_read = ends(&read, before.1).map(|found| Found {
                    start: place(found.start, true),
                    end: place(found.end, false),
                    ..found
                });
                if let Some(Found { start, which, .. }) = in_full.into_iter().chain(in_read).min() {
                    let (mut kept, mut from) = (String::new(), 0);
                    for piece in &pieces[..=at] {
                        let upto = start.saturating_sub(from).min(piece.len());
                        kept += if is_name(&piece) { "" } else { &piece[..upto] };
                        from += piece.len();
                    }
                    expected = Some((kept, Some(which)));
                    break;
                }
            }
            let expected = expected.unwrap_or((read, None));
            assert_eq!(run_marked(&pieces, &stops), expected, "{pieces:?} {stops:?}");
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
