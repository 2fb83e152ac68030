//! The products against the reference, bit for bit, on every instruction set that this machine has.

mod common;

use candlewick_kernels::{
    Activation, Epilogue, KernelError, Layout, PackedMatrix, Packing, Pool, Q4_0_BYTES, Q8_0_BYTES, Scratch,
    SourceType, WeightType, matmul, reference,
};
use common::{Random, assert_same_bits, pools};
use half::{bf16, f16};
use proptest::prelude::*;

const ACTIVATIONS: [Activation; 5] =
    [Activation::GeluNew, Activation::Gelu, Activation::Relu, Activation::Silu, Activation::Tanh];

fn pack(pool: &Pool, weight_type: WeightType, n: usize, k: usize, seed: u64) -> PackedMatrix {
    PackedMatrix::pack(pool, weight_type, Layout::OutIn, n, k, &Random(seed).values(n * k))
        .expect("sizes fit")
}

fn product(pool: &Pool, x: &[f32], m: usize, w: &PackedMatrix, ep: Epilogue) -> Vec<f32> {
    let mut out = vec![f32::NAN; m * w.n()];
    matmul(pool, x, m, w, ep, &mut Scratch::new(), &mut out);
    out
}

#[test]
fn equals_the_reference_for_every_isa_type_and_odd_size() {
    let one = Pool::new(1);
    for weight_type in WeightType::ALL {
        // (N, K): fewer outputs than lanes, tails of panels and of groups of panels, an odd number of blocks.
        for (n, k) in [(1, 32), (7, 64), (16, 96), (17, 32), (48, 160), (83, 224), (257, 64)] {
            let k = if weight_type.is_block_quantized() { k } else { k + n % 5 + 1 };
            let w = pack(&one, weight_type, n, k, 1);
            let x = Random(2).values(70 * k);
            let mut expected = vec![0.0; 70 * n];
            reference::matmul(&x, 70, &w, &Epilogue::default(), &mut expected);
            for pool in pools(2) {
                for m in [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 33, 70] {
                    let got = product(&pool, &x[..m * k], m, &w, Epilogue::default());
                    assert_same_bits(
                        &got,
                        &expected[..m * n],
                        &format!("{weight_type} {m}x{n}x{k} {}", pool.isa()),
                    );
                }
            }
        }
    }
}

#[test]
fn epilogues_equal_the_reference() {
    let (m, n, k) = (5, 37, 64);
    let mut random = Random(3);
    let (x, bias, residual) = (random.values(m * k), random.values(n), random.values(m * n));
    for pool in pools(1) {
        let w = pack(&pool, WeightType::F32, n, k, 4);
        for activation in ACTIVATIONS.map(Some).into_iter().chain([None]) {
            for parts in 0..4 {
                let ep = Epilogue {
                    bias: (parts & 1 != 0).then_some(&bias),
                    activation,
                    residual: (parts & 2 != 0).then_some(&residual),
                };
                let mut expected = vec![0.0; m * n];
                reference::matmul(&x, m, &w, &ep, &mut expected);
                assert_same_bits(
                    &product(&pool, &x, m, &w, ep),
                    &expected,
                    &format!("{activation:?} {}", pool.isa()),
                );
            }
        }
    }
}

/// Rows that are bf16 already give what f32 rows give that are rounded on the way, and are written rounded.
#[test]
fn rows_in_bf16_equal_rows_that_are_rounded() {
    let (m, n, k) = (21, 83, 96);
    let mut random = Random(12);
    let (x, residual) = (random.values(m * k), random.values(m * n));
    let halves: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
    for pool in pools(2) {
        let ep =
            Epilogue { activation: Some(Activation::Gelu), residual: Some(&residual), ..Epilogue::default() };
        let rounded: Vec<f32> = halves.iter().map(|x| x.to_f32()).collect();
        for (weight_type, m) in
            [WeightType::Bf16, WeightType::Int8].into_iter().flat_map(|t| [1, 3, m].map(|m| (t, m)))
        {
            let w = pack(&pool, weight_type, n, k, 13);
            let ep = Epilogue { residual: Some(&residual[..m * n]), ..ep };
            let x = if weight_type == WeightType::Int8 { &rounded } else { &x };
            let expected = product(&pool, &x[..m * k], m, &w, ep);
            let (mut out, mut rounded) = (vec![0.0; m * n], vec![bf16::ZERO; m * n]);
            let mut scratch = Scratch::new();
            matmul(&pool, &halves[..m * k], m, &w, ep, &mut scratch, &mut out);
            matmul(&pool, &halves[..m * k], m, &w, ep, &mut scratch, &mut rounded);
            assert_same_bits(&out, &expected, &format!("{weight_type}, {m} rows, {}", pool.isa()));
            assert!(rounded.iter().zip(&out).all(|(half, y)| *half == bf16::from_f32(*y)), "{}", pool.isa());
        }
    }
}

#[test]
fn threads_change_nothing() {
    for weight_type in WeightType::ALL {
        let (m, n, k) = (19, 300, 128);
        let x = Random(5).values(m * k);
        let one = Pool::new(1);
        let w = pack(&one, weight_type, n, k, 6);
        let expected = product(&one, &x, m, &w, Epilogue::default());
        for threads in 2..=4 {
            let pool = Pool::new(threads);
            let _awake = pool.active();
            assert_same_bits(&product(&pool, &x, m, &w, Epilogue::default()), &expected, "threads");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A row gives the same bits alone and among any others.
    #[test]
    fn a_row_does_not_depend_on_its_batch(
        cuts in prop::collection::vec(1usize..24, 1..6), n in 1usize..100, blocks in 1usize..6, which in 0usize..6, seed: u64,
    ) {
        let (weight_type, k, m) = (WeightType::ALL[which], blocks * 32, cuts.iter().sum::<usize>());
        let pool = Pool::new(2);
        let w = pack(&pool, weight_type, n, k, seed);
        let x = Random(seed ^ 1).values(m * k);
        let whole = product(&pool, &x, m, &w, Epilogue::default());
        let mut row = 0;
        for rows in cuts {
            let part = product(&pool, &x[row * k..][..rows * k], rows, &w, Epilogue::default());
            assert_same_bits(&part, &whole[row * n..][..rows * n], "batch");
            row += rows;
        }
    }
}

#[test]
fn quantised_extremes_are_exact() {
    // The largest sums that int8 can reach, where a saturating dot product would show.
    let pool = Pool::new(1);
    for sign in [1.0f32, -1.0] {
        for (weight_type, w0) in [(WeightType::Q8_0, 127.0), (WeightType::Q4_0, -8.0)] {
            let w = PackedMatrix::pack(&pool, weight_type, Layout::OutIn, 16, 32, &[w0 * sign; 512]).unwrap();
            let mut expected = vec![0.0; 16];
            reference::matmul(&[127.0; 32], 1, &w, &Epilogue::default(), &mut expected);
            assert_eq!(expected[0], 32.0 * 127.0 * w0 * sign, "the reference itself");
            for pool in pools(1) {
                assert_same_bits(
                    &product(&pool, &[127.0; 32], 1, &w, Epilogue::default()),
                    &expected,
                    "extreme",
                );
            }
        }
    }
    // One value alone turns into 128 of the same magnitude.
    let one = |value: f32| std::iter::once(value).chain([0.0; 127]).collect::<Vec<_>>();
    for (sign, pool) in
        [1.0, -1.0].into_iter().flat_map(|sign| pools(1).into_iter().map(move |pool| (sign, pool)))
    {
        let w =
            PackedMatrix::pack(&pool, WeightType::Int8, Layout::OutIn, 1, 128, &one(127.0 * sign)).unwrap();
        let found = product(&pool, &one(127.0), 1, &w, Epilogue::default());
        assert_eq!(found, [127.0 * 127.0 * sign], "{}", pool.isa());
    }
    // GGUF files may hold -128.
    let mut blocks = vec![0x80u8; Q8_0_BYTES];
    blocks[..2].copy_from_slice(&f16::ONE.to_le_bytes());
    let w =
        PackedMatrix::pack_bytes(&pool, WeightType::Q8_0, Layout::OutIn, 1, 32, SourceType::Q8_0, &blocks)
            .unwrap();
    for pool in pools(1) {
        assert_eq!(product(&pool, &[-127.0; 32], 1, &w, Epilogue::default()), [32.0 * 127.0 * 128.0]);
    }
}

#[test]
fn quantised_inputs_that_are_not_ordinary() {
    let pool = Pool::new(1);
    for weight_type in [WeightType::Q8_0, WeightType::Int8] {
        let w = pack(&pool, weight_type, 20, 64, 7);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = Random(8).values(64);
            x[40] = bad;
            for pool in pools(1) {
                let out = product(&pool, &x, 1, &w, Epilogue::default());
                assert!(out.iter().all(|y| y.is_nan()), "{bad}, {weight_type} on {}", pool.isa());
            }
        }
        for tiny in [0.0, 1e-38, 1e-42] {
            for pool in pools(1) {
                let out = product(&pool, &[tiny; 64], 1, &w, Epilogue::default());
                assert!(out.iter().all(|y| *y == 0.0), "{tiny}, {weight_type} on {}", pool.isa());
            }
        }
    }
}

#[test]
fn both_layouts_and_f16_sources_agree() {
    let (pool, n, k) = (Pool::new(2), 50, 64);
    let weights = Random(9).values(n * k);
    let transposed: Vec<f32> = (0..n * k).map(|i| weights[i % n * k + i / n]).collect();
    let (mut a, mut b) = (vec![0.0; k], vec![0.0; k]);
    for weight_type in WeightType::ALL {
        let out_in = PackedMatrix::pack(&pool, weight_type, Layout::OutIn, n, k, &weights).unwrap();
        let in_out = PackedMatrix::pack(&pool, weight_type, Layout::InOut, n, k, &transposed).unwrap();
        let halves: Vec<f16> = weights.iter().map(|w| f16::from_f32(*w)).collect();
        let bytes: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
        let from_f16 =
            PackedMatrix::pack_bytes(&pool, WeightType::F16, Layout::OutIn, n, k, SourceType::F16, &bytes)
                .unwrap();
        for row in 0..n {
            out_in.dequantize_row(row, &mut a);
            in_out.dequantize_row(row, &mut b);
            assert_same_bits(&a, &b, "layouts");
            let tolerance = match weight_type {
                WeightType::F32 => 0.0,
                WeightType::F16 => 0.02,
                WeightType::Bf16 => 0.16,
                WeightType::Q8_0 => 0.2,
                WeightType::Q4_0 => 5.2,
                WeightType::Int8 => 0.5,
            };
            let close = |(got, w): (&f32, &f32)| (got - w).abs() <= tolerance;
            assert!(a.iter().zip(&weights[row * k..]).all(close), "{weight_type} row {row}");
            from_f16.dequantize_row(row, &mut b);
            assert!(b.iter().zip(&halves[row * k..]).all(|(got, h)| *got == h.to_f32()));
        }
    }
}

/// Every kind of bytes packs as its values in f32 would, whole and in parts; a K of no whole block included.
#[test]
fn every_source_packs_as_its_values() {
    let (pool, n) = (Pool::new(2), 50);
    let mut random = Random(11);
    for (k, weight_type) in [64, 40, 37].into_iter().flat_map(|k| WeightType::ALL.map(|t| (k, t))) {
        if weight_type.is_block_quantized() && k % 32 != 0 {
            continue;
        }
        for source in [SourceType::F32, SourceType::F16, SourceType::BF16, SourceType::Q8_0, SourceType::Q4_0]
        {
            if matches!(source, SourceType::Q8_0 | SourceType::Q4_0) && k % 32 != 0 {
                continue;
            }
            let mut bytes: Vec<u8> = (0..n * source.row_bytes(k)).map(|_| random.next() as u8).collect();
            let values: Vec<f32> = match source {
                SourceType::F32 => {
                    let values = random.values(n * k);
                    bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    values
                }
                SourceType::F16 => {
                    let values: Vec<f16> = random.values(n * k).iter().map(|v| f16::from_f32(*v)).collect();
                    bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    values.iter().map(|v| v.to_f32()).collect()
                }
                SourceType::BF16 => {
                    let values: Vec<_> = random.values(n * k).iter().map(|v| v.to_bits() >> 16).collect();
                    bytes = values.iter().flat_map(|v| (*v as u16).to_le_bytes()).collect();
                    values.iter().map(|v| f32::from_bits(v << 16)).collect()
                }
                SourceType::Q8_0 | SourceType::Q4_0 => {
                    let size = source.row_bytes(32);
                    bytes.chunks_exact_mut(size).for_each(|block| {
                        block[..2].copy_from_slice(&f16::from_f32(random.value()).to_le_bytes())
                    });
                    let value = |block: &[u8], i: usize| {
                        let q = match source {
                            SourceType::Q8_0 => f32::from(block[2 + i] as i8),
                            _ if i < 16 => f32::from(block[2 + i] & 15) - 8.0,
                            _ => f32::from(block[2 + i - 16] >> 4) - 8.0,
                        };
                        f16::from_le_bytes([block[0], block[1]]).to_f32() * q
                    };
                    bytes.chunks_exact(size).flat_map(|block| (0..32).map(move |i| value(block, i))).collect()
                }
            };
            let expected = PackedMatrix::pack(&pool, weight_type, Layout::OutIn, n, k, &values).unwrap();
            let mut parts = Packing::new(&pool, weight_type, n, k).unwrap();
            for (first, rows) in [(32, 18), (0, 16), (16, 16)] {
                let part = &bytes[first * source.row_bytes(k)..][..rows * source.row_bytes(k)];
                parts.rows(first, rows, source, part).unwrap();
            }
            let parts = parts.finish();
            let (mut a, mut b) = (vec![0.0; k], vec![0.0; k]);
            // The blocks of a type's own keep their values, which quantising again need not.
            let kept = matches!(
                (weight_type, source),
                (WeightType::Q8_0, SourceType::Q8_0) | (WeightType::Q4_0, SourceType::Q4_0)
            );
            for row in 0..n {
                parts.dequantize_row(row, &mut a);
                expected.dequantize_row(row, &mut b);
                let expected = if kept { &values[row * k..][..k] } else { &b };
                assert_same_bits(&a, expected, &format!("{source:?} to {weight_type}, row {row}"));
            }
        }
    }
}

/// GGUF blocks keep every value: the dequantised row is d * q.
#[test]
fn gguf_blocks_are_kept() {
    let (pool, n, per_row) = (Pool::new(2), 21, 3);
    let mut random = Random(10);
    for (weight_type, bytes) in [(WeightType::Q8_0, Q8_0_BYTES), (WeightType::Q4_0, Q4_0_BYTES)] {
        let mut blocks: Vec<u8> = (0..n * per_row * bytes).map(|_| random.next() as u8).collect();
        for block in blocks.chunks_exact_mut(bytes) {
            block[..2].copy_from_slice(&f16::from_f32(random.value()).to_le_bytes());
        }
        let source = match weight_type {
            WeightType::Q8_0 => SourceType::Q8_0,
            _ => SourceType::Q4_0,
        };
        let w = PackedMatrix::pack_bytes(&pool, weight_type, Layout::OutIn, n, per_row * 32, source, &blocks)
            .unwrap();
        let mut row = vec![0.0; per_row * 32];
        for (i, block) in blocks.chunks_exact(bytes).enumerate() {
            w.dequantize_row(i / per_row, &mut row);
            let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
            for (j, got) in row[i % per_row * 32..][..32].iter().enumerate() {
                let q = match weight_type {
                    WeightType::Q8_0 => f32::from(block[2 + j] as i8),
                    _ if j < 16 => f32::from(block[2 + j] & 15) - 8.0,
                    _ => f32::from(block[2 + j - 16] >> 4) - 8.0,
                };
                assert_eq!(*got, d * q);
            }
        }
    }
}

#[test]
fn wrong_sizes_are_typed_errors() {
    let pool = Pool::new(1);
    let error = PackedMatrix::pack(&pool, WeightType::Q8_0, Layout::OutIn, 2, 33, &[0.0; 66]).unwrap_err();
    assert_eq!(error, KernelError::BlockSize { weight_type: WeightType::Q8_0, k: 33 });
    let error = PackedMatrix::pack(&pool, WeightType::F32, Layout::OutIn, 2, 3, &[0.0; 5]).unwrap_err();
    assert_eq!(
        (error.code(), error),
        ("shape", KernelError::Shape { what: "weight (bytes)", expected: 24, got: 20 })
    );
    let short =
        PackedMatrix::pack_bytes(&pool, WeightType::Q4_0, Layout::OutIn, 1, 64, SourceType::Q4_0, &[0; 35]);
    assert_eq!(short.unwrap_err().code(), "shape");
    assert_eq!("q8_0".parse(), Ok(WeightType::Q8_0));
    assert_eq!("q5_0".parse::<WeightType>().unwrap_err().code(), "unknown_name");
}
