//! A client of a protocol of one's own: asks the server of the other example about each word, one after another on one
//! connection.
//!
//! ```sh
//! cargo run --example protocol_client -- 127.0.0.1:7007 hello world
//! ```

mod frames;
mod help;

use std::error::Error;
use std::time::Duration;

use frames::Frames;
use tidegate::net::protocol::{Client, ClientSettings};
use tidegate::runtime::Runtime;
use tidegate::task::Series;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    if help::is_asked(include_str!("protocol_client.rs")) {
        return Ok(());
    }
    let mut arguments = std::env::args().skip(1);
    let target = arguments.next().ok_or("usage: protocol_client HOST:PORT WORD...")?;
    let (host, port) = target.rsplit_once(':').ok_or("the server is HOST:PORT")?;
    let port: u16 = port.parse()?;

    let runtime = Runtime::new()?;
    let settings =
        ClientSettings { total_timeout: Some(Duration::from_secs(10)), ..ClientSettings::default() };
    let client = Client::new(&runtime.handle(), Frames, settings);
    // The context gathers the replies.
    let mut series = Series::new(Vec::new());
    for word in arguments {
        series = series.then(client.request((host, port), word), |reply, series| {
            series.context.push(reply?);
            Ok(())
        });
    }
    for reply in runtime.run(series)?.into_result()? {
        println!("{reply}");
    }
    Ok(())
}
