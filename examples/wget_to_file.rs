//! Fetches a page into a file: a series of two tasks, the second of which is added when the first is done.
//!
//! ```text
//! cargo run --example wget_to_file -- http://127.0.0.1:8080/film.bin film.bin
//! ```

mod help;

use std::env;

use tidegate::http;
use tidegate::runtime::Runtime;
use tidegate::task::{Error, Series, write};

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("wget_to_file.rs")) {
        return Ok(());
    }
    let (url, file) = match (env::args().nth(1), env::args().nth(2)) {
        (Some(url), Some(file)) => (url, file),
        _ => return Err("usage: wget_to_file URL FILE".into()),
    };
    let runtime = Runtime::new()?;

    let series = Series::new(0)
        .then(http::get(url), move |page, series| {
            let page = page?;
            if !page.status.is_success() {
                // The task that would write is never made.
                return Err(format!("the server says {}", page.status).into());
            }
            series.push(write(file.as_str(), page.into_bytes()), move |written, series| {
                series.context = written?.len();
                println!("{file}: {} bytes", series.context);
                Ok(())
            });
            Ok(())
        })
        .finally(|outcome, bytes| match outcome {
            Ok(()) => println!("done: {bytes} bytes"),
            Err(error) => println!("not written: {error}"),
        });
    runtime.run(series)?.into_result()?;
    Ok(())
}
