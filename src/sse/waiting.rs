//! Tasks that wait for room, in their order, each with what it brings. Pure, but for the tasks.

use std::collections::VecDeque;

use crate::task::Parked;

/// Those who wait at one place. One that was cancelled leaves no later than when as many have come again.
pub(super) struct Waiting<O, W>(VecDeque<(Parked<O>, W)>);

impl<O, W> Default for Waiting<O, W> {
    fn default() -> Waiting<O, W> {
        Waiting(VecDeque::new())
    }
}

impl<O: Send + 'static, W> Waiting<O, W> {
    pub(super) fn push(&mut self, done: Parked<O>, with: W) {
        // Looked for only where memory would have to grow: who sends with a timeout, again and again, to a client that takes
        // nothing must not fill it.
        if self.0.len() == self.0.capacity() {
            self.0.retain(|(done, _)| done.is_waiting());
            self.0.reserve(self.0.len().max(4));
        }
        self.0.push_back((done, with));
    }

    pub(super) fn front(&self) -> Option<&(Parked<O>, W)> {
        self.0.front()
    }

    pub(super) fn pop(&mut self) -> Option<(Parked<O>, W)> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<O, W> IntoIterator for Waiting<O, W> {
    type Item = (Parked<O>, W);
    type IntoIter = std::collections::vec_deque::IntoIter<(Parked<O>, W)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::runtime::Runtime;
    use crate::task::{Continuation, Task};

    /// Waits for ever.
    struct Waits(mpsc::Sender<Parked<()>>);

    impl Task for Waits {
        type Output = ();

        fn dispatch(self, done: Continuation<()>) {
            self.0.send(done.park()).unwrap();
        }
    }

    #[test]
    fn those_that_were_cancelled_do_not_fill_it_and_the_others_keep_their_order() {
        let runtime = Runtime::new().unwrap();
        let (tell, told) = mpsc::channel();
        let wait = || {
            let handle = runtime.spawn(Waits(tell.clone()));
            (handle, told.recv().unwrap())
        };
        let mut waiting = Waiting::default();
        let mut stay = Vec::new();
        for n in 0..2_000 {
            let (handle, parked) = wait();
            waiting.push(parked, n);
            match n % 200 {
                0 => stay.push(handle),
                _ => handle.cancel(),
            }
            assert!(waiting.len() <= 4 * stay.len() + 8, "{} for {}", waiting.len(), stay.len());
        }
        let left = waiting.into_iter().filter(|(parked, _)| parked.is_waiting());
        assert!(left.map(|(_, n)| n).eq((0..2_000).step_by(200)));
    }
}
