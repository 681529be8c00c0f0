//! Files as tasks.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tidegate::runtime::Runtime;
use tidegate::task::{
    Series, SeriesError, WaitError, read, read_at, read_up_to, read_vectored_at, sync, sync_data, write,
    write_at, write_vectored_at,
};
use tidegate_poller::offload::Full;

const PATIENCE: Duration = Duration::from_secs(10);

/// A folder of its own for each test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tidegate-tasks-file-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn runtime() -> Runtime {
    Runtime::builder().compute_threads(1).build().unwrap()
}

/// Keeps all threads of the offload, until what is returned is dropped.
fn occupy(runtime: &Runtime) -> Vec<mpsc::Sender<()>> {
    let (running, ran) = mpsc::channel();
    let busy = (0..4).map(|_| {
        let (release, wait) = mpsc::channel::<()>();
        let running = running.clone();
        let job = move || {
            running.send(()).unwrap();
            let _ = wait.recv();
        };
        runtime.handle().offload().submit(Box::new(job)).unwrap();
        ran.recv_timeout(PATIENCE).unwrap();
        release
    });
    busy.collect()
}

#[test]
fn whole_files() {
    let (runtime, folder) = (runtime(), Folder::new("whole"));
    let path = folder.file("a");
    let bytes: Vec<u8> = (0..100_000).map(|n| n as u8).collect();
    assert_eq!(runtime.run(write(&path, bytes.clone())).unwrap().unwrap(), bytes, "the buffer comes back");
    assert_eq!(runtime.run(read(&path)).unwrap().unwrap(), bytes);
    runtime.run(write(&path, &b"shorter"[..])).unwrap().unwrap();
    let file = Arc::new(File::options().read(true).write(true).open(&path).unwrap());
    assert_eq!(runtime.run(read(&file)).unwrap().unwrap(), b"shorter");
    runtime.run(write(&file, "new")).unwrap().unwrap();
    runtime.run(sync(&file)).unwrap().unwrap();
    runtime.run(sync_data(&path)).unwrap().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
}

#[test]
fn a_bound_holds_also_for_files_that_do_not_say_how_long_they_are() {
    let (runtime, folder) = (runtime(), Folder::new("bound"));
    let path = folder.file("a");
    std::fs::write(&path, [7; 1_000]).unwrap();
    assert_eq!(runtime.run(read_up_to(&path, 1_000)).unwrap().unwrap().len(), 1_000);
    let error = runtime.run(read_up_to(&path, 999)).unwrap().unwrap_err();
    assert_eq!(error.error.kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(error.to_string(), "the file has more than 999 bytes");
    // Its length is told as zero.
    let error = runtime.run(read_up_to("/dev/zero", 5_000)).unwrap().unwrap_err();
    assert_eq!(error.error.kind(), io::ErrorKind::FileTooLarge);
    assert!(!runtime.run(read("/proc/self/status")).unwrap().unwrap().is_empty());
}

#[test]
fn parts_of_files() {
    let (runtime, folder) = (runtime(), Folder::new("parts"));
    let path = folder.file("a");
    runtime.run(write_at(&path, "0123456789", 0)).unwrap().unwrap();
    runtime.run(write_at(&path, "AB", 4)).unwrap().unwrap();
    assert_eq!(runtime.run(read_at(&path, vec![0; 4], 3)).unwrap().unwrap(), (4, b"3AB6".to_vec()));
    let (count, buffer) = runtime.run(read_at(&path, vec![b'.'; 6], 7)).unwrap().unwrap();
    assert_eq!((count, &*buffer), (3, &b"789..."[..]), "the file ends there");
    assert_eq!(runtime.run(read_at(&path, vec![0; 4], 100)).unwrap().unwrap().0, 0);
    let file = Arc::new(File::options().read(true).write(true).open(&path).unwrap());
    runtime.run(write_vectored_at(&file, vec!["x", "", "yz"], 1)).unwrap().unwrap();
    let buffers = vec![Vec::new(), vec![0; 2], Vec::new(), vec![0; 3]];
    let (count, buffers) = runtime.run(read_vectored_at(&file, buffers, 0)).unwrap().unwrap();
    assert_eq!((count, buffers), (5, vec![vec![], b"0x".to_vec(), vec![], b"yzA".to_vec()]));
}

#[test]
fn more_pieces_than_one_call_takes() {
    let (runtime, folder) = (runtime(), Folder::new("many"));
    let path = folder.file("a");
    let pieces: Vec<Vec<u8>> = (0..3_000u32).map(|n| n.to_be_bytes().to_vec()).collect();
    let pieces = runtime.run(write_vectored_at(&path, pieces, 0)).unwrap().unwrap();
    let (count, read) = runtime.run(read_vectored_at(&path, vec![vec![0; 4]; 3_000], 0)).unwrap().unwrap();
    assert_eq!(count, 12_000);
    assert_eq!(read, pieces);
}

#[test]
fn errors_say_what_and_give_the_buffer_back() {
    let (runtime, folder) = (runtime(), Folder::new("errors"));
    let missing = folder.file("none");
    assert_eq!(runtime.run(read(&missing)).unwrap().unwrap_err().error.kind(), io::ErrorKind::NotFound);
    let error = runtime.run(read_at(&missing, vec![1, 2], 0)).unwrap().unwrap_err();
    assert_eq!((error.error.kind(), error.buffer), (io::ErrorKind::NotFound, vec![1, 2]));
    let error = runtime.run(write(&folder.0, "a folder")).unwrap().unwrap_err();
    assert_eq!((error.error.kind(), error.buffer), (io::ErrorKind::IsADirectory, "a folder"));
    let error = runtime.run(read_at("/proc/self/status", vec![0], u64::MAX)).unwrap().unwrap_err();
    assert_eq!(error.error.kind(), io::ErrorKind::InvalidInput);
    // As the error of a series.
    let series = Series::new(()).then(read(&missing), |bytes, _| bytes.map(drop).map_err(Into::into));
    let ended = runtime.run(series).unwrap();
    assert!(
        matches!(ended.outcome, Err(SeriesError::Failed(error)) if error.to_string().contains("No such file"))
    );
}

#[test]
fn a_full_queue_is_said() {
    let (runtime, folder) = (runtime(), Folder::new("full"));
    let busy = occupy(&runtime);
    while runtime.handle().offload().submit(Box::new(|| ())).is_ok() {}
    let error = runtime.run(write(folder.file("a"), vec![1])).unwrap().unwrap_err();
    assert!(error.is_full());
    assert_eq!(error.buffer, [1]);
    let error = io::Error::from(error);
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    assert_eq!(error.to_string(), Full.to_string());
    drop(busy);
    assert!(!folder.file("a").exists());
}

#[test]
fn what_follows_runs_on_a_poller() {
    let runtime = Runtime::builder().name("here").compute_threads(1).build().unwrap();
    let series = Series::new(String::new()).then(read("/proc/self/status"), |_, series| {
        series.context = thread::current().name().unwrap_or_default().to_owned();
        Ok(())
    });
    assert_eq!(runtime.run(series).unwrap().into_result().unwrap(), "here-0");
}

/// A buffer that says when it is dropped.
struct Tracked(mpsc::Sender<()>);

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        b"tracked"
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn cancelled_while_it_waits_nothing_is_done() {
    let (runtime, folder) = (runtime(), Folder::new("cancel-queued"));
    let busy = occupy(&runtime);
    let (sender, dropped) = mpsc::channel();
    let handle = runtime.spawn(write(folder.file("a"), Tracked(sender)));
    assert!(!handle.is_done());
    handle.cancel();
    dropped.recv_timeout(PATIENCE).expect("the buffer is dropped before a thread comes to it");
    assert!(matches!(handle.wait(), Err(WaitError::Dropped)));
    drop(busy);
    // A job later in the queue: the cancelled one was passed over.
    runtime.run(read("/proc/self/status")).unwrap().unwrap();
    assert!(!folder.file("a").exists());
}

/// A buffer that is slow to give its bytes: whoever asks waits until it is let go.
struct Slow {
    asked: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
    _dropped: Tracked,
}

impl AsRef<[u8]> for Slow {
    fn as_ref(&self) -> &[u8] {
        self.asked.send(()).unwrap();
        let _ = self.go.recv_timeout(PATIENCE);
        b"late"
    }
}

#[test]
fn cancelled_while_it_runs_the_series_ends_at_once() {
    let (runtime, folder) = (runtime(), Folder::new("cancel-running"));
    let ((asked, runs), (release, go), (sender, dropped)) =
        (mpsc::channel(), mpsc::channel(), mpsc::channel());
    let buffer = Slow { asked, go, _dropped: Tracked(sender) };
    let handle = runtime.start(Series::new(5).then(write(folder.file("a"), buffer), |_, _| unreachable!()));
    runs.recv_timeout(PATIENCE).unwrap();
    handle.cancel();
    let ended = handle.wait_for(PATIENCE).expect("it does not wait for the thread").unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)));
    assert_eq!(ended.context, 5);
    assert!(dropped.try_recv().is_err(), "the thread has the buffer");
    drop(release);
    dropped.recv_timeout(PATIENCE).expect("the buffer is dropped with the result");
    assert_eq!(std::fs::read(folder.file("a")).unwrap(), b"late");
}

#[test]
fn a_panic_of_a_buffer_ends_the_series() {
    struct Panics;
    impl AsRef<[u8]> for Panics {
        fn as_ref(&self) -> &[u8] {
            panic!("as planned")
        }
    }
    let (runtime, folder) = (runtime(), Folder::new("panic"));
    let series = Series::new(1).then(write(folder.file("a"), Panics), |_, _| unreachable!());
    let ended = runtime.run(series).unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Panicked)), "{:?}", ended.outcome);
}

#[test]
fn cancelled_after_it_is_done_nothing_changes() {
    let runtime = runtime();
    let handle = runtime.spawn(read("/proc/self/status"));
    while !handle.is_done() {
        thread::yield_now();
    }
    handle.cancel();
    assert!(handle.wait().unwrap().is_ok());
}

#[test]
fn dropping_the_runtime_ends_what_waits() {
    let (runtime, folder) = (runtime(), Folder::new("drop"));
    let busy = occupy(&runtime);
    let (sender, over) = mpsc::channel();
    let series = Series::new(1).then(write(folder.file("a"), "late"), |_, _| unreachable!());
    let handle = runtime.start(series.finally(move |_, _| sender.send(()).unwrap()));
    drop(runtime);
    over.recv_timeout(PATIENCE).expect("finally ran");
    let ended = handle.wait().unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)));
    drop(busy);
}
