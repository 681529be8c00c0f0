//! However a connection ends, it leaves exactly one record, and the record is right.

mod doors;
mod peers;
mod resets;
mod sessions;
mod shutdown;
#[path = "../support/mod.rs"]
mod support;

use support::Script;
use tidegate_poller::{End, Reason};

/// More than the kernel's buffers on both sides can hold.
const MORE_THAN_FITS: usize = 24_000_000;

fn flood() -> Script {
    Script::new().opened(|io| {
        io.send(vec![1; MORE_THAN_FITS]);
        io.finish(End::local(Reason::Ok));
    })
}
