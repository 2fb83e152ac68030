//! Norms, activations and row reductions: bits against the reference, values against f64.

mod common;

use candlewick_kernels::{
    Activation, Pool, activation, argmax, layer_norm, log_softmax_row, math, reference, softmax_row,
};
use common::{Random, assert_same_bits, pools};
use half::bf16;

#[test]
fn layer_norm_equals_the_reference() {
    for width in [1, 7, 16, 33, 768, 1000] {
        let mut random = Random(20);
        for rows in [1, 3, 40] {
            let (x, weight, bias) = (random.values(rows * width), random.values(width), random.values(width));
            let mut expected = vec![0.0; x.len()];
            reference::layer_norm(&x, width, &weight, &bias, 1e-5, &mut expected);
            for pool in pools(2) {
                let mut out = vec![f32::NAN; x.len()];
                let mut halves = vec![bf16::ZERO; out.len()];
                layer_norm(&pool, &x, rows, width, &weight, &bias, 1e-5, &mut out, Some(&mut halves));
                assert!(halves.iter().zip(&out).all(|(half, y)| *half == bf16::from_f32(*y)), "rounded");
                assert_same_bits(&out, &expected, &format!("{rows}x{width} {}", pool.isa()));
            }
        }
    }
}

#[test]
fn row_reductions_equal_the_reference() {
    for len in [1, 5, 16, 63, 64, 65, 50_257] {
        let mut x = Random(21).values(len);
        if len > 60 {
            x[3] = f32::NEG_INFINITY;
            x[40] = 50.0;
            x[50] = 50.0;
        }
        let (mut softmax, mut log_softmax) = (x.clone(), x.clone());
        reference::softmax_row(&mut softmax);
        reference::log_softmax_row(&mut log_softmax);
        for pool in pools(1) {
            let (mut a, mut b) = (x.clone(), x.clone());
            softmax_row(&pool, &mut a);
            log_softmax_row(&pool, &mut b);
            assert_same_bits(&a, &softmax, "softmax");
            assert_same_bits(&b, &log_softmax, "log softmax");
            assert_eq!(argmax(&pool, &x), reference::argmax(&x));
            assert!(len < 60 || (argmax(&pool, &x) == 40 && a[3] == 0.0));
        }
        let total: f64 = softmax.iter().map(|p| f64::from(*p)).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
    }
    for pool in pools(1) {
        assert_eq!(argmax(&pool, &[]), 0);
        assert_eq!(argmax(&pool, &[f32::NAN, 1.0, 2.0, f32::NAN]), 2);
        assert_eq!(argmax(&pool, &[f32::NAN; 3]), 0);
    }
}

/// Every 1,009th float, specials included.
fn many_floats() -> Vec<f32> {
    (0..u32::MAX)
        .step_by(1009)
        .map(f32::from_bits)
        .chain([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY])
        .collect()
}

#[test]
fn activations_equal_the_reference_on_all_kinds_of_floats() {
    let all = [Activation::GeluNew, Activation::Gelu, Activation::Relu, Activation::Silu, Activation::Tanh];
    let x: Vec<f32> = many_floats().into_iter().filter(|x| !x.is_nan()).collect();
    for a in all {
        let expected: Vec<f32> = x.iter().map(|x| reference::apply(a, *x)).collect();
        for pool in pools(1) {
            let mut got = x.clone();
            activation(&pool, a, &mut got);
            for ((g, e), x) in got.iter().zip(&expected).zip(&x) {
                // The sign and payload of a NaN are the machine's own.
                assert!(g.to_bits() == e.to_bits() || (g.is_nan() && e.is_nan()), "{a:?}({x:e}) {g:e} {e:e}");
            }
            let mut nan = [f32::NAN];
            activation(&pool, a, &mut nan);
            assert!(nan[0].is_nan() || a == Activation::Relu);
        }
    }
}

fn erf(x: f64) -> f64 {
    let pi = std::f64::consts::PI;
    if x.abs() < 2.5 {
        // The Maclaurin series; further out its terms cancel.
        let (mut term, mut sum) = (x, x);
        for n in 1..60 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * 2.0 / pi.sqrt();
    }
    // erfc's continued fraction, from the far end.
    let a = x.abs();
    let fraction = (1..80).rev().fold(a, |tail, n| a + f64::from(n) / 2.0 / tail);
    x.signum() * (1.0 - (-a * a).exp() / (pi.sqrt() * fraction))
}

#[test]
fn functions_are_close_to_f64() {
    let ordinary = (-1_000_000..=1_000_000).map(|i| i as f32 * 1e-4);
    let mut worst = [0f64; 5];
    for x in ordinary.chain(Random(22).values(100_000)) {
        let wide = f64::from(x);
        if x.abs() < 87.0 {
            worst[0] = worst[0].max((f64::from(math::exp(x)) / wide.exp() - 1.0).abs());
        }
        worst[1] = worst[1].max((f64::from(math::tanh(x)) - wide.tanh()).abs());
        let u = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide * wide * wide);
        worst[2] = worst[2]
            .max((f64::from(math::gelu_new(x)) - 0.5 * wide * (1.0 + u.tanh())).abs() / wide.abs().max(1.0));
        if x.abs() < 60.0 {
            worst[3] = worst[3].max((f64::from(math::erf(x)) - erf(wide)).abs());
        }
        let gelu = 0.5 * wide * (1.0 + erf(wide * std::f64::consts::FRAC_1_SQRT_2));
        worst[4] = worst[4].max((f64::from(math::gelu(x)) - gelu).abs() / wide.abs().max(1.0));
    }
    eprintln!("exp (relative), tanh, gelu_new, erf, gelu: {worst:?}");
    let limits = [1.2e-7, 4e-7, 2e-7, 5e-7, 5e-7];
    assert!(worst.iter().zip(limits).all(|(got, limit)| *got <= limit), "{worst:?}");
    assert_eq!((math::exp(-100.0), math::exp(89.0), math::exp(0.0)), (0.0, f32::INFINITY, 1.0));
}

#[test]
fn layer_norm_is_close_to_f64() {
    let pool = Pool::new(1);
    let x: Vec<f32> = Random(23).values(768).iter().map(|x| x + 5.0).collect();
    let (ones, zeros, mut out) = (vec![1.0; 768], vec![0.0; 768], vec![0.0; 768]);
    layer_norm(&pool, &x, 1, 768, &ones, &zeros, 1e-5, &mut out, None);
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / 768.0;
    let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / 768.0;
    for (x, y) in x.iter().zip(&out) {
        let expected = (f64::from(*x) - mean) / (variance + 1e-5).sqrt();
        assert!((f64::from(*y) - expected).abs() < 3e-6 * expected.abs().max(1.0), "{y} {expected}");
    }
}
