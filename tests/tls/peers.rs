//! Real programs at the other end.
