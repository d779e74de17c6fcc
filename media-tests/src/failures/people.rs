//! Failures of consent, disk and trust.
#![allow(clippy::indexing_slicing, reason = "a JSON value without that member gives null")]

use super::{Row, SOON, Trial};
use crate::sentinel::boot_us;
use crate::theatre::{Setting, Theatre, is_motion, selects, time};
use anyhow::ensure;
use serde_json::json;
use std::process::Command;

const HZ: u32 = 200;

/// HO-X-011. The wall clocks of gate and station jump an hour ahead, then an hour back, and run 500 ppm too fast.
pub(super) fn f10() -> anyhow::Result<Trial> {
    let clock = tempfile::NamedTempFile::new()?;
    std::fs::write(clock.path(), "+0")?;
    let mut t = Theatre::open_as(Setting { wall_clock: Some(clock.path().to_owned()), ..Setting::default() })?;
    t.remote("instruments", HZ)?;
    let epoch = t.gate_shows("the epoch", |v| v["mode"] == "remote")?["epoch"].clone();
    let at = boot_us();
    let mut row = Row::new("F10");
    for jump in ["+3600", "-3600", "+0 x1.0005"] {
        let jumped = boot_us();
        std::fs::write(clock.path(), jump)?;
        t.record.after(jumped + 1_000_000, "motion a second after the jump", SOON, is_motion)?;
        let view = t.gate_shows("a second", |v| v["at_us"].as_u64().is_some_and(|n| n > jumped + 1_000_000))?;
        ensure!(view["mode"] == "remote" && view["epoch"] == epoch && view["stopped"] == 0, "after {jump}: {view}");
        row.saw(format!("{jump} s: same epoch, motion goes on"));
    }
    Ok(Trial { row, from: at, to: boot_us() })
}

/// HO-X-017. Consent is withdrawn: local is told, the holder goes on until local takes, and nothing new is offered.
pub(super) fn f16() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", HZ)?;
    let at = boot_us();
    t.withdraw_consent()?;
    t.gate_shows("local is told", |v| v["alarms"].as_u64().is_some_and(|a| a & 64 != 0))?;
    let told = boot_us();
    t.record.after(told + 500_000, "the holder goes on", SOON, is_motion)?;
    let (taken, local) = t.take()?;
    let (_, refused) = t.try_local(json!({ "act": "offer", "set": "instruments" }))?;
    ensure!(refused.as_deref().is_some_and(|r| r.contains("consent")), "{refused:?}");
    let mut row = Row::new("F16");
    row.time("local told", at, told, 1_000.0);
    row.time("TAKE", taken, local, 50.0);
    row.saw("the holder was not stopped by it; a new offer is refused");
    Ok(Trial { row, from: at, to: told })
}

/// HO-X-018. A disk that is full: grants are refused within a second, TAKE and stops are as quick as ever.
pub(super) fn f17() -> anyhow::Result<Trial> {
    let disk = SmallDisk::mount()?;
    let mut t = Theatre::open_as(Setting { store: Some(disk.path().join("store")), ..Setting::default() })?;
    t.ready("instruments")?;
    disk.fill()?;
    let at = boot_us();
    t.local(json!({ "act": "confirm" }))?;
    let view = t.gate_shows("no grant", |v| v["mode"] == "local")?;
    let refused = view["at_us"].as_u64().unwrap_or(u64::MAX);
    let (taken, local) = t.take()?;
    let stopped = t.local(json!({ "act": "estop" }))?;
    let nobody = time(&t.record.after(stopped, "nobody selected", SOON, selects("nobody"))?);
    let mut row = Row::new("F17");
    row.time("grant refused", at, refused, 1_100.0);
    row.time("TAKE on a full disk", taken, local, 50.0);
    row.time("ESTOP on a full disk", stopped, nobody, 50.0);
    // HO-U-008: what happened since waits for the disk, and says so although local acted.
    t.gate_shows("the alarm of the audit log", |v| v["alarms"].as_u64().is_some_and(|a| a & 2_048 != 0))?;
    row.saw("the alarm of the audit log stands after TAKE");
    Ok(Trial { row, from: at, to: nobody })
}

/// HO-X-024. The revocation list names the holder.
pub(super) fn f23() -> anyhow::Result<Trial> {
    let mut t = Theatre::open()?;
    t.remote("instruments", HZ)?;
    let at = boot_us();
    t.revoke("station")?;
    let nobody = time(&t.record.after(at, "nobody selected", SOON, selects("nobody"))?);
    let view = t.gate_shows("the alarm", |v| v["mode"] == "hold")?;
    ensure!(view["alarms"].as_u64().is_some_and(|a| a & 128 != 0), "no alarm: {view}");
    t.nothing_moves(nobody)?;
    let mut row = Row::new("F23");
    row.time("HOLD after the list came", at, nobody, 1_000.0);
    row.saw("alarm shown");
    Ok(Trial { row, from: at, to: nobody })
}

/// A disk that does not answer for 3 s, and then does. Grants are refused within a second; whatever it was asked meanwhile counts for
/// nothing later.
pub(super) fn f17_stalled() -> anyhow::Result<Trial> {
    let disk = FrozenDisk::mount()?;
    let mut t = Theatre::open_as(Setting { store: Some(disk.path().join("store")), ..Setting::default() })?;
    t.ready("instruments")?;
    disk.freeze(true)?;
    let at = boot_us();
    t.local(json!({ "act": "confirm" }))?;
    let view = t.gate_shows("no grant", |v| v["mode"] == "local")?;
    let refused = crate::theatre::at_us(&view);
    let (taken, local) = t.take()?;
    t.pass(at + 3_000_000)?;
    disk.freeze(false)?;
    let thawed = boot_us();
    let view = t.gate_shows("a second after", |v| crate::theatre::at_us(v) > thawed + 1_000_000)?;
    ensure!(view["mode"] == "local", "the disk's late answer was taken for a grant: {view}");
    t.nothing_moves(at)?;
    let mut row = Row::new("F17b");
    row.time("grant refused while the disk stands still", at, refused, 1_100.0);
    row.time("TAKE while the disk stands still", taken, local, 50.0);
    row.saw("its late answer counts for nothing");
    Ok(Trial { row, from: at, to: local })
}

/// A file system of 16 MiB that can be frozen, so that whoever writes waits.
pub struct FrozenDisk(tempfile::TempDir);

impl FrozenDisk {
    /// Makes and mounts it; needs root.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn mount() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let image = dir.path().join("image");
        std::fs::File::create(&image)?.set_len(16 << 20)?;
        std::fs::create_dir(dir.path().join("disk"))?;
        let run = |command: &mut Command| command.status().is_ok_and(|s| s.success());
        ensure!(run(Command::new("mkfs.ext4").arg("-q").arg(&image)), "mkfs.ext4 is missing: e2fsprogs");
        let mounted = run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(dir.path().join("disk")));
        ensure!(mounted, "mount of a loop device needs root");
        Ok(Self(dir))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> std::path::PathBuf {
        self.0.path().join("disk")
    }

    /// Writers wait from now on, or go on.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn freeze(&self, freeze: bool) -> anyhow::Result<()> {
        let done = Command::new("fsfreeze").arg(if freeze { "-f" } else { "-u" }).arg(self.path()).status()?;
        ensure!(done.success(), "fsfreeze");
        Ok(())
    }
}

impl Drop for FrozenDisk {
    fn drop(&mut self) {
        // Nobody may be left waiting for it.
        let _ = Command::new("fsfreeze").arg("-u").arg(self.path()).stderr(std::process::Stdio::null()).status();
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// A file system of 2 MiB that belongs to the test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let made = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(dir.path()).status()?;
        ensure!(made.success(), "mount of a small tmpfs needs root");
        Ok(Self(dir))
    }

    fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    /// Until not one byte more fits.
    fn fill(&self) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.path().join("full"))?;
        for size in [65_536, 4_096, 512, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
