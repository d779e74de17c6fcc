//! What keys do. TAKE and ESTOP work at every moment; every other act counts only for a state that was on the screen.

#[cfg(test)]
mod tests;

use super::super::model::{ActName, Expert, Model};
use super::keys::Key;
use trocar_proto::handover::gate::Act;
use trocar_proto::handover::message::Short;
use trocar_proto::handover::types::{GrantedSet, Oid};
use trocar_proto::units::Micros;

/// Two Esc within this are ESTOP.
const ESC_ESC: u64 = 1_500_000;
/// What ends something for good wants its key again no earlier than this after it came last, so that a held key ends nothing,
const AGAIN_AFTER: u64 = 1_000_000;
/// and no later than this after it came first.
const AGAIN_WITHIN: u64 = 6_000_000;

/// What is open on the lower half of the screen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Form {
    #[default]
    None,
    /// An offer: to whom. The list stays as it was when it was opened, so that no number changes under a finger.
    Expert(Vec<Expert>),
    /// What.
    Set(Expert),
    /// The declared step.
    Step(Expert, GrantedSet, String),
    /// Whose ESTOP is heard no more.
    Mute(Vec<Short>),
    /// Timers and thresholds.
    Limits,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Do {
    Act(Act),
    WithdrawConsent,
    Shutdown,
}

/// The person's side of the screen.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) form: Form,
    /// What became of the last key, where it needs words.
    pub(super) said: Option<(bool, String)>,
    esc: Option<Micros>,
    /// What wants its key again, and when that came first and last.
    again: Option<Again>,
}

type Again = (ActName, Micros, Micros);

/// Under which circumstances a key came.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    pub(super) now: Micros,
    /// Whether it came by itself and in time, and what was on the screen is what is: else it may be a paste, or a backlog.
    pub(super) earnest: bool,
}

impl Desk {
    /// Takes a key. `model` is what was on the screen.
    pub(super) fn handle(&mut self, key: Key, model: &Model, when: When) -> Option<Do> {
        let esc = self.esc.take();
        let again = self.again.take();
        match key {
            Key::Present | Key::Other => (self.esc, self.again) = (esc, again),
            Key::Esc if esc.is_some_and(|at| when.now.since(at) <= ESC_ESC) => return Some(Do::Act(Act::Estop)),
            Key::Esc => {
                self.esc = Some(when.now);
                self.form = Form::None;
                self.said = None;
            }
            Key::Function(1) | Key::Ctrl('t') => return Some(Do::Act(Act::Take)),
            Key::Function(2) | Key::Ctrl('e') => return Some(Do::Act(Act::Estop)),
            Key::Ctrl('c') => return Some(Do::Shutdown),
            key if matches!(self.form, Form::Step(..)) => return self.typing(key, when),
            Key::Char(' ' | 't' | 'T') => return Some(Do::Act(Act::Take)),
            Key::Char('e' | 'E') => return Some(Do::Act(Act::Estop)),
            Key::Char(sign) if !when.earnest => {
                self.say(
                    false,
                    format!("{sign} did not count: the screen has just changed, or keys came too fast. Press again"),
                );
            }
            Key::Char(sign) => return self.command(sign.to_ascii_lowercase(), model, again, when.now),
            _ => {}
        }
        None
    }

    /// Takes note of what is on the screen now: an offer is prepared in LOCAL only.
    pub(super) fn see(&mut self, model: &Model) {
        let offering = matches!(self.form, Form::Expert(_) | Form::Set(_) | Form::Step(..));
        if offering && model.state != "LOCAL" {
            self.form = Form::None;
        }
    }

    pub(super) fn say(&mut self, good: bool, text: impl Into<String>) {
        self.said = Some((good, text.into()));
    }

    fn command(&mut self, sign: char, model: &Model, again: Option<Again>, now: Micros) -> Option<Do> {
        if let (Form::Expert(_) | Form::Set(_) | Form::Mute(_), Some(n)) = (&self.form, sign.to_digit(10)) {
            return self.choose(n as usize, model);
        }
        let act = match sign {
            'o' => ActName::Offer,
            'c' => ActName::Confirm,
            'a' => ActName::ConfirmAmber,
            'w' => ActName::Withdraw,
            'r' => ActName::Reset,
            'm' => ActName::Mute,
            'n' => ActName::WithdrawConsent,
            'x' => ActName::Close,
            'l' => {
                self.form = if self.form == Form::Limits { Form::None } else { Form::Limits };
                return None;
            }
            _ => return None,
        };
        let line = model.acts.iter().find(|a| a.act == act)?;
        if let Some(why) = line.not {
            self.say(false, format!("{} not now: {why}", line.label));
            return None;
        }
        match act {
            ActName::Offer => {
                self.form = Form::Expert(model.experts.iter().filter(|e| e.not.is_none()).cloned().collect());
                None
            }
            ActName::Mute => self.open_mute(model),
            ActName::Close if self.is_again(act, again, now) => Some(Do::Act(Act::Close)),
            ActName::Close => {
                self.say(false, "CLOSE ends the session for good: wait one second, then press X again");
                None
            }
            ActName::WithdrawConsent if self.is_again(act, again, now) => Some(Do::WithdrawConsent),
            ActName::WithdrawConsent => {
                self.say(
                    false,
                    "END CONSENT: no grant until a new document comes. Wait one second, then press N again",
                );
                None
            }
            ActName::Confirm => Some(Do::Act(Act::Confirm)),
            ActName::ConfirmAmber => Some(Do::Act(Act::ConfirmAmber)),
            ActName::Withdraw => Some(Do::Act(Act::Withdraw)),
            ActName::Reset => Some(Do::Act(Act::Reset)),
            ActName::Take | ActName::Estop => None,
        }
    }

    /// Whether the key came again and in time.
    fn is_again(&mut self, act: ActName, again: Option<Again>, now: Micros) -> bool {
        let first = match again {
            Some((before, first, last)) if before == act && now.since(first) <= AGAIN_WITHIN => {
                if now.since(last) >= AGAIN_AFTER {
                    return true;
                }
                first
            }
            _ => now,
        };
        self.again = Some((act, first, now));
        false
    }

    fn open_mute(&mut self, model: &Model) -> Option<Do> {
        let mut persons: Vec<Short> = Vec::new();
        for person in model.news.iter().filter_map(|n| n.person.as_ref()) {
            if !persons.contains(person) {
                persons.push(person.clone());
            }
        }
        persons.truncate(9);
        self.form = Form::Mute(persons);
        None
    }

    /// Number `n` of the list that is open.
    fn choose(&mut self, n: usize, model: &Model) -> Option<Do> {
        let place = n.checked_sub(1)?;
        match std::mem::take(&mut self.form) {
            Form::Expert(experts) => match experts.get(place) {
                Some(expert) if !model.experts.iter().any(|e| e.expert == expert.expert) => {
                    self.say(false, format!("{} has left", expert.name));
                }
                Some(expert) => self.form = Form::Set(expert.clone()),
                None => self.form = Form::Expert(experts),
            },
            Form::Set(expert) => {
                let set = expert.sets.get(place).and_then(|(bits, _)| GrantedSet::from_bits(*bits));
                self.form = match set {
                    Some(set) => Form::Step(expert, set, String::new()),
                    None => Form::Set(expert),
                };
            }
            Form::Mute(persons) => {
                let person = persons.get(place).cloned();
                if person.is_none() {
                    self.form = Form::Mute(persons);
                }
                return person.map(|p| Do::Act(Act::Mute(p)));
            }
            other => self.form = other,
        }
        None
    }

    /// Letters go into the step. A second blank in a row is a hand that wants TAKE.
    fn typing(&mut self, key: Key, when: When) -> Option<Do> {
        let Form::Step(expert, set, text) = &mut self.form else { return None };
        match key {
            Key::Char(' ') if text.is_empty() || text.ends_with(' ') => return Some(Do::Act(Act::Take)),
            Key::Char(sign) if text.len() + sign.len_utf8() <= 128 => text.push(sign),
            Key::Backspace => drop(text.pop()),
            Key::Enter if !when.earnest => self.say(false, "Enter did not count: keys came too fast. Press again"),
            Key::Enter => {
                let (expert, set) = (expert.expert, *set);
                // At most 128 bytes were let in.
                let step = Short::new(text.trim()).unwrap_or_default();
                self.form = Form::None;
                return Some(Do::Act(Act::Offer { oid: Oid(0), expert, set, step }));
            }
            _ => {}
        }
        None
    }
}
