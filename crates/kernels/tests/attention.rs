//! Attention and the blocks of keys and values against the reference, bit for bit.

mod common;

use candlewick_kernels::{
    AttentionJob, DistanceBias, Input, KV_BLOCK, KernelError, KvPool, KvShape, KvSource, KvType, KvWrite,
    Output, Pool, Scratch, attention, reference,
};
use common::{Random, assert_same_bits, pools};
use half::bf16;
use proptest::prelude::*;

const SHAPES: [(usize, usize); 6] = [(1, 1), (3, 5), (2, 8), (3, 16), (2, 40), (4, 64)];

/// With whether the rows are bf16: heads of an even size alone.
fn shapes_of_rows() -> impl Iterator<Item = ((usize, usize), bool)> {
    let all = SHAPES.into_iter().flat_map(|shape| [(shape, false), (shape, true)]);
    all.filter(|((_, dim), bf16)| !bf16 || dim % 2 == 0)
}

fn rounded(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|x| bf16::from_f32(*x)).collect()
}

/// A fused [rows, 3 * heads * head_dim] buffer, as a c_attn layer makes it.
fn qkv(rows: usize, width: usize, seed: u64) -> Vec<f32> {
    Random(seed).values(rows * 3 * width)
}

/// A pool, and the blocks of a sequence of `len` positions in it: neither adjacent nor ascending.
fn pool_of(heads: usize, head_dim: usize, len: usize, kv_type: KvType) -> (KvPool, Vec<u32>) {
    let count = len.div_ceil(KV_BLOCK) as u32;
    let blocks = (0..count).rev().map(|block| 2 * block + 1).collect();
    (KvPool::new(KvShape { layers: 2, heads, head_dim, kv_type }, 2 * count as usize + 2), blocks)
}

fn write(kv: &mut KvPool, layer: usize, blocks: &[u32], start: usize, qkv: &[f32], width: usize) {
    let rows = qkv.len() / (3 * width);
    let write = KvWrite { blocks, start, rows, k: &qkv[width..], v: &qkv[2 * width..], stride: 3 * width };
    kv.write(&Pool::new(2), layer, &[write]).expect("there is room");
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
    let (mut kv, blocks) = pool_of(heads, dim, qkv.len() / (3 * width), kv_type);
    for &rows in chunks {
        let part = &qkv[start * 3 * width..][..rows * 3 * width];
        write(&mut kv, 1, &blocks, start, part, width);
        let mut out = vec![f32::NAN; rows * width];
        let source = KvSource::Blocks { pool: &kv, layer: 1, blocks: &blocks, len: start + rows };
        let job = AttentionJob {
            q: part.into(),
            q_stride: 3 * width,
            rows,
            start,
            kv: source,
            bias: None,
            out: (&mut out).into(),
        };
        attention(pool, &mut [job], heads, dim, 0.3, true, &mut scratch).unwrap();
        outs.extend(out);
        start += rows;
    }
    outs
}

/// Keys and values of a fused buffer, beside the queries.
fn own_rows(x: Input<'_>, width: usize, len: usize) -> KvSource<'_> {
    let stride = 3 * width;
    KvSource::Rows { k: x.from(width), k_stride: stride, v: x.from(2 * width), v_stride: stride, len }
}

#[test]
fn causal_equals_the_reference_on_every_isa() {
    for (heads, dim) in SHAPES {
        for kv_type in KvType::ALL {
            for rows in [1, 3, 4, 5, 17, 70, 150] {
                let (width, x) = (heads * dim, qkv(rows, heads * dim, 11));
                let (mut kv, blocks) = pool_of(heads, dim, rows, kv_type);
                write(&mut kv, 0, &blocks, 0, &x, width);
                let source = KvSource::Blocks { pool: &kv, layer: 0, blocks: &blocks, len: rows };
                let mut expected = vec![f32::NAN; rows * width];
                let mut job = AttentionJob {
                    q: (&x).into(),
                    q_stride: 3 * width,
                    rows,
                    start: 0,
                    kv: source,
                    bias: None,
                    out: (&mut expected).into(),
                };
                reference::attention(&mut job, heads, dim, 0.3, true);
                for pool in pools(2) {
                    let mut out = vec![f32::NAN; rows * width];
                    let job = AttentionJob {
                        q: (&x).into(),
                        q_stride: 3 * width,
                        rows,
                        start: 0,
                        kv: source,
                        bias: None,
                        out: (&mut out).into(),
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

/// The blocks' layout is known to the reference too, so here it is held to rows that lie in no layout at all.
#[test]
fn blocks_hold_what_was_written_layer_by_layer() {
    for ((heads, dim), bf16) in shapes_of_rows() {
        let (pool, width, rows) = (Pool::new(2), heads * dim, 150);
        let layers = [qkv(rows, width, 31), qkv(rows, width, 32)];
        let kv_type = if bf16 { KvType::Bf16 } else { KvType::F32 };
        let (mut kv, blocks) = pool_of(heads, dim, rows, kv_type);
        for chunk in [0..5, 5..130, 130..150] {
            for (layer, x) in layers.iter().enumerate() {
                let part = &x[chunk.start * 3 * width..chunk.end * 3 * width];
                write(&mut kv, layer, &blocks, chunk.start, part, width);
            }
        }
        for (layer, x) in layers.iter().enumerate() {
            let mut outs = [vec![f32::NAN; rows * width], vec![f32::NAN; rows * width]];
            let cached = KvSource::Blocks { pool: &kv, layer, blocks: &blocks, len: rows };
            let halves = rounded(x);
            let x = if bf16 { Input::Bf16(&halves) } else { Input::F32(x) };
            let plain = own_rows(x, width, rows);
            for (kv, out) in [cached, plain].into_iter().zip(&mut outs) {
                let job = AttentionJob {
                    q: x,
                    q_stride: 3 * width,
                    rows,
                    start: 0,
                    kv,
                    bias: None,
                    out: out.into(),
                };
                attention(&pool, &mut [job], heads, dim, 0.3, true, &mut Scratch::new()).unwrap();
            }
            assert_same_bits(&outs[0], &outs[1], &format!("layer {layer}, {heads}x{dim}"));
        }
    }
}

/// A number for each head and distance, none of them like another.
fn bias(heads: usize, span: usize) -> DistanceBias {
    DistanceBias::new(heads, span, |head, ahead| ((3 * head) as f32 + ahead as f32 * 0.7).sin())
}

#[test]
fn full_equals_the_reference_alone_and_in_a_batch() {
    for (((heads, dim), bf16), with) in shapes_of_rows().flat_map(|shape| [(shape, false), (shape, true)]) {
        let (width, lens) = (heads * dim, [1, 5, 16, 33, 64, 90]);
        let distances = bias(heads, 90);
        let bias = with.then_some(&distances);
        let inputs: Vec<Vec<f32>> = lens.iter().map(|len| qkv(*len, width, *len as u64)).collect();
        let halves: Vec<Vec<bf16>> = inputs.iter().map(|x| rounded(x)).collect();
        let inputs: Vec<Input> = inputs
            .iter()
            .zip(&halves)
            .map(|(x, halves)| if bf16 { Input::Bf16(halves) } else { Input::F32(x) })
            .collect();
        fn job<'a>(
            x: Input<'a>,
            width: usize,
            bias: Option<&'a DistanceBias>,
            out: Output<'a>,
        ) -> AttentionJob<'a> {
            let rows = x.len() / (3 * width);
            let kv = own_rows(x, width, rows);
            AttentionJob { q: x, q_stride: 3 * width, rows, start: 0, kv, bias, out }
        }
        let mut expected: Vec<Vec<f32>> = lens.iter().map(|len| vec![f32::NAN; len * width]).collect();
        for (x, out) in inputs.iter().zip(&mut expected) {
            reference::attention(&mut job(*x, width, bias, out.into()), heads, dim, 0.25, false);
        }
        for pool in pools(2) {
            let mut scratch = Scratch::new();
            let mut together: Vec<Vec<f32>> = lens.iter().map(|len| vec![f32::NAN; len * width]).collect();
            let mut jobs: Vec<_> =
                inputs.iter().zip(&mut together).map(|(x, out)| job(*x, width, bias, out.into())).collect();
            attention(&pool, &mut jobs, heads, dim, 0.25, false, &mut scratch).unwrap();
            for ((x, together), expected) in inputs.iter().zip(&together).zip(&expected) {
                assert_same_bits(together, expected, &format!("batch {heads}x{dim} {}", pool.isa()));
                let mut alone = vec![f32::NAN; x.len() / 3];
                let jobs = &mut [job(*x, width, bias, (&mut alone).into())];
                attention(&pool, jobs, heads, dim, 0.25, false, &mut scratch).unwrap();
                assert_same_bits(&alone, expected, &format!("alone {heads}x{dim} {}", pool.isa()));
                let mut halves = vec![bf16::ZERO; x.len() / 3];
                let jobs = &mut [job(*x, width, bias, (&mut halves).into())];
                attention(&pool, jobs, heads, dim, 0.25, false, &mut scratch).unwrap();
                assert_eq!(halves, rounded(expected), "rounded {heads}x{dim} {}", pool.isa());
            }
        }
    }
}

#[test]
fn a_bias_is_of_absolute_distances() {
    let (heads, dim, rows) = (3, 16, 150);
    let (width, x) = (heads * dim, qkv(rows, heads * dim, 21));
    let bias = bias(heads, 160);
    for kv_type in KvType::ALL {
        let (mut kv, blocks) = pool_of(heads, dim, rows, kv_type);
        write(&mut kv, 0, &blocks, 0, &x, width);
        // By the reference, or by the fast kernel of a pool.
        let run = |start: usize, pool: Option<&Pool>| {
            let mut out = vec![f32::NAN; (rows - start) * width];
            let mut job = AttentionJob {
                q: Input::F32(&x).from(start * 3 * width),
                q_stride: 3 * width,
                rows: rows - start,
                start,
                kv: KvSource::Blocks { pool: &kv, layer: 0, blocks: &blocks, len: rows },
                bias: Some(&bias),
                out: Output::F32(&mut out),
            };
            match pool {
                None => reference::attention(&mut job, heads, dim, 0.3, true),
                Some(pool) => {
                    attention(pool, &mut [job], heads, dim, 0.3, true, &mut Scratch::new()).unwrap();
                }
            }
            out
        };
        let expected = run(0, None);
        for pool in pools(2) {
            for start in [0, 7, 64, 149] {
                let what = format!("{kv_type} from {start} {}", pool.isa());
                assert_same_bits(&run(start, Some(&pool)), &expected[start * width..], &what);
            }
        }
    }
}

#[test]
fn a_bias_of_other_heads_or_of_too_few_positions_is_refused() {
    let (x, mut out) = (qkv(9, 16, 3), vec![0.0; 9 * 16]);
    let mut ask = |bias: &DistanceBias| {
        let kv = own_rows(Input::F32(&x), 16, 9);
        let job = AttentionJob {
            q: (&x).into(),
            q_stride: 48,
            rows: 9,
            start: 0,
            kv,
            bias: Some(bias),
            out: (&mut out).into(),
        };
        attention(&Pool::new(1), &mut [job], 2, 8, 1.0, false, &mut Scratch::new())
            .map_err(|error| error.code())
    };
    assert_eq!(ask(&bias(2, 9)), Ok(()));
    assert_eq!(ask(&bias(2, 8)), Err("out_of_range"));
    assert_eq!(ask(&bias(1, 9)), Err("cache_mismatch"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// One pass, prefill in pieces, or a token at a time: the same bits.
    #[test]
    fn chunks_change_nothing(
        chunks in prop::collection::vec(1usize..30, 1..6), shape in 0usize..6, which in 0usize..3, seed: u64,
    ) {
        let ((heads, dim), rows) = (SHAPES[shape], chunks.iter().sum::<usize>());
        let kv_type = KvType::ALL[which];
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
    for kv_type in KvType::ALL {
        let expected = in_chunks(&pool, &x, heads, dim, kv_type, &[rows]);
        // Later tokens that are NaN through and through, in the same chunk, the same tile of keys and, of 23, the same
        // pair.
        for (pool, first) in pools(1).iter().flat_map(|pool| [(pool, 22), (pool, 23)]) {
            let mut poisoned = x.clone();
            poisoned[first * 3 * width..].fill(f32::NAN);
            let out = in_chunks(pool, &poisoned, heads, dim, kv_type, &[rows]);
            assert_same_bits(&out[..first * width], &expected[..first * width], "a NaN reached back");
            assert!(out[first * width..].iter().all(|y| y.is_nan()));
        }
    }
}

/// A sequence that is cut short, or goes on in a copy of its last block, is as one that was never anything else: what
/// lies in a block beyond a sequence's length does not count, whoever wrote it.
#[test]
fn what_was_in_a_block_before_does_not_count() {
    let (pool, heads, dim, width) = (Pool::new(2), 2, 40, 80);
    let (x, other) = (qkv(150, width, 13), qkv(150, width, 14));
    let run = |kv: &mut KvPool, blocks: &[u32], x: &[f32], from: usize, to: usize| {
        let part = &x[from * 3 * width..to * 3 * width];
        (0..2).for_each(|layer| write(kv, layer, blocks, from, part, width));
        let mut out = vec![0.0; (to - from) * width];
        let source = KvSource::Blocks { pool: kv, layer: 1, blocks, len: to };
        let (rows, q_stride) = (to - from, 3 * width);
        let job = AttentionJob {
            q: part.into(),
            q_stride,
            rows,
            start: from,
            kv: source,
            bias: None,
            out: (&mut out).into(),
        };
        attention(&pool, &mut [job], heads, dim, 0.3, true, &mut Scratch::new()).unwrap();
        out
    };
    for kv_type in KvType::ALL {
        let (mut kv, blocks) = pool_of(heads, dim, 150, kv_type);
        let whole = run(&mut kv, &blocks, &x, 0, 150);
        // Another sequence over the same blocks, then the first one again from its 33rd position.
        run(&mut kv, &blocks, &other, 70, 150);
        run(&mut kv, &blocks, &other, 33, 64);
        assert_same_bits(&run(&mut kv, &blocks, &x, 33, 150), &whole[33 * width..], "cut short");
        // A fork: the whole blocks are shared, the last is copied.
        let fork = [blocks[0], blocks[1], 0];
        kv.copy_block(blocks[2], 0).unwrap();
        run(&mut kv, &fork, &other, 140, 150);
        assert_same_bits(&run(&mut kv, &fork, &x, 140, 150), &whole[140 * width..], "fork");
        assert_same_bits(&run(&mut kv, &blocks, &x, 149, 150), &whole[149 * width..], "the original");
    }
}

#[test]
fn bounds_are_typed_errors() {
    let (heads, dim, width) = (2, 8, 16);
    let x = qkv(66, width, 14);
    let shape = KvShape { layers: 2, heads, head_dim: dim, kv_type: KvType::F32 };
    let mut kv = KvPool::new(shape, 3);
    assert_eq!((kv.blocks(), shape.block_bytes()), (3, 2 * heads * KV_BLOCK * (8 + 16) * 4));
    write(&mut kv, 0, &[2, 0], 0, &x, width);
    let pool = Pool::new(1);
    let mut try_to = |layer, blocks: &[u32], start, rows, k: &[f32]| {
        let write = KvWrite { blocks, start, rows, k, v: &x, stride: 3 * width };
        kv.write(&pool, layer, &[write]).unwrap_err()
    };
    let error = try_to(0, &[2, 0], 127, 2, &x);
    assert_eq!(error, KernelError::Capacity { capacity: 128, requested: 129 });
    assert_eq!(try_to(2, &[2], 0, 1, &x).code(), "out_of_range");
    assert_eq!(try_to(0, &[3], 0, 1, &x).code(), "out_of_range");
    assert_eq!(try_to(0, &[2], 0, 1, &x[..7]).code(), "shape");
    assert_eq!(kv.copy_block(0, 3).unwrap_err().code(), "out_of_range");

    let (mut scratch, mut out) = (Scratch::new(), vec![0.0; 2 * width]);
    let mut ask = |start, len, blocks: &[u32], layer, heads| {
        let source = KvSource::Blocks { pool: &kv, layer, blocks, len };
        let job = AttentionJob {
            q: (&x).into(),
            q_stride: 3 * width,
            rows: 2,
            start,
            kv: source,
            bias: None,
            out: (&mut out).into(),
        };
        attention(&pool, &mut [job], heads, dim, 1.0, true, &mut scratch)
    };
    assert_eq!(ask(64, 66, &[2, 0], 0, heads), Ok(()));
    assert_eq!(ask(65, 66, &[2, 0], 0, heads).unwrap_err().code(), "out_of_range", "a row beyond the keys");
    assert_eq!(ask(64, 66, &[2], 0, heads).unwrap_err().code(), "capacity");
    assert_eq!(ask(64, 66, &[2, 1], 0, heads).unwrap_err().code(), "out_of_range", "never written");
    assert_eq!(ask(64, 66, &[2, 7], 0, heads).unwrap_err().code(), "out_of_range", "no such block");
    assert_eq!(ask(2, 4, &[2], 2, heads).unwrap_err().code(), "out_of_range", "no such layer");
    assert_eq!(ask(2, 4, &[2], 0, 1).unwrap_err().code(), "shape");
}
