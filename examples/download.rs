//! Fetches a page of any size into a file, a piece at a time and as fast as allowed: what is not written yet holds the server
//! back.
//!
//! ```text
//! cargo run --example download -- http://127.0.0.1:8080/film.bin film.bin 1000000
//! ```
//!
//! The page, the file, and how many bytes a second it may take.

mod help;

use std::env;
use std::fs::File;
use std::sync::Arc;

use tidegate::http::{BodyReader, Client, ClientSettings, ResponseBody};
use tidegate::poller::Limit;
use tidegate::runtime::Runtime;
use tidegate::task::{Error, Series, write_at};

/// What belongs to a download.
struct Download {
    file: Arc<File>,
    written: u64,
    body: Option<BodyReader>,
}

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("download.rs")) {
        return Ok(());
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, file, rate] = &arguments[..] else {
        return Err("usage: download URL FILE BYTES_PER_SECOND".into());
    };
    let runtime = Runtime::new()?;
    let client = Client::new(&runtime.handle(), ClientSettings::default());
    let limit = Limit::new("download", Some(rate.parse()?));

    let download = Download { file: Arc::new(File::create(file)?), written: 0, body: None };
    let series = Series::new(download).then(client.get(url).stream().limit(&limit), |response, series| {
        // The head is here, and the body on its way.
        let response = response?;
        if !response.status.is_success() {
            return Err(format!("the server says {}", response.status).into());
        }
        if let ResponseBody::Stream(body) = response.body {
            series.context.body = Some(body);
        }
        next(series)
    });
    let download = runtime.run(series)?.into_result()?;
    println!("{} bytes", download.written);
    Ok(())
}

/// Writes the next piece, and has the one after it written then.
fn next(series: &mut Series<Download>) -> Result<(), Error> {
    let Some(body) = &series.context.body else { return Ok(()) };
    series.push(body.next(), |piece, series| {
        let Some(piece) = piece? else { return Ok(()) };
        let Download { file, written, .. } = &mut series.context;
        let write = write_at(file.clone(), piece.as_slice().to_vec(), *written);
        *written += piece.len() as u64;
        series.push(write, |written, series| written.map_err(Error::from).and_then(|_| next(series)));
        Ok(())
    });
    Ok(())
}
