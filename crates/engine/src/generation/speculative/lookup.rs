//! What followed the same tokens before.

/// Tokens that are compared; more say no more.
const LONGEST: usize = 8;

/// Where the last tokens stood before: of several places the one where most of the tokens before agree, of these the
/// latest. Returns how many agree, and what followed there. One pass over `tokens`.
pub(super) fn find(tokens: &[u32]) -> Option<(usize, &[u32])> {
    let (last, before) = tokens.split_last()?;
    let mut best = None;
    let mut end = before.len();
    while let Some(at) = before[..end].iter().rposition(|token| token == last) {
        let common = before[..at].iter().rev().zip(before.iter().rev()).take_while(|(a, b)| a == b);
        let matched = 1 + common.take(LONGEST - 1).count();
        if best.is_none_or(|(most, _)| matched > most) {
            best = Some((matched, at + 1));
        }
        if matched == LONGEST {
            break;
        }
        end = at;
    }
    best.map(|(matched, from)| (matched, &tokens[from..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_agreement_is_found_and_of_equals_the_latest() {
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[1]), None);
        assert_eq!(find(&[1, 2]), None);
        assert_eq!(find(&[1, 1]), Some((1, &[1][..])));
        assert_eq!(find(&[5, 1, 6, 1, 7, 1]), Some((1, &[7, 1][..])));
        assert_eq!(find(&[2, 1, 6, 3, 1, 7, 2, 1]), Some((2, &[6, 3, 1, 7, 2, 1][..])));
        let long: Vec<u32> = (0..20).chain(0..20).collect();
        assert_eq!(find(&long), Some((8, &long[20..])));
    }
}
