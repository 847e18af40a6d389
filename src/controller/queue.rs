//! A queue of keys that coalesces: a key is there once, however often it is pushed; bounded by the number of objects.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::cluster::Key;

/// Keys that wait for a worker, keys with a timer, and keys that are worked on.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    waiting: HashSet<Key>,
    timers: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    running: HashSet<Key>,
    again: HashSet<Key>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This key should be looked at now; if it is just being worked on, once more afterwards.
    pub fn push(&self, key: Key) {
        let mut state = self.lock();
        if state.running.contains(&key) {
            state.again.insert(key);
            return;
        }
        if state.waiting.insert(key.clone()) {
            state.ready.push_back(key);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// This key should be looked at after so long, or earlier if something earlier was said.
    pub fn push_after(&self, key: Key, wait: Duration) {
        let at = Instant::now() + wait;
        let mut state = self.lock();
        if let Some(due) = state.due.get(&key).copied() {
            if due <= at {
                return;
            }
            state.timers.remove(&(due, key.clone()));
        }
        state.due.insert(key.clone(), at);
        state.timers.insert((at, key));
        drop(state);
        self.wake.notify_one();
    }

    /// Takes the next key. It counts as running until [`Queue::done`]. Its timer, if it had one, is gone: whoever works on it sets the next.
    pub async fn next(&self) -> Key {
        loop {
            let wake = self.wake.notified();
            let timer = {
                let mut state = self.lock();
                state.ring();
                if let Some(key) = state.ready.pop_front() {
                    state.waiting.remove(&key);
                    if let Some(due) = state.due.remove(&key) {
                        state.timers.remove(&(due, key.clone()));
                    }
                    state.running.insert(key.clone());
                    if !state.ready.is_empty() {
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
        let mut state = self.lock();
        state.running.remove(key);
        if state.again.remove(key) && state.waiting.insert(key.clone()) {
            state.ready.push_back(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Keys that wait for a worker now.
    pub fn depth(&self) -> usize {
        self.lock().ready.len()
    }
}

impl State {
    /// Moves keys whose time has come to the ready ones. A key that is running by its own timer stays one entry.
    fn ring(&mut self) {
        let now = Instant::now();
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            self.due.remove(&key);
            if self.running.contains(&key) {
                self.again.insert(key);
            } else if self.waiting.insert(key.clone()) {
                self.ready.push_back(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_pushed_often_comes_once_and_again_if_pushed_while_running() {
        let queue = Queue::default();
        for _ in 0..3 {
            queue.push(key("a"));
        }
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(queue.depth(), 0);
        queue.push(key("a"));
        queue.push(key("a"));
        assert_eq!(queue.depth(), 0, "not while it is running");
        queue.done(&key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.done(&key("a"));
        assert_eq!(queue.depth(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_timer_wins_and_a_push_overtakes_it() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.push_after(key("a"), Duration::from_secs(60));
        queue.push_after(key("a"), Duration::from_secs(10));
        queue.push_after(key("a"), Duration::from_secs(30));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(start.elapsed().as_secs(), 10);
        queue.done(&key("a"));
        queue.push_after(key("a"), Duration::from_secs(60));
        queue.push(key("a"));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(start.elapsed().as_secs(), 10);
        queue.done(&key("a"));
        let later = tokio::time::timeout(Duration::from_secs(300), queue.next()).await;
        assert!(later.is_err(), "the timer went with the push");
    }

    #[tokio::test(start_paused = true)]
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
