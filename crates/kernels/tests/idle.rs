//! What a pool leaves behind when nothing runs: no CPU time, and after its drop no threads. One test, for it measures
//! the whole process.
#![cfg(target_os = "linux")]

use candlewick_kernels::Pool;
use std::time::Duration;

/// User and system time of this process, in ticks of 10 ms.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn an_idle_pool_costs_nothing_and_a_dropped_one_leaves_nobody() {
    let before = threads();
    for round in 0..30 {
        let pool = Pool::new(40);
        let awake = (round % 2 == 0).then(|| pool.active());
        pool.run(100, |_| {});
        drop(awake);
        drop(pool);
        assert_eq!(threads(), before, "every helper was joined");
    }
    let pool = Pool::new(4);
    for request in [false, true] {
        let _awake = request.then(|| pool.active());
        pool.run(100, |_| {});
        std::thread::sleep(Duration::from_millis(100));
        let start = cpu_ticks();
        std::thread::sleep(Duration::from_secs(1));
        let spent = cpu_ticks() - start;
        assert!(
            spent <= 3,
            "{spent} ticks in a second, while a request runs but computes nothing: {request}"
        );
    }
}
