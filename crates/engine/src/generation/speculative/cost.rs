//! What a row costs a pass over the weights: a line through the times of the last steps.

/// A step counts half as much 69 steps later.
const FADE: f64 = 0.99;
/// What a row is believed to cost before steps of different sizes were seen, as a share of a pass of one row.
const BELIEF: f64 = 0.15;
/// How much that counts, in the unit of the rows' variance.
const WEIGHT: f64 = 0.5;

/// Sums over steps: of 1, rows, rows², seconds, rows × seconds.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    count: f64,
    rows: f64,
    squares: f64,
    seconds: f64,
    products: f64,
}

impl Cost {
    /// A step of `rows` rows, none of which was of a prompt, took `seconds`.
    pub fn took(&mut self, rows: usize, seconds: f64) {
        let rows = rows as f64;
        let add = |sum: &mut f64, value: f64| *sum = *sum * FADE + value;
        add(&mut self.count, 1.0);
        add(&mut self.rows, rows);
        add(&mut self.squares, rows * rows);
        add(&mut self.seconds, seconds);
        add(&mut self.products, rows * seconds);
    }

    /// The share of a pass of `rows` rows that its rows cost: 0 if a row is free, 1 if the rest is.
    pub fn share_of_row(&self, rows: usize) -> f64 {
        let rows = rows.max(1) as f64;
        match self.line() {
            Some((fixed, row)) => row * rows / (fixed + row * rows),
            None => BELIEF * rows / (1.0 - BELIEF + BELIEF * rows),
        }
    }

    /// Seconds of a pass of `rows` rows; `None`: no step was seen.
    pub fn seconds(&self, rows: usize) -> Option<f64> {
        self.line().map(|(fixed, row)| fixed + row * rows as f64)
    }

    /// Seconds of a pass without rows, and of a row.
    fn line(&self) -> Option<(f64, f64)> {
        if self.count == 0.0 {
            return None;
        }
        let (mean, seconds) = (self.rows / self.count, self.seconds / self.count);
        let variance = (self.squares / self.count - mean * mean).max(0.0);
        let covariance = self.products / self.count - mean * seconds;
        let believed = BELIEF * seconds / (1.0 - BELIEF + BELIEF * mean);
        let row = (covariance + WEIGHT * believed) / (variance + WEIGHT);
        // Neither free nor more than the whole, whatever disturbed the clock.
        let row = row.clamp(0.02 * believed / BELIEF, seconds / mean);
        Some((seconds - row * mean, row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_and_the_belief_given_up() {
        let mut cost = Cost::default();
        assert!((cost.share_of_row(1) - BELIEF).abs() < 1e-9);
        for _ in 0..10 {
            cost.took(1, 0.02);
        }
        assert!((cost.share_of_row(1) - BELIEF).abs() < 1e-6, "one size says nothing");
        for rows in [1, 4, 8, 2].repeat(50) {
            cost.took(rows, 0.010 + 0.002 * rows as f64);
        }
        assert!((cost.share_of_row(1) - 0.002 / 0.012).abs() < 0.02, "{}", cost.share_of_row(1));
        assert!((cost.share_of_row(8) - 0.016 / 0.026).abs() < 0.02, "{}", cost.share_of_row(8));
        assert!((cost.seconds(4).unwrap() - 0.018).abs() < 0.001);
    }
}
