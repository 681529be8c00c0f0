//! Fetches pages side by side, and says of each how it went.
//!
//! ```text
//! cargo run --example wget -- http://127.0.0.1:8080/ http://127.0.0.1:8080/hello.txt
//! ```

mod http_get;

use std::env;
use std::time::{Duration, Instant};

use http_get::{Http, Page, Url};
use tidegate::net::protocol::{Client, ClientSettings};
use tidegate::runtime::Runtime;
use tidegate::task::{Ended, Error, Parallel, Series};

/// What belongs to one fetch.
struct Fetch {
    url: String,
    page: Option<Page>,
    took: Duration,
}

/// No page is larger.
const PAGE_MAX: usize = 64 << 20;

fn main() -> Result<(), Error> {
    let runtime = Runtime::new()?;
    let settings = ClientSettings {
        max_reply: PAGE_MAX,
        total_timeout: Some(Duration::from_secs(30)),
        ..ClientSettings::default()
    };
    let client = Client::new(&runtime.handle(), Http, settings);

    let mut fetches = Parallel::new();
    for url in env::args().skip(1) {
        fetches.push(fetch(&client, url)?);
    }
    // All are heard out, in the order of the arguments. `.stop_on_error()` would cancel the others when one fails.
    let mut failed = 0;
    for ended in runtime.run(fetches)? {
        let Ended { outcome, context: Fetch { url, page, took } } = ended?;
        let millis = took.as_millis();
        match (outcome, page) {
            (Ok(()), Some(page)) => {
                println!("{} {:>9} bytes {millis:>5} ms  {url}", page.status, page.body.len())
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

fn fetch(client: &Client<Http>, url: String) -> Result<Series<Fetch>, Error> {
    let parsed: Url = url.parse()?;
    let started = Instant::now();
    let request = client.request((parsed.host.as_str(), parsed.port), parsed.clone());
    Ok(Series::new(Fetch { url, page: None, took: Duration::ZERO }).then(request, move |page, series| {
        series.context.took = started.elapsed();
        // An error ends this series, and no other.
        series.context.page = Some(page?);
        Ok(())
    }))
}
