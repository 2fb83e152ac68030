//! `bench-limits THREADS`: what the machine can do at this moment, measured whenever it is asked, in turns with the
//! contenders.

use candlewick_benchmark::{Result, serve};
use candlewick_kernels::{Pool, isa, machine};
use serde_json::json;

/// The best of so many: a limit is what the machine can do, and a single pass is easily disturbed.
const PASSES: usize = 3;
const BYTES: usize = 1 << 30;

fn main() -> Result<()> {
    let threads = std::env::args().nth(1).ok_or("how many threads?")?.parse()?;
    let pool = Pool::new(threads);
    let memory = machine::Memory::new(BYTES);
    serve(|op, _| match op {
        "limits" => {
            let _awake = pool.active();
            let seconds_per_byte =
                (0..PASSES).map(|_| memory.read(&pool, BYTES)).fold(f64::INFINITY, f64::min);
            Ok(json!({
                "bandwidthGBs": 1e-9 / seconds_per_byte,
                "fmaGflops": machine::fma_peak(&pool, PASSES) / 1e9,
                "bf16Gflops": machine::bf16_peak(&pool, PASSES) / 1e9,
                "int8Gops": machine::int8_peak(&pool, PASSES) / 1e9,
                "isa": isa().to_string(),
            }))
        }
        _ => Err(format!("no {op} here").into()),
    })
}
