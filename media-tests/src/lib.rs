//! The world around Trocar, for tests and benchmarks: real processes, a real browser, and clients of our own that stand
//! for many.

pub mod attack;
pub mod bench;
pub mod bench_control;
pub mod browser;
pub mod cluster;
pub mod devices;
pub mod docs;
pub mod failures;
pub mod foreign;
pub mod fuzz;
pub mod ledger;
pub mod line;
pub mod netns;
pub mod party;
pub mod peers;
pub mod process;
pub mod repair_sim;
pub mod sentinel;
pub mod sink;
pub mod soak;
pub mod stack;
pub mod story;
pub mod theatre;
pub mod tmux;
pub mod vitals;

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

/// An HTTP client without proxy, on the one cryptographic provider of the workspace.
///
/// # Errors
/// Where reqwest cannot build it.
pub fn http_client() -> reqwest::Result<reqwest::Client> {
    http_builder().build()
}

/// [`http_client`] before it is built.
pub fn http_builder() -> reqwest::ClientBuilder {
    // An error says that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}
