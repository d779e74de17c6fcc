//! The lines that are measured.

use std::path::Path;
use trocar_proto::link::Profile;
use trocar_proto::link::trace::Trace;

/// Lines of all kinds; those of `configs/link-profiles` come to them.
pub(super) const LINES: &[(&str, &str)] = &[
    ("nothing", ""),
    (
        "sinet",
        "up.delay = { shape = 'normal', mean_ms = 9, sd_ms = 0.05 }\ndown.delay = { shape = 'normal', mean_ms = 9, sd_ms = 0.05 }",
    ),
    ("asymmetric", "up.delay = { shape = 'constant', ms = 40 }\ndown.delay = { shape = 'constant', ms = 8 }"),
    (
        "asymmetric rates",
        "up.line = { mbit_s = 10, queue_ms = 100, overhead_bytes = 28 }\ndown.line = { mbit_s = 100, queue_ms = 100, overhead_bytes = 28 }\nup.delay = { shape = 'constant', ms = 2 }\ndown.delay = { shape = 'constant', ms = 2 }",
    ),
    ("random loss", "up.loss = { model = 'random', percent = 2 }\ndown.loss = { model = 'random', percent = 0.5 }"),
    (
        "bursts",
        "up.loss = { model = 'bursts', percent = 1, burst_packets = 8 }\nup.delay = { shape = 'constant', ms = 15 }\ndown.loss = { model = 'bursts', percent = 3, burst_packets = 4 }",
    ),
    (
        "reordering",
        "up.reorder = { percent = 3, gap_packets = 4 }\ndown.reorder = { percent = 1, gap_packets = 2 }\nup.delay = { shape = 'constant', ms = 5 }",
    ),
    (
        "overtaking",
        "up.jitter_reorders = true\ndown.jitter_reorders = true\nup.delay = { shape = 'uniform', min_ms = 10, max_ms = 60 }\ndown.delay = { shape = 'uniform', min_ms = 10, max_ms = 40 }",
    ),
    (
        "copies",
        "up.duplicate_percent = 5\ndown.duplicate_percent = 1\nup.jitter_reorders = true\nup.delay = { shape = 'uniform', min_ms = 1, max_ms = 90 }",
    ),
    ("damage", "up.corrupt_percent = 4\ndown.corrupt_percent = 1"),
    (
        "busy radio",
        "up.delay = { shape = 'pareto', base_ms = 12, scale_ms = 4, alpha = 2, max_ms = 300 }\ndown.delay = { shape = 'pareto', base_ms = 10, scale_ms = 3, alpha = 2, max_ms = 300 }\nup.line = { mbit_s = 12, queue_ms = 200, overhead_bytes = 28 }\ndown.line = { mbit_s = 30, queue_ms = 200, overhead_bytes = 28 }\nup.loss = { model = 'gilbert_elliott', to_bad_percent = 0.2, to_good_percent = 20, bad_percent = 50 }",
    ),
    (
        "shortage",
        "up.line = { mbit_s = 14.5, queue_ms = 100, overhead_bytes = 28 }\ndown.line = { mbit_s = 14.5, queue_ms = 30, drop = 'head', overhead_bytes = 28 }\nup.delay = { shape = 'constant', ms = 3 }\ndown.delay = { shape = 'constant', ms = 3 }",
    ),
    (
        "satellite",
        "up.delay = { shape = 'normal', mean_ms = 25, sd_ms = 3 }\ndown.delay = { shape = 'normal', mean_ms = 22, sd_ms = 3 }\nup.line = { mbit_s = 8, queue_ms = 150 }\n[[down.blackout]]\nstart_ms = 2000\nlength_ms = 150\nevery_ms = 15000",
    ),
    (
        "policed",
        "up.line = { mbit_s = 20, queue_bytes = 6000, overhead_bytes = 28 }\ndown.line = { mbit_s = 25, queue_ms = 400, overhead_bytes = 28 }",
    ),
    (
        "everything",
        "up.jitter_reorders = true\nup.delay = { shape = 'pareto', base_ms = 5, scale_ms = 2, alpha = 1.5, max_ms = 200 }\nup.loss = { model = 'bursts', percent = 2, burst_packets = 3 }\nup.duplicate_percent = 2\nup.corrupt_percent = 2\nup.reorder = { percent = 1, gap_packets = 3 }\ndown.loss = { model = 'random', percent = 1 }\ndown.corrupt_percent = 1\ndown.duplicate_percent = 1",
    ),
];

pub(super) fn profiles() -> Vec<(String, Profile)> {
    let mut all: Vec<(String, Profile)> =
        LINES.iter().map(|(name, text)| ((*name).to_owned(), toml::from_str(text).unwrap())).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/link-profiles");
    let files = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|f| f.path());
    for file in files.filter(|f| f.extension().is_some_and(|e| e == "toml")) {
        let mut profile: Profile = toml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        for line in [&mut profile.up.line, &mut profile.down.line].into_iter().flatten() {
            if let Some(trace) = &line.trace_file {
                line.trace = Some(Trace::parse(&std::fs::read_to_string(folder.join(trace)).unwrap()).unwrap());
            }
        }
        all.push((file.file_stem().unwrap().to_string_lossy().into_owned(), profile));
    }
    all
}
