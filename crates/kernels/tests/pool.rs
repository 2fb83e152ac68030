//! Threads: every task once, panics that come back, no deadlock and no collapse when pools share cores.

use candlewick_kernels::Pool;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn counts(pool: &Pool, tasks: usize) -> Vec<usize> {
    let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
    pool.run(tasks, |task| {
        counts[task].fetch_add(1, Ordering::Relaxed);
    });
    counts.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_task_runs_once_awake_or_asleep() {
    for threads in [0, 1, 2, 3, 8] {
        let pool = Pool::new(threads);
        for round in 0..200 {
            let awake = (round % 3 == 0).then(|| pool.active());
            for tasks in [0, 1, 2, 7, 100] {
                assert_eq!(counts(&pool, tasks), vec![1; tasks]);
            }
            drop(awake);
        }
    }
}

#[test]
fn helpers_do_help() {
    let pool = Pool::new(2);
    let seen = Mutex::new(HashSet::new());
    for awake in [true, false] {
        seen.lock().unwrap().clear();
        // Asleep means asleep, not about to be.
        std::thread::sleep(Duration::from_millis(50));
        let guard = awake.then(|| pool.active());
        // Each of the two tasks waits (not forever) for the other to start, so one thread alone cannot do both in time.
        let started = AtomicUsize::new(0);
        pool.run(2, |_| {
            started.fetch_add(1, Ordering::SeqCst);
            let patience = Instant::now() + Duration::from_secs(20);
            while started.load(Ordering::SeqCst) < 2 && Instant::now() < patience {
                std::thread::yield_now();
            }
            seen.lock().unwrap().insert(std::thread::current().id());
        });
        assert_eq!(seen.lock().unwrap().len(), 2, "awake: {awake}");
        drop(guard);
    }
}

#[test]
fn a_panic_in_a_task_is_a_panic_in_the_caller_and_the_pool_lives_on() {
    for threads in [1, 2, 4] {
        let pool = Pool::new(threads);
        let _awake = pool.active();
        for task in [0, 5, 63] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(64, |t| {
                    if t == task {
                        std::panic::panic_any(task);
                    }
                });
            }));
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&task));
            assert_eq!(counts(&pool, 50), vec![1; 50]);
        }
        // Everybody panics.
        assert!(catch_unwind(AssertUnwindSafe(|| pool.run(64, |_| panic!("all")))).is_err());
        assert_eq!(counts(&pool, 50), vec![1; 50]);
    }
}

#[test]
fn a_panic_in_a_helper_reaches_the_caller() {
    let pool = Pool::new(2);
    let caller = std::thread::current().id();
    let started = AtomicUsize::new(0);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        pool.run(2, |_| {
            // Both wait for each other, so that one of the tasks is the helper's.
            started.fetch_add(1, Ordering::SeqCst);
            let patience = Instant::now() + Duration::from_secs(20);
            while started.load(Ordering::SeqCst) < 2 && Instant::now() < patience {
                std::thread::yield_now();
            }
            if std::thread::current().id() != caller {
                std::panic::panic_any("from the helper");
            }
        });
    }));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"from the helper"));
    assert_eq!(counts(&pool, 50), vec![1; 50]);
}

#[test]
fn a_task_may_run_tasks_and_two_callers_may_share_a_pool() {
    let pool = Pool::new(2);
    let sum = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..100 {
                    pool.run(4, |_| {
                        pool.run(5, |t| {
                            sum.fetch_add(t, Ordering::Relaxed);
                        });
                    });
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), 3 * 100 * 4 * 10);
}

/// Several pools on the same cores take turns; spinning must not eat what the workers need.
#[test]
fn many_pools_on_the_same_cores_do_not_collapse() {
    let work = |pool: &Pool| {
        let _awake = pool.active();
        for _ in 0..400 {
            pool.run(16, |_| {
                let start = Instant::now();
                while start.elapsed() < Duration::from_micros(5) {
                    std::hint::spin_loop();
                }
            });
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get());
    let start = Instant::now();
    work(&Pool::new(threads));
    let alone = start.elapsed();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| work(&Pool::new(threads)));
        }
    });
    let together = start.elapsed();
    // Four times the work. Ten times as long allows for a machine that does other things as well.
    assert!(together < alone * 10 + Duration::from_secs(1), "{alone:?} alone, {together:?} for four");
    eprintln!("{alone:?} alone, {together:?} for four pools");
}
