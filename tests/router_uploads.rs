//! Forms with files, from real clients, streamed to disk.
#![cfg(feature = "multipart")]

mod router_support;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use router_support::{Web, both};
use support::{Wire, await_that, program};
use tidegate::http::router::{HttpError, Uploads};
use tidegate::http::{Exchange, Reply};
use tidegate_meter::scratch::Scratch;

/// One at a time: one of them measures the memory of the process.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder for files that come, and one for what is sent.
struct Folders {
    scratch: Scratch,
}

impl Folders {
    fn new() -> Folders {
        let scratch = Scratch::new("uploads").unwrap();
        fs::create_dir(scratch.path().join("in")).unwrap();
        Folders { scratch }
    }

    fn inbox(&self) -> PathBuf {
        self.scratch.path().join("in")
    }

    fn file(&self, name: &str, bytes: usize, seed: u64) -> PathBuf {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut content = vec![0; bytes];
        random.fill(&mut content);
        let path = self.scratch.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn left(&self) -> Vec<PathBuf> {
        fs::read_dir(self.inbox()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

/// Says what came; keeps the files as `kept-N`.
fn web(folders: &Folders, uploads: impl FnOnce(Uploads) -> Uploads) -> Web {
    let inbox = folders.inbox();
    let uploads = uploads(Uploads::to_folder(&inbox));
    Web::of(move |routes| {
        let receive = move |exchange: &mut Exchange| {
            let form = uploads.receive(&mut exchange.context)?;
            let inbox = inbox.clone();
            exchange.push(form, move |form, exchange| {
                let form = form?;
                let mut said = String::new();
                for (name, value) in &form.texts {
                    said += &format!("{name}={value}\n");
                }
                for (index, file) in form.files.into_iter().enumerate() {
                    let media = file.media_type().unwrap_or("nothing");
                    said +=
                        &format!("{}: {:?} {} {media}\n", file.name(), file.client_file_name(), file.bytes());
                    let keep = file.keep_as(inbox.join(format!("kept-{index}")));
                    exchange.push(keep, |kept, _| Ok(kept??));
                }
                exchange.context.reply = Reply::text(said);
                Ok(())
            });
            Ok::<_, HttpError>(())
        };
        routes.post("/form", receive).stream(100_000_000);
    })
}

fn sha256(path: &Path) -> String {
    let output = program("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// A line of what the kernel says of this process, in KiB.
fn memory_kib(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_large_file_comes_whole_and_takes_little_memory() {
    let _turn = turn();
    let folders = Folders::new();
    let film = folders.file("film.bin", 50_000_000, 1);
    let web = web(&folders, |uploads| uploads);
    // Once for what is needed for the first time.
    web.curl(&["-F", "a=b"], "/form");
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory_kib("VmRSS");
    let form = format!("film=@{};type=video/x;filename=../../film.bin", film.display());
    let said = web.curl(&["-F", "title=A film, ü", "-F", &form], "/form");
    let grown = memory_kib("VmHWM").saturating_sub(before);
    let expected = "title=A film, ü\nfilm: \"../../film.bin\" 50000000 video/x\n";
    assert_eq!(String::from_utf8_lossy(&said), expected);
    assert_eq!(sha256(&film), sha256(&folders.inbox().join("kept-0")));
    assert_eq!(folders.left().len(), 1);
    assert!(grown < 12_000, "50 MB went through {grown} KiB");
}

#[test]
fn forms_from_clients_of_all_kinds() {
    let _turn = turn();
    let folders = Folders::new();
    let (small, empty) = (folders.file("small", 300_000, 2), folders.file("empty", 0, 3));
    let web = web(&folders, |uploads| uploads);
    let (first, second) = (format!("a=@{}", small.display()), format!("b=@{}", empty.display()));
    let both_ways = [&[][..], &["-H", "Transfer-Encoding: chunked"][..], &["-H", "Expect: 100-continue"]];
    for further in both_ways {
        let arguments = [&["-F", &first, "-F", "x=1", "-F", &second, "-F", "x="], further].concat();
        let said = String::from_utf8(web.curl(&arguments, "/form")).unwrap();
        assert!(
            said.starts_with("x=1\nx=\na: \"small\" 300000 ") && said.contains("b: \"empty\" 0 "),
            "{said}"
        );
        assert_eq!(sha256(&small), sha256(&folders.inbox().join("kept-0")));
        assert_eq!(folders.left().len(), 2);
    }
    let script = "
import http.client, sys
body = b'--x y\\r\\nContent-Disposition: form-data; name=\"n\"\\r\\n\\r\\nv\\r\\n--x\\r\\n--x y--\\r\\n'
connection = http.client.HTTPConnection(sys.argv[1], timeout=20)
for n in range(3):
    connection.request('POST', '/form', body, {'Content-Type': 'multipart/form-data; boundary=\"x y\"'})
    reply = connection.getresponse()
    said = reply.read()
    assert (reply.status, said) == (200, b'n=v\\r\\n--x\\n'), (reply.status, said)
";
    let output = program("python3").args(["-c", script, &web.address.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_too_much_is_refused_and_leaves_nothing() {
    let _turn = turn();
    let folders = Folders::new();
    let large = folders.file("large", 2_000_000, 4);
    let large = format!("a=@{}", large.display());
    let web = web(&folders, |uploads| {
        uploads.max_file_bytes(1_000_000).max_files(2).max_parts(4).max_text_bytes(1_000)
    });
    let small = format!("a=@{}", folders.file("small", 10, 5).display());
    let name = format!("a=@{};filename={}", folders.file("s", 1, 6).display(), "n".repeat(300));
    let text = format!("t={}", "t".repeat(1_001));
    for (parts, status, why) in [
        (&[large.as_str()][..], "413", "A file of the form has more than 1000000 bytes."),
        (&[&small, &small, &small], "413", "The form has more than 2 files."),
        (&["a=1", "a=2", "a=3", "a=4", "a=5"], "413", "The form has more than 4 parts."),
        (&[&small, &text], "413", "The texts of the form have more than 1000 bytes."),
        (&[&name], "400", "A name in the form has more than 255 bytes."),
    ] {
        let mut arguments: Vec<&str> = parts.iter().flat_map(|part| ["-F", part]).collect();
        arguments.extend(["-w", "\n%{http_code}"]);
        let output = web.try_curl(&arguments, "/form");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(why) && said.ends_with(status), "{parts:?}: {said}");
        await_that("what was begun is removed", || folders.left().is_empty().then_some(()));
    }
    let (status, why) = both(&web.ask("POST", "/form", "Content-Type: text/plain\r\n", "a"));
    assert!(status == 415 && why.contains("multipart/form-data"), "{why}");
    // Nothing is kept while a head does not end.
    let mut endless = Wire::connect(web.address);
    endless.send("POST /form HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 90000000\r\n\r\n--x\r\nX: ");
    assert!(endless.try_send(&[b'x'; 200_000]));
    let (status, why) = both(&endless.reply());
    assert!(status == 400 && why.contains("the head of a part does not end"), "{why}");
    assert_eq!(web.curl(&["-F", "a=b"], "/form"), b"a=b\n");
}

#[test]
fn a_client_that_leaves_leaves_no_file() {
    let _turn = turn();
    let folders = Folders::new();
    let web = web(&folders, |uploads| uploads);
    let mut wire = Wire::connect(web.address);
    wire.send("POST /form HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 9000000\r\n\r\n--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\n");
    wire.send(vec![7; 1_000_000]);
    await_that("the file is begun", || (!folders.left().is_empty()).then_some(()));
    wire.reset();
    await_that("and removed", || folders.left().is_empty().then_some(()));
}
