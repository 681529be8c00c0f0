//! What the kernel says of a TCP connection, read with care.
//!
//! This module owns the layout of the kernel's `tcp_info` and its meaning; [`sys`](crate::sys) makes the call.
//!
//! The kernel counts sequence numbers, and calls them bytes. SYN and FIN take one each: our SYN where we connected
//! (not where we accepted), our FIN once it is acknowledged, the peer's FIN once it is here. Two ends' records are
//! compared to the byte, so all of them are taken off.

use std::mem::{offset_of, size_of_val};

use crate::record::{Role, TcpFigures};

/// `struct tcp_info` of linux/tcp.h, as far as it is of use here. Kernels have only ever added to its end: an
/// older one fills less and says how much, a newer one is told where to stop.
#[repr(C)]
#[derive(Default)]
#[allow(dead_code, reason = "the layout is the kernel's")]
pub(crate) struct TcpInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    window_scales: u8,
    /// Bit fields: whether the delivery rate was limited by the application, then fast open.
    flags: u8,
    rto: u32,
    ato: u32,
    snd_mss: u32,
    rcv_mss: u32,
    unacked: u32,
    sacked: u32,
    lost: u32,
    retrans: u32,
    fackets: u32,
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    last_ack_recv: u32,
    pmtu: u32,
    rcv_ssthresh: u32,
    rtt: u32,
    rttvar: u32,
    snd_ssthresh: u32,
    snd_cwnd: u32,
    advmss: u32,
    reordering: u32,
    rcv_rtt: u32,
    rcv_space: u32,
    total_retrans: u32,
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivery_rate: u64,
    busy_time: u64,
    rwnd_limited: u64,
    sndbuf_limited: u64,
    delivered: u32,
    delivered_ce: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
}

const _: () = assert!(offset_of!(TcpInfo, bytes_acked) == 120 && size_of::<TcpInfo>() == 216);

/// A field, if the kernel got that far.
macro_rules! reported {
    ($info:ident . $field:ident, $len:expr) => {
        (offset_of!(TcpInfo, $field) + size_of_val(&$info.$field) <= $len).then_some($info.$field)
    };
}

/// States of linux/tcp_states.h.
const TCP_FIN_WAIT1: u8 = 4;
const TCP_FIN_WAIT2: u8 = 5;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LAST_ACK: u8 = 9;
const TCP_CLOSING: u8 = 11;

impl TcpInfo {
    /// The figures, from an answer of `len` bytes. `peer_finished`: we have read the peer's FIN.
    pub(crate) fn figures(&self, len: usize, role: Role, peer_finished: bool) -> TcpFigures {
        let app_limited_bit = if cfg!(target_endian = "big") { 0x80 } else { 0x01 };
        TcpFigures {
            rtt_us: self.rtt,
            rtt_var_us: self.rttvar,
            // Without a sample the kernel says "infinite".
            rtt_min_us: reported!(self.min_rtt, len).filter(|&rtt| rtt != u32::MAX),
            retransmits: self.total_retrans,
            retransmitted_bytes: reported!(self.bytes_retrans, len),
            acked_bytes: self.acked_bytes(len, role),
            received_bytes: reported!(self.bytes_received, len).map(|bytes| match self.state {
                TCP_CLOSE_WAIT | TCP_LAST_ACK | TCP_CLOSING | TCP_TIME_WAIT => bytes.saturating_sub(1),
                // Orderly or reset, the state no longer tells.
                TCP_CLOSE if peer_finished => bytes.saturating_sub(1),
                _ => bytes,
            }),
            unacked_segments: self.unacked,
            // A FIN that waits behind bytes is counted with them.
            unsent_bytes: reported!(self.notsent_bytes, len).map(|bytes| match self.state {
                TCP_FIN_WAIT1 | TCP_LAST_ACK | TCP_CLOSING => bytes.saturating_sub(1),
                _ => bytes,
            }),
            // Without a sample the kernel says zero.
            delivery_rate: reported!(self.delivery_rate, len).filter(|&rate| rate > 0),
            app_limited: self.flags & app_limited_bit != 0,
            busy_us: reported!(self.busy_time, len),
            rwnd_limited_us: reported!(self.rwnd_limited, len),
            sndbuf_limited_us: reported!(self.sndbuf_limited, len),
            congestion_window: self.snd_cwnd,
            segment_size: self.snd_mss,
        }
    }

    fn acked_bytes(&self, len: usize, role: Role) -> Option<u64> {
        let numbers = reported!(self.bytes_acked, len)?;
        let bytes = if role == Role::Client { numbers.saturating_sub(1) } else { numbers };
        Some(match (self.state, reported!(self.bytes_sent, len), reported!(self.bytes_retrans, len)) {
            (TCP_FIN_WAIT2 | TCP_TIME_WAIT, ..) => bytes.saturating_sub(1),
            // The state no longer tells whether our FIN got through. What was sent does: no more bytes than that
            // can have been acknowledged.
            (TCP_CLOSE, Some(sent), Some(again)) => bytes.min(sent.saturating_sub(again)),
            _ => bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTABLISHED: u8 = 1;
    const WHOLE: usize = size_of::<TcpInfo>();

    fn info(state: u8) -> TcpInfo {
        let (bytes_acked, bytes_received, bytes_sent) = (1_001, 501, 1_000);
        TcpInfo { state, bytes_acked, bytes_received, bytes_sent, min_rtt: 9, ..TcpInfo::default() }
    }

    #[test]
    fn an_older_kernel_leaves_fields_absent() {
        // Linux 3.x ended with the count of retransmissions, 4.1 after the bytes received, 4.9 after the rate.
        for (len, acked, min_rtt, busy) in [
            (104, false, false, false),
            (136, true, false, false),
            (168, true, true, false),
            (WHOLE, true, true, true),
        ] {
            let figures = info(ESTABLISHED).figures(len, Role::Server, false);
            let there =
                (figures.acked_bytes.is_some(), figures.rtt_min_us.is_some(), figures.busy_us.is_some());
            assert_eq!(there, (acked, min_rtt, busy), "{len}");
            assert_eq!(figures.retransmitted_bytes.is_some(), busy);
        }
    }

    #[test]
    fn a_figure_without_a_sample_is_absent() {
        let empty = TcpInfo { min_rtt: u32::MAX, ..TcpInfo::default() };
        let figures = empty.figures(WHOLE, Role::Client, false);
        assert_eq!((figures.rtt_min_us, figures.delivery_rate), (None, None));
        assert_eq!(figures.acked_bytes, Some(0), "SYN is taken off only where it was counted");
    }

    #[test]
    fn syn_and_fin_are_no_bytes() {
        let acked = |state, role| info(state).figures(WHOLE, role, false).acked_bytes.unwrap();
        assert_eq!(acked(ESTABLISHED, Role::Server), 1_001);
        assert_eq!(acked(ESTABLISHED, Role::Client), 1_000);
        assert_eq!(acked(TCP_FIN_WAIT2, Role::Server), 1_000);
        assert_eq!(acked(TCP_FIN_WAIT2, Role::Client), 999);
        assert_eq!(acked(TCP_CLOSE, Role::Server), 1_000, "no more than was sent");
        let received =
            |state, finished| info(state).figures(WHOLE, Role::Server, finished).received_bytes.unwrap();
        assert_eq!(received(ESTABLISHED, false), 501);
        assert_eq!(received(TCP_CLOSE_WAIT, false), 500);
        assert_eq!((received(TCP_CLOSE, false), received(TCP_CLOSE, true)), (501, 500));
    }

    #[test]
    fn a_fin_that_waits_is_not_unsent_bytes() {
        let unsent = |state| {
            let info = TcpInfo { notsent_bytes: 10, ..info(state) };
            info.figures(WHOLE, Role::Server, false).unsent_bytes
        };
        assert_eq!((unsent(ESTABLISHED), unsent(TCP_FIN_WAIT1)), (Some(10), Some(9)));
    }
}
