//! A signal may cut a system call short at any byte; no transfer may stop because of it.

mod support;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{Rig, Script, TempFile};
use tidegate_poller::{End, Reason};

extern "C" fn ignore(_signal: libc::c_int) {}

#[test]
fn signals_do_not_stop_a_file() {
    // SAFETY: the handler does nothing, which is safe at any moment.
    unsafe { libc::signal(libc::SIGUSR1, ignore as *const () as libc::sighandler_t) };
    const LEN: u64 = 8_000_000;
    const TIMES: u64 = 60;
    let file = TempFile::new(&vec![1; LEN as usize]);
    let handle = file.file.clone();
    let mut rig = Rig::start(move || {
        let file = handle.clone();
        Script::new().opened(move |io| {
            for _ in 0..TIMES {
                io.send_file(file.clone(), 0, LEN);
            }
            io.finish(End::local(Reason::Ok));
        })
    });
    let (tell, told) = std::sync::mpsc::channel();
    rig.handle
        .submit(move |_| {
            // SAFETY: no pointers; names the calling thread.
            let _ = tell.send(unsafe { libc::pthread_self() });
        })
        .unwrap();
    let thread = told.recv().unwrap();
    let mut peer = rig.dial();
    let done = AtomicBool::new(false);
    let read = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // SAFETY: the thread runs until the rig is stopped, below.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                for _ in 0..200 {
                    std::hint::spin_loop();
                }
            }
        });
        let mut buffer = vec![0; 256 * 1024];
        let mut read = 0;
        let outcome = loop {
            match peer.read(&mut buffer) {
                Ok(0) => break Ok(read),
                Ok(n) => read += n as u64,
                Err(error) => break Err((read, error)),
            }
        };
        done.store(true, Ordering::Relaxed);
        outcome
    });
    assert_eq!(read.unwrap(), TIMES * LEN);
    drop(peer);
    assert_eq!(rig.record().wire_out, TIMES * LEN);
    rig.stop_clean();
}
