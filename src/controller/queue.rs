//! A queue of keys that coalesces: a key is there once, however often it is pushed; bounded by the number of objects. What changes goes
//! before what only waits for a first look by a new leader.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::cluster::Key;

/// One in so many keys is taken from behind while others wait in front: constant changes keep nobody waiting for ever.
const FROM_BEHIND: u32 = 4;

/// Keys that wait for a worker, keys with a timer, and keys that are worked on.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    /// May hold keys that are in front by now.
    behind: VecDeque<Key>,
    waiting: HashMap<Key, Lane>,
    taken: u32,
    timers: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    running: HashSet<Key>,
    again: HashSet<Key>,
}

/// Where a key waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Front,
    Behind,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This key should be looked at now; if it is just being worked on, once more afterwards.
    pub fn push(&self, key: Key) {
        if self.lock().push(key) {
            self.wake.notify_one();
        }
    }

    /// This key should be looked at when nothing that changed waits.
    pub fn push_behind(&self, key: Key) {
        if self.lock().push_behind(key) {
            self.wake.notify_one();
        }
    }

    /// This key should be looked at after so long, or earlier if something earlier was said.
    pub fn push_after(&self, key: Key, wait: Duration) {
        self.lock().push_at(key, Instant::now() + wait);
        self.wake.notify_one();
    }

    /// Takes the next key. It counts as running until [`Queue::done`]. Its timer, if it had one, is gone: whoever works on it sets the next.
    pub async fn next(&self) -> Key {
        loop {
            let wake = self.wake.notified();
            let timer = {
                let mut state = self.lock();
                if let Some(key) = state.take(Instant::now()) {
                    if !state.waiting.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.timers.first().map(|(at, _)| *at)
            };
            match timer {
                Some(at) => {
                    tokio::select! {
                        () = wake => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => wake.await,
            }
        }
    }

    /// The work on a key has ended.
    pub fn done(&self, key: &Key) {
        if self.lock().done(key) {
            self.wake.notify_one();
        }
    }

    /// Keys that wait for a worker now.
    pub fn depth(&self) -> usize {
        self.lock().waiting.len()
    }
}

impl State {
    /// Whether a worker is to be woken.
    fn push(&mut self, key: Key) -> bool {
        if self.running.contains(&key) {
            self.again.insert(key);
            return false;
        }
        match self.waiting.insert(key.clone(), Lane::Front) {
            Some(Lane::Front) => false,
            Some(Lane::Behind) | None => {
                self.ready.push_back(key);
                true
            }
        }
    }

    /// Whether a worker is to be woken.
    fn push_behind(&mut self, key: Key) -> bool {
        let new = !self.running.contains(&key) && !self.waiting.contains_key(&key);
        if new {
            self.waiting.insert(key.clone(), Lane::Behind);
            self.behind.push_back(key);
        }
        new
    }

    fn pop(&mut self) -> Option<Key> {
        let overtaken = |key: &Key| self.waiting.get(key) != Some(&Lane::Behind);
        while self.behind.front().is_some_and(overtaken) {
            self.behind.pop_front();
        }
        self.taken = self.taken.wrapping_add(1);
        let turn = self.taken.is_multiple_of(FROM_BEHIND);
        let from = match (self.ready.is_empty(), self.behind.is_empty()) {
            (false, false) if turn => &mut self.behind,
            (true, false) => &mut self.behind,
            _ => &mut self.ready,
        };
        from.pop_front()
    }

    fn push_at(&mut self, key: Key, at: Instant) {
        if let Some(due) = self.due.get(&key).copied() {
            if due <= at {
                return;
            }
            self.timers.remove(&(due, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.timers.insert((at, key));
    }

    fn take(&mut self, now: Instant) -> Option<Key> {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.timers.pop_first() {
                self.due.remove(&key);
                self.push(key);
            }
        }
        let key = self.pop()?;
        self.waiting.remove(&key);
        if let Some(due) = self.due.remove(&key) {
            self.timers.remove(&(due, key.clone()));
        }
        self.running.insert(key.clone());
        Some(key)
    }

    /// Whether a worker is to be woken.
    fn done(&mut self, key: &Key) -> bool {
        self.running.remove(key);
        self.again.remove(key) && self.push(key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[test]
    fn a_key_pushed_often_comes_once_and_again_if_pushed_while_running() {
        let (mut state, now) = (State::default(), Instant::now());
        for _ in 0..3 {
            state.push(key("a"));
        }
        assert_eq!(state.take(now), Some(key("a")));
        assert_eq!(state.take(now), None);
        state.push(key("a"));
        state.push(key("a"));
        assert_eq!(state.take(now), None, "not while it is running");
        assert!(state.done(&key("a")));
        assert_eq!(state.take(now), Some(key("a")));
        assert!(!state.done(&key("a")));
        assert_eq!(state.take(now), None);
    }

    #[test]
    fn the_earlier_timer_wins_and_a_push_overtakes_it() {
        let (mut state, now) = (State::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        for seconds in [60, 10, 30] {
            state.push_at(key("a"), after(seconds));
        }
        assert_eq!(state.take(after(9)), None);
        assert_eq!(state.take(after(10)), Some(key("a")));
        state.done(&key("a"));
        state.push_at(key("a"), after(60));
        state.push(key("a"));
        assert_eq!(state.take(after(11)), Some(key("a")));
        state.done(&key("a"));
        assert_eq!(state.take(after(600)), None, "the timer went with the push");
    }

    #[test]
    fn what_changes_overtakes_what_only_waits_for_its_first_look_and_both_get_their_turn() {
        let (mut state, now) = (State::default(), Instant::now());
        for name in ["a", "b", "c", "d"] {
            assert!(state.push_behind(key(name)));
            assert!(!state.push_behind(key(name)));
        }
        assert!(state.push(key("d")));
        let mut taken = Vec::new();
        let mut take = |state: &mut State| {
            let key = state.take(now).unwrap();
            state.done(&key);
            taken.push(key.name);
        };
        take(&mut state);
        // However often something changes, one in four is not of that.
        for _ in 0..7 {
            state.push(key("x"));
            take(&mut state);
        }
        take(&mut state);
        take(&mut state);
        assert_eq!(taken, ["d", "x", "x", "a", "x", "x", "x", "b", "x", "c"]);
        assert_eq!(state.take(now), None, "each came once");
    }

    #[test]
    fn a_timer_that_rings_while_the_key_is_running_brings_it_again() {
        let (mut state, now) = (State::default(), Instant::now());
        state.push(key("a"));
        state.take(now);
        state.push_at(key("a"), now);
        assert_eq!(state.take(now), None);
        assert!(state.done(&key("a")));
        assert_eq!(state.take(now), Some(key("a")));
    }

    #[tokio::test]
    async fn workers_waiting_together_all_get_work() {
        let queue = std::sync::Arc::new(Queue::default());
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        for name in ["a", "b", "c"] {
            queue.push(key(name));
        }
        let mut got = Vec::new();
        for worker in workers {
            got.push(worker.await.unwrap().name);
        }
        got.sort();
        assert_eq!(got, ["a", "b", "c"]);
    }
}
