use super::*;
use crate::core::{Lane, Who};
use std::sync::Mutex;
use std::time::Instant;
use trocar_proto::handover::fence::Fence;
use trocar_proto::handover::gate::{DeviceAct, DiskDone, Judgement, Peer, Verified};
use trocar_proto::handover::message::{Beacon, Pose, Short, ToGate, Token};
use trocar_proto::handover::types::{Epoch, GrantedSet, Selection};
use trocar_proto::session::role::{Grade, Role};

const X: ExpertId = ExpertId([7; 32]);
const CX: ChannelId = ChannelId(1);

/// A device that is the rule of the device and nothing else.
struct Rule {
    fence: Fence,
    inbox: Inbox,
    acts: Arc<Mutex<Vec<DeviceAct>>>,
}

impl Device for Rule {
    fn act(&mut self, act: &DeviceAct) {
        let (_, _result) = self.fence.handle(now(), act);
        self.fence.persisted(self.fence.highest());
        self.acts.lock().unwrap().push(act.clone());
        self.inbox.input(Lane::Device, Input::Device(self.fence.report()));
    }

    fn judge(&mut self, _pose: &Pose) -> Judgement {
        Judgement { orientation: 0, grip_matched: true, motion_zero: true }
    }
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<(ChannelId, FromGate)>>>, Arc<Mutex<Vec<Status>>>);

impl Network for Heard {
    fn send(&mut self, channel: ChannelId, message: &FromGate) {
        self.0.lock().unwrap().push((channel, message.clone()));
    }
    fn seal(&mut self, _channel: ChannelId, _beacon: &Beacon) {}
    fn close(&mut self, _channel: ChannelId) {}
    fn mirror(&mut self, status: &FromGate) {
        if let FromGate::Status(status) = status {
            self.1.lock().unwrap().push(status.clone());
        }
    }
}

/// A disk that answers at once, or never.
#[derive(Clone)]
struct Paper(Arc<Mutex<Vec<Entry>>>, Inbox, bool);

impl Disk for Paper {
    fn act(&mut self, act: DiskAct, entry: &Entry) {
        self.0.lock().unwrap().push(entry.clone());
        let done = match act {
            DiskAct::Reserve(end) => DiskDone::Reserved(end),
            DiskAct::Intent { oid, epoch, .. } => DiskDone::Durable(oid, epoch),
        };
        if self.2 {
            self.1.input(Lane::Device, Input::Disk(done));
        }
    }
    fn audit(&mut self, entry: Entry) {
        self.0.lock().unwrap().push(entry);
    }
}

struct World {
    core: Core<Rule, Heard, Paper>,
    inbox: Inbox,
    acts: Arc<Mutex<Vec<DeviceAct>>>,
    heard: Heard,
    paper: Paper,
    view: watch::Receiver<Arc<View>>,
}

fn world() -> World {
    let (inbox, cfg) = (Inbox::default(), Arc::new(Config::default()));
    let (acts, heard) = (Arc::default(), Heard::default());
    let paper = Paper(Arc::default(), inbox.clone(), true);
    let (sender, view) = watch::channel(Arc::new(first_view(&cfg)));
    let device =
        Rule { fence: Fence::new(now(), Epoch(0), cfg.watchdog), inbox: inbox.clone(), acts: Arc::clone(&acts) };
    let parts = Parts {
        device,
        network: heard.clone(),
        disk: paper.clone(),
        inbox: inbox.clone(),
        view: sender,
        counters: Box::new(Vec::new),
    };
    let store = Store::Block { first: Epoch(1), end: Epoch(17) };
    let core = Core::new(&cfg, store, "test".to_owned(), parts).unwrap();
    World { core, inbox, acts, heard, paper, view }
}

impl World {
    /// Steps until it is so, at most 2 s.
    fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !so(self) {
            assert!(began.elapsed() < Duration::from_secs(2), "never: {what}; {:?}", self.core.gate.mode());
            let event = self.inbox.pop(Duration::from_millis(1));
            self.core.step(event).unwrap();
        }
    }

    fn act(&mut self, act: Act) -> Result<(), Reason> {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        self.inbox.push(Lane::Local, Event::Act(act, Some(reply))).unwrap();
        for _ in 0..10_000 {
            let event = self.inbox.pop(Duration::ZERO);
            self.core.step(event).unwrap();
            if let Ok(answer) = answer.try_recv() {
                return answer;
            }
        }
        panic!("no answer");
    }

    fn greet(&mut self) {
        let who = Who { expert: X, certificate: "trocar://h/station/x".into(), person: None, role: None, grade: None };
        let person = Short::new("Dr. X").unwrap();
        let token = Verified { expert: X, person, role: Role::Expert, grade: Grade::Energy };
        let hello = ToGate::Hello { capabilities: 0, binds: None, token: Token::default() };
        for event in [
            Event::Who(CX, who, false),
            Event::Input(Input::Opened { channel: CX, peer: Peer::Station(X) }),
            Event::Input(Input::Message { channel: CX, message: hello, token: Some(token) }),
        ] {
            self.inbox.push(Lane::Network, event).unwrap();
        }
        self.inbox.input(Lane::Local, Input::Console);
        self.inbox.input(Lane::Local, Input::Consent(true));
        self.until("hello", |w| w.view.borrow().connected.iter().any(|c| c.who.person.is_some()));
    }
}

#[test]
fn take_reaches_the_device_in_the_step_that_reads_it_whatever_the_network_does() {
    // HO-G-003, HO-G-021
    let mut w = world();
    for n in 0..5_000 {
        let _ = w.inbox.push(Lane::Network, Event::MirrorProbe(n));
    }
    w.inbox.push(Lane::Local, Event::Act(Act::Take, None)).unwrap();
    let event = w.inbox.pop(Duration::ZERO);
    w.core.step(event).unwrap();
    let last = w.acts.lock().unwrap().iter().rev().find(|a| matches!(a, DeviceAct::Select { .. })).cloned();
    assert!(matches!(last, Some(DeviceAct::Select { to: Selection::Local, .. })), "{last:?}");
}

#[test]
fn an_offer_gets_its_name_from_the_core_and_everybody_is_told() {
    // HO-G-006, HO-M-011
    let mut w = world();
    w.greet();
    w.act(Act::Take).unwrap();
    let offer = Act::Offer { oid: Oid(0), expert: X, set: GrantedSet::CAMERA, step: Short::new("trocar 2").unwrap() };
    w.act(offer).unwrap();
    let heard = w.heard.0.lock().unwrap();
    let oid = heard.iter().find_map(|(c, m)| if let FromGate::Offer { oid, .. } = m { Some((*c, *oid)) } else { None });
    let (channel, oid) = oid.unwrap();
    assert_eq!(channel, CX);
    assert_ne!(oid, Oid(0), "the name is drawn");
    drop(heard);
    let view = w.view.borrow().clone();
    assert_eq!((view.mode, view.step.as_str()), (Mode::Offered, "trocar 2"));
    assert_eq!(view.expert.as_ref().unwrap().person.as_ref().unwrap().as_str(), "Dr. X");
    assert!(view.until.is_some());
    let paper = w.paper.0.lock().unwrap();
    assert!(paper.iter().any(|e| matches!(&e.what, What::Change(r) if r.to == Mode::Offered) && e.actor.is_some()));
}

#[test]
fn a_refused_act_is_answered_and_recorded() {
    // HO-G-010
    let mut w = world();
    assert_eq!(w.act(Act::Confirm), Err(Reason::WrongState));
    assert!(matches!(&w.view.borrow().answered, Some((Act::Confirm, Err(Reason::WrongState)))));
    let paper = w.paper.0.lock().unwrap();
    assert!(paper.iter().any(|e| matches!(&e.what, What::ActRefused(text) if text.starts_with("CONFIRM: not in"))));
}

#[test]
fn relays_get_copies_that_answer_their_probes() {
    // HO-V-006
    let mut w = world();
    w.inbox.push(Lane::Network, Event::MirrorProbe(42)).unwrap();
    w.until("an answered probe", |w| w.heard.1.lock().unwrap().iter().any(|s| s.answers == [Nonce(42)]));
    w.act(Act::Take).unwrap();
    w.until("a copy on change", |w| w.heard.1.lock().unwrap().last().is_some_and(|s| s.mode == Mode::Local));
}

#[test]
fn it_does_not_stop_while_an_offer_is_open() {
    let mut w = world();
    w.greet();
    w.act(Act::Take).unwrap();
    w.act(Act::Offer { oid: Oid(0), expert: X, set: GrantedSet::CAMERA, step: Short::default() }).unwrap();
    w.inbox.push(Lane::Local, Event::Shutdown).unwrap();
    w.until("asked to stop", |w| w.core.stopping);
    assert_eq!(w.core.gate.mode(), Mode::Offered);
    w.inbox.push(Lane::Local, Event::Act(Act::Withdraw, None)).unwrap();
    w.core.run().unwrap();
}
