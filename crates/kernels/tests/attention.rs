//! Attention and the KV cache against the reference, bit for bit.

mod common;

use candlewick_kernels::{
    AttentionJob, KernelError, KvCache, KvShape, KvSource, KvType, Pool, Scratch, attention, reference,
};
use common::{Random, assert_same_bits, pools};
use proptest::prelude::*;

const SHAPES: [(usize, usize); 5] = [(1, 1), (2, 8), (3, 16), (2, 40), (4, 64)];

/// A fused [rows, 3 * heads * head_dim] buffer, as a c_attn layer makes it.
fn qkv(rows: usize, width: usize, seed: u64) -> Vec<f32> {
    Random(seed).values(rows * 3 * width)
}

fn cache(heads: usize, head_dim: usize, capacity: usize, kv_type: KvType) -> KvCache {
    KvCache::new(KvShape { layers: 2, heads, head_dim, capacity, kv_type })
}

fn append(cache: &mut KvCache, layer: usize, qkv: &[f32], width: usize) {
    let rows = qkv.len() / (3 * width);
    cache.append(layer, &qkv[width..], &qkv[2 * width..], 3 * width, rows).expect("there is room");
}

/// Feeds `qkv` in chunks, as prefill in pieces or decode does, and returns every row's output.
fn in_chunks(
    pool: &Pool,
    qkv: &[f32],
    heads: usize,
    dim: usize,
    kv_type: KvType,
    chunks: &[usize],
) -> Vec<f32> {
    let (width, mut scratch, mut outs, mut start) = (heads * dim, Scratch::new(), vec![], 0);
    let mut kv = cache(heads, dim, qkv.len() / (3 * width), kv_type);
    for &rows in chunks {
        let part = &qkv[start * 3 * width..][..rows * 3 * width];
        append(&mut kv, 1, part, width);
        let mut out = vec![f32::NAN; rows * width];
        let source = KvSource::Cache { cache: &kv, layer: 1 };
        let job = AttentionJob { q: part, q_stride: 3 * width, rows, start, kv: source, out: &mut out };
        attention(pool, &mut [job], heads, dim, 0.3, true, &mut scratch).unwrap();
        outs.extend(out);
        start += rows;
    }
    outs
}

#[test]
fn causal_equals_the_reference_on_every_isa() {
    for (heads, dim) in SHAPES {
        for kv_type in [KvType::F32, KvType::F16] {
            for rows in [1, 3, 4, 5, 17, 70, 150] {
                let (width, x) = (heads * dim, qkv(rows, heads * dim, 11));
                let mut kv = cache(heads, dim, rows, kv_type);
                append(&mut kv, 0, &x, width);
                let source = KvSource::Cache { cache: &kv, layer: 0 };
                let mut expected = vec![f32::NAN; rows * width];
                let mut job = AttentionJob {
                    q: &x,
                    q_stride: 3 * width,
                    rows,
                    start: 0,
                    kv: source,
                    out: &mut expected,
                };
                reference::attention(&mut job, heads, dim, 0.3, true);
                for pool in pools(2) {
                    let mut out = vec![f32::NAN; rows * width];
                    let job = AttentionJob {
                        q: &x,
                        q_stride: 3 * width,
                        rows,
                        start: 0,
                        kv: source,
                        out: &mut out,
                    };
                    attention(&pool, &mut [job], heads, dim, 0.3, true, &mut Scratch::new()).unwrap();
                    assert_same_bits(
                        &out,
                        &expected,
                        &format!("{heads}x{dim} {rows} {kv_type} {}", pool.isa()),
                    );
                }
            }
        }
    }
}

/// The cache's layout is known to the reference too, so here it is held to rows that lie in no layout at all.
#[test]
fn a_cache_holds_what_was_appended_layer_by_layer() {
    for (heads, dim) in SHAPES {
        let (pool, width, rows) = (Pool::new(2), heads * dim, 37);
        let layers = [qkv(rows, width, 31), qkv(rows, width, 32)];
        let mut kv = cache(heads, dim, 64, KvType::F32);
        for chunk in [0..5, 5..37] {
            for (layer, x) in layers.iter().enumerate() {
                append(&mut kv, layer, &x[chunk.start * 3 * width..chunk.end * 3 * width], width);
            }
        }
        for (layer, x) in layers.iter().enumerate() {
            let mut outs = [vec![f32::NAN; rows * width], vec![f32::NAN; rows * width]];
            let cached = KvSource::Cache { cache: &kv, layer };
            let plain = KvSource::Rows { k: &x[width..], v: &x[2 * width..], stride: 3 * width, len: rows };
            for (kv, out) in [cached, plain].into_iter().zip(&mut outs) {
                let job = AttentionJob { q: x, q_stride: 3 * width, rows, start: 0, kv, out };
                attention(&pool, &mut [job], heads, dim, 0.3, true, &mut Scratch::new()).unwrap();
            }
            assert_same_bits(&outs[0], &outs[1], &format!("layer {layer}, {heads}x{dim}"));
        }
    }
}

#[test]
fn full_equals_the_reference_alone_and_in_a_batch() {
    for (heads, dim) in SHAPES {
        let (width, lens) = (heads * dim, [1, 5, 16, 33, 64, 90]);
        let inputs: Vec<Vec<f32>> = lens.iter().map(|len| qkv(*len, width, *len as u64)).collect();
        fn job<'a>(x: &'a [f32], width: usize, out: &'a mut [f32]) -> AttentionJob<'a> {
            let rows = x.len() / (3 * width);
            let kv = KvSource::Rows { k: &x[width..], v: &x[2 * width..], stride: 3 * width, len: rows };
            AttentionJob { q: x, q_stride: 3 * width, rows, start: 0, kv, out }
        }
        let mut expected: Vec<Vec<f32>> = lens.iter().map(|len| vec![f32::NAN; len * width]).collect();
        for (x, out) in inputs.iter().zip(&mut expected) {
            reference::attention(&mut job(x, width, out), heads, dim, 0.25, false);
        }
        for pool in pools(2) {
            let mut scratch = Scratch::new();
            let mut together: Vec<Vec<f32>> = lens.iter().map(|len| vec![f32::NAN; len * width]).collect();
            let mut jobs: Vec<_> =
                inputs.iter().zip(&mut together).map(|(x, out)| job(x, width, out)).collect();
            attention(&pool, &mut jobs, heads, dim, 0.25, false, &mut scratch).unwrap();
            for ((x, together), expected) in inputs.iter().zip(&together).zip(&expected) {
                assert_same_bits(together, expected, &format!("batch {heads}x{dim} {}", pool.isa()));
                let mut alone = vec![f32::NAN; x.len() / 3];
                let jobs = &mut [job(x, width, &mut alone)];
                attention(&pool, jobs, heads, dim, 0.25, false, &mut scratch).unwrap();
                assert_same_bits(&alone, expected, &format!("alone {heads}x{dim} {}", pool.isa()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// One pass, prefill in pieces, or a token at a time: the same bits.
    #[test]
    fn chunks_change_nothing(
        chunks in prop::collection::vec(1usize..30, 1..6), shape in 0usize..5, f16: bool, seed: u64,
    ) {
        let ((heads, dim), rows) = (SHAPES[shape], chunks.iter().sum::<usize>());
        let kv_type = if f16 { KvType::F16 } else { KvType::F32 };
        let (one, two) = (Pool::new(1), Pool::new(2));
        let x = qkv(rows, heads * dim, seed);
        let whole = in_chunks(&one, &x, heads, dim, kv_type, &[rows]);
        assert_same_bits(&in_chunks(&two, &x, heads, dim, kv_type, &chunks), &whole, "pieces");
        assert_same_bits(&in_chunks(&two, &x, heads, dim, kv_type, &vec![1; rows]), &whole, "tokens");
    }
}

#[test]
fn a_row_is_not_reached_by_what_it_does_not_see() {
    let (pool, heads, dim) = (Pool::new(1), 2, 16);
    let (width, rows) = (heads * dim, 40);
    let x = qkv(rows, width, 12);
    let expected = in_chunks(&pool, &x, heads, dim, KvType::F32, &[rows]);
    for pool in pools(1) {
        // Later tokens that are NaN through and through, in the same chunk and the same tile of keys.
        let mut poisoned = x.clone();
        poisoned[22 * 3 * width..].fill(f32::NAN);
        let out = in_chunks(&pool, &poisoned, heads, dim, KvType::F32, &[rows]);
        assert_same_bits(&out[..22 * width], &expected[..22 * width], "a NaN reached back");
        assert!(out[22 * width..].iter().all(|y| y.is_nan()));
    }
}

#[test]
fn a_truncated_or_cloned_cache_goes_on_as_if_it_had_never_been_longer() {
    let (pool, heads, dim, width) = (Pool::new(2), 2, 40, 80);
    let x = qkv(50, width, 13);
    let run = |kv: &mut KvCache, from: usize, to: usize| {
        let part = &x[from * 3 * width..to * 3 * width];
        (0..2).for_each(|layer| append(kv, layer, part, width));
        let mut out = vec![0.0; (to - from) * width];
        let source = KvSource::Cache { cache: kv, layer: 1 };
        let job = AttentionJob {
            q: part,
            q_stride: 3 * width,
            rows: to - from,
            start: from,
            kv: source,
            out: &mut out,
        };
        attention(&pool, &mut [job], heads, dim, 0.3, true, &mut Scratch::new()).unwrap();
        out
    };
    for kv_type in [KvType::F32, KvType::F16] {
        let mut kv = cache(heads, dim, 64, kv_type);
        let whole = run(&mut kv, 0, 50);
        let mut prefix = kv.clone_prefix(21).unwrap();
        assert_eq!((prefix.len(), kv.len()), (21, 50));
        assert_same_bits(&run(&mut prefix, 21, 50), &whole[21 * width..], "cloned prefix");
        kv.truncate(33);
        assert_same_bits(&run(&mut kv, 33, 50), &whole[33 * width..], "truncated");
        let mut beam = cache(heads, dim, 50, kv_type);
        run(&mut beam, 0, 5);
        beam.copy_prefix(&kv, 17).unwrap();
        assert_same_bits(&run(&mut beam, 17, 50), &whole[17 * width..], "copied over");
    }
}

#[test]
fn bounds_are_typed_errors() {
    let (heads, dim, width) = (2, 8, 16);
    let x = qkv(4, width, 14);
    let mut kv = cache(heads, dim, 6, KvType::F32);
    append(&mut kv, 0, &x, width);
    assert_eq!((kv.len(), kv.layer_len(0)), (0, 4), "layer 1 has not come yet");
    append(&mut kv, 1, &x, width);
    assert_eq!(kv.len(), 4);
    let error = kv.append(0, &x, &x, 3 * width, 3).unwrap_err();
    assert_eq!(error, KernelError::Capacity { capacity: 6, requested: 7 });
    assert_eq!(kv.layer_len(0), 4, "nothing was written");
    assert_eq!(kv.append(2, &x, &x, 3 * width, 1).unwrap_err().code(), "out_of_range");
    assert_eq!(kv.append(0, &x[..7], &x, 3 * width, 1).unwrap_err().code(), "shape");
    assert_eq!(kv.clone_prefix(5).unwrap_err().code(), "out_of_range");
    for other in
        [cache(1, dim, 6, KvType::F32), cache(heads, 9, 6, KvType::F32), cache(heads, dim, 6, KvType::F16)]
    {
        assert_eq!(kv.copy_prefix(&other, 0).unwrap_err(), KernelError::CacheMismatch);
    }
    let mut small = cache(heads, dim, 3, KvType::F32);
    assert_eq!(small.copy_prefix(&kv, 4).unwrap_err().code(), "out_of_range");
    assert_eq!((small.copy_prefix(&kv, 3), small.len()), (Ok(()), 3), "capacities may differ");

    let (pool, mut scratch, mut out) = (Pool::new(1), Scratch::new(), vec![0.0; 2 * width]);
    let mut ask = |start, layer, heads| {
        let source = KvSource::Cache { cache: &kv, layer };
        let job = AttentionJob { q: &x, q_stride: 3 * width, rows: 2, start, kv: source, out: &mut out };
        attention(&pool, &mut [job], heads, dim, 1.0, true, &mut scratch)
    };
    assert_eq!(ask(2, 0, heads), Ok(()));
    assert_eq!(ask(3, 0, heads).unwrap_err().code(), "out_of_range");
    assert_eq!(ask(2, 2, heads).unwrap_err().code(), "out_of_range");
    assert_eq!(ask(2, 0, 1).unwrap_err().code(), "shape");
}
