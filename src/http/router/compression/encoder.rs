//! The encoders: bytes in, fewer bytes out, at once or in pieces. Pure.

use std::io::{self, Write as _};
use std::mem;

use brotli::CompressorWriter;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;
use zstd::zstd_safe::CParameter;

use crate::http::codec::coding::Coding;

/// An encoder at work. What it has made lies in its buffer until it is taken.
pub(super) enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    // Boxed: a hundred times the size of the others.
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

/// What takes 10 to 20 ms a megabyte on the machine of `docs/benchmarks.md`; more saves little more of a text.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// The window, in bits: 256 KiB. An encoder is held as long as its client takes, so its memory counts.
const WINDOW_BITS: u32 = 18;

impl Encoder {
    pub(super) fn new(coding: Coding) -> io::Result<Encoder> {
        Ok(match coding {
            Coding::Gzip => Encoder::Gzip(GzEncoder::new(Vec::new(), Level::new(GZIP_LEVEL))),
            Coding::Brotli => Encoder::Brotli(Box::new(CompressorWriter::new(
                Vec::new(),
                4_096,
                BROTLI_QUALITY,
                WINDOW_BITS,
            ))),
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW_BITS))?;
                Encoder::Zstd(encoder)
            }
        })
    }

    /// Encodes bytes; what comes of them may come later.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Brotli(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// Makes what has been written readable for the other end, at the cost of some bytes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Brotli(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }

    /// Takes what it has made.
    pub(super) fn take(&mut self) -> Vec<u8> {
        mem::take(match self {
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Brotli(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
        })
    }

    /// Ends, and gives the rest.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Brotli(encoder) => Ok(encoder.into_inner()),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}
