//! The first of several to succeed.

use std::sync::mpsc;

use tidegate::task::{AllFailed, BoxTask, Select, Task, TaskExt as _, WaitError, go};

use crate::runtime;
use crate::tasks::{AS_PLANNED, Ready, Waits, receive, wait};

fn answers(output: Result<u32, u32>) -> BoxTask<Result<u32, u32>> {
    Ready(output).boxed()
}

#[test]
fn the_first_success_wins_and_the_others_are_cancelled() {
    let runtime = runtime();
    let (slow, waits) = Waits::<Result<u32, u32>>::new();
    let select: Select<_> = [answers(Err(1)), slow.boxed(), answers(Ok(3))].into_iter().collect();
    assert_eq!(wait(runtime.spawn(select)), Ok(Ok(3)));
    assert!(!receive(&waits).is_waiting());
    // The same where the last one is not needed.
    let (slow, waits) = Waits::<Result<u32, u32>>::new();
    let (last, _never) = Waits::<Result<u32, u32>>::new();
    let handle = runtime.spawn([slow, last].into_iter().collect::<Select<_>>());
    receive(&waits).complete(Ok(4)).unwrap();
    assert_eq!(wait(handle), Ok(Ok(4)));
}

#[test]
fn all_errors_come_in_order() {
    let runtime = runtime();
    let failing = |n: u32| go(move || Err::<(), u32>(n));
    let select: Select<_> = (0..10).map(failing).collect();
    let failed = wait(runtime.spawn(select)).unwrap().unwrap_err();
    assert_eq!(failed.errors, (0..10).map(Some).collect::<Vec<_>>());
    assert_eq!(failed.to_string(), "none of 10 tasks succeeded; the first error: 0");
    assert_eq!(
        runtime.run((0..0).map(failing).collect::<Select<_>>()),
        Ok(Err(AllFailed { errors: vec![] }))
    );
}

#[test]
fn one_that_is_dropped_or_panics_has_no_error() {
    let runtime = runtime();
    struct Fails(bool);
    impl Task for Fails {
        type Output = Result<(), u32>;
        fn dispatch(self, done: tidegate::task::Continuation<Self::Output>) {
            assert!(self.0, "{AS_PLANNED}");
            drop(done);
        }
    }
    let select: Select<_> =
        [Fails(true).boxed(), Ready(Err(2)).boxed(), Fails(false).boxed()].into_iter().collect();
    let failed = wait(runtime.spawn(select)).unwrap().unwrap_err();
    assert_eq!(failed.errors, [None, Some(2), None]);
}

#[test]
fn cancelling_a_selection_cancels_all() {
    let runtime = runtime();
    let (tell, waits) = mpsc::channel();
    let select: Select<_> = (0..4).map(|_| Waits::<Result<u32, u32>>(tell.clone())).collect();
    let handle = runtime.spawn(select);
    let places: Vec<_> = (0..4).map(|_| receive(&waits)).collect();
    handle.cancel();
    assert!(places.iter().all(|place| !place.is_waiting()));
    assert_eq!(wait(handle), Err(WaitError::Dropped));
}

#[test]
fn a_runtime_that_is_dropped_drops_a_selection() {
    let dropped = runtime();
    let (tell, waits) = mpsc::channel();
    let select: Select<_> = (0..4).map(|_| Waits::<Result<u32, u32>>(tell.clone())).collect();
    let handle = dropped.spawn(select);
    let _place = receive(&waits);
    drop(dropped);
    assert_eq!(wait(handle), Err(WaitError::Dropped));
}
