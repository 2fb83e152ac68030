//! How many threads a pool should have on this machine.

/// Physical cores that this process may use: affinity and the cgroup's CPU quota (v1 and v2) are respected, and two
/// hyperthreads of one core count once, for they share the FMA units and the load ports that the kernels live on.
pub fn default_threads() -> usize {
    // std reads the affinity mask and both versions of the cgroup quota.
    let allowed = std::thread::available_parallelism().map_or(1, |n| n.get());
    physical_cores().map_or(allowed, |cores| cores.clamp(1, allowed))
}

/// Distinct cores among the CPUs in the affinity mask; `None` where the system does not say.
#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    use std::collections::BTreeSet;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let cores: BTreeSet<String> = parse_cpu_list(allowed)
        .into_iter()
        .map(|cpu| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            // An unreadable topology counts every CPU as a core of its own.
            std::fs::read_to_string(path).map_or_else(|_| cpu.to_string(), |text| text.trim().to_owned())
        })
        .collect();
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(not(target_os = "linux"))]
fn physical_cores() -> Option<usize> {
    None
}

/// `"0-3,8,10-11"` as the kernel writes it.
#[cfg(target_os = "linux")]
fn parse_cpu_list(text: &str) -> Vec<usize> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_one_and_no_more_than_allowed() {
        let threads = default_threads();
        assert!(threads >= 1 && threads <= std::thread::available_parallelism().map_or(1, |n| n.get()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(parse_cpu_list("5"), [5]);
        assert!(parse_cpu_list("").is_empty());
    }
}
