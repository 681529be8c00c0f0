//! Fetches pages side by side, and says of each how it went.
//!
//! ```text
//! cargo run --example wget -- http://127.0.0.1:8080/ http://127.0.0.1:8080/hello.txt
//! ```

mod help;

use std::env;
use std::time::{Duration, Instant};

use tidegate::http::{Client, ClientSettings, Response};
use tidegate::runtime::Runtime;
use tidegate::task::{Ended, Error, Parallel, Series};

/// What belongs to one fetch.
struct Fetch {
    url: String,
    page: Option<Response>,
    took: Duration,
}

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("wget.rs")) {
        return Ok(());
    }
    let runtime = Runtime::new()?;
    let settings = ClientSettings {
        max_body: 64 << 20,
        max_retries: 0,
        total_timeout: Some(Duration::from_secs(30)),
        ..ClientSettings::default()
    };
    let client = Client::new(&runtime.handle(), settings);

    let fetches: Parallel<_> = env::args().skip(1).map(|url| fetch(&client, url)).collect();
    // All are heard out, in the order of the arguments. `.stop_on_error()` would cancel the others when one fails.
    let mut failed = 0;
    for ended in runtime.run(fetches)? {
        let Ended { outcome, context: Fetch { url, page, took } } = ended?;
        let millis = took.as_millis();
        match (outcome, page) {
            (Ok(()), Some(page)) => {
                println!("{} {:>9} bytes {millis:>5} ms  {url}", page.status.as_u16(), page.bytes().len())
            }
            (Ok(()), None) => println!("  - {url}: there is no page"),
            (Err(error), _) => {
                failed += 1;
                println!("  - {url}: {error}");
            }
        }
    }
    if failed > 0 { Err(format!("{failed} failed").into()) } else { Ok(()) }
}

fn fetch(client: &Client, url: String) -> Series<Fetch> {
    let started = Instant::now();
    let request = client.get(&url);
    Series::new(Fetch { url, page: None, took: Duration::ZERO }).then(request, move |page, series| {
        series.context.took = started.elapsed();
        // An error ends this series, and no other.
        series.context.page = Some(page?);
        Ok(())
    })
}
