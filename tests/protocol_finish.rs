//! Messages of a custom protocol that end with their connection.

mod protocol_support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use protocol_support::{Keeps, PATIENCE, connect, listeners, plain_server, random_bytes};
use tidegate::net::protocol::{
    Client, ClientError, ClientSettings, Codec, Decoded, Exchange, Malformed, Outgoing, Server,
    ServerSettings,
};
use tidegate::poller::Reason;
use tidegate::runtime::Runtime;
use tidegate::task::go;

/// A request is a line; one that begins with `>` ends with the connection. Every reply does.
#[derive(Clone)]
struct UpToTheEnd;

impl Codec for UpToTheEnd {
    type Request = Vec<u8>;
    type Reply = Vec<u8>;

    fn encode_request(&mut self, request: &Vec<u8>, out: &mut Outgoing) -> Result<(), Malformed> {
        out.put(request);
        match request.first() {
            Some(b'>') => out.end_connection(),
            _ => out.put(b"\n"),
        }
        Ok(())
    }
    fn decode_request(&mut self, bytes: &[u8]) -> Result<Decoded<Vec<u8>>, Malformed> {
        let end = bytes.iter().position(|byte| *byte == b'\n').filter(|_| bytes[0] != b'>');
        Ok(end.map_or(Decoded::more(), |end| Decoded::message(bytes[..end].to_vec(), end + 1)))
    }
    fn encode_reply(&mut self, reply: Vec<u8>, out: &mut Outgoing) -> Result<(), Malformed> {
        out.push(reply);
        out.end_connection();
        Ok(())
    }
    fn decode_reply(&mut self, _: &[u8]) -> Result<Decoded<Vec<u8>>, Malformed> {
        Ok(Decoded::more())
    }
    fn finish_request(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        match bytes {
            b">nonsense" => Err(Malformed::new("as planned")),
            [b'>', ..] => Ok(Some(bytes.to_vec())),
            _ => Ok(None),
        }
    }
    fn finish_reply(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        match bytes {
            b"nonsense" => Err(Malformed::new("as planned")),
            _ => Ok(Some(bytes.to_vec())),
        }
    }
}

/// Answers on a computing thread: a number by so many bytes, anything else by itself.
fn start(runtime: &Runtime, settings: ServerSettings) -> Server {
    let handler = |series: &mut Exchange<UpToTheEnd>| {
        let request = std::mem::take(&mut series.context.request);
        let length = String::from_utf8_lossy(&request).parse();
        series.push(go(move || length.map_or(request, random_bytes)), |reply, series| {
            series.context.reply = Some(reply);
            Ok(())
        });
        Ok(())
    };
    Server::builder(UpToTheEnd, handler).settings(settings).start_on(&runtime.handle(), listeners(1)).unwrap()
}

fn client(runtime: &Runtime, settings: ClientSettings) -> Client<UpToTheEnd> {
    Client::new(&runtime.handle(), UpToTheEnd, settings)
}

#[test]
fn replies_of_any_length_end_with_their_connection() {
    let runtime = Runtime::new().unwrap();
    let ((served, server_sinks), (asked, client_sinks)) = (Keeps::new(), Keeps::new());
    let server = start(&runtime, ServerSettings { sinks: server_sinks, ..ServerSettings::default() });
    let client = client(&runtime, ClientSettings { sinks: client_sinks, ..ClientSettings::default() });
    for length in [1, 1_000, 3_000_000, 0] {
        let request = client.request(server.address(), length.to_string().into_bytes());
        assert_eq!(runtime.run(request).unwrap().unwrap().len(), length);
    }
    // None of these connections serves twice.
    for keeps in [served, asked] {
        let kept = keeps.counts(4, 4);
        assert!(kept.exchanges.iter().all(|record| record.end.reason == Reason::Ok));
        assert!(kept.connections.iter().all(|entry| entry.record.end.reason == Reason::Ok));
    }
}

#[test]
fn a_reply_that_is_cut_is_not_taken_for_a_whole_one() {
    let runtime = Runtime::new().unwrap();
    let ask = |length: &'static [u8], settings: ClientSettings, peer: fn(&mut TcpStream, &[u8])| {
        let address = plain_server(move |_, mut stream| {
            let _ = stream.read(&mut [0; 100]);
            peer(&mut stream, length);
        });
        runtime.run(client(&runtime, settings).request(address, b"x".to_vec())).unwrap()
    };
    let says: fn(&mut TcpStream, &[u8]) = |stream, bytes| stream.write_all(bytes).unwrap();
    assert_eq!(ask(b"a reply", ClientSettings::default(), says).unwrap(), b"a reply");
    let nonsense = ask(b"nonsense", ClientSettings::default(), says);
    assert!(matches!(nonsense, Err(ClientError::Malformed(_))), "{nonsense:?}");
    let long = ask(&[7; 1_000], ClientSettings { max_reply: 999, ..ClientSettings::default() }, says);
    assert!(matches!(long, Err(ClientError::TooLong)), "{long:?}");
    let just = ask(&[7; 1_000], ClientSettings { max_reply: 1_000, ..ClientSettings::default() }, says);
    assert_eq!(just.unwrap(), [7; 1_000]);
    let reset = ask(b"half a reply", ClientSettings::default(), |stream, bytes| {
        stream.write_all(bytes).unwrap();
        let stream: &TcpStream = stream;
        rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO)).unwrap();
    });
    assert!(matches!(reset, Err(ClientError::Closed(_))), "{reset:?}");
}

#[test]
fn a_request_may_end_with_the_clients_direction_and_is_answered() {
    let runtime = Runtime::new().unwrap();
    let (keeps, sinks) = Keeps::new();
    let server = start(&runtime, ServerSettings { sinks, ..ServerSettings::default() });
    let ask = |bytes: &[u8]| {
        let mut stream = connect(server.address());
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        reply
    };
    let long = [&b">"[..], &random_bytes(300_000)].concat();
    assert_eq!(ask(b">with\ntwo lines"), b">with\ntwo lines");
    assert_eq!(ask(&long), long);
    let kept = keeps.counts(2, 2);
    assert!(kept.exchanges.iter().all(|record| record.end.reason == Reason::Ok));
    assert_eq!(kept.exchanges.iter().map(|record| record.wire_in).max(), Some(long.len() as u64));
    // Cut short, not the protocol, and nothing at all.
    assert_eq!(ask(b"a line without an end"), b"");
    assert_eq!(ask(b">nonsense"), b"");
    assert_eq!(ask(b""), b"");
    let kept = keeps.counts(4, 5);
    let ends: Vec<_> = kept.exchanges[2..].iter().map(|record| record.end.reason).collect();
    assert_eq!(ends, [Reason::Abort, Reason::ProtocolError]);
}

#[test]
fn our_client_cannot_close_one_direction() {
    let runtime = Runtime::new().unwrap();
    let server = start(&runtime, ServerSettings::default());
    let request = client(&runtime, ClientSettings::default()).request(server.address(), b">x".to_vec());
    let error = runtime.spawn(request).wait_for(PATIENCE).unwrap().unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Encode(_)), "{error:?}");
}
