//! The protocol of the two examples: a message is its length in four bytes, and so many bytes.

use tidegate::net::protocol::{Codec, Decoded, Malformed, Outgoing};
use tidegate::record::Words;

/// No message of this protocol is longer.
const LENGTH_MAX: u32 = 1 << 20;

#[derive(Clone)]
pub(crate) struct Frames;

fn encode(message: &str, out: &mut Outgoing) -> Result<(), Malformed> {
    match u32::try_from(message.len()) {
        Ok(length) if length <= LENGTH_MAX => {
            out.put(&length.to_be_bytes());
            out.put(message.as_bytes());
            Ok(())
        }
        _ => Err(Malformed::new("a message is at most 1 MiB long")),
    }
}

fn decode(bytes: &[u8]) -> Result<Decoded<String>, Malformed> {
    let Some(head) = bytes.first_chunk() else { return Ok(Decoded::wants(4)) };
    let length = u32::from_be_bytes(*head);
    if length > LENGTH_MAX {
        return Err(Malformed::new("a message is at most 1 MiB long"));
    }
    let end = 4 + length as usize;
    match bytes.get(4..end) {
        Some(text) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Decoded::message(text.to_owned(), end)),
            Err(_) => Err(Malformed::new("a message is text")),
        },
        // Nothing can be said before all of it is there.
        None => Ok(Decoded::wants(end)),
    }
}

impl Codec for Frames {
    type Request = String;
    type Reply = String;

    fn encode_request(&mut self, request: &String, out: &mut Outgoing) -> Result<(), Malformed> {
        encode(request, out)
    }

    fn decode_request(&mut self, bytes: &[u8]) -> Result<Decoded<String>, Malformed> {
        decode(bytes)
    }

    fn encode_reply(&mut self, reply: String, out: &mut Outgoing) -> Result<(), Malformed> {
        encode(&reply, out)
    }

    fn decode_reply(&mut self, bytes: &[u8]) -> Result<Decoded<String>, Malformed> {
        decode(bytes)
    }

    fn words(&self, request: &String) -> Words {
        Words::new(b"SAY", request.as_bytes(), b"frames/1", None, None)
    }
}
