//! `limits [--json] [--threads N] [--isa NAME] [--only decode|prefill|attention] [--weights TYPE]`: what this machine
//! can do, and how near the kernels come to it on GPT-2 124M.

use candlewick_kernels::{
    Activation, AttentionJob, Epilogue, Input, Isa, KV_BLOCK, KvPool, KvShape, KvSource, KvType, KvWrite,
    Layout, Output, PackedMatrix, Pool, Scratch, WeightType, attention, default_threads, isa, layer_norm,
    machine::{self, Memory},
    matmul, softmax_row,
};
use half::bf16;
use std::time::{Duration, Instant};

/// (N, K) of one layer's products, and of the head. 12 layers.
const LAYER: [(usize, usize); 4] = [(2304, 768), (768, 768), (3072, 768), (768, 3072)];
const HEAD: (usize, usize) = (50257, 768);
const LAYERS: usize = 12;

struct Report {
    json: bool,
    threads: usize,
}

impl Report {
    /// One line: what, how much of which unit, the best of all rounds, and the share of a limit.
    fn line(&self, isa: Isa, case: &str, unit: &str, median: f64, best: f64, share: Option<f64>) {
        if self.json {
            let share = share.map_or("null".into(), |s| format!("{s:.3}"));
            println!(
                r#"{{"case":"{case}","isa":"{isa}","threads":{},"unit":"{unit}","median":{median:.3},"best":{best:.3},"shareOfLimit":{share}}}"#,
                self.threads
            );
        } else {
            let share = share.map_or(String::new(), |s| format!("{:>5.0}%", s * 100.0));
            println!("{isa:<11} {case:<34} {median:>10.1} {best:>10.1} {unit:<8} {share}");
        }
    }
}

/// Runs `work` for `budget`, at least 5 times; (median, best) seconds.
fn time(budget: Duration, mut work: impl FnMut()) -> (f64, f64) {
    work();
    let (mut times, start) = (vec![], Instant::now());
    while times.len() < 5 || start.elapsed() < budget {
        let begin = Instant::now();
        work();
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0])
}

/// As `time`, in turns with reading `bytes` of memory; (median, best, median of the reading) seconds.
fn against(
    memory: &Memory,
    pool: &Pool,
    bytes: usize,
    budget: Duration,
    mut work: impl FnMut(),
) -> (f64, f64, f64) {
    let mut reads = vec![];
    let (mut times, start) = (vec![], Instant::now());
    while times.len() < 7 || start.elapsed() < budget {
        reads.push(memory.read(pool, bytes) * bytes as f64);
        let begin = Instant::now();
        work();
        times.push(begin.elapsed().as_secs_f64());
    }
    reads.sort_by(f64::total_cmp);
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0], reads[reads.len() / 2])
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
    let json = arguments.iter().any(|a| a == "--json");
    let threads = after("--threads").map_or_else(default_threads, |n| n.parse().expect("--threads N"));
    let best = after("--isa").map_or_else(isa, |name| name.parse().expect("--isa NAME"));
    let only = after("--only").map_or("", String::as_str);
    let report = Report { json, threads };
    let pool = Pool::with_isa(threads, best).expect("an instruction set of this machine");
    let wants = |part: &str| only.is_empty() || only == part;

    let memory = Memory::new(1 << 30);
    for (pool, case) in
        [(&pool, "limit: read, all threads"), (&Pool::with_isa(1, best).unwrap(), "limit: read, 1 thread")]
    {
        let _awake = pool.active();
        let mut speeds: Vec<f64> = (0..9).map(|_| 1e-9 / memory.read(pool, 1 << 30)).collect();
        speeds.sort_by(f64::total_cmp);
        report.line(best, case, "GB/s", speeds[4], speeds[8], None);
    }
    let mut peaks = vec![];
    for isa in
        Isa::ALL.into_iter().filter(|isa| isa.is_available() && (*isa != Isa::Portable || best == *isa))
    {
        let pool = Pool::with_isa(threads, isa).unwrap();
        let (fma, int8) = (machine::fma_peak(&pool, 12), machine::int8_peak(&pool, 12));
        let bf16 = machine::bf16_peak(&pool, 12);
        report.line(isa, "limit: f32 multiply-add", "GFLOP/s", fma / 1e9, fma / 1e9, None);
        report.line(isa, "limit: bf16 dot product", "GFLOP/s", bf16 / 1e9, bf16 / 1e9, None);
        report.line(isa, "limit: int8 dot product", "GOP/s", int8 / 1e9, int8 / 1e9, None);
        peaks.push((isa, fma, bf16, int8));
    }
    let (_, fma, bf16, int8) = *peaks.iter().find(|peak| peak.0 == best).unwrap();
    let weights = after("--weights").map(|name| name.parse::<WeightType>().expect("--weights TYPE"));
    for weight_type in WeightType::ALL.into_iter().filter(|one| weights.is_none_or(|wanted| wanted == *one)) {
        let peak = match weight_type {
            WeightType::F32 | WeightType::F16 => fma,
            WeightType::Bf16 => bf16,
            WeightType::Q8_0 | WeightType::Q4_0 | WeightType::Int8 => int8,
        };
        if wants("decode") {
            decode(&report, &pool, weight_type, &memory, peak);
        }
        if wants("prefill") {
            prefill(&report, &pool, weight_type, peak);
        }
    }
    if wants("attention") {
        around(&report, &pool, fma, &memory);
    }
}

fn pack(pool: &Pool, weight_type: WeightType, (n, k): (usize, usize)) -> PackedMatrix {
    let values: Vec<f32> =
        (0..n * k).map(|i| (i.wrapping_mul(2_654_435_761) % 1000) as f32 / 1000.0 - 0.5).collect();
    PackedMatrix::pack(pool, weight_type, Layout::OutIn, n, k, &values).expect("sizes fit")
}

/// All products of one token of GPT-2 124M, weights from memory, for 1 and for 8 rows; then shape by shape.
fn decode(report: &Report, pool: &Pool, weight_type: WeightType, memory: &Memory, peak: f64) {
    let (isa, _awake, mut scratch) = (pool.isa(), pool.active(), Scratch::new());
    let mut model: Vec<PackedMatrix> =
        (0..LAYERS).flat_map(|_| LAYER.map(|s| pack(pool, weight_type, s))).collect();
    model.push(pack(pool, weight_type, HEAD));
    let bytes: usize = model.iter().map(PackedMatrix::bytes).sum();
    let flops: usize = model.iter().map(|w| 2 * w.n() * w.k()).sum();
    for rows in [1, 4, 8, 16, 32, 64] {
        let x = vec![0.5; rows * 3072];
        let mut out = vec![0.0; rows * HEAD.0];
        let mut token = || {
            for w in &model {
                matmul(
                    pool,
                    &x[..rows * w.k()],
                    rows,
                    w,
                    Epilogue::default(),
                    &mut scratch,
                    &mut out[..rows * w.n()],
                );
            }
        };
        let (median, best, read) = against(memory, pool, bytes, Duration::from_millis(700), &mut token);
        let limit = read.max((rows * flops) as f64 / peak);
        let case = format!("decode {weight_type}, {rows} rows");
        report.line(isa, &case, "tok/s", rows as f64 / median, rows as f64 / best, Some(limit / median));
    }
    for (n, k) in LAYER.into_iter().chain([HEAD]) {
        let first = pack(pool, weight_type, (n, k));
        // As many as make 256 MB, which no cache holds.
        let more = (256usize << 20).div_ceil(first.bytes());
        let copies: Vec<_> = (0..more).map(|_| pack(pool, weight_type, (n, k))).chain([first]).collect();
        let (x, mut out) = (vec![0.5; k], vec![0.0; n]);
        let bytes = copies.len() * copies[0].bytes();
        let (median, best, read) = against(memory, pool, bytes, Duration::from_millis(300), || {
            for w in &copies {
                matmul(pool, &x, 1, w, Epilogue::default(), &mut scratch, &mut out);
            }
        });
        let (case, speed) = (format!("gemv {weight_type}, {k} x {n}"), bytes as f64 / 1e9);
        report.line(isa, &case, "GB/s", speed / median, speed / best, Some(read / median));
    }
}

fn prefill(report: &Report, pool: &Pool, weight_type: WeightType, peak: f64) {
    let (isa, _awake, mut scratch) = (pool.isa(), pool.active(), Scratch::new());
    for (n, k) in LAYER {
        let (w, bias) = (pack(pool, weight_type, (n, k)), vec![0.1; n]);
        for rows in [16, 128, 512] {
            let (x, mut out) = (vec![0.5; rows * k], vec![0.0; rows * n]);
            let ep = Epilogue {
                bias: Some(&bias),
                activation: (n == 3072).then_some(Activation::GeluNew),
                residual: None,
            };
            let (median, best) =
                time(Duration::from_millis(200), || matmul(pool, &x, rows, &w, ep, &mut scratch, &mut out));
            let flops = (2 * rows * n * k) as f64;
            let case = format!("gemm {weight_type}, {rows} rows, {k} x {n}");
            report.line(
                isa,
                &case,
                "GFLOP/s",
                flops / median / 1e9,
                flops / best / 1e9,
                Some(flops / best / peak),
            );
        }
    }
}

/// What stands around the products: attention, norms, the softmax over the vocabulary, and the call itself.
fn around(report: &Report, pool: &Pool, peak: f64, memory: &Memory) {
    let (isa, _awake, mut scratch, budget) =
        (pool.isa(), pool.active(), Scratch::new(), Duration::from_millis(200));
    let (heads, dim, width) = (12, 64, 768);
    for kv_type in KvType::ALL {
        for keys in [128usize, 1024] {
            let shape = KvShape { layers: LAYERS, heads, head_dim: dim, kv_type };
            let blocks: Vec<u32> = (0..keys.div_ceil(KV_BLOCK) as u32).collect();
            let qkv: Vec<f32> = (0..keys * 3 * width).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
            let mut kv = KvPool::new(shape, blocks.len());
            for layer in 0..LAYERS {
                let (k, v, stride) = (&qkv[width..], &qkv[2 * width..], 3 * width);
                let write = KvWrite { blocks: &blocks, start: 0, rows: keys, k, v, stride };
                kv.write(pool, layer, &[write]).unwrap();
            }
            for rows in [1, keys] {
                let mut out = vec![0.0; rows * width];
                let (median, best, read) =
                    against(memory, pool, blocks.len() * shape.block_bytes(), budget, || {
                        for layer in 0..LAYERS {
                            let kv = KvSource::Blocks { pool: &kv, layer, blocks: &blocks, len: keys };
                            let start = keys - rows;
                            let job = AttentionJob {
                                q: (&qkv).into(),
                                q_stride: 3 * width,
                                rows,
                                start,
                                kv,
                                bias: None,
                                out: (&mut out).into(),
                            };
                            attention(pool, &mut [job], heads, dim, 0.125, true, &mut scratch).unwrap();
                        }
                    });
                let seen: usize = (keys - rows + 1..=keys).sum();
                let limit = ((LAYERS * 4 * seen * width) as f64 / peak).max(read);
                let case = format!("attention {kv_type}, {rows} rows, {keys} keys");
                report.line(isa, &case, "µs", median * 1e6, best * 1e6, Some(limit / median));
            }
        }
    }
    for (len, jobs, bf16) in
        [(16, 1), (128, 1), (128, 32)].into_iter().flat_map(|(l, j)| [(l, j, false), (l, j, true)])
    {
        let qkv: Vec<f32> = (0..len * 3 * width).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
        let halves: Vec<bf16> = qkv.iter().map(|x| bf16::from_f32(*x)).collect();
        let mut outs = vec![vec![0.0; len * width]; jobs];
        let (median, best) = time(budget, || {
            let x = if bf16 { Input::Bf16(&halves) } else { Input::F32(&qkv) };
            let kv = KvSource::Rows {
                k: x.from(width),
                k_stride: 3 * width,
                v: x.from(2 * width),
                v_stride: 3 * width,
                len,
            };
            let job = |out| {
                let out = Output::F32(out);
                AttentionJob { q: x, q_stride: 3 * width, rows: len, start: 0, kv, bias: None, out }
            };
            let mut jobs: Vec<_> = outs.iter_mut().map(|out: &mut Vec<f32>| job(out)).collect();
            attention(pool, &mut jobs, heads, dim, 0.125, false, &mut scratch).unwrap();
        });
        let limit = (jobs * 4 * len * len * width) as f64 / peak;
        report.line(
            isa,
            &format!("encoder attention{}, {jobs} x {len}", if bf16 { " bf16" } else { "" }),
            "µs",
            median * 1e6,
            best * 1e6,
            Some(limit / best),
        );
    }
    for rows in [1, 512] {
        let (x, weight, mut out) = (vec![0.5; rows * width], vec![1.0; width], vec![0.0; rows * width]);
        let (median, best) =
            time(budget, || layer_norm(pool, &x, rows, width, &weight, &weight, 1e-5, &mut out, None));
        report.line(isa, &format!("layer norm, {rows} x {width}"), "µs", median * 1e6, best * 1e6, None);
    }
    let logits: Vec<f32> = (0..HEAD.0).map(|i| (i % 301) as f32 / 30.0).collect();
    let mut row = logits.clone();
    let (median, best) = time(budget, || {
        row.copy_from_slice(&logits);
        softmax_row(pool, &mut row);
    });
    report.line(isa, "softmax, 50257", "µs", median * 1e6, best * 1e6, None);
    let (median, best) = time(budget, || (0..100).for_each(|_| pool.run(pool.threads(), |_| {})));
    report.line(isa, "an empty parallel call", "µs", median * 1e4, best * 1e4, None);
}
