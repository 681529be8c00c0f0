//! Content codings, taken away as the bytes arrive (RFC 9110, section 8.4.1). Pure.
//!
//! A few compressed bytes can stand for very many: [`Coding::decode`] makes a bounded number at a time, so whoever takes
//! them bounds what lies in memory.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::Operation as _;

use crate::http::{HeaderMap, header};

/// What we can take away, as the Accept-Encoding field says it.
pub(super) const ACCEPTED: &str = "gzip, br, zstd";

/// The largest window of zstd, as a power of two: RFC 9659 has every encoder keep to 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A coding, and how far it has come.
pub(super) struct Coding {
    decoder: Decoder,
    ended: bool,
}

enum Decoder {
    Flate(Decompress),
    Brotli(Box<Brotli>),
    Zstd(zstd::stream::raw::Decoder<'static>),
}

type Brotli = brotli_decompressor::BrotliState<
    brotli_decompressor::StandardAlloc,
    brotli_decompressor::StandardAlloc,
    brotli_decompressor::StandardAlloc,
>;

/// The bytes are not what the coding makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

impl Coding {
    /// That of a reply; `None` where it has none, or one that is not ours to take away.
    pub(super) fn of(headers: &HeaderMap) -> Option<Coding> {
        let mut fields = headers.get_all(header::CONTENT_ENCODING).iter();
        let (coding, further) = (fields.next()?, fields.next());
        let coding = coding.to_str().ok().filter(|_| further.is_none())?.trim().to_ascii_lowercase();
        let decoder = match &*coding {
            "gzip" | "x-gzip" => Decoder::Flate(Decompress::new_gzip(15)),
            "br" => Decoder::Brotli(Box::new(Brotli::new_strict(
                Default::default(),
                Default::default(),
                Default::default(),
            ))),
            "zstd" => {
                let mut decoder = zstd::stream::raw::Decoder::new().ok()?;
                decoder.set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).ok()?;
                Decoder::Zstd(decoder)
            }
            _ => return None,
        };
        Some(Coding { decoder, ended: false })
    }

    /// Decodes from the front of `input` into `out`, at most so many bytes as that has room for. Says how many of the input
    /// were used, and how many were made; with neither, more input is needed.
    pub(super) fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Broken> {
        let name = self.name();
        if self.ended {
            if input.is_empty() {
                return Ok((0, 0));
            }
            self.begin_another()?;
        }
        match &mut self.decoder {
            Decoder::Flate(inflate) => {
                let before = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(input, out, FlushDecompress::None);
                let moved = |now: u64, before: u64| (now - before) as usize;
                match status {
                    Ok(status) => self.ended = status == Status::StreamEnd,
                    // With nothing to go on with that is no error.
                    Err(_) if input.is_empty() => {}
                    Err(_) => return Err(Broken(name)),
                }
                Ok((moved(inflate.total_in(), before.0), moved(inflate.total_out(), before.1)))
            }
            Decoder::Brotli(state) => {
                let (mut left, mut used, mut room, mut made, mut total) = (input.len(), 0, out.len(), 0, 0);
                let result = brotli_decompressor::BrotliDecompressStream(
                    &mut left, &mut used, input, &mut room, &mut made, out, &mut total, state,
                );
                match result {
                    brotli_decompressor::BrotliResult::ResultFailure => return Err(Broken(name)),
                    brotli_decompressor::BrotliResult::ResultSuccess => self.ended = true,
                    _ => {}
                }
                Ok((used, made))
            }
            Decoder::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, out).map_err(|_| Broken(name))?;
                // Zero: a frame is done, and its bytes are all out.
                self.ended = status.remaining == 0;
                Ok((status.bytes_read, status.bytes_written))
            }
        }
    }

    /// There is more after the end: another member of gzip (RFC 1952, section 2.2), or frame of zstd (RFC 8878, section 3.1).
    /// Whatever else it is the decoder will find out.
    fn begin_another(&mut self) -> Result<(), Broken> {
        let name = self.name();
        match &mut self.decoder {
            Decoder::Flate(inflate) => *inflate = Decompress::new_gzip(15),
            Decoder::Brotli(_) => return Err(Broken(name)),
            Decoder::Zstd(decoder) => decoder.reinit().map_err(|_| Broken(name))?,
        }
        self.ended = false;
        Ok(())
    }

    /// The reply is at its end. Whether the coding is, too.
    pub(super) fn finish(&self) -> Result<(), Broken> {
        if self.ended { Ok(()) } else { Err(Broken(self.name())) }
    }

    pub(super) fn name(&self) -> &'static str {
        match self.decoder {
            Decoder::Flate(_) => "gzip",
            Decoder::Brotli(_) => "br",
            Decoder::Zstd(_) => "zstd",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::http::HeaderValue;

    fn coding(name: &'static str) -> Option<Coding> {
        Coding::of(&HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(name))]))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(name: &'static str, mut input: &[u8], cut: usize, room: usize) -> Result<Vec<u8>, Broken> {
        let (mut coding, mut all, mut out) = (coding(name).unwrap(), Vec::new(), vec![0; room]);
        while !input.is_empty() {
            let (mut now, later) = input.split_at(cut.min(input.len()));
            input = later;
            loop {
                let (used, made) = coding.decode(now, &mut out)?;
                all.extend_from_slice(&out[..made]);
                now = &now[used..];
                if (used, made) == (0, 0) || now.is_empty() && made < room {
                    break;
                }
            }
            assert!(now.is_empty(), "all is used");
        }
        coding.finish().map(|()| all)
    }

    #[test]
    fn bodies_that_are_cut_or_broken_are_told_from_whole_ones() {
        let text = b"every byte passes a gate, every byte passes a gate";
        for (name, encoded) in [("gzip", gzip(text)), ("zstd", zstd::encode_all(&text[..], 3).unwrap())] {
            assert_eq!(decode(name, &encoded, 1, 3).unwrap(), text);
            assert_eq!(decode(name, &encoded[..encoded.len() - 1], 9, 50), Err(Broken(name)));
            let more = [&encoded[..], b"more"].concat();
            assert_eq!(decode(name, &more, 1_000, 1_000), Err(Broken(name)), "{name}");
            let twice = [&encoded[..], &encoded[..]].concat();
            assert_eq!(decode(name, &twice, 5, 7).unwrap(), text.repeat(2), "{name}");
            assert_eq!(decode(name, &twice[..twice.len() - 1], 1_000, 50), Err(Broken(name)));
            let mut broken = encoded.clone();
            broken[0] ^= 1;
            assert_eq!(decode(name, &broken, 1_000, 1_000), Err(Broken(name)));
        }
        // An empty stream, and one of RFC 7932's own making: "X" uncompressed.
        assert_eq!(decode("br", &[0x06], 1, 10).unwrap(), b"");
        assert_eq!(decode("br", &[0x0b, 0x00, 0x80, b'X', 0x03], 1, 10).unwrap(), b"X");
        assert_eq!(decode("br", &[0x0b, 0x00, 0x80, b'X'], 1, 10), Err(Broken("br")));
    }

    #[test]
    fn other_codings_are_left_alone() {
        assert!(coding("identity").is_none() && coding("gzip, br").is_none() && coding("deflate").is_none());
        assert!(coding(" GZip ").is_some() && Coding::of(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_bomb_goes_off_a_little_at_a_time() {
        let bomb = gzip(&vec![0; 10 << 20]);
        assert!(bomb.len() < 20_000);
        let (mut coding, mut out) = (coding("gzip").unwrap(), vec![0; 4_096]);
        let (used, made) = coding.decode(&bomb, &mut out).unwrap();
        assert!(used < bomb.len() && made == out.len());
    }

    #[test]
    fn windows_that_take_much_memory_are_refused() {
        // RFC 8878, section 3.1.1.1.2: the exponent of the window's size is in the upper five bits, 10 less.
        let zstd = |window_log: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3, 1, 0, 0];
        assert_eq!(decode("zstd", &zstd(23), 1, 10), Ok(Vec::new()));
        assert_eq!(decode("zstd", &zstd(24), 1, 10), Err(Broken("zstd")));
        // What RFC 7932 has no window for, and its extension windows of up to a gigabyte.
        assert_eq!(decode("br", &[0x11, 0x1e, 0x03], 1, 10), Err(Broken("br")));
    }

    proptest! {
        #[test]
        fn whatever_the_cuts_and_the_room_the_bytes_are_the_same(
            bytes in proptest::collection::vec(0u8..4, 0..2_000), cut in 1usize..200, room in 1usize..300,
        ) {
            prop_assert_eq!(decode("gzip", &gzip(&bytes), cut, room).unwrap(), bytes.clone());
            prop_assert_eq!(decode("zstd", &zstd::encode_all(&bytes[..], 1).unwrap(), cut, room).unwrap(), bytes);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), which in 0usize..3) {
            let _ = decode(["gzip", "br", "zstd"][which], &bytes, 20, 50);
        }
    }
}
