//! One vector compared with many: bits against the reference.

mod common;

use candlewick_kernels::{
    Compare, Line, LineBytes, compare_byte_rows, compare_rows, differing_bits, dot_byte_rows, reference,
};
use common::{Random, assert_same_bits, pools};

const KINDS: [Compare; 3] = [Compare::Products, Compare::Squares, Compare::Distances];

#[test]
fn floats_equal_the_reference() {
    for (width, count) in [(1, 5), (7, 4), (16, 9), (37, 3), (384, 11), (1000, 2)] {
        let mut random = Random(30);
        let (query, rows) = (random.values(width), random.values(width * count));
        for kind in KINDS {
            let expected: Vec<f32> =
                rows.chunks(width).map(|row| reference::compare(kind, &query, row)).collect();
            for pool in pools(1) {
                let mut out = vec![f32::NAN; count];
                compare_rows(&pool, kind, &query, &rows, &mut out);
                assert_same_bits(&out, &expected, &format!("{kind:?} {count}x{width} {}", pool.isa()));
            }
        }
    }
}

fn lines(count: usize, mut byte: impl FnMut(usize) -> u8) -> Vec<Line> {
    let mut lines = vec![Line([0; 64]); count];
    lines.as_flattened_bytes_mut().iter_mut().enumerate().for_each(|(i, to)| *to = byte(i));
    lines
}

#[test]
fn bytes_equal_the_reference() {
    // 1,500 lines are more than 32 bits can sum.
    for (wide, count) in [(1, 1), (1, 7), (6, 13), (1024, 2), (1500, 3)] {
        let mut random = Random(31);
        for largest in [false, true] {
            let query = lines(wide, |_| if largest { 127 } else { random.below(255) as u8 ^ 128 });
            let rows = lines(wide * count, |_| if largest { 255 } else { random.below(256) as u8 });
            // -128 is no value of a query's.
            let query =
                lines(wide, |i| query.as_flattened_bytes()[i].max(129).wrapping_add(u8::from(largest)));
            let signed: Vec<i8> = query.as_flattened_bytes().iter().map(|byte| byte.cast_signed()).collect();
            let bytes = rows.as_flattened_bytes();
            let expected: Vec<f32> =
                bytes.chunks(wide * 64).map(|row| reference::dot_bytes(&signed, row)).collect();
            for pool in pools(1) {
                let mut out = vec![f32::NAN; count];
                dot_byte_rows(&pool, &query, &rows, &mut out);
                assert_same_bits(&out, &expected, &format!("{count}x{wide} {}", pool.isa()));
            }
        }
    }
}

#[test]
fn scaled_bytes_and_bits_equal_the_reference() {
    let (width, wide, count) = (100, 2, 5);
    let mut random = Random(32);
    let (query, scales) = (random.values(width), random.values(count));
    let rows = lines(wide * count, |_| random.below(256) as u8);
    for kind in KINDS {
        let scaled = |(row, scale): (&[u8], &f32)| {
            let row: Vec<f32> = row[..width].iter().map(|byte| (f32::from(*byte) - 128.0) * scale).collect();
            reference::compare(kind, &query, &row)
        };
        let expected: Vec<f32> =
            rows.as_flattened_bytes().chunks(wide * 64).zip(&scales).map(scaled).collect();
        for pool in pools(1) {
            let mut out = vec![f32::NAN; count];
            compare_byte_rows(&pool, kind, &query, &rows, &scales, &mut out);
            assert_same_bits(&out, &expected, &format!("{kind:?} {}", pool.isa()));
        }
    }
    let words: Vec<u64> = (0..9).map(|_| random.next()).collect();
    let mut out = [0; 2];
    differing_bits(&words[..3], &words[3..], &mut out);
    for (row, bits) in words[3..].chunks(3).zip(out) {
        let differ = |(a, b): (&u64, &u64)| (0..64).filter(|bit| (a ^ b) >> bit & 1 == 1).count();
        assert_eq!(bits as usize, row.iter().zip(&words[..3]).map(differ).sum::<usize>());
    }
}
