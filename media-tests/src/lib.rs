//! The world around Trocar, for tests and benchmarks: real processes, a real browser, and clients of our own that stand
//! for many.

pub mod browser;
pub mod process;
pub mod stack;

/// Where what a person should look at is kept: `var/artifacts` below the workspace.
///
/// # Errors
/// Where the folder cannot be made.
pub fn artifacts() -> anyhow::Result<std::path::PathBuf> {
    let dir = workspace().join("var/artifacts");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// The workspace's folder.
#[must_use]
pub fn workspace() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(Default::default, std::path::Path::to_path_buf)
}
