//! Training's kernels against their formulas in f64, and the same bits on every instruction set and number of threads.

mod common;

use candlewick_kernels::train::random::{self, Dropout};
use candlewick_kernels::train::*;
use candlewick_kernels::{Activation, Pool};
use half::bf16;

/// Every available instruction set, alone and with three threads.
fn pools() -> Vec<Pool> {
    [1, 3].into_iter().flat_map(common::pools).collect()
}

fn values(seed: u64, len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| random::normal(seed, i)).collect()
}

fn close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3f64, |max, x| max.max(x.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*f) - e).abs();
        assert!(error <= tolerance * scale, "{what}[{i}]: {f}, expected {e} (scale {scale})");
    }
}

/// Runs `f` on all pools; the results must be the same bits. Returns one of them.
fn same_bits(what: &str, f: impl Fn(&Pool) -> Vec<f32>) -> Vec<f32> {
    let mut results = pools().into_iter().map(|pool| (format!("{pool:?}"), f(&pool)));
    let (first_name, first) = results.next().unwrap();
    for (name, result) in results {
        let equal = first.iter().zip(&result).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(equal, "{what}: {name} differs from {first_name}");
    }
    first
}

#[test]
fn products_of_every_orientation() {
    for (m, k, n) in
        [(1, 1, 1), (7, 5, 3), (70, 40, 65), (130, 1030, 50), (20, 2075, 33), (9, 0, 4), (256, 33, 8)]
    {
        for precision in [Precision::F32, Precision::Bf16] {
            products(precision, m, k, n);
        }
    }
}

fn products(precision: Precision, m: usize, k: usize, n: usize) {
    let (a, b, bias) = (values(1, m * k), values(2, k * n), values(3, n));
    let old = values(4, m * n);
    let mut a_turned = vec![0.0; m * k];
    let mut b_turned = vec![0.0; k * n];
    (0..m * k).for_each(|i| a_turned[i % k * m + i / k] = a[i]);
    (0..k * n).for_each(|i| b_turned[i % n * k + i / n] = b[i]);
    let rounded = |x: f32| match precision {
        Precision::F32 => f64::from(x),
        Precision::Bf16 => bf16::from_f32(x).to_f64(),
    };
    let mut expected: Vec<f64> = Vec::new();
    for (i, old) in old.iter().enumerate() {
        let (row, column) = (i / n, i % n);
        let dot: f64 = (0..k).map(|j| rounded(a[row * k + j]) * rounded(b[j * n + column])).sum();
        expected.push(dot + f64::from(bias[column]) + f64::from(*old));
    }
    let found = same_bits("gemm", |pool| {
        let run = |a: View, b: View| {
            let (mut out, mut scratch) = (old.clone(), Floats::default());
            gemm(pool, precision, a, b, Gemm { bias: Some(&bias), ..Gemm::ADD }, &mut scratch, &mut out);
            out
        };
        let plain = run(View::new(&a, m, k), View::new(&b, k, n));
        for (turn_a, turn_b) in [(false, true), (true, false), (true, true)] {
            let a = if turn_a { View::new(&a_turned, k, m).transposed() } else { View::new(&a, m, k) };
            let b = if turn_b { View::new(&b_turned, n, k).transposed() } else { View::new(&b, k, n) };
            assert_eq!(run(a, b), plain, "an operand's orientation changes no bit");
        }
        plain
    });
    close("gemm", &found, &expected, 2e-6 * (k as f64).sqrt().max(1.0));
}

/// The definition: pairs along K from the first to the last, the second of a pair added before the first.
#[test]
fn bf16_products_are_chains_of_pairs() {
    let (m, k, n) = (5, 2051, 7);
    let (a, b) = (values(1, m * k), values(2, k * n));
    let value =
        |x: &[f32], at: usize, inside: bool| if inside { bf16::from_f32(x[at]).to_f32() } else { 0.0 };
    let mut expected = Vec::new();
    for (row, column) in (0..m * n).map(|i| (i / n, i % n)) {
        let mut sum = 0f32;
        for pair in 0..k.div_ceil(2) {
            for j in [2 * pair + 1, 2 * pair] {
                let (x, w) = (value(&a, row * k + j, j < k), value(&b, j * n + column, j < k));
                sum = x.mul_add(w, sum);
            }
        }
        expected.push(sum);
    }
    let found = same_bits("bf16 gemm", |pool| {
        let (mut out, mut scratch) = (vec![0.0; m * n], Floats::default());
        let (a, b) = (View::new(&a, m, k), View::new(&b, k, n));
        gemm(pool, Precision::Bf16, a, b, Gemm::SET, &mut scratch, &mut out);
        out
    });
    assert_eq!(found, expected);
}

#[test]
fn products_into_columns() {
    let (a, b) = (values(1, 6), values(2, 8));
    let pool = Pool::new(1);
    let mut out = vec![7.0; 3 * 10];
    let options = Gemm { columns: Some((10, 5)), ..Gemm::SET };
    let (a, b) = (View::new(&a, 3, 2), View::new(&b, 2, 4));
    gemm(&pool, Precision::F32, a, b, options, &mut Floats::default(), &mut out);
    for (i, value) in out.iter().enumerate() {
        let written = (5..9).contains(&(i % 10));
        assert_eq!(*value != 7.0, written, "element {i}");
    }
}

#[test]
fn layer_norm() {
    let (rows, width, eps) = (37, 50, 1e-5f32);
    let (x, dy) = (values(1, rows * width), values(2, rows * width));
    let (weight, bias) = (values(3, width), values(4, width));
    let (mut y64, mut dx64) = (vec![], vec![]);
    let (mut dweight64, mut dbias64) = (vec![0f64; width], vec![0f64; width]);
    for r in 0..rows {
        let x: Vec<f64> = x[r * width..][..width].iter().map(|x| f64::from(*x)).collect();
        let mean = x.iter().sum::<f64>() / width as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        let root = 1.0 / (variance + f64::from(eps)).sqrt();
        let normal: Vec<f64> = x.iter().map(|x| (x - mean) * root).collect();
        let dy: Vec<f64> = dy[r * width..][..width].iter().map(|x| f64::from(*x)).collect();
        let g: Vec<f64> = dy.iter().zip(&weight).map(|(dy, w)| dy * f64::from(*w)).collect();
        let mean_g = g.iter().sum::<f64>() / width as f64;
        let mean_gn = g.iter().zip(&normal).map(|(g, n)| g * n).sum::<f64>() / width as f64;
        for c in 0..width {
            y64.push(normal[c] * f64::from(weight[c]) + f64::from(bias[c]));
            dx64.push(root * (g[c] - mean_g - normal[c] * mean_gn));
            dweight64[c] += dy[c] * normal[c];
            dbias64[c] += dy[c];
        }
    }
    let found = same_bits("layer norm", |pool| {
        let (mut y, mut stats, mut dx) = (vec![0.0; x.len()], vec![0.0; 2 * rows], vec![0.0; x.len()]);
        layer_norm_forward(pool, &x, &weight, &bias, eps, &mut stats, &mut y);
        let (mut dweight, mut dbias) = (vec![9.0; width], vec![9.0; width]);
        let gradients = Some((&mut dweight[..], &mut dbias[..], true));
        layer_norm_backward(pool, &dy, &x, &weight, &stats, false, &mut dx, gradients);
        [y, dx, dweight, dbias].concat()
    });
    close("layer norm", &found, &[y64, dx64, dweight64, dbias64].concat(), 2e-6);
}

#[test]
fn activations() {
    let x: Vec<f32> = (-600..600).map(|i| i as f32 / 60.0).collect();
    for activation in
        [Activation::GeluNew, Activation::Gelu, Activation::Relu, Activation::Silu, Activation::Tanh]
    {
        let found = same_bits("activation", |pool| {
            let mut dy = vec![1.0; x.len()];
            activation_backward(pool, activation, &x, &mut dy);
            dy
        });
        let erf = |x: f64| {
            // By Simpson's rule: there is no erf in std.
            let n = 2000;
            let f = |t: f64| (-t * t).exp();
            let h = x / f64::from(n);
            let sum: f64 = (1..n).map(|i| f(h * f64::from(i)) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
            std::f64::consts::FRAC_2_SQRT_PI * h / 3.0 * (f(0.0) + f(x) + sum)
        };
        let function = |x: f64| match activation {
            Activation::GeluNew => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + u.tanh())
            }
            Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
            Activation::Relu => x.max(0.0),
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Tanh => x.tanh(),
        };
        let kink = |x: f64| activation == Activation::Relu && x == 0.0;
        let h = 1e-4;
        let slope = |x: &f32| {
            let x = f64::from(*x);
            if kink(x) { 0.0 } else { (function(x + h) - function(x - h)) / (2.0 * h) }
        };
        close(&format!("{activation:?}"), &found, &x.iter().map(slope).collect::<Vec<_>>(), 1e-6);
    }
}

/// One head's attention in f64, with its gradients by the chain rule over stored matrices. `bias`: what is added to the
/// score of a query and a key; `dbias` is told its gradient.
fn attention_reference(
    (rows, width): (usize, usize),
    scale: f64,
    causal: bool,
    bias: impl Fn(usize, usize) -> f64,
    mut dbias: impl FnMut(usize, usize, f64),
    [q, k, v, dout]: [&[f64]; 4],
) -> [Vec<f64>; 4] {
    let dot = |a: &[f64], i: usize, b: &[f64], j: usize| -> f64 {
        (0..width).map(|c| a[i * width + c] * b[j * width + c]).sum()
    };
    let mut out = [(); 4].map(|()| vec![0.0; rows * width]);
    for i in 0..rows {
        let seen = if causal { i + 1 } else { rows };
        let exps: Vec<f64> = (0..seen).map(|j| (scale * dot(q, i, k, j) + bias(i, j)).exp()).collect();
        let sum: f64 = exps.iter().sum();
        let p: Vec<f64> = exps.iter().map(|e| e / sum).collect();
        let dp: Vec<f64> = (0..seen).map(|j| dot(dout, i, v, j)).collect();
        let common: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
        for j in 0..seen {
            let dscore = p[j] * (dp[j] - common);
            dbias(i, j, dscore);
            let ds = dscore * scale;
            for c in 0..width {
                out[0][i * width + c] += p[j] * v[j * width + c];
                out[1][i * width + c] += ds * k[j * width + c];
                out[2][j * width + c] += ds * q[i * width + c];
                out[3][j * width + c] += p[j] * dout[i * width + c];
            }
        }
    }
    out
}

#[test]
fn attention() {
    let (heads, width) = (2, 20);
    let d = heads * width;
    let lengths = [1usize, 70, 0, 33, 130];
    let starts: Vec<usize> = std::iter::once(0)
        .chain(lengths.iter().scan(0, |at, len| {
            *at += len;
            Some(*at)
        }))
        .collect();
    let rows = *starts.last().unwrap();
    let (qkv, dout) = (values(5, rows * 3 * d), values(6, rows * d));
    let scale = 1.0 / (width as f32).sqrt();
    let reach = 131;
    let distances = 2 * reach + 1;
    let numbers = values(9, heads * distances);
    for (causal, p, biased) in [
        (true, 0.0, false),
        (false, 0.0, false),
        (true, 0.3, false),
        (false, 0.3, false),
        (false, 0.0, true),
        (true, 0.0, true),
    ] {
        let dropout = Dropout::new(p, 99);
        let bias = biased.then_some(Bias { values: &numbers, reach });
        let attention = Attention { starts: &starts, heads, width, scale, causal, dropout, bias };
        let lists = if biased { lengths.len() * heads * distances } else { 0 };
        let found = same_bits("attention", |pool| {
            let mut scratch = Floats::default();
            let (mut mixed, mut sums) = (vec![0.0; rows * d], vec![0.0; rows * heads]);
            attention_forward(pool, attention, &qkv, &mut scratch, &mut mixed, &mut sums);
            let (mut dqkv, mut dbias) = (vec![9.0; qkv.len()], vec![0.0; lists]);
            let given = biased.then_some(&mut dbias[..]);
            attention_backward(pool, attention, &qkv, &mixed, &sums, &dout, &mut scratch, &mut dqkv, given);
            [mixed, dqkv, dbias].concat()
        });
        let mut expected = vec![0f64; rows * d + qkv.len() + lists];
        // Which values are dropped is the kernel's own affair: the gradient is tested by differences, below.
        if p > 0.0 {
            let zeros = found[..rows * d].iter().filter(|x| **x == 0.0).count();
            assert!(zeros < rows * d / 10, "dropout leaves most of the output");
            continue;
        }
        for (sequence, len) in lengths.iter().enumerate() {
            for head in 0..heads {
                let take = |x: &[f32], stride: usize, offset: usize| -> Vec<f64> {
                    (0..len * width)
                        .map(|i| {
                            f64::from(
                                x[(starts[sequence] + i / width) * stride
                                    + offset
                                    + head * width
                                    + i % width],
                            )
                        })
                        .collect()
                };
                let parts =
                    [take(&qkv, 3 * d, 0), take(&qkv, 3 * d, d), take(&qkv, 3 * d, 2 * d), take(&dout, d, 0)];
                let at = |i: usize, j: usize| reach + j - i;
                let list = rows * d + qkv.len() + (sequence * heads + head) * distances;
                let number =
                    |i, j| if biased { f64::from(numbers[head * distances + at(i, j)]) } else { 0.0 };
                let mut dbias = vec![0.0; distances];
                let [out, dq, dk, dv] = attention_reference(
                    (*len, width),
                    f64::from(scale),
                    causal,
                    number,
                    |i, j, ds| dbias[at(i, j)] += ds,
                    [&parts[0], &parts[1], &parts[2], &parts[3]],
                );
                if biased {
                    expected[list..][..distances].copy_from_slice(&dbias);
                }
                for i in 0..len * width {
                    let (row, column) = (starts[sequence] + i / width, head * width + i % width);
                    expected[row * d + column] = out[i];
                    for (part, gradient) in [&dq, &dk, &dv].into_iter().enumerate() {
                        expected[rows * d + row * 3 * d + part * d + column] = gradient[i];
                    }
                }
            }
        }
        close("attention", &found, &expected, 3e-6);
    }
}

/// The gradient through dropout is that of the very masks of the forward pass: by finite differences.
#[test]
fn attention_with_dropout_by_differences() {
    let (heads, width, starts) = (1, 4, [0, 9]);
    let d = heads * width;
    let (qkv, dout) = (values(7, 9 * 3 * d), values(8, 9 * d));
    let pool = Pool::new(1);
    let attention = Attention {
        starts: &starts,
        heads,
        width,
        scale: 0.5,
        causal: true,
        dropout: Dropout::new(0.4, 3),
        bias: None,
    };
    let run = |qkv: &[f32]| {
        let (mut mixed, mut sums) = (vec![0.0; 9 * d], vec![0.0; 9 * heads]);
        attention_forward(&pool, attention, qkv, &mut Floats::default(), &mut mixed, &mut sums);
        (mixed, sums)
    };
    let (mixed, sums) = run(&qkv);
    let mut dqkv = vec![0.0; qkv.len()];
    attention_backward(&pool, attention, &qkv, &mixed, &sums, &dout, &mut Floats::default(), &mut dqkv, None);
    let loss = |qkv: &[f32]| -> f64 {
        run(qkv).0.iter().zip(&dout).map(|(x, g)| f64::from(*x) * f64::from(*g)).sum()
    };
    let h = 1e-2f32;
    let expected: Vec<f64> = (0..qkv.len())
        .map(|i| {
            let moved = |by: f32| {
                let mut copy = qkv.clone();
                copy[i] += by;
                loss(&copy)
            };
            (moved(h) - moved(-h)) / (2.0 * f64::from(h))
        })
        .collect();
    close("attention with dropout", &dqkv, &expected, 1e-3);
}

#[test]
fn losses() {
    let (rows, n) = (5, 77);
    let logits = values(9, rows * n);
    let targets = [3u32, 0, 76, 20, 20];
    for smoothing in [0.0, 0.1] {
        let options = CrossEntropy { smoothing, scale: 0.25, gradient: true };
        let found = same_bits("cross entropy", |pool| {
            let mut logits = logits.clone();
            let mut losses = vec![(0.0, false); rows];
            cross_entropy(pool, options, &targets, &mut logits, &mut losses);
            logits.extend(losses.iter().map(|(loss, _)| *loss));
            logits
        });
        let (mut gradients, mut losses) = (vec![], vec![]);
        for (row, target) in targets.iter().enumerate() {
            let x: Vec<f64> = logits[row * n..][..n].iter().map(|x| f64::from(*x)).collect();
            let log_sum = x.iter().map(|x| x.exp()).sum::<f64>().ln();
            let smoothing = f64::from(smoothing);
            let wanted =
                |i: usize| smoothing / n as f64 + if i == *target as usize { 1.0 - smoothing } else { 0.0 };
            losses.push((0..n).map(|i| wanted(i) * (log_sum - x[i])).sum::<f64>());
            gradients.extend((0..n).map(|i| 0.25 * ((x[i] - log_sum).exp() - wanted(i))));
        }
        close("cross entropy", &found, &[gradients, losses].concat(), 1e-6);
    }
}

#[test]
fn adamw_is_pytorchs() {
    let len = 100_003;
    let (w, g) = (values(10, len), values(11, len));
    let (m, v) = (values(12, len), values(13, len).iter().map(|x| x * x).collect::<Vec<_>>());
    let adam = AdamW { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8 };
    let step = AdamWStep { learning_rate: 1e-3, weight_decay: 0.1, gradient_scale: 0.5, step: 3 };
    let found = same_bits("adamw", |pool| {
        let (mut w, mut m, mut v) = (w.clone(), m.clone(), v.clone());
        adam.update(pool, step, &mut w, &g, &mut m, &mut v);
        let norm = sum_of_squares(pool, &g);
        [w, m, v, vec![norm as f32]].concat()
    });
    let (mut w64, mut m64, mut v64) = (vec![], vec![], vec![]);
    for i in 0..len {
        let [w, g, m, v] = [w[i], g[i], m[i], v[i]].map(f64::from);
        let g = g * 0.5;
        let (m, v) = (m + 0.1 * (g - m), 0.999 * v + 0.001 * g * g);
        let (c1, c2) = (1.0 - 0.9f64.powi(3), 1.0 - 0.999f64.powi(3));
        w64.push(w * (1.0 - 1e-4) - 1e-3 / c1 * m / (v.sqrt() / c2.sqrt() + 1e-8));
        m64.push(m);
        v64.push(v);
    }
    let norm: f64 = g.iter().map(|g| f64::from(*g).powi(2)).sum();
    close("adamw", &found, &[w64, m64, v64, vec![norm]].concat(), 1e-6);
}

#[test]
fn tables_and_sums() {
    let (width, ids) = (70, [2u32, 0, 2, 1]);
    let table = values(14, 3 * width);
    let rows = values(15, 4 * width);
    same_bits("tables", |pool| {
        let mut out = vec![0.0; 4 * width];
        gather_rows(pool, &table, width, &ids, &mut out);
        add_rows(pool, &table, width, &ids, &mut out);
        assert!(out[..width].iter().zip(&table[2 * width..]).all(|(out, x)| *out == 2.0 * x));
        let mut gradient = vec![0.0; table.len()];
        scatter_add_rows(pool, &rows, width, &ids, &mut gradient);
        for c in 0..width {
            assert_eq!(gradient[2 * width + c], rows[c] + rows[2 * width + c]);
        }
        let mut sums = vec![1.0; width];
        column_sums(pool, &rows, width, 0, true, &mut sums);
        let expected: f32 = (0..4).map(|r| rows[r * width]).sum();
        assert!((sums[0] - expected).abs() < 1e-5);
        [out, gradient, sums].concat()
    });
}

#[test]
fn dropout_keeps_the_mean_and_its_mask() {
    let len = 100_000;
    let ones = vec![1.0; len];
    let found = same_bits("dropout", |pool| {
        let (mut out, mut dy) = (vec![0.0; len], vec![1.0; len]);
        dropout_forward(pool, Dropout::new(0.1, 42), &ones, &mut out);
        dropout_backward(pool, Dropout::new(0.1, 42), &mut dy);
        assert_eq!(out, dy, "one mask for both passes");
        out
    });
    let dropped = found.iter().filter(|x| **x == 0.0).count() as f64 / len as f64;
    assert!((dropped - 0.1).abs() < 0.004, "{dropped} dropped");
    let other = pools().pop().map(|pool| {
        let mut out = vec![0.0; len];
        dropout_forward(&pool, Dropout::new(0.1, 43), &ones, &mut out);
        out
    });
    assert_ne!(Some(found), other, "another key, another mask");
}
