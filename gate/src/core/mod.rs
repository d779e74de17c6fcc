//! The one thread that owns the register, and what the others know of it.
//!
//! A command's way: a datagram is opened by [`crate::net`] → [`Inbox`] → `Gate::handle` → `Gate::poll` → [`Device::act`]. One
//! hand-over between threads, no disk, no await.

mod driver;
mod inbox;

pub use driver::{Core, NoRandom, Parts, first_view};
pub use inbox::{Event, Inbox, Lane};
pub use trocar_control::clock::now;

use std::sync::Arc;
use trocar_proto::handover::bursts::Burst;
use trocar_proto::handover::config::Config;
use trocar_proto::handover::gate::{Act, Alarms, Causes, DeviceAct, DeviceReport, DiskAct, Judgement, Notice, Record};
use trocar_proto::handover::message::{Beacon, Figures, FromGate, Mode, Pose, Short};
use trocar_proto::handover::paths::Protection;
use trocar_proto::handover::types::{ChannelId, Colours, Epoch, ExpertId, GrantedSet};
use trocar_proto::session::role::{Grade, Role};
use trocar_proto::units::Micros;

/// What moves, as the core sees it. Nothing here may block: an adapter that has to wait has a thread of its own, and reports how the
/// device is by [`Event::Input`] (`Input::Device`, `Input::CameraMoved`) on [`Lane::Device`].
pub trait Device: Send {
    /// Hands an act to the device at once. What cannot be handed over is dropped and counted; a keep-alive that is missing makes
    /// the device hold.
    fn act(&mut self, act: &DeviceAct);

    /// How well the expert's controls match what they would move. Pure and quick.
    fn judge(&mut self, pose: &Pose) -> Judgement;
}

/// The channels, as the core sees them. Nothing here blocks: what does not fit is dropped, and a channel whose reliable messages do not
/// fit is closed.
pub trait Network: Send {
    /// Reliably by this channel.
    fn send(&mut self, channel: ChannelId, message: &FromGate);
    /// Sealed, on every path.
    fn seal(&mut self, channel: ChannelId, beacon: &Beacon);
    /// Closes it.
    fn close(&mut self, channel: ChannelId);
    /// To the relays' mirrors: the encoded STATUS, of which the relay itself may see all.
    fn mirror(&mut self, status: &FromGate);
}

/// The disk, as the core sees it. Answers come by [`Event::Input`] (`Input::Disk`) on [`Lane::Device`]. Nothing here blocks.
pub trait Disk: Send {
    /// Reserve or intent.
    fn act(&mut self, act: DiskAct, context: &Entry);
    /// One more record for the audit chain. The queue is bounded; a tail that was lost is told by the next intent (HO-U-007).
    fn audit(&mut self, entry: Entry);
}

/// What happened, for the audit chain, with what the core knew at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The gate's clock.
    pub tick: Micros,
    /// What.
    pub what: What,
    /// Whom it concerns: the addressee or holder, or who acted, as the channel and its token say.
    pub actor: Option<Who>,
    /// The link as it was measured then.
    pub figures: Figures,
    /// The link gates then.
    pub colours: Colours,
}

/// One kind of audit record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The process started, with what it found; `detail` for people.
    Started {
        /// What the store and the configuration said.
        detail: String,
    },
    /// The register changed.
    Change(Record),
    /// Intent of a grant: goes to the disk ahead of its effect.
    Intent(DiskAct),
    /// An act of local that was refused, and why.
    ActRefused(String),
    /// Somebody was shown to local: a request, an ESTOP, consent that ended.
    Notice(Notice),
    /// Refused datagrams.
    Burst(Burst),
    /// A channel opened, said HELLO or closed.
    Channel {
        /// Its number.
        channel: ChannelId,
        /// `opened`, `hello`, `refused`, `closed`.
        event: &'static str,
    },
    /// Alarms changed.
    Alarms(Alarms),
}

/// Who is at the other end of a channel, for people and records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The certificate's hash.
    pub expert: ExpertId,
    /// The certificate's URI name, `trocar://REALM/ROLE/NAME`.
    pub certificate: String,
    /// The token's subject, once HELLO came.
    pub person: Option<Short>,
    /// The token's role.
    pub role: Option<Role>,
    /// The token's grade.
    pub grade: Option<Grade>,
}

/// One expert or service that is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Its channel.
    pub channel: ChannelId,
    /// Who.
    pub who: Who,
    /// Signaling, on behalf of browsers, never holds.
    pub is_signaling: bool,
}

/// Everything that a console shows; a new one each time something changed, and ten times a second.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The gate's clock when it was made.
    pub at: Micros,
    /// State.
    pub mode: Mode,
    /// Since when, gate's clock.
    pub since: Micros,
    /// Epoch.
    pub epoch: Epoch,
    /// Addressee or holder.
    pub expert: Option<Who>,
    /// What is offered or held.
    pub set: GrantedSet,
    /// The declared step.
    pub step: Short,
    /// When the open offer, its preparation or its grant runs out, gate's clock.
    pub until: Option<Micros>,
    /// Whether motion runs, and why not.
    pub stopped: Option<Causes>,
    /// Link gates.
    pub colours: Colours,
    /// What they were measured at.
    pub figures: Figures,
    /// What local must know.
    pub alarms: Alarms,
    /// Whether the loss of one path to the expert would be felt.
    pub paths: Protection,
    /// What the device said last, and when.
    pub device: Option<(DeviceReport, Micros)>,
    /// Who is connected.
    pub connected: Vec<Connected>,
    /// Requests, stops and other news, newest last, at most 32.
    pub notices: Vec<(Micros, Notice)>,
    /// Answer to the newest act: which, and why it was refused.
    pub answered: Option<(Act, Result<(), trocar_proto::handover::message::Reason>)>,
    /// Counters for the foot of the screen: datagrams refused, outputs lost, and the like.
    pub counters: Vec<(&'static str, u64)>,
    /// What keeps remote operation from being possible: `key: why` of each.
    pub troubles: Vec<String>,
    /// Every timer and threshold.
    pub config: Arc<Config>,
}

impl<T: Device + ?Sized> Device for Box<T> {
    fn act(&mut self, act: &DeviceAct) {
        (**self).act(act);
    }

    fn judge(&mut self, pose: &Pose) -> Judgement {
        (**self).judge(pose)
    }
}
