//! Out of file descriptors: callers are shed, recorded and counted, the loop does not spin, and service goes on.
//!
//! The test runs itself again in a process of its own, where a shell has set a small limit.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use support::{Rig, Script, read_exact};
use tidegate_poller::{End, Reason};

const CHILD: &str = "TIDEGATE_DESCRIPTORS_CHILD";

#[test]
fn callers_are_shed_without_a_spin() {
    if std::env::var_os(CHILD).is_some() {
        return shed();
    }
    let output = Command::new("sh")
        .arg("-c")
        .arg("ulimit -n 64 && exec \"$0\" --exact callers_are_shed_without_a_spin --nocapture")
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Opens what there is a descriptor for. An accept that finds nobody holds one for a moment all the same.
fn patiently<T>(open: impl Fn() -> std::io::Result<T>) -> T {
    let start = Instant::now();
    loop {
        match open() {
            Ok(opened) => return opened,
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE)),
        }
        assert!(start.elapsed() < support::PATIENCE, "no descriptor became free");
        std::thread::yield_now();
    }
}

fn shed() {
    let mut rig = Rig::start(|| Script::new().received(|io, bytes| io.send(bytes.to_vec())));
    let mut before = rig.dial();
    let _ = rig.opened();
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    let turns = rig.handle.figures().turns;
    for round in 1..=5 {
        // The caller takes the one descriptor there is.
        files.pop();
        let mut caller = patiently(|| TcpStream::connect(rig.address));
        caller.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let record = rig.refused();
        assert_eq!((record.end, record.phase), (End::local(Reason::Descriptors), "accept"));
        assert!(matches!(caller.read(&mut [0; 1]), Ok(0) | Err(_)));
        drop(caller);
        files.push(patiently(|| File::open("/dev/null")));
        rig.figures(|figures| figures.shed == round);
    }
    let spent = rig.handle.figures().turns - turns;
    assert!(spent < 100, "{spent} turns for five callers");
    // Who was there before is served, and so is who comes when there are descriptors again.
    before.write_all(b"before").unwrap();
    assert_eq!(read_exact(&mut before, 6), b"before");
    files.clear();
    let mut after = rig.dial();
    after.write_all(b"after").unwrap();
    assert_eq!(read_exact(&mut after, 5), b"after");
    assert_eq!(rig.stop().len(), 2);
}
