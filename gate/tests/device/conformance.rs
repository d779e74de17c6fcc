//! The conformance test passes for a right device, and finds each fault of a wrong one.

use crate::sim::{Home, Sim};
use clap::ValueEnum as _;
use rustix::process::Signal;
use std::io;
use trocar_gate::device::Key;
use trocar_gate::device::conformance::{Alone, Hands, Report, Target, Verdict, run};
use trocar_gate::sim::Fault;

/// A watchdog that a busy machine does not trip over.
const WATCHDOG: &str = "300";
const MARGIN: u64 = 200_000;

/// Somebody beside the simulated device.
struct Beside<'a> {
    home: &'a Home,
    args: Vec<String>,
    sim: Option<Sim>,
}

impl<'a> Beside<'a> {
    fn new(home: &'a Home, fault: Option<&str>) -> Self {
        let mut args = vec!["--watchdog".to_owned(), WATCHDOG.to_owned()];
        args.extend(fault.into_iter().flat_map(|fault| ["--break".to_owned(), fault.to_owned()]));
        let mut beside = Self { home, args, sim: None };
        beside.start(0);
        beside
    }

    fn start(&mut self, port: u16) {
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        self.sim = Some(self.home.start(port, &args));
    }

    fn run(&mut self) -> Report {
        let address = self.sim.as_ref().unwrap().address;
        let target = Target { margin: MARGIN, ..Target::new(address, Key::load(&self.home.key()).unwrap()) };
        run(&target, self, &mut |_| ()).unwrap()
    }
}

impl Hands for Beside<'_> {
    fn restart(&mut self) -> io::Result<bool> {
        let port = self.sim.as_ref().unwrap().address.port();
        self.sim = None; // kill -9
        self.start(port);
        Ok(true)
    }

    fn press_override(&mut self) -> io::Result<bool> {
        self.sim.as_ref().unwrap().signal(Signal::USR1);
        Ok(true)
    }
}

#[test]
fn the_simulated_device_passes_every_check_and_none_is_left_out() {
    // HO-D-001, HO-D-002, HO-D-003, HO-D-004, HO-D-005, HO-D-006, HO-D-007, HO-D-008, HO-D-009, HO-D-010, HO-D-011, HO-D-012,
    // HO-D-013, HO-D-014, HO-D-019, HO-D-020, HO-D-021, HO-N-002, HO-S-016
    let home = Home::new();
    let report = Beside::new(&home, None).run();
    println!("{report}");
    assert!(report.is_passed(), "{report}");
    assert!(report.checks.iter().all(|check| check.verdict == Verdict::Pass), "{report}");
}

#[test]
fn without_anybody_beside_the_device_two_checks_are_left_out_and_said_so() {
    let home = Home::new();
    let sim = home.start(0, &["--watchdog", WATCHDOG]);
    let target = Target { margin: MARGIN, ..Target::new(sim.address, Key::load(&home.key()).unwrap()) };
    let mut told = 0;
    let report = run(&target, &mut Alone, &mut |_| told += 1).unwrap();
    let out: Vec<_> = report.checks.iter().filter(|c| c.verdict == Verdict::LeftOut).map(|c| c.number).collect();
    assert!(report.is_passed(), "{report}");
    assert_eq!((out, told), (vec!["HO-D-011", "HO-D-012"], report.checks.len()));
    assert!(report.to_string().contains("0 failed, 2 left out"));
}

/// The number of the check that has to find the fault.
fn finds(fault: Fault) -> &'static str {
    match fault {
        Fault::Fence => "HO-D-001",
        Fault::Persist | Fault::Restart => "HO-D-012",
        Fault::Owner => "HO-D-002",
        Fault::Raise => "HO-D-003",
        Fault::Watchdog | Fault::Slow => "HO-D-005",
        Fault::Latch => "HO-D-006",
        Fault::Local => "HO-D-007",
        Fault::Select | Fault::Repeat => "HO-D-008",
        Fault::Anyone => "HO-D-009",
        Fault::Again => "HO-D-010",
        Fault::Override => "HO-D-011",
        Fault::Energy => "HO-D-014",
        Fault::Hold => "HO-D-019",
        Fault::Unsaid => "HO-D-021",
        Fault::Set => "HO-S-016",
        Fault::Permit => "HO-N-002",
        Fault::Stranger | Fault::Tag | Fault::Replay => "wire",
    }
}

#[test]
fn every_fault_of_a_wrong_device_is_found_by_its_own_check() {
    // Negative controls, seven at a time: they mostly wait for watchdogs.
    for some in Fault::value_variants().chunks(7) {
        std::thread::scope(|scope| {
            for fault in some {
                scope.spawn(move || {
                    let home = Home::new();
                    let name = fault.to_possible_value().unwrap().get_name().to_owned();
                    let report = Beside::new(&home, Some(&name)).run();
                    let found = |c: &&trocar_gate::device::conformance::Check| {
                        c.verdict == Verdict::Fail && c.number == finds(*fault)
                    };
                    let check = report.checks.iter().find(found);
                    assert!(!report.is_passed() && check.is_some(), "{name} was not found:\n{report}");
                    println!("{name}: {} {}", finds(*fault), check.unwrap().seen);
                });
            }
        });
    }
}
