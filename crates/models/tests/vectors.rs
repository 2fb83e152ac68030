//! Which rows are closest: against a plain loop over all of them, for every similarity and precision.

use candlewick_models::{
    RowSet, Similarity, VectorPool, VectorPrecision, VectorQuery, VectorRows, VectorShape,
};

const ALL: [Similarity; 4] =
    [Similarity::Cosine, Similarity::Dot, Similarity::Euclidean, Similarity::Manhattan];

struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 24) as f32 - 0.5
    }

    /// About normal.
    fn vector(&mut self, width: usize) -> Vec<f32> {
        (0..width).map(|_| (0..4).map(|_| self.next()).sum()).collect()
    }
}

fn shape(
    width: usize,
    similarity: Similarity,
    precision: VectorPrecision,
    rescore: VectorPrecision,
) -> VectorShape {
    VectorShape { width, similarity, precision, rescore }
}

fn f32_shape(width: usize, similarity: Similarity) -> VectorShape {
    shape(width, similarity, VectorPrecision::F32, VectorPrecision::F32)
}

fn rows_of(shape: VectorShape, data: &[f32]) -> VectorRows {
    let mut rows = VectorRows::new(shape);
    data.chunks(shape.width).for_each(|row| rows.push(&mut row.to_vec()).unwrap());
    rows
}

fn find(
    rows: &VectorRows,
    query: &[f32],
    top_k: usize,
    among: Option<&RowSet>,
    threads: usize,
) -> Vec<(u32, f32)> {
    let asked = VectorQuery { top_k, oversample: 8, among, stop: &|| false };
    rows.search(&VectorPool::new(threads), &mut query.to_vec(), &asked).unwrap().remove(0)
}

/// In f64.
fn exact(kind: Similarity, a: &[f32], b: &[f32]) -> f64 {
    let sum =
        |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| f((*a).into(), (*b).into())).sum::<f64>();
    let length = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    match kind {
        Similarity::Cosine => sum(&|a, b| a * b) / (length(a) * length(b)).max(f64::MIN_POSITIVE),
        Similarity::Dot => sum(&|a, b| a * b),
        Similarity::Euclidean => -sum(&|a, b| (a - b) * (a - b)).sqrt(),
        Similarity::Manhattan => -sum(&|a, b| (a - b).abs()),
    }
}

/// Asked for all rows, the search scores all: that is the loop.
fn by_loop(rows: &VectorRows, query: &[f32], top_k: usize, among: Option<&RowSet>) -> Vec<(u32, f32)> {
    let mut all = find(rows, query, rows.len(), among, 1);
    all.truncate(top_k);
    all
}

#[test]
fn f32_rows_are_found_exactly_with_any_number_of_threads() {
    for (width, count) in [(3, 9000), (37, 20_000), (384, 9000), (1, 3000)] {
        let mut random = Random(5);
        let mut data: Vec<f32> = (0..count).flat_map(|_| random.vector(width)).collect();
        // Equal rows, and rows that differ in the last bit: ties, and what only f32 tells apart.
        for copy in [1, 2, 500, 2999] {
            data.copy_within(0..width, copy * width);
        }
        data[500 * width] = f32::from_bits(data[0].to_bits() + 1);
        for kind in ALL {
            let rows = rows_of(f32_shape(width, kind), &data);
            let near: Vec<f32> = data[..width].iter().map(|x| x * 1.01).collect();
            for query in [random.vector(width), near, vec![0.0; width]] {
                let all = by_loop(&rows, &query, count, None);
                for pair in all.windows(2) {
                    assert!(pair[0].1 > pair[1].1 || pair[0].1 == pair[1].1 && pair[0].0 < pair[1].0);
                }
                for (row, score) in all.iter().take(500).chain(&all[count - 50..]) {
                    let expected = exact(kind, &query, &data[*row as usize * width..][..width]);
                    assert!((f64::from(*score) - expected).abs() < 2e-5 * (1.0 + expected.abs()), "{kind:?}");
                }
                for (top_k, threads) in [(1, 1), (10, 1), (10, 3), (100, 2)] {
                    let found = find(&rows, &query, top_k, None, threads);
                    assert_eq!(
                        found,
                        all[..top_k],
                        "{kind:?} {count}x{width} top {top_k}, {threads} threads"
                    );
                }
            }
        }
    }
}

#[test]
fn rows_of_all_lengths_are_found_exactly() {
    let (width, count) = (64, 6000);
    let mut random = Random(6);
    let row = |at: usize, random: &mut Random| {
        let scale = [1e-20, 1e-3, 1.0, 1e3, 1e15][at % 5];
        random.vector(width).into_iter().map(move |x| x * scale).collect::<Vec<f32>>()
    };
    let data: Vec<f32> = (0..count).flat_map(|at| row(at, &mut random)).collect();
    for kind in ALL {
        for precision in [VectorPrecision::F32, VectorPrecision::Int8] {
            let rows = rows_of(shape(width, kind, precision, precision), &data);
            for at in 0..5 {
                let query = row(at, &mut random);
                assert_eq!(
                    find(&rows, &query, 10, None, 2),
                    by_loop(&rows, &query, 10, None),
                    "{kind:?} {at}"
                );
            }
        }
    }
}

#[test]
fn a_set_of_rows_is_searched_alone() {
    let (width, count) = (48, 7000);
    let mut random = Random(7);
    let data: Vec<f32> = (0..count).flat_map(|_| random.vector(width)).collect();
    for precision in [VectorPrecision::F32, VectorPrecision::Int8, VectorPrecision::Binary] {
        let rescore = if precision == VectorPrecision::Binary { VectorPrecision::F32 } else { precision };
        let rows = rows_of(shape(width, Similarity::Cosine, precision, rescore), &data);
        for step in [2, 3, 1000, 6999, 8000] {
            let among = RowSet::of(count, |row| row % step == 1);
            let query = random.vector(width);
            let found = find(&rows, &query, 5, Some(&among), 2);
            assert!(found.iter().all(|(row, _)| *row as usize % step == 1));
            assert_eq!(found.len(), among.count().min(5));
            if precision != VectorPrecision::Binary {
                assert_eq!(found, by_loop(&rows, &query, 5, Some(&among)));
            }
        }
        assert!(find(&rows, &data[..width], 5, Some(&RowSet::new(count, false)), 1).is_empty());
    }
}

/// Clusters, as vectors of texts have; the share of the ten closest that each precision finds.
#[test]
fn int8_and_bits_find_nearly_all() {
    let (width, count, queries) = (384, 20_000, 40);
    let mut random = Random(8);
    let centres: Vec<Vec<f32>> = (0..200).map(|_| random.vector(width)).collect();
    let near = |random: &mut Random, at: usize| -> Vec<f32> {
        centres[at % 200].iter().zip(random.vector(width)).map(|(centre, x)| centre + 0.6 * x).collect()
    };
    let data: Vec<f32> = (0..count).flat_map(|at| near(&mut random, at)).collect();
    let exact = rows_of(f32_shape(width, Similarity::Cosine), &data);
    let asked: Vec<Vec<f32>> = (0..queries).map(|at| near(&mut random, at * 7)).collect();
    for (precision, rescore, least) in [
        (VectorPrecision::Int8, VectorPrecision::Int8, 0.97),
        (VectorPrecision::Binary, VectorPrecision::F32, 0.9),
        (VectorPrecision::Binary, VectorPrecision::Int8, 0.9),
        (VectorPrecision::Binary, VectorPrecision::Binary, 0.3),
    ] {
        let rows = rows_of(shape(width, Similarity::Cosine, precision, rescore), &data);
        let mut same = 0;
        for query in &asked {
            let expected = find(&exact, query, 10, None, 2);
            let found = find(&rows, query, 10, None, 2);
            assert_eq!(found, find(&rows, query, 10, None, 1));
            same += found.iter().filter(|(row, _)| expected.iter().any(|(other, _)| row == other)).count();
        }
        let recall = same as f64 / (10 * queries) as f64;
        println!("{precision:?} rescored {rescore:?}: {recall}");
        assert!(recall >= least, "{precision:?} {rescore:?}: {recall}");
    }
}

#[test]
fn what_is_not_finite_is_refused_and_changes_nothing() {
    for kind in ALL {
        let mut rows = rows_of(f32_shape(4, kind), &[1.0, 2.0, 3.0, 4.0]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(rows.push(&mut [0.0, bad, 0.0, 0.0]).unwrap_err().code(), "INPUT_INVALID");
            assert_eq!(rows.replace(0, &mut [0.0, bad, 0.0, 0.0]).unwrap_err().code(), "INPUT_INVALID");
            let asked = VectorQuery { top_k: 1, oversample: 1, among: None, stop: &|| false };
            let mut queries = [1.0, 1.0, 1.0, 1.0, bad, 0.0, 0.0, 0.0];
            let (at, error) = rows.search(&VectorPool::new(1), &mut queries, &asked).unwrap_err();
            assert_eq!((at, error.code()), (1, "INPUT_INVALID"));
        }
        let long = rows.push(&mut [3e38, 3e38, 0.0, 0.0]);
        assert_eq!(long.is_ok(), kind == Similarity::Cosine);
        let found = find(&rows, &[1.0, 2.0, 3.0, 4.0], 1, None, 1);
        assert!(found[0].0 == 0 && found[0].1.is_finite());
    }
}

#[test]
fn rows_are_replaced_joined_and_compacted() {
    let (width, count) = (200, 12_000);
    let mut random = Random(9);
    let data: Vec<f32> = (0..count).flat_map(|_| random.vector(width)).collect();
    let query = random.vector(width);
    for precision in [VectorPrecision::F32, VectorPrecision::Int8, VectorPrecision::Binary] {
        let shape = shape(width, Similarity::Dot, precision, precision.max_with_floats());
        let expected = find(&rows_of(shape, &data), &query, 20, None, 2);
        // In parts of odd lengths.
        let mut joined = VectorRows::new(shape);
        for part in data.chunks(777 * width) {
            joined.append(rows_of(shape, part));
        }
        assert_eq!(find(&joined, &query, 20, None, 2), expected);
        // Every third row is another one, and then itself again.
        let mut changed = joined.clone();
        for row in (0..count).step_by(3) {
            changed.replace(row, &mut random.vector(width)).unwrap();
        }
        assert_ne!(find(&changed, &query, 20, None, 2), expected);
        assert_eq!(find(&joined, &query, 20, None, 2), expected, "a copy is not changed with it");
        for row in (0..count).step_by(3) {
            changed.replace_from(row, &joined, row);
        }
        assert_eq!(find(&changed, &query, 20, None, 2), expected);
        // The second half alone.
        let kept = RowSet::of(count, |row| row % 5 != 0);
        let mut compacted = joined;
        compacted.compact(&kept);
        let left: Vec<f32> = kept.iter().flat_map(|row| data[row * width..][..width].to_vec()).collect();
        assert_eq!(find(&compacted, &query, 20, None, 2), find(&rows_of(shape, &left), &query, 20, None, 2));
        assert_eq!(compacted.len(), kept.count());
    }
}

trait MaxWithFloats {
    fn max_with_floats(self) -> VectorPrecision;
}

impl MaxWithFloats for VectorPrecision {
    /// Bits are rescored with f32.
    fn max_with_floats(self) -> VectorPrecision {
        if self == Self::Binary { Self::F32 } else { self }
    }
}

#[test]
fn a_search_stops_when_it_is_told_to() {
    let rows = rows_of(f32_shape(2, Similarity::Dot), &[1.0; 200]);
    let asked = VectorQuery { top_k: 1, oversample: 1, among: None, stop: &|| true };
    let (_, error) = rows.search(&VectorPool::new(1), &mut [1.0, 1.0], &asked).unwrap_err();
    assert_eq!(error.code(), "ABORTED");
}

/// Not a test: how long a search takes (`cargo test --release … -- --ignored --nocapture speed`).
#[test]
#[ignore = "a measurement"]
fn speed() {
    let (width, count) = (384, 1_000_000);
    let mut random = Random(10);
    for precision in [VectorPrecision::F32, VectorPrecision::Int8, VectorPrecision::Binary] {
        let rescore = if precision == VectorPrecision::Binary { VectorPrecision::Int8 } else { precision };
        let mut rows = VectorRows::new(shape(width, Similarity::Cosine, precision, rescore));
        let begin = std::time::Instant::now();
        for _ in 0..count {
            let mut row: Vec<f32> = (0..width).map(|_| random.next() + random.next()).collect();
            rows.push(&mut row).unwrap();
        }
        println!("{precision:?}: made in {:?}", begin.elapsed());
        for threads in [1, 2] {
            let pool = VectorPool::new(threads);
            for queries in [1, 1, 1, 1, 1, 16] {
                let mut query: Vec<f32> = (0..queries * width).map(|_| random.next()).collect();
                let begin = std::time::Instant::now();
                let asked = VectorQuery { top_k: 10, oversample: 4, among: None, stop: &|| false };
                rows.search(&pool, &mut query, &asked).unwrap();
                println!("{precision:?}, {threads} threads, {queries} queries: {:?}", begin.elapsed());
            }
        }
    }
}
