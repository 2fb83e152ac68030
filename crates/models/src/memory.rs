//! How much memory a model may have for keys and values.

use std::fs;
use std::path::Path;

use crate::contract::causal::KvSpec;
use crate::{ModelError, Result};

/// The most that is taken without being asked for.
const DEFAULT_MOST: u64 = 2 << 30;
/// What is assumed where the system does not say how much memory there is.
const ASSUMED: u64 = 8 << 30;
/// Whole sequences beyond which more memory is of no use: twice as many as run at once.
const SEQUENCES: usize = 256;

/// Blocks of `positions` positions and `bytes` bytes, within the budget `asked`; `None`: a quarter of the memory that
/// this process may use, at most 2 GiB, and at least one sequence of `n_positions`. A budget that cannot hold one, or
/// that is more than there is, is refused.
pub(crate) fn kv_spec(
    asked: Option<u64>,
    positions: usize,
    bytes: usize,
    n_positions: usize,
) -> Result<KvSpec> {
    let one = n_positions.div_ceil(positions);
    let fitting = |budget: u64| usize::try_from(budget / bytes.max(1) as u64).unwrap_or(usize::MAX);
    let blocks = match asked {
        None => fitting(DEFAULT_MOST.min(available().unwrap_or(ASSUMED) / 4)).max(one),
        Some(budget) => {
            let refuse = |reason: String| Err(ModelError::Option { option: "kvCacheBytes", reason });
            if fitting(budget) < one {
                let least = one as u64 * bytes as u64;
                return refuse(format!(
                    "{budget} bytes, but one sequence of the model's {n_positions} positions needs {least}"
                ));
            }
            if let Some(all) = available().filter(|all| budget > *all) {
                return refuse(format!("{budget} bytes, but this process may use {all}"));
            }
            fitting(budget)
        }
    };
    Ok(KvSpec { positions, blocks: blocks.min(SEQUENCES * one), bytes })
}

/// Bytes that this process may use: the machine's, or less in a container. `None`: the system does not say.
fn available() -> Option<u64> {
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
    });
    // Version 2 of control groups, whose limits hold for the groups inside too; then version 1.
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let root = Path::new("/sys/fs/cgroup");
    let groups =
        Path::new(own.trim_start_matches('/')).ancestors().map(|part| root.join(part).join("memory.max"));
    let limits = groups.chain([root.join("memory/memory.limit_in_bytes")]).filter_map(|path| number(&path));
    limits.chain(machine).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_holds_at_least_one_sequence_and_no_more_than_there_is() {
        let spec = |asked| kv_spec(asked, 64, 1000, 1024);
        assert_eq!(spec(Some(16_000)).unwrap().blocks, 16);
        assert_eq!(spec(Some(20_999)).unwrap().blocks, 20);
        assert_eq!(spec(Some(1 << 30)).unwrap().blocks, 256 * 16, "more is of no use");
        for asked in [0, 15_999] {
            assert_eq!(spec(Some(asked)).unwrap_err().code(), "OPTION_INVALID");
        }
        if available().is_some() {
            assert_eq!(spec(Some(u64::MAX)).unwrap_err().code(), "OPTION_INVALID");
        }
        assert!(spec(None).unwrap().blocks >= 16);
        // A model whose one sequence is larger than the default gets that much.
        assert_eq!(kv_spec(None, 64, 1 << 32, 1024).unwrap().blocks, 16);
    }
}
