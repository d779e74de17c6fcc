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
        troubles: crate::troubles::Troubles::new(inbox.clone()),
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
fn who_accepted_is_who_is_shown_and_recorded_whatever_the_same_certificate_says_afterwards() {
    // HO-M-001, HO-M-018
    let mut w = world();
    w.greet();
    w.act(Act::Take).unwrap();
    w.act(Act::Offer { oid: Oid(0), expert: X, set: GrantedSet::CAMERA, step: Short::default() }).unwrap();
    let oid = w.core.gate.offer().unwrap().oid;
    let says = |w: &World, message: ToGate, person: &str| {
        let person = Short::new(person).unwrap();
        let token = Some(Verified { expert: X, person, role: Role::Expert, grade: Grade::Energy });
        w.inbox.push(Lane::Network, Event::Input(Input::Message { channel: CX, message, token })).unwrap();
    };
    let accept = |oid| ToGate::Accept { oid, token: Token::default() };
    let hello = || ToGate::Hello { capabilities: 0, binds: None, token: Token::default() };
    let shown = |w: &World| w.view.borrow().expert.as_ref().and_then(|who| who.person.clone()).unwrap().to_string();
    let connected = |w: &World| w.view.borrow().connected[0].who.person.clone().unwrap().to_string();
    // A refused ACCEPT changes nobody's name.
    says(&w, accept(Oid(0)), "Mallory");
    says(&w, ToGate::Probe { nonce: Nonce(1) }, "Mallory");
    w.until("the refusal", |w| w.heard.0.lock().unwrap().iter().any(|(_, m)| matches!(m, FromGate::Nack { .. })));
    w.core.show();
    assert_eq!((shown(&w), connected(&w)), ("Dr. X".to_owned(), "Dr. X".to_owned()));
    // HELLO in another name names the channel, not the addressee.
    says(&w, hello(), "Mallory");
    w.until("HELLO", |w| connected(w) == "Mallory");
    assert_eq!(shown(&w), "Dr. X");
    // The one who accepts is the one who is going to hold, also when somebody says HELLO again.
    says(&w, accept(oid), "Dr. Y");
    w.until("ready", |w| w.view.borrow().mode == Mode::Ready);
    says(&w, hello(), "Mallory");
    w.act(Act::Withdraw).unwrap();
    let paper = w.paper.0.lock().unwrap();
    let of = |to: Mode| {
        let mut all =
            paper.iter().rev().filter(|e| matches!(&e.what, What::Change(r) if r.to == to && r.expert.is_some()));
        all.find_map(|e| e.actor.as_ref()).and_then(|who| who.person.clone()).unwrap().to_string()
    };
    assert_eq!((of(Mode::Offered), of(Mode::Ready), of(Mode::Local)), ("Dr. X".into(), "Dr. Y".into(), "Dr. Y".into()));
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
fn it_ends_in_local_alone_and_forgets_the_wish_where_take_or_reset_is_needed_instead() {
    let mut w = world();
    w.greet();
    w.act(Act::Take).unwrap();
    let offer = Act::Offer { oid: Oid(0), expert: X, set: GrantedSet::CAMERA, step: Short::default() };
    w.act(offer.clone()).unwrap();
    w.inbox.push(Lane::Local, Event::Shutdown).unwrap();
    w.until("asked to stop", |w| w.core.ending == Ending::InLocal);
    assert!(!w.core.may_end(), "an offer is open");
    w.act(Act::Estop).unwrap();
    assert!(!w.core.may_end());
    assert_eq!(w.core.ending, Ending::No, "the wish is forgotten");
    // In ESTOP it is refused: the next start would have forgotten the stop.
    w.inbox.push(Lane::Local, Event::Shutdown).unwrap();
    w.act(Act::Reset).unwrap();
    assert_eq!((w.core.gate.mode(), w.core.ending), (Mode::Hold, Ending::No));
    w.act(Act::Take).unwrap();
    w.act(offer).unwrap();
    w.inbox.push(Lane::Local, Event::Shutdown).unwrap();
    w.inbox.push(Lane::Local, Event::Act(Act::Withdraw, None)).unwrap();
    w.core.run().unwrap();
}

#[test]
fn a_console_that_looks_at_the_view_for_ever_delays_nothing_that_is_asked_of_the_core_by_another() {
    // HO-I-007: whoever holds the view itself would keep the core from making the next one; consoles take a copy.
    let mut w = world();
    let copy = Arc::clone(&w.view.borrow());
    w.act(Act::Take).unwrap();
    assert_eq!((copy.mode, w.view.borrow().mode), (Mode::Hold, Mode::Local));
}
