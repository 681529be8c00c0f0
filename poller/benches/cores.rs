//! The pure cores: what a write, a pause and a resume cost before any system call.
//!
//! `cargo bench -p tidegate-poller`. The real types, on simulated time. Figures of this machine are in
//! `docs/benchmarks.md`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tidegate_poller::budget::{Budget, Limit, Signal};
use tidegate_poller::moment::{Moment, NANOS_PER_MS};
use tidegate_poller::outbox::{Chunk, Outbox};
use tidegate_poller::pace::{Allowance, FlowId, Pacer};
use tidegate_poller::sys;
use tidegate_poller::timer::Wheel;

fn pacer() -> Pacer {
    Pacer::new(None, Signal::new(|| ()))
}

/// The gate's two questions for one write under a limit that does not bind.
fn charge_own_limit(c: &mut Criterion) {
    let mut pacer = pacer();
    let flow = pacer.join(0);
    pacer.set_limit(flow, Some(&Limit::new("connection", Some(10_000_000_000))), Moment::FIRST);
    let mut now = Moment::FIRST;
    c.bench_function("budget/charge under an own limit", |b| {
        b.iter(|| {
            now = now.plus_nanos(1_000);
            if let Allowance::Now(bytes) = pacer.allow(flow, black_box(500), now) {
                pacer.charge(flow, bytes);
            }
        });
    });
}

/// A small reply under connection, client and total, none of which binds: the lease is there most of the time.
fn charge_shared(c: &mut Criterion) {
    let mut pacer = pacer();
    let total = Budget::builder("total").rate(10_000_000_000).build();
    let client = Budget::builder("client").rate(5_000_000_000).parent(&total).build();
    let flow = pacer.join(0);
    let mut now = sys::now();
    pacer.set_limit(flow, Some(&Limit::new("connection", Some(1_000_000_000))), now);
    pacer.spend_through(flow, &client, 1);
    c.bench_function("budget/charge under connection, client and total", |b| {
        b.iter(|| {
            now = now.plus_nanos(5_000);
            pacer.begin_turn();
            while !write(&mut pacer, flow, 300, now) {
                pacer.settle(now);
                while pacer.next_turn(now).is_some() {}
            }
            pacer.rest(flow, now);
        });
    });
}

fn write(pacer: &mut Pacer, flow: FlowId, bytes: u64, now: Moment) -> bool {
    match pacer.allow(flow, bytes, now) {
        Allowance::Now(allowed) => {
            pacer.charge(flow, allowed);
            true
        }
        _ => false,
    }
}

/// A resume of one of many backlogged flows, each under a client budget of its own: trade, turn, charge, queue again.
fn resume_shared(c: &mut Criterion) {
    for clients in [100, 5_000] {
        let mut pacer = pacer();
        let total = Budget::builder("total").rate(100_000_000).build();
        let mut now = sys::now();
        let budgets: Vec<Budget> =
            (0..clients).map(|n| Budget::builder(format!("{n}")).parent(&total).build()).collect();
        let flows: Vec<FlowId> = budgets
            .iter()
            .enumerate()
            .map(|(owner, budget)| {
                let flow = pacer.join(owner);
                pacer.spend_through(flow, budget, 1);
                pacer.allow(flow, 1 << 40, now);
                flow
            })
            .collect();
        let mut resumes = 0u64;
        c.bench_function(&format!("budget/resume one of {clients} clients"), |b| {
            b.iter_custom(|iterations| {
                let goal = resumes + iterations;
                let start = std::time::Instant::now();
                while resumes < goal {
                    now = now.plus_nanos(NANOS_PER_MS);
                    pacer.begin_turn();
                    pacer.settle(now);
                    while let Some(owner) = pacer.next_turn(now) {
                        while write(&mut pacer, flows[owner], 1 << 40, now) {}
                        resumes += 1;
                    }
                }
                start.elapsed()
            });
        });
    }
}

fn wheel(c: &mut Criterion) {
    let mut now = sys::now();
    let mut wheel = Wheel::new(now);
    for n in 0..15_000u64 {
        wheel.insert(now.plus_nanos(n * 17_000), n);
    }
    c.bench_function("wheel/insert and cancel among 15,000", |b| {
        b.iter(|| {
            let id = wheel.insert(now.plus_nanos(black_box(65_000 * NANOS_PER_MS)), 1);
            wheel.cancel(id)
        });
    });
    c.bench_function("wheel/fire and insert again among 15,000", |b| {
        b.iter(|| {
            let due = wheel.next_deadline().expect("15,000 are pending");
            now = now.max(due);
            let (_, item) = wheel.pop_due(now).expect("one is due");
            wheel.insert(now.plus_nanos(200 * NANOS_PER_MS), item);
        });
    });
}

fn outbox(c: &mut Criterion) {
    let shared: Arc<[u8]> = vec![7; 64 * 1024].into();
    let mut passed = Vec::new();
    c.bench_function("outbox/queue a head and a body, gather, send in two", |b| {
        b.iter_batched_ref(
            Outbox::default,
            |outbox| {
                outbox.push_bytes(Chunk::Static(b"HTTP/1.1 200 OK\r\n\r\n"));
                outbox.push_bytes(Chunk::from(shared.clone()));
                black_box(outbox.slices(16_000).bytes());
                outbox.sent(16_000, Moment::FIRST, None, &mut passed, &mut |_| ());
                outbox.sent(outbox.pending(), Moment::FIRST, None, &mut passed, &mut |_| ());
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(cores, charge_own_limit, charge_shared, resume_shared, wheel, outbox);
criterion_main!(cores);
