//! The codec: bytes to values and back. Pure: it knows no socket, no session and no clock.

pub mod chunked;
pub mod coding;
pub mod dechunk;
pub mod fields;
pub mod request;
pub mod response;
pub mod status;
pub mod target;
