//! `trocar link test` through the networks of real kernels: marks that a router changes, cables with a smaller MTU, IPv6, and a NAT that
//! forgets. The truth is what the kernel was told.

use crate::link::{class, start};
use crate::number;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::process::Command;
use tempfile::TempDir;
use trocar_media_tests::netns::Namespace;
use trocar_media_tests::peers::ours::judged;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::path;

/// Headers of IPv4 and UDP, and of IPv6 and UDP.
const V4_BYTES: u32 = 28;
const V6_BYTES: u32 = 48;

/// One end here, the other in a namespace.
struct Site {
    space: Namespace,
    dir: TempDir,
    port: u16,
    _serve: Process,
}

impl Site {
    /// With the answering end at this address of this machine; `[::]` is all of them, of both families.
    fn open(at: impl FnOnce(&Namespace) -> String) -> anyhow::Result<Self> {
        let space = Namespace::new()?;
        let listen = format!("{}:0", at(&space));
        let (serve, at) = start("trocar link serve", &["link", "serve", "--json", "--listen", &listen])?;
        let port = at.rsplit(':').next().context("a port")?.parse()?;
        Ok(Self { space, dir: tempfile::tempdir()?, port, _serve: serve })
    }

    fn target(&self, host: &str) -> String {
        format!("{host}:{}", self.port)
    }

    /// Measures from the namespace, for a class that any line fits.
    fn measure(&self, target: &str, flags: &[&str]) -> anyhow::Result<(Value, String)> {
        let (classes, json) =
            (class(self.dir.path(), "mtu_payload_bytes = { min = 500")?, self.dir.path().join("line.json"));
        let inside = ["netns", "exec", self.space.name(), path(&trocar()?)?].map(str::to_owned);
        let fixed = ["link", "test", target, "-t", "1", "--max-rate", "1M", "--profile", "ours"];
        let files = ["--classes", path(&classes)?, "--json", path(&json)?];
        let out = Command::new("ip").args(inside).args(fixed).args(files).args(flags).output()?;
        Ok((judged(&out, &json)?, String::from_utf8_lossy(&out.stdout).into_owned()))
    }
}

/// Whether DSCP and ECN survived, up and down.
fn marks(report: &Value) -> [[Option<bool>; 2]; 2] {
    let of = |i: usize, mark: &str| report["result"]["directions"][i][mark].as_bool();
    [0, 1].map(|i| [of(i, "dscp_survives"), of(i, "ecn_survives")])
}

fn mtu(report: &Value) -> f64 {
    number(report, "/result/path/mtu_payload_bytes")
}

#[test]
fn a_mark_that_is_wiped_off_on_the_way_and_a_smaller_cable_are_found() -> anyhow::Result<()> {
    let site = Site::open(Namespace::host)?;
    let target = site.target(&site.space.host());
    let (report, said) = site.measure(&target, &[])?;
    ensure!(marks(&report) == [[Some(true); 2]; 2], "the control: {said}");
    ensure!(mtu(&report) == f64::from(1_500 - V4_BYTES), "{said}");
    // On the way up a router takes the class of service off, and leaves ECN; on the way down another one the other way round.
    site.space.nft(
        "add table ip marks; \
         add chain ip marks out { type filter hook output priority mangle; }; \
         add chain ip marks in { type filter hook input priority mangle; }; \
         add rule ip marks out ip dscp set cs0; \
         add rule ip marks in ip ecn set not-ect",
    )?;
    site.space.mtu(1_300)?;
    let (report, said) = site.measure(&target, &[])?;
    ensure!(marks(&report) == [[Some(false), Some(true)], [Some(true), Some(false)]], "{said}");
    ensure!(said.contains("DSCP AF41 is wiped off, ECN ECT(0) arrives"), "{said}");
    ensure!(mtu(&report) == f64::from(1_300 - V4_BYTES), "{said}");
    Ok(())
}

#[test]
fn a_line_is_measured_over_ipv6_and_the_other_family_is_tried() -> anyhow::Result<()> {
    let site = Site::open(|_| "[::]".to_owned())?;
    site.space.mtu(1_300)?;
    let [here, there] = site.space.ipv6()?;
    let (report, said) = site.measure(&site.target(&format!("[{here}]")), &[])?;
    let path_of = |r: &Value| r["result"]["path"].clone();
    ensure!(path_of(&report)["family"] == "ipv6" && mtu(&report) == f64::from(1_300 - V6_BYTES), "{said}");
    ensure!(marks(&report) == [[Some(true); 2]; 2], "{said}");
    // The address names one family: the other is not known, and that is said.
    let why = report["result"]["why_not"].to_string();
    ensure!(path_of(&report)["other_family"].is_null() && why.contains("has no address of the other family"), "{why}");

    // A name that has both, with either of them first.
    site.space.hosts(&format!("{here} line.test\n{} line.test\n", site.space.host()))?;
    let target = site.target("line.test");
    let (report, said) = site.measure(&target, &["--path", &there])?;
    ensure!(path_of(&report)["family"] == "ipv6" && path_of(&report)["other_family"] == true, "{said}");
    // The control: IPv4 does not get through.
    let rules = "add table ip closed; add chain ip closed out { type filter hook output priority 0; policy drop; }";
    site.space.nft(rules)?;
    let (report, said) = site.measure(&target, &["--path", &there])?;
    ensure!(path_of(&report)["family"] == "ipv6" && path_of(&report)["other_family"] == false, "{said}");
    Ok(())
}

#[test]
fn how_long_a_nat_keeps_a_mapping_that_rests_is_found_within_one_pause() -> anyhow::Result<()> {
    let site = Site::open(Namespace::host)?;
    let target = site.target(&site.space.host());
    // Ports of its own, so that what the other end sees is a mapping and not the socket's own address.
    site.space.nft(
        "add table ip nat; add chain ip nat out { type nat hook postrouting priority srcnat; }; \
         add rule ip nat out meta l4proto udp masquerade to :20000-20999",
    )?;
    let lives = |report: &Value| report["result"]["path"]["nat_lives_s"].clone();
    // Pauses of 1, 2, 4, 8 and 10 seconds; a mapping lives for 6.
    site.space.sysctl("net/netfilter/nf_conntrack_udp_timeout", "6")?;
    let (report, said) = site.measure(&target, &["--nat-timeout", "10"])?;
    ensure!(lives(&report) == json!(4.0) && said.contains("a mapping that rests for 8 s is gone"), "{said}");
    let mapped = report["result"]["path"]["mapped_address"].to_string();
    ensure!(mapped.contains(":20"), "the NAT is not there: {mapped}");
    // The control: one that lives on.
    site.space.sysctl("net/netfilter/nf_conntrack_udp_timeout", "60")?;
    let (report, said) = site.measure(&target, &["--nat-timeout", "8"])?;
    ensure!(lives(&report) == json!(8.0) && !said.contains("is gone"), "{said}");
    Ok(())
}
