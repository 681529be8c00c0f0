//! What the HTTP examples share: their command line, and how they start.

use std::collections::HashMap;
use std::env;
use std::fmt::Display;
use std::io::Write as _;
use std::net::SocketAddr;
use std::str::FromStr;

use tidegate::http::{Handler, Server, ServerSettings};
use tidegate::net::{Listeners, Pacing};
use tidegate::poller::sys;
use tidegate::task::Error;

/// What is always understood.
const COMMON: [&str; 5] = ["--listen", "--pollers", "--rate", "--client-rate", "--total-rate"];

/// The options of the command line: each a name and a value.
pub(crate) struct Options(HashMap<String, String>);

impl Options {
    /// Reads the command line. `further` are the options of this example.
    pub(crate) fn read(further: &[&str]) -> Result<Options, Error> {
        let mut options = HashMap::new();
        let mut words = env::args().skip(1);
        while let Some(name) = words.next() {
            if !COMMON.iter().chain(further).any(|known| *known == name) {
                let known = [&COMMON[..], further].concat().join(" VALUE, ");
                return Err(format!("{name} is not known; there are: {known} VALUE").into());
            }
            let value = words.next().ok_or_else(|| format!("{name} has no value"))?;
            options.insert(name, value);
        }
        Ok(Options(options))
    }

    /// The value of an option, if it is given.
    pub(crate) fn value<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Error> {
        let parsed = self.0.get(name).map(|text| text.parse().map_err(|why| format!("{name} {text}: {why}")));
        Ok(parsed.transpose()?)
    }

    /// Serves until the process is ended from outside. Rates are in bytes per second.
    pub(crate) fn serve(&self, handler: impl Handler + Clone + Send + 'static) -> Result<(), Error> {
        let address = self.value("--listen")?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let pacing = Pacing::builder()
            .connection(self.value("--rate")?)
            .client(self.value("--client-rate")?)
            .total(self.value("--total-rate")?);
        let listeners = Listeners::bind(address, self.value("--pollers")?.unwrap_or(1))?;
        // A descriptor for each connection, and an eighth for the rest.
        let descriptors = usize::try_from(sys::raise_descriptor_limit()?)?;
        let max_connections = descriptors - descriptors / 8;
        let settings =
            ServerSettings { max_connections, pacing: pacing.build(), ..ServerSettings::default() };
        let server = Server::builder(handler).settings(settings).start(listeners)?;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "listening on http://{}", server.address())?;
        stdout.flush()?;
        Ok(server.join()?)
    }
}
