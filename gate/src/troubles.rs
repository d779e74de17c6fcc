//! What keeps remote operation from being possible, by the key of the configuration: shown on local's console, told to the register as
//! `Input::Means` (HO-R-014), and tried again by whoever told it. Nothing of it is a reason to leave local without a gate.

use crate::core::{Event, Inbox, Lane};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use trocar_proto::handover::gate::Input;

/// All troubles of this run. Cloned freely.
#[derive(Debug, Clone)]
pub struct Troubles(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inbox: Inbox,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_key: BTreeMap<&'static str, String>,
    /// What the register knows; it begins with usable means.
    told_unusable: bool,
}

impl Troubles {
    /// None yet; the register hears of them by `inbox`.
    #[must_use]
    pub fn new(inbox: Inbox) -> Self {
        Self(Arc::new(Shared { inbox, state: Mutex::default() }))
    }

    /// How that key is now: why it cannot be used, or nothing where it can. What changed is logged; what the register could not be told,
    /// because its queue was full, is told with the next call.
    pub fn set(&self, key: &'static str, trouble: Option<String>) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(why) if state.by_key.get(key) != Some(&why) => {
                tracing::error!(key, %why, "remote is refused until this can be used; local works");
                state.by_key.insert(key, why);
            }
            Some(_) => {}
            None if state.by_key.remove(key).is_some() => tracing::info!(key, "can be used again"),
            None => {}
        }
        let unusable = !state.by_key.is_empty();
        if unusable != state.told_unusable {
            let told = self.0.inbox.push(Lane::Local, Event::Input(Input::Means(!unusable)));
            state.told_unusable = if told.is_ok() { unusable } else { state.told_unusable };
        }
    }

    /// Of these keys one at most is in trouble, and this is it.
    pub fn set_one(&self, keys: &[&'static str], trouble: Option<(&'static str, String)>) {
        let (key, why) = trouble.unzip();
        if let Some(key) = key {
            // First, so that the means are not usable for a moment.
            self.set(key, why);
        }
        for other in keys.iter().filter(|other| Some(**other) != key) {
            self.set(other, None);
        }
    }

    /// Each as `key: why`.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.by_key.iter().map(|(key, why)| format!("{key}: {why}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn told(inbox: &Inbox) -> Option<bool> {
        match inbox.pop(Duration::ZERO)? {
            Event::Input(Input::Means(usable)) => Some(usable),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_register_hears_when_the_first_trouble_comes_and_when_the_last_one_goes() {
        // HO-G-029
        let inbox = Inbox::default();
        let troubles = Troubles::new(inbox.clone());
        troubles.set("identity", None);
        assert_eq!(told(&inbox), None);
        troubles.set("identity", Some("no file".to_owned()));
        troubles.set("frames.listen", Some("in use".to_owned()));
        assert_eq!((told(&inbox), told(&inbox)), (Some(false), None));
        assert_eq!(troubles.list(), ["frames.listen: in use", "identity: no file"]);
        troubles.set_one(&["identity", "trust.dir"], Some(("trust.dir", "empty".to_owned())));
        assert_eq!(troubles.list(), ["frames.listen: in use", "trust.dir: empty"]);
        troubles.set_one(&["identity", "trust.dir"], None);
        assert_eq!(told(&inbox), None);
        troubles.set("frames.listen", None);
        assert_eq!((told(&inbox), told(&inbox)), (Some(true), None));
    }

    #[test]
    fn what_a_full_queue_did_not_take_is_told_with_the_next_word() {
        let inbox = Inbox::default();
        let troubles = Troubles::new(inbox.clone());
        while inbox.push(Lane::Local, Event::Shutdown).is_ok() {}
        troubles.set("identity", Some("no file".to_owned()));
        while inbox.pop(Duration::ZERO).is_some() {}
        troubles.set("identity", Some("no file".to_owned()));
        assert_eq!(told(&inbox), Some(false));
    }
}
