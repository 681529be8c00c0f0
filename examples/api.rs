//! A small API: notes as JSON, pictures that are uploaded, and downloads under a budget.
//!
//! ```text
//! cargo run --example api -- --listen 127.0.0.1:8080 --folder pictures --download-rate 500000
//! curl http://127.0.0.1:8080/notes -H 'Content-Type: application/json' -d '{"text": "every byte passes a gate"}'
//! curl http://127.0.0.1:8080/notes/1
//! curl -F picture=@cat.jpg http://127.0.0.1:8080/pictures
//! curl http://127.0.0.1:8080/pictures/1.bin -o copy.jpg
//! curl -N http://127.0.0.1:8080/ticks/5
//! ```
//!
//! `--folder` is where pictures go; `--download-rate` is in bytes a second for all who download them together. Also
//! `--pollers` and rates, as the example `hello` has them.

mod help;
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::Options;
use tidegate::http::router::{Compression, HttpError, Json, Router, Routes, Uploads};
use tidegate::http::{Exchange, Reply, StatusCode, body_stream};
use tidegate::poller::Budget;
use tidegate::poller::file::Root;
use tidegate::runtime::RuntimeHandle;
use tidegate::task::{Dropped, Error, future, sleep};

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Note {
    text: String,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Filter {
    tag: Option<String>,
}

type Notes = Arc<Mutex<BTreeMap<u64, Note>>>;

fn notes(routes: &mut Routes<'_>, notes: &Notes) {
    let (all, one, add) = (notes.clone(), notes.clone(), notes.clone());
    let lock = |notes: &Notes| notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    routes.get("", move |exchange| {
        let Filter { tag } = exchange.context.query()?;
        let mut notes = lock(&all);
        notes.retain(|_, note| tag.as_ref().is_none_or(|tag| note.tags.contains(tag)));
        Ok::<_, HttpError>(Json(notes))
    });
    routes.get("/{id}", move |exchange| {
        let id: u64 = exchange.context.path("id")?;
        let note = lock(&one).remove(&id).ok_or(StatusCode::NOT_FOUND)?;
        Ok::<_, HttpError>(Json(note))
    });
    routes.post("", move |exchange| {
        let note: Note = exchange.context.json()?;
        let mut notes = add.lock().unwrap_or_else(PoisonError::into_inner);
        let id = notes.len() as u64 + 1;
        notes.insert(id, note);
        Ok::<_, HttpError>((StatusCode::CREATED, Json(id)))
    });
}

fn pictures(routes: &mut Routes<'_>, folder: PathBuf, downloads: &Budget) -> Result<(), Error> {
    let root = Root::open(&folder)?;
    let count = Arc::new(AtomicU64::new(0));
    let uploads = Uploads::to_folder(&folder).max_file_bytes(100_000_000);
    // Streamed to disk: the client is read from as fast as the disk takes it.
    let receive = move |exchange: &mut Exchange| {
        let form = uploads.receive(&mut exchange.context)?;
        let (folder, count) = (folder.clone(), count.clone());
        exchange.push(form, move |form, exchange| {
            for file in form?.files {
                let name = format!("{}.bin", count.fetch_add(1, Ordering::Relaxed) + 1);
                let said = format!("{name}: {} bytes\n", file.bytes());
                exchange.push(file.keep_as(folder.join(name)), move |kept, exchange| {
                    kept??;
                    exchange.context.reply = Reply::text(said);
                    Ok(())
                });
            }
            Ok(())
        });
        Ok::<_, HttpError>(())
    };
    routes.post("/pictures", receive).stream(200_000_000);
    // All who download share the budget.
    routes.files("/pictures", root).budget(downloads);
    Ok(())
}

/// A line a second, each sent when it is there.
fn ticks(exchange: &mut Exchange) -> Result<Reply, HttpError> {
    let count: u32 = exchange.context.path("count")?;
    let runtime = RuntimeHandle::of_poller().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let (writer, body) = body_stream(1_000);
    let here = runtime.clone();
    let produce = future(async move {
        for tick in 1..=count {
            // Waits for room. Where the client has left there is nobody to write for.
            if here.spawn(writer.send(format!("tick {tick}\n").into_bytes())).await?.is_err() {
                return Ok(());
            }
            here.spawn(sleep(Duration::from_secs(1))).await?;
        }
        writer.finish();
        Ok::<_, Dropped>(())
    });
    runtime.spawn(produce).detach();
    Ok(Reply::text(body))
}

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("api.rs")) {
        return Ok(());
    }
    let options = Options::read(&["--folder", "--download-rate"])?;
    let folder: PathBuf = options.value("--folder")?.ok_or("--folder says where pictures go")?;
    let downloads = Budget::builder("downloads").rate(options.value("--download-rate")?).build();
    let mut opened = Ok(());
    let router = Router::build(|routes| {
        routes.get("/", |_| "hello\n");
        routes.group("/notes", |routes| {
            notes(routes, &Notes::default());
            routes.errors(|_, error| {
                let page = Json(BTreeMap::from([("error", error.advice())]));
                page.into_reply()
            });
            routes.compress(Compression::new());
        });
        opened = pictures(routes, folder, &downloads);
        routes.get("/ticks/{count}", ticks).timeout(Duration::from_secs(10));
        routes.after(|context| context.reply.headers.add("X-Content-Type-Options", "nosniff"));
    })?;
    opened?;
    options.serve(router)
}
