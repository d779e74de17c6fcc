//! The command line of `trocar load`.

use super::payload::Codec;
use super::scenario::{Incoming, Inject, Outgoing, Publishers, Scenario, Shape, Stage, Viewers};
use super::threshold::Threshold;
use crate::net::address::Address;
use crate::net::link::InvitationLink;
use crate::net::path::PathSpec;
use crate::net::tls::IdentityArgs;
use std::net::SocketAddr;
use std::path::PathBuf;
use trocar_proto::session::feed::Purpose;
use url::Url;

/// What `trocar load` does.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum LoadCommand {
    Run(Box<RunArgs>),
    Agent(Box<AgentArgs>),
    /// Read a scenario file and say whether it is right.
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// Run a load test: publishers, viewers, stages, thresholds.
///
/// From a scenario file (docs/LOAD.md), or from the options below. Publishers and viewers are synthetic and check every byte.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit status: 0 all thresholds met; 99 one is not met, or it was ended early; 1 nothing could be measured, or an agent was lost; 2 a mistake \
                  in the scenario or on the command line.\n\n\
                  Example: trocar load run --invite LINK --ca ca.pem --publishers 2 --viewers 6 --bitrate 4 --duration 10 \
                  --threshold 'age_p99_ms < 50' --threshold 'frames_lost == 0'"
)]
pub(crate) struct RunArgs {
    /// Scenario file (TOML); without one the options below say what happens.
    #[arg(value_name = "SCENARIO", conflicts_with_all = [
        "publishers", "viewers", "bitrate", "fps", "codec", "profile", "publish_transport", "transport", "paths", "ramp", "duration",
    ])]
    pub(super) file: Option<PathBuf>,
    /// Invitation link of a role that may publish and view. Given several times, the feeds are shared among these sessions.
    #[arg(long, value_name = "LINK", required_unless_present = "agents")]
    pub(super) invite: Vec<InvitationLink>,
    #[command(flatten)]
    pub(super) identity: IdentityArgs,
    /// Machines that run the test together (`trocar load agent`); this one adds up what they count, and watches the relay.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', conflicts_with_all = ["invite", "path"])]
    pub(super) agents: Vec<Address>,
    /// Feeds.
    #[arg(long, value_name = "N", default_value_t = 1)]
    publishers: u32,
    /// Viewers, of all feeds in turn.
    #[arg(long, value_name = "N", default_value_t = 1)]
    viewers: u32,
    /// Of each feed, in Mbit/s.
    #[arg(long, value_name = "MBPS", default_value_t = 4.0)]
    bitrate: f64,
    /// Frames a second.
    #[arg(long, default_value_t = 60.0)]
    fps: f64,
    /// What the feeds say that they are.
    #[arg(long, value_enum, ignore_case = true, default_value = "H264")]
    codec: Codec,
    /// How the bits are shared among frames.
    #[arg(long, value_enum, default_value = "video")]
    profile: Shape,
    /// How packets go to the relay.
    #[arg(long, value_enum, default_value = "datagram")]
    publish_transport: Outgoing,
    /// How packets come from the relay.
    #[arg(long, value_enum, default_value = "roq")]
    transport: Incoming,
    /// 2: every packet goes and comes by two connections.
    #[arg(long, value_name = "N", default_value_t = 1)]
    paths: u32,
    /// Seconds in which the viewers come.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    ramp: f64,
    /// Seconds that they stay.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    duration: f64,
    /// What the test is passed by, as in 'age_p99_ms < 50'; beside those of the file.
    #[arg(long, value_name = "THRESHOLD")]
    threshold: Vec<Threshold>,
    /// Make a fault on purpose in one frame of every N, which the viewers must find: corrupt:N, reorder:N, stale:N, missing:N.
    #[arg(long, value_name = "FAULT:N")]
    pub(super) inject: Option<Inject>,
    /// Local address that packets leave from, as LOCAL_IP, or LOCAL_IP=HOST:PORT for another address of the relay; twice for two paths.
    #[arg(long, value_name = "LOCAL_IP")]
    pub(super) path: Vec<PathSpec>,
    /// Sockets that the connections share, for each path.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(super) ports: usize,
    /// Threads; as many as there are cores where left out.
    #[arg(long, value_name = "N")]
    pub(super) threads: Option<usize>,
    /// The node's figures, for the relay's CPU; /metrics is added where the URL has no path.
    #[arg(long, value_name = "URL")]
    pub(super) metrics: Option<Url>,
    /// The relay's process on this machine, for its CPU by thread.
    #[arg(long, value_name = "PID")]
    pub(super) relay_pid: Option<u32>,
    /// Print the report as one line of JSON instead of text.
    #[arg(long)]
    pub(super) json: bool,
    /// Write JUnit XML: a test for each threshold.
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
    /// Write the report as one HTML page with plots.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// A line each second on standard error instead of the live view.
    #[arg(long)]
    pub(super) plain: bool,
}

/// Take part in load tests of a coordinator (`trocar load run --agents`), with a share of its feeds and viewers.
///
/// Needs a certificate that is good for the address that the coordinator names: `trocar ca issue --role relay --host ADDRESS NAME`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AgentArgs {
    /// Where coordinators are waited for.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: SocketAddr,
    /// Invitation link of a role that may publish and view; several as for the coordinator, in the same order.
    #[arg(long, value_name = "LINK", required = true)]
    pub(super) invite: Vec<InvitationLink>,
    #[command(flatten)]
    pub(super) identity: IdentityArgs,
    /// Local address that packets leave from; twice for two paths.
    #[arg(long, value_name = "LOCAL_IP")]
    pub(super) path: Vec<PathSpec>,
    /// Sockets that the connections share, for each path.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(super) ports: usize,
}

impl RunArgs {
    /// What is to be done.
    ///
    /// # Errors
    /// Names the key or option at fault.
    pub(super) fn scenario(&self) -> anyhow::Result<Scenario> {
        let mut scenario = match &self.file {
            Some(file) => Scenario::read(file)?,
            None => self.typed(),
        };
        scenario.thresholds.extend(self.threshold.iter().cloned());
        scenario.check()?;
        let climbs = scenario.stages.iter().any(|s| matches!(s, Stage::Climb { .. }));
        anyhow::ensure!(self.agents.is_empty() || !climbs, "--agents: a climb is for one machine alone");
        if let Some(inject) = self.inject {
            scenario.check_injection(inject)?;
        }
        Ok(scenario)
    }

    fn typed(&self) -> Scenario {
        let publishers = Publishers {
            count: self.publishers,
            name: "load".to_owned(),
            codec: self.codec,
            bitrate: self.bitrate,
            fps: self.fps,
            width: 0,
            height: 0,
            profile: self.profile,
            transport: self.publish_transport,
            paths: self.paths,
            purpose: Purpose::Scope,
            budget_ms: 200,
        };
        let viewers = Viewers { count: self.viewers, transport: self.transport, paths: self.paths, feeds: Vec::new() };
        let stages = vec![Stage::Ramp { seconds: self.ramp, to: None }, Stage::Hold { seconds: self.duration }];
        Scenario {
            title: format!("{} feeds, {} viewers, {} Mbit/s", self.publishers, self.viewers, self.bitrate),
            stale_ms: 500,
            publishers: vec![publishers],
            viewers: vec![viewers],
            stages,
            thresholds: Vec::new(),
        }
    }
}
