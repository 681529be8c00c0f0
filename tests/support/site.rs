//! A server on a folder, in this process.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use tidegate::http::{Files, Server, ServerSettings};
use tidegate::poller::PollerSettings;
use tidegate::poller::file::Root;
use tidegate_meter::scratch::Scratch;

use super::{Host, Keeps, Reply};

/// A folder that goes away with the test.
pub(crate) struct Folder(Scratch);

impl Folder {
    fn new() -> Folder {
        let scratch = Scratch::new("site").expect("a scratch folder");
        std::fs::create_dir(scratch.path().join("root")).expect("the folder to serve");
        Folder(scratch)
    }

    /// The folder that is served. What is beside it must not be.
    pub(crate) fn root(&self) -> PathBuf {
        self.outside("root")
    }

    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(&path, content).expect("a file to serve");
        path
    }
}

/// A [`Host`] of the files in a folder.
pub(crate) struct Site {
    // Dropped before what it serves.
    host: Host,
    pub(crate) folder: Folder,
}

impl Site {
    pub(crate) fn new() -> Site {
        Site::with(ServerSettings::default(), 1, 1_000)
    }

    pub(crate) fn with(settings: ServerSettings, pollers: usize, max_connections: usize) -> Site {
        let folder = Folder::new();
        let (records, sinks) = Keeps::new();
        let settings = ServerSettings { max_connections, sinks, ..settings };
        let files = Files::new(Root::open(&folder.root()).unwrap());
        let server = Server::builder(files).compute_threads(1).settings(settings);
        let config = PollerSettings { name: "test".into(), ..PollerSettings::default() };
        let server = server.poller_settings(config).start(Host::listeners(pollers)).unwrap();
        Site { host: Host::started(server, records), folder }
    }

    /// One request on a connection of its own.
    pub(crate) fn get(&self, target: &str) -> Reply {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }
}

impl Deref for Site {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl DerefMut for Site {
    fn deref_mut(&mut self) -> &mut Host {
        &mut self.host
    }
}
