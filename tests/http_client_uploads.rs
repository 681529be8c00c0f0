//! Bodies on their way to a server: how far they have gone, and what is heard of a server that does not want them.

mod client_support;
// Certificates made for the test.
#[cfg(feature = "tls")]
#[allow(dead_code)]
#[path = "tls/pki.rs"]
mod pki;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use client_support::{Asks, Caller, PATIENCE, Scripted, ok, server};
use tidegate::http::body::{BodySource, BodyWaker};
use tidegate::http::client::UploadProgress;
use tidegate::http::{Body, BodyError, ClientError, RequestTask, Response, StreamBody};
use tidegate::poller::{Limit, Pull, Reason};

/// Makes so many bytes.
struct Bytes(usize);

impl BodySource for Bytes {
    fn attach(&mut self, _: BodyWaker) {}

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        let now = self.0.min(max);
        out.resize(out.len() + now, 7);
        self.0 -= now;
        if self.0 == 0 { Pull::End } else { Pull::More }
    }
}

/// Bytes as a file, that is gone from its folder when this returns.
fn file_of(len: usize) -> std::fs::File {
    let path = std::env::temp_dir().join(format!("tidegate-upload-{}-{len}", std::process::id()));
    std::fs::write(&path, vec![7; len]).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

fn body_length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map(|length| length.parse().unwrap())
}

/// Takes a body, and says how long it was.
fn take(caller: &mut Caller, head: &str) -> bool {
    let taken = match body_length(head) {
        Some(length) => caller.body(length).len(),
        None => caller.until(b"\r\n0\r\n\r\n").iter().filter(|byte| **byte == 7).count(),
    };
    caller.say(ok(&taken.to_string()))
}

fn takes_all() -> Scripted {
    server(|_, caller| {
        while let Some(head) = caller.request() {
            if !take(caller, &head) {
                return;
            }
        }
    })
}

/// How far an upload had gone, each time it was further, until it ended.
fn watch(asks: &Asks, upload: RequestTask) -> (Vec<u64>, Result<Response, ClientError>) {
    let progress = UploadProgress::default();
    let mut task = asks.runtime.spawn(upload.upload_progress(&progress));
    let (mut seen, began) = (vec![0], Instant::now());
    loop {
        let ended = task.wait_for(Duration::from_millis(1));
        seen.push(progress.sent_bytes());
        seen.dedup();
        match ended {
            Ok(ended) => return (seen, ended.expect("a result")),
            Err(waits) => task = waits,
        }
        assert!(began.elapsed() < PATIENCE, "it never ends: {seen:?}");
    }
}

const LEN: usize = 600_000;
static STATIC: [u8; LEN] = [7; LEN];

#[test]
fn how_far_an_upload_has_gone_is_seen_meanwhile() {
    let server = takes_all();
    let asks = Asks::new();
    let file = std::sync::Arc::new(file_of(LEN + 10));
    let id = tidegate::http::body::FileId { device: 0, inode: 0 };
    let part = Body::File { file, id, offset: 10, len: LEN as u64 };
    let bodies = [
        ("a part of a file", part),
        ("bytes", Body::Bytes(vec![7; LEN])),
        ("static bytes", Body::Static(&STATIC)),
        ("a stream of known length", Body::Stream(StreamBody::new(Bytes(LEN)).with_len(LEN as u64))),
        ("a stream", Body::Stream(StreamBody::new(Bytes(LEN)))),
    ];
    // 0.6 s: six times as long as it is looked how far it is.
    let limit = Limit::new("each", Some(1_000_000));
    for (name, body) in bodies {
        let upload = asks.client.put(server.url("/"), body).upload_limit(&limit);
        let (seen, response) = watch(&asks, upload);
        assert_eq!(response.unwrap().text(), LEN.to_string(), "{name}");
        assert!(seen.len() >= 5 && seen.is_sorted(), "{name}: {seen:?}");
        assert_eq!(seen.last(), Some(&(LEN as u64)), "{name}");
    }
    // A small one, which lies in its head's buffer, and none at all.
    for (body, len) in [(Body::Bytes(vec![7; 100]), 100), (Body::Empty, 0)] {
        let (seen, response) = watch(&asks, asks.client.put(server.url("/"), body));
        assert_eq!((seen.last(), response.unwrap().text()), (Some(&len), len.to_string()));
    }
}

#[test]
fn what_waits_to_go_has_not_gone() {
    const LARGE: usize = 40_000_000;
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = server(move |_, caller| {
        let head = caller.request().unwrap();
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        take(caller, &head);
    });
    let asks = Asks::with(|settings| settings.continue_above = u64::MAX);
    let progress = UploadProgress::default();
    let upload = asks.client.put(server.url("/"), vec![7; LARGE]).upload_progress(&progress);
    let task = asks.runtime.spawn(upload);
    let began = Instant::now();
    while progress.sent_bytes() == 0 {
        assert!(began.elapsed() < PATIENCE, "nothing goes");
        std::thread::yield_now();
    }
    // The server takes nothing for so long, and what the kernels hold is all that goes.
    let Err(task) = task.wait_for(Duration::from_millis(300)) else { panic!("it ended unread") };
    assert!(progress.sent_bytes() < LARGE as u64 / 2);
    go.send(()).unwrap();
    let response = task.wait_for(PATIENCE).expect("in time").unwrap().unwrap();
    assert_eq!((response.text(), progress.sent_bytes()), (LARGE.to_string(), LARGE as u64));
}

#[test]
fn an_upload_that_is_made_again_is_counted_anew_and_one_that_is_refused_stays_where_it_was() {
    let server = server(|number, caller| {
        let head = caller.request().unwrap();
        match number {
            // It goes in the middle of it.
            0 => drop(caller.body(LEN / 2)),
            _ => assert!(take(caller, &head)),
        }
    });
    let refuses = self::server(|_, caller| {
        caller.request();
        caller.say("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
        caller.is_left();
    });
    let asks = Asks::with(|settings| (settings.max_retries, settings.continue_above) = (1, u64::MAX));
    let limit = Limit::new("each", Some(600_000));
    let upload = |url: String| asks.client.put(url, vec![7; LEN]).upload_limit(&limit);
    let (seen, response) = watch(&asks, upload(server.url("/")));
    let response = response.unwrap();
    assert_eq!((response.text(), response.retries), (LEN.to_string(), 1));
    assert!(!seen.is_sorted(), "it begins anew: {seen:?}");
    assert_eq!(seen.last(), Some(&(LEN as u64)));
    let (seen, response) = watch(&asks, upload(refuses.url("/")));
    assert_eq!(response.unwrap().status.as_u16(), 413);
    assert!(seen.is_sorted() && *seen.last().unwrap() < LEN as u64, "{seen:?}");
}

const REPLY: usize = 50_000;

/// A server that answers with this as soon as it has the head, and closes, so that its kernel resets the rest of the body. It
/// tells when it has.
fn refuses(reply: Vec<u8>) -> (SocketAddr, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 1_000];
            let n = stream.read(&mut buffer).unwrap_or(0);
            assert!(buffer[..n].starts_with(b"POST "), "its head came at once");
            // More of the body is there than was read, or will be: that makes the close a reset.
            let _ = stream.peek(&mut buffer);
            let _ = stream.write_all(&reply);
            drop::<TcpStream>(stream);
            let _ = tell.send(());
        }
    });
    (address, told)
}

fn replies() -> [(&'static str, Vec<u8>); 2] {
    let body = [b'n'; REPLY];
    let head = format!("HTTP/1.1 413 Too Large\r\nContent-Length: {REPLY}\r\n\r\n");
    let chunk = format!("HTTP/1.1 413 Too Large\r\nTransfer-Encoding: chunked\r\n\r\n{REPLY:x}\r\n");
    [
        ("by length", [head.as_bytes(), &body].concat()),
        ("chunked", [chunk.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()),
    ]
}

/// Far more than anybody takes.
fn endless() -> StreamBody {
    StreamBody::new(Bytes(1 << 40)).with_len(1 << 40)
}

/// A client that sends at once, and reads a little at a time.
fn asks() -> Asks {
    Asks::with(|settings| (settings.continue_above, settings.stream_capacity) = (u64::MAX, 1_000))
}

/// Has a response begin, and reads it only after its server has long reset the connection. So many connections were before.
fn read_late(asks: &Asks, before: usize, url: &str, closed: impl Fn()) -> Result<Vec<u8>, BodyError> {
    asks.keeps.until("those before are recorded", |kept| kept.connections.len() == before);
    let mut response = asks.run(asks.client.post(url, endless()).stream()).unwrap();
    assert_eq!(response.status.as_u16(), 413);
    closed();
    // The poller has time to hear of the reset: it must not end the connection.
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(asks.keeps.kept().connections.len(), before, "it was closed with bytes to be read");
    }
    asks.read(&mut response)
}

#[test]
fn an_answer_is_heard_to_its_end_although_its_server_has_reset_the_connection() {
    for (name, reply) in replies() {
        let (address, closed) = refuses(reply);
        let (url, asks) = (format!("http://{address}/"), asks());
        for before in 0..5 {
            let body = read_late(&asks, before, &url, || closed.recv_timeout(PATIENCE).unwrap());
            assert!(body == Ok(vec![b'n'; REPLY]), "{name}: {:?}", body.map(|body| body.len()));
        }
        // One that is taken whole.
        for _ in 0..20 {
            let response =
                asks.run(asks.client.post(&url, endless())).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((response.status.as_u16(), response.bytes().len()), (413, REPLY), "{name}");
        }
        let kept = asks.keeps.counts(25, 25);
        assert!(kept.exchanges.iter().all(|exchange| exchange.end.reason == Reason::Ok));
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_has_no_end_where_that_was_reset() {
    let (address, closed) = refuses([b"HTTP/1.1 413 Too Large\r\n\r\n".as_slice(), &[b'n'; REPLY]].concat());
    let (url, asks) = (format!("http://{address}/"), asks());
    let body = read_late(&asks, 0, &url, || closed.recv_timeout(PATIENCE).unwrap());
    assert_eq!(body, Err(BodyError::Disconnected));
    let error = asks.run(asks.client.post(&url, endless())).unwrap_err();
    assert!(matches!(error, ClientError::Closed(Reason::Abort)), "{error}");
    asks.keeps.counts(2, 2);
}

#[test]
fn a_reader_who_leaves_after_the_reset_ends_the_connection() {
    let (_, reply) = replies().into_iter().next().unwrap();
    let (address, closed) = refuses(reply);
    let asks = asks();
    let response = asks.run(asks.client.post(format!("http://{address}/"), endless()).stream()).unwrap();
    closed.recv_timeout(PATIENCE).unwrap();
    drop(response);
    let kept = asks.keeps.counts(1, 1);
    assert_eq!(kept.exchanges[0].end.reason, Reason::LocalClose);
}

#[cfg(feature = "tls")]
mod over_tls {
    use std::io::BufRead as _;
    use std::process::{Child, ChildStdout, Command, Stdio};

    use super::*;
    use tidegate::net::tls::ClientTls;

    /// Answers a POST at once, and closes with the rest of its body unread; takes a PUT whole. Without TCP_NODELAY its kernel
    /// would keep records back, and forget them at the reset.
    const SERVER: &str = "import socket, ssl, sys\n\
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
        context.load_cert_chain(sys.argv[1], sys.argv[2])\n\
        listener = socket.create_server(('127.0.0.1', 0))\n\
        print(listener.getsockname()[1], flush=True)\n\
        while True:\n\
        \x20   raw = listener.accept()[0]\n\
        \x20   raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n\
        \x20   connection = context.wrap_socket(raw, server_side=True)\n\
        \x20   came = b''\n\
        \x20   while b'\\r\\n\\r\\n' not in came:\n\
        \x20       came += connection.recv(65536)\n\
        \x20   head, _, body = came.partition(b'\\r\\n\\r\\n')\n\
        \x20   if head.startswith(b'PUT'):\n\
        \x20       length = int(head.lower().split(b'content-length: ')[1].split(b'\\r\\n')[0])\n\
        \x20       while len(body) < length:\n\
        \x20           body += connection.recv(65536)\n\
        \x20       connection.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 6\\r\\n\\r\\n%6d' % len(body))\n\
        \x20   else:\n\
        \x20       connection.sendall(b'HTTP/1.1 413 No\\r\\nContent-Length: 50000\\r\\n\\r\\n' + b'n' * 50000)\n\
        \x20   connection.close()\n\
        \x20   print('closed', flush=True)\n";

    struct Python(Child, std::sync::Mutex<std::io::BufReader<ChildStdout>>, u16);

    impl Python {
        fn start(pki: &pki::Pki) -> Python {
            let identity = pki.server("server", &["localhost"]);
            let mut command = Command::new("python3");
            command.arg("-c").arg(SERVER).arg(&identity.chain).arg(&identity.key);
            let mut child =
                command.stdout(Stdio::piped()).spawn().expect("python3: run tests/run, which installs it");
            let out = std::io::BufReader::new(child.stdout.take().unwrap());
            let mut python = Python(child, std::sync::Mutex::new(out), 0);
            python.2 = python.line().parse().unwrap();
            python
        }

        fn line(&self) -> String {
            let mut line = String::new();
            self.1.lock().unwrap().read_line(&mut line).unwrap();
            line.trim().to_owned()
        }
    }

    impl Drop for Python {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn answers_are_heard_and_uploads_are_counted_over_tls_as_well() {
        let pki = pki::Pki::new("ours");
        let python = Python::start(&pki);
        let url = format!("https://localhost:{}/", python.2);
        let asks = Asks::with(|settings| {
            (settings.continue_above, settings.stream_capacity) = (u64::MAX, 1_000);
            settings.tls =
                Some(ClientTls::builder().authorities(pki.ca_pem()).alpn(["http/1.1"]).build().unwrap());
        });
        for before in 0..3 {
            let body = read_late(&asks, before, &url, || assert_eq!(python.line(), "closed"));
            assert!(body == Ok(vec![b'n'; REPLY]), "{:?}", body.map(|body| body.len()));
        }
        for _ in 0..5 {
            let response = asks.run(asks.client.post(&url, endless())).unwrap();
            assert_eq!((response.status.as_u16(), response.bytes().len()), (413, REPLY));
            assert_eq!(python.line(), "closed");
        }
        let limit = Limit::new("each", Some(1_000_000));
        let upload = asks.client.put(&url, vec![7; LEN]).upload_limit(&limit);
        let (seen, response) = watch(&asks, upload);
        assert_eq!(response.unwrap().text(), LEN.to_string());
        assert!(seen.len() >= 5 && seen.is_sorted(), "{seen:?}");
        assert_eq!(seen.last(), Some(&(LEN as u64)));
    }
}
