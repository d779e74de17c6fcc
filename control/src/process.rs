//! What this process takes of its machine, as the kernel says: the figures that every Prometheus client has.

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;

/// Clock ticks a second in the kernel's texts (`USER_HZ`).
const TICKS: f64 = 100.0;

/// This process now; what the kernel does not say is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Process {
    /// CPU time of all threads, in seconds.
    pub cpu_seconds: f64,
    /// Memory that is resident, in bytes.
    pub resident_bytes: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<f64>,
    /// How many there may be; none where nothing limits them.
    pub max_fds: Option<f64>,
    /// When it started, in seconds since the Unix epoch, as the wall clock was when first asked.
    pub start_seconds: Option<f64>,
}

impl Process {
    /// Reads a few small files of the kernel's.
    #[must_use]
    pub fn now() -> Self {
        static START: OnceLock<Option<f64>> = OnceLock::new();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        // The directory that is being read is one of them, and closed when the answer is there.
        let open = std::fs::read_dir("/proc/self/fd").map(|all| all.count().saturating_sub(1));
        Self {
            cpu_seconds: seconds(ClockId::ProcessCPUTime),
            resident_bytes: resident_bytes(&status),
            open_fds: open.ok().map(|n| n as f64),
            max_fds: getrlimit(Resource::Nofile).current.map(|n| n as f64),
            start_seconds: *START.get_or_init(|| {
                let read = |file| std::fs::read_to_string(file).ok();
                started(&read("/proc/stat")?, &read("/proc/self/stat")?)
            }),
        }
    }

    /// As Prometheus text, by the names that the guidelines for its clients give, without the end mark.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, kind, help, value) in [
            (
                "process_cpu_seconds",
                "counter",
                "CPU time of all threads, in user mode and in the kernel",
                Some(self.cpu_seconds),
            ),
            ("process_resident_memory_bytes", "gauge", "Memory that is resident", self.resident_bytes),
            ("process_open_fds", "gauge", "File descriptors that are open", self.open_fds),
            ("process_max_fds", "gauge", "File descriptors that may be open", self.max_fds),
            (
                "process_start_time_seconds",
                "gauge",
                "When the process started, since the Unix epoch",
                self.start_seconds,
            ),
        ] {
            let Some(value) = value else { continue };
            let ending = if kind == "counter" { "_total" } else { "" };
            out.push_str(&format!("# HELP {name} {help}.\n# TYPE {name} {kind}\n{name}{ending} {value}\n"));
        }
        out
    }
}

/// CPU time of the calling thread so far, in seconds.
#[must_use]
pub fn thread_cpu_seconds() -> f64 {
    seconds(ClockId::ThreadCPUTime)
}

fn seconds(of: ClockId) -> f64 {
    let t = clock_gettime(of);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// From `/proc/self/status`: `VmRSS`, which is in KiB.
fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<f64>().ok().map(|kib| kib * 1_024.0)
}

/// From `/proc/stat`, when the machine started, and `/proc/self/stat`, how many ticks later the process did: the 22nd field, of which
/// the second one may have blanks in it and ends with the last parenthesis.
fn started(machine: &str, own: &str) -> Option<f64> {
    let boot: f64 = machine.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    let ticks: f64 = own.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some(boot + ticks / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_takes_is_told_and_rises_with_what_it_does() {
        let before = (Process::now(), thread_cpu_seconds());
        let mut x = 1_u64;
        while thread_cpu_seconds() < before.1 + 0.02 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        let files: Vec<_> = (0..3).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let mine = Process::now();
        assert!(mine.cpu_seconds >= before.0.cpu_seconds + 0.02, "{before:?} {mine:?}");
        assert!(mine.resident_bytes.unwrap() > 1e6, "{mine:?}");
        assert!(mine.open_fds.unwrap() >= 3.0 + files.len() as f64 && mine.open_fds <= mine.max_fds, "{mine:?}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - 86_400.0..now + 1.0).contains(&mine.start_seconds.unwrap()), "{mine:?} at {now}");
        assert_eq!(mine.start_seconds, before.0.start_seconds, "it stands still");
    }

    #[test]
    fn the_kernels_texts_are_read_as_it_writes_them_and_others_say_nothing() {
        let stat = "7 (a ) name) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 250 9 10";
        assert_eq!(started("cpu 1 2\nbtime 1700000000\n", stat), Some(1_700_000_002.5));
        assert_eq!((started("btime x\n", stat), started("btime 1\n", "7 (a) S 1")), (None, None));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12_288.0));
        assert_eq!((resident_bytes("VmRSS:\t 12\n"), resident_bytes("")), (None, None));
    }

    #[test]
    fn the_text_has_a_head_and_a_row_for_each_figure_that_is_known() {
        let all = Process {
            cpu_seconds: 1.5,
            resident_bytes: Some(2_048.0),
            open_fds: Some(9.0),
            max_fds: None,
            start_seconds: Some(1_700_000_002.5),
        };
        let text = all.text();
        assert!(text.contains("# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total 1.5\n"), "{text}");
        assert!(
            text.ends_with("# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1700000002.5\n"),
            "{text}"
        );
        assert!(!text.contains("max_fds") && text.lines().count() == 12, "{text}");
    }
}
