//! What the kernel knows about a process, and quantiles.

use anyhow::Context;

/// Nanoseconds that a process has been on a CPU so far, all threads, user and kernel.
///
/// # Errors
/// Where there is no such process.
pub fn cpu_ns(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the two reads.
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let first = text.split(' ').next().and_then(|t| t.parse::<u64>().ok());
        sum += first.context("the kernel counts no nanoseconds: /proc/PID/task/TID/schedstat")?;
    }
    Ok(sum)
}

/// Resident memory of a process in bytes.
///
/// # Errors
/// Where there is no such process.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1_024)
}

/// The value below which that share of a sorted list lies; 0 of an empty one.
#[must_use]
pub fn quantile(sorted: &[u32], share: f64) -> u32 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(0)
}

/// The middle of some numbers; of an even count the mean of the two.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_medians_of_small_lists() {
        let sorted: Vec<u32> = (0..=1_000).collect();
        assert_eq!([0.5, 0.99, 0.999].map(|q| quantile(&sorted, q)), [500, 990, 999]);
        assert_eq!(quantile(&[], 0.5), 0);
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])), (2.0, 2.5));
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_process_that_works_has_been_on_a_cpu() {
        let (me, before) = (std::process::id(), cpu_ns(std::process::id()).unwrap());
        let mut x = 1_u64;
        while cpu_ns(me).unwrap() < before + 2_000_000 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(resident(me).unwrap() > 1 << 20);
    }
}
