//! Bundles the browser page into `OUT_DIR/web/` so that the binary carries it: `index.html`, `app.js`, `app.css`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;

/// What the page is made of, below `web/`. A folder stands for everything in it.
const SOURCES: [&str; 7] =
    ["src", "index.html", "app.css", "build.mjs", "package.json", "package-lock.json", "tsconfig.json"];

const NO_NODE: &str = "The browser page is built with Node.js 18 or later and npm, and they are not here: install the \
                       Debian packages nodejs and npm, or run `make setup`.";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let web = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("web");
    let out = PathBuf::from(variable("OUT_DIR")?).join("web");
    println!("cargo::rerun-if-changed=build.rs");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", web.join(source).display());
    }
    run(Command::new("node").arg("--version"), NO_NODE)?;
    install(&web)?;
    let mut bundle = Command::new("node");
    bundle.current_dir(&web).arg("build.mjs").arg(&out);
    run(&mut bundle, "The browser page could not be bundled: `node build.mjs` in signaling/web failed, as said below.")
}

/// Brings `node_modules` to what the lockfile says, where it is missing or older.
fn install(web: &Path) -> Result<(), String> {
    let lockfile = web.join("package-lock.json");
    // Two builds may run at once, with different target folders: one installs, the other waits and finds it done.
    let guard = File::open(&lockfile).map_err(|e| format!("Cannot read {}: {e}.", lockfile.display()))?;
    guard.lock().map_err(|e| format!("Cannot lock {}: {e}.", lockfile.display()))?;
    let installed = modified(&web.join("node_modules/.package-lock.json"));
    if installed.is_some() && installed >= modified(&lockfile) && web.join("node_modules/.bin/esbuild").exists() {
        return Ok(());
    }
    run(Command::new("npm").arg("--version"), NO_NODE)?;
    let mut npm = Command::new("npm");
    // No package may run a script of its own at installation: esbuild works without.
    npm.current_dir(web).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    run(&mut npm, "The page's build tools could not be installed: `npm ci` in signaling/web failed, as said below.")
}

fn run(command: &mut Command, why: &str) -> Result<(), String> {
    let Ok(output) = command.output() else { return Err(why.to_owned()) };
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{why}\n{}", String::from_utf8_lossy(&said).trim()))
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("cargo did not set {name}: this program is run by cargo only."))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}
