//! Tasks in `async` code, and `async` code as a task.
//!
//! ```text
//! cargo run --example async_both_ways
//! ```

mod help;

use std::time::Duration;

use tidegate::runtime::{Runtime, RuntimeHandle};
use tidegate::task::{Dropped, Error, Series, go, read, sleep};

/// What the series works on.
#[derive(Debug, Default)]
struct Session {
    lines: usize,
    answer: u32,
}

// An executor that is not ours: here tokio's, but any will do.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("async_both_ways.rs")) {
        return Ok(());
    }
    // Its threads are its own; it does not care what else runs in the process.
    let runtime = Runtime::new()?;

    // A task, awaited. It runs whether or not anybody awaits it.
    let answer = runtime.spawn(go(|| 6 * 7)).await?;
    println!("a task, awaited: {answer}");

    // Several side by side, by what the executor has for that.
    let (one, two) =
        tokio::join!(runtime.spawn(sleep(Duration::from_millis(5))), runtime.spawn(go(|| "two")));
    one?;
    println!("side by side: {}", two?);

    // A future as a step of a series. It is lent the context, and gives it back when it is done.
    let handle = runtime.handle();
    let series = Series::new(Session::default())
        .then(read(file!()), |bytes, series| {
            series.context.lines = bytes?.split(|byte| *byte == b'\n').count();
            Ok(())
        })
        .then_async(
            move |mut session| async move {
                session.answer = compute(&handle, 40).await?;
                Ok::<_, Dropped>(session.answer)
            },
            |answer, series| {
                println!("from within: {}; the context: {:?}", answer?, series.context);
                Ok(())
            },
        );

    // And the whole series, awaited.
    let session = runtime.start(series).await?.into_result()?;
    println!("the series, awaited: {} lines, {}", session.lines, session.answer);

    // A runtime waits for its threads when it is dropped, but none of them waits for this one.
    runtime.shutdown(Duration::from_secs(1))?;
    Ok(())
}

async fn compute(runtime: &RuntimeHandle, from: u32) -> Result<u32, Dropped> {
    let mut sum = from;
    for _ in 0..2 {
        sum = runtime.spawn(go(move || sum + 1)).await?;
    }
    Ok(sum)
}
