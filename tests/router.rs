//! Routes, what runs around them, and what they are given.
#![cfg(feature = "json")]

mod router_support;
mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use router_support::{Web, both};
use serde::{Deserialize, Serialize};
use support::{Wire, program};
use tidegate::http::router::{BasicUser, Cookie, Cors, HttpError, Json, asynchronous};
use tidegate::http::{Exchange, ExchangeContext, Files, Method, Reply, StatusCode};
use tidegate::poller::file::Root;
use tidegate::task::{Dropped, Error, go, sleep};
use tidegate_meter::scratch::Scratch;

/// Answers with what was noted along the way.
fn note(context: &mut ExchangeContext, what: &str) {
    match context.data.get_mut::<String>() {
        Some(noted) => noted.extend([" ", what]),
        None => drop(context.data.insert(what.to_owned())),
    }
}

fn noted(context: &mut ExchangeContext) -> String {
    context.data.remove::<String>().unwrap_or_default()
}

#[test]
fn each_request_finds_its_handler() {
    let web = Web::of(|routes| {
        routes.get("/", |_| "root");
        routes.post("/", |_| (StatusCode::CREATED, "made"));
        routes.get("/users/{id}", |exchange| exchange.context.path::<String>("id"));
        routes.get("/users/me", |_| "myself");
        routes.get("/rest/{*path}", |exchange| exchange.context.path::<String>("path"));
        routes.route("BREW".parse::<Method>().unwrap(), "/pot", |_| StatusCode::IM_A_TEAPOT);
        routes.any("/any", |exchange| exchange.context.request().method().to_string());
        routes.get("/later", |exchange: &mut Exchange| {
            exchange.push(go(|| 6 * 7), |product, exchange| {
                exchange.context.reply = Reply::text(product.to_string());
                Ok(())
            });
        });
        routes.get("/none", |_| None::<&str>);
        routes.get("/moved", |_| Reply::redirect("/", true));
    });
    for (method, target, status, body) in [
        ("GET", "/", 200, "root"),
        ("GET", "/?a=b", 200, "root"),
        ("GET", "http://x/", 200, "root"),
        ("POST", "/", 201, "made"),
        ("GET", "/users/7", 200, "7"),
        ("GET", "/users/%C3%BC%2f%20x", 200, "ü/ x"),
        ("GET", "/users/me", 200, "myself"),
        ("GET", "/rest/a/b/../c", 200, "a/b/../c"),
        ("BREW", "/pot", 418, "418 I'm a teapot\n\n"),
        ("GET", "/any", 200, "GET"),
        ("LOCK", "/any", 200, "LOCK"),
        ("GET", "/later", 200, "42"),
        ("GET", "/none", 404, "404 Not Found\nThere is nothing of this name here.\n"),
    ] {
        assert_eq!(both(&web.ask(method, target, "", "")), (status, body.to_owned()), "{method} {target}");
    }
    assert_eq!(web.get("/moved").field("location"), "/");
    let head = web.ask("HEAD", "/users/me", "", "");
    assert_eq!((head.head.status, head.field("content-length")), (200, "6"));
    for target in ["/users/", "/rest/", "/nothing", "/users/7/8", "/USERS/7"] {
        assert_eq!(web.get(target).head.status, 404, "{target}");
    }
    assert_eq!(web.get("/users/%zz").head.status, 400);
    assert_eq!(web.get("/users/%ff").head.status, 400);
    let refused = web.ask("DELETE", "/", "", "");
    assert_eq!((refused.head.status, refused.field("allow")), (405, "GET, HEAD, OPTIONS, POST"));
    let options = web.ask("OPTIONS", "/users/7", "", "");
    assert_eq!((options.head.status, options.field("allow")), (204, "GET, HEAD, OPTIONS"));
}

#[test]
fn what_runs_around_handlers_runs_in_order_for_errors_too() {
    let web = Web::of(|routes| {
        routes.after(|context| {
            note(context, "after-outer");
            let all = noted(context);
            context.reply.headers.add("X-Way", all);
        });
        routes.before(|exchange| note(&mut exchange.context, "outer"));
        routes.get("/", |_| "root");
        routes.group("/api", |api| {
            api.get("/x", |exchange| {
                note(&mut exchange.context, "handler");
                "x"
            });
            api.get("/fails", |_| Err::<(), _>(HttpError::new(StatusCode::CONFLICT)));
            api.get("/fails-later", |exchange: &mut Exchange| {
                exchange.push(go(|| ()), |(), _| Err(HttpError::new(StatusCode::GONE).into()));
            });
            api.get("/breaks", |exchange: &mut Exchange| {
                exchange.push(go(|| panic!("as planned")), |(), _| Ok(()));
            });
            api.before(|exchange| {
                note(&mut exchange.context, "first");
                // A task, that adds another: all of it comes before what is next.
                exchange.push(go(|| "second"), |second, exchange: &mut Exchange| {
                    note(&mut exchange.context, second);
                    exchange.push(sleep(Duration::from_millis(1)), |(), exchange| {
                        note(&mut exchange.context, "third");
                        Ok(())
                    });
                    Ok(())
                });
            });
            api.before(|exchange| note(&mut exchange.context, "fourth"));
            api.after(|context| note(context, "after-1"));
            api.after(|context| note(context, "after-2"));
        });
        routes.group("/closed", |closed| {
            closed.before(|exchange: &mut Exchange| {
                let knows = exchange.context.request().header("x-key") == Some(b"key");
                if knows { Ok(None) } else { Err(HttpError::new(StatusCode::UNAUTHORIZED)) }
            });
            closed.before(|_| Some(Reply::text("at once")));
            closed.get("/x", |_| "never");
        });
        routes.group("/closed-later", |closed| {
            closed.before(|exchange| {
                exchange.push(go(|| ()), |(), exchange: &mut Exchange| {
                    exchange.context.refuse(HttpError::new(StatusCode::PAYMENT_REQUIRED));
                    Ok(())
                });
            });
            closed.get("/x", |_| "never");
        });
    });
    let way = "outer first second third fourth";
    let after = "after-1 after-2 after-outer";
    for (target, status, expected) in [
        ("/", 200, "outer after-outer".to_owned()),
        ("/missing", 404, "outer after-outer".to_owned()),
        ("/api/x", 200, format!("{way} handler {after}")),
        ("/api/fails", 409, format!("{way} {after}")),
        ("/api/fails-later", 410, format!("{way} {after}")),
        ("/api/breaks", 500, format!("{way} {after}")),
        ("/api/missing", 404, format!("{way} {after}")),
        ("/apis", 404, "outer after-outer".to_owned()),
        ("/closed/x", 401, "outer after-outer".to_owned()),
        ("/closed-later/x", 402, "outer after-outer".to_owned()),
    ] {
        let reply = web.get(target);
        assert_eq!((reply.head.status, reply.field("x-way")), (status, expected.as_str()), "{target}");
    }
    assert_eq!(web.ask("PUT", "/api/x", "", "").field("x-way"), format!("{way} {after}"));
    assert_eq!(both(&web.ask("GET", "/closed/x", "X-Key: key\r\n", "")), (200, "at once".into()));
}

#[test]
fn a_group_has_pages_of_its_own_for_errors() {
    let web = Web::of(|routes| {
        routes.get("/a", |_| StatusCode::NOT_FOUND);
        routes.group("/api", |api| {
            api.errors(|context, error| {
                let method = context.request().method();
                let said = format!("{{\"method\":\"{method}\",\"error\":\"{}\"}}", error.advice());
                Reply::new(error.status()).header("Content-Type", "application/json").body(said)
            });
            api.get("/a", |_| Err::<(), _>(HttpError::bad_request("no").header("X-Why", "because")));
            api.group("/deep", |deep| {
                deep.get("/b", |_| Err::<(), _>(Error::from("a secret")));
            });
        });
    });
    assert_eq!(web.get("/a").body_text(), "404 Not Found\nThere is nothing of this name here.\n");
    let reply = web.get("/api/a");
    assert_eq!(both(&reply), (400, r#"{"method":"GET","error":"no"}"#.into()));
    assert_eq!((reply.field("x-why"), reply.field("content-type")), ("because", "application/json"));
    let (status, text) = both(&web.get("/api/deep/b"));
    assert!(status == 500 && text.contains("\"error\"") && !text.contains("secret"), "{text}");
    let refused = web.ask("PUT", "/api/a", "", "");
    assert_eq!((refused.head.status, refused.field("allow")), (405, "GET, HEAD, OPTIONS"));
}

#[derive(Debug, Deserialize, Serialize)]
struct Search {
    words: String,
    page: Option<u32>,
    #[serde(default)]
    tag: Vec<String>,
}

#[test]
fn what_a_request_says_comes_as_values_or_as_an_error_that_names_it() {
    #[derive(Deserialize)]
    struct Place {
        x: u8,
        y: i64,
    }
    let web = Web::of(|routes| {
        routes.get("/path/{x}/{y}", |exchange| {
            let one: u8 = exchange.context.path("x")?;
            let Place { x, y } = exchange.context.path_as()?;
            Ok::<_, HttpError>(format!("{one} {x} {y}"))
        });
        routes.get("/query", |exchange| {
            let Search { words, page, tag } = exchange.context.query()?;
            Ok::<_, HttpError>(format!("{words} {page:?} {tag:?}"))
        });
        routes.post("/form", |exchange| exchange.context.form::<Search>().map(Json));
        routes.post("/json", |exchange| exchange.context.json::<Search>().map(Json)).whole(200);
        routes.get("/header", |exchange| {
            exchange.context.header::<u16>("x-count").map(|count| format!("{count:?}"))
        });
        routes.get("/cookie", |exchange| {
            let count: u32 = exchange.context.cookies().get("n").and_then(|n| n.parse().ok()).unwrap_or(0);
            let cookie = Cookie::build(("n", (count + 1).to_string())).path("/").http_only(true);
            Reply::text(count.to_string()).cookie(cookie)
        });
    });
    for (target, status, body) in [
        ("/path/1/-2", 200, "1 1 -2"),
        ("/path/256/1", 400, "x in the path: number too large to fit in target type"),
        ("/path/1/q", 400, "the path: y: invalid digit found in string"),
        ("/query?words=a+b%20%C3%BC&tag=1&tag=2", 200, "a b ü None [\"1\", \"2\"]"),
        ("/query?words=&page=3", 200, " Some(3) []"),
        ("/query", 400, "the query: missing field `words`"),
        ("/query?words=a&page=x", 400, "the query: page: invalid digit found in string"),
        ("/header", 200, "None"),
    ] {
        let (found, text) = both(&web.get(target));
        assert!(found == status && text.trim_end().ends_with(body), "{target}: {found} {text:?}");
    }
    let header = |value: &str| both(&web.ask("GET", "/header", &format!("X-Count: {value}\r\n"), ""));
    assert_eq!(header("7"), (200, "Some(7)".into()));
    assert!(header("-7").1.contains("the field x-count: invalid digit"));
    let (form, json) = ("application/x-www-form-urlencoded", "application/json; charset=utf-8");
    for (target, media, body, status, expected) in [
        ("/form", form, "words=a%26b&page=2", 200, r#"{"words":"a&b","page":2,"tag":[]}"#),
        ("/form", form, "page=2", 422, "the form: missing field `words`"),
        (
            "/form",
            "text/plain",
            "words=a",
            415,
            "The Content-Type is text/plain; application/x-www-form-urlencoded is taken here.",
        ),
        ("/json", json, r#"{"words":"a","tag":["b"]}"#, 200, r#"{"words":"a","page":null,"tag":["b"]}"#),
        ("/json", "application/vnd.x+json", r#"{"words":"a"}"#, 200, r#"{"words":"a","page":null,"tag":[]}"#),
        (
            "/json",
            json,
            r#"{"words":"a","tag":["b",3]}"#,
            422,
            "the JSON: tag[1]: invalid type: integer `3`, expected a string at line 1 column 25",
        ),
        ("/json", json, r#"{"words":"#, 400, "the JSON: words: EOF while parsing a value at line 1 column 9"),
        ("/json", json, r#"{"words":"a"} more"#, 400, "the JSON: trailing characters at line 1 column 15"),
        ("/json", "text/json", "{}", 415, "The Content-Type is text/json; application/json is taken here."),
    ] {
        let fields = format!("Content-Type: {media}\r\n");
        let (found, text) = both(&web.ask("POST", target, &fields, body));
        assert!(found == status && text.trim_end().ends_with(expected), "{target} {body}: {found} {text:?}");
    }
    assert_eq!(web.ask("POST", "/json", "", &"x".repeat(201)).head.status, 413);
    // curl keeps cookies as browsers do.
    let scratch = Scratch::new("cookies").unwrap();
    let jar = scratch.path().join("jar");
    let jar = jar.to_str().unwrap();
    for count in 0..3 {
        assert_eq!(web.curl(&["-b", jar, "-c", jar], "/cookie"), count.to_string().as_bytes());
    }
}

#[test]
fn async_handlers_answer_as_others_do() {
    let web = Web::of(|routes| {
        routes.get(
            "/add/{a}/{b}",
            asynchronous(|context, runtime| async move {
                let (a, b): (u32, u32) = (context.path("a")?, context.path("b")?);
                runtime.spawn(sleep(Duration::from_millis(1))).await?;
                Ok::<_, HttpError>(format!("{}", runtime.spawn(go(move || a + b)).await?))
            }),
        );
        routes.get("/fails", asynchronous(|_, _| async { Err::<(), _>(Dropped) }));
        routes.get(
            "/panics",
            asynchronous(|_, _| async { std::hint::black_box(None::<()>).expect("as planned") }),
        );
    });
    assert_eq!(both(&web.get("/add/40/2")), (200, "42".into()));
    assert_eq!(web.get("/add/40/x").head.status, 400);
    assert_eq!(web.get("/fails").head.status, 500);
    assert_eq!(web.get("/panics").head.status, 500);
}

#[test]
fn a_handler_that_takes_too_long_is_answered_for() {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let seen = ended.clone();
    let web = Web::of(move |routes| {
        routes.after(|context| context.reply.headers.add("X-After", "ran"));
        routes
            .get("/{ms}", move |exchange: &mut Exchange| {
                let time = Duration::from_millis(exchange.context.path("ms")?);
                let ended = ended.clone();
                exchange.set_finally(move |outcome, _| ended.lock().unwrap().push(outcome.is_ok()));
                exchange.push(sleep(time), |(), exchange| {
                    exchange.context.reply = Reply::text("slept");
                    Ok(())
                });
                Ok::<_, HttpError>(())
            })
            .timeout(Duration::from_millis(300));
    });
    assert_eq!(both(&web.get("/1")), (200, "slept".into()));
    let began = Instant::now();
    let late = web.get("/3600000");
    assert_eq!((late.head.status, late.field("x-after")), (503, "ran"));
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(*seen.lock().unwrap(), [true, false]);
}

#[test]
fn files_are_served_below_a_path() {
    let site = Scratch::new("router-files").unwrap();
    std::fs::create_dir_all(site.path().join("sub/deep")).unwrap();
    std::fs::write(site.path().join("sub/a.txt"), "text").unwrap();
    std::fs::write(site.path().join("index.html"), "<p>index").unwrap();
    let root = || Root::open(site.path()).unwrap();
    let web = Web::of(|routes| {
        routes.get("/static/special", |_| "special");
        routes.files("/static/", root());
        routes.group("/v1", |v1| {
            v1.files("/files", root());
        });
        routes.after(|context| context.reply.headers.add("X-After", "ran"));
    });
    for prefix in ["/static", "/v1/files"] {
        for (path, status, body) in [
            ("/sub/a.txt", 200, "text"),
            ("/", 200, "<p>index"),
            ("/sub/../sub/a.txt", 404, ""),
            ("/sub/%61.txt", 200, "text"),
            ("/../sub/a.txt", 404, ""),
            ("/%2e%2e/secret", 404, ""),
            ("/sub/b.txt", 404, ""),
            ("/.hidden", 404, ""),
        ] {
            let reply = web.get(&format!("{prefix}{path}"));
            let right = reply.head.status == status && (status != 200 || reply.body_text() == body);
            assert!(right, "{prefix}{path}: {reply:?}");
            assert_eq!(reply.field("x-after"), "ran");
        }
        assert_eq!(web.get(prefix).field("location"), format!("{prefix}/"));
        assert_eq!(web.get(&format!("{prefix}/sub?q")).field("location"), format!("{prefix}/sub/?q"));
        let page = web.get(&format!("{prefix}/sub/")).body_text();
        assert!(page.contains("href=\"./a.txt\"") && page.contains("href=\"../\">/</a>"), "{page}");
        assert_eq!(web.ask("PUT", &format!("{prefix}/x"), "", "").head.status, 405);
        let part = web.ask("GET", &format!("{prefix}/sub/a.txt"), "Range: bytes=1-2\r\n", "");
        assert_eq!(both(&part), (206, "ex".into()));
    }
    assert_eq!(web.get("/static/special").body_text(), "special");
}

#[test]
fn no_way_of_writing_a_path_goes_around_what_guards_it() {
    let site = Scratch::new("router-guarded").unwrap();
    std::fs::create_dir(site.path().join("closed")).unwrap();
    std::fs::write(site.path().join("closed/secret"), "secret").unwrap();
    let root = || Root::open(site.path()).unwrap();
    let web = Web::of(|routes| {
        routes.files("/", root());
        routes.group("/closed", |closed| {
            closed.basic_auth("closed", |_, _| false);
            closed.get("/{*rest}", |_| "never");
        });
    });
    assert_eq!(web.get("/closed/secret").head.status, 401);
    for target in [
        "/open/../closed/secret",
        "/./closed/secret",
        "//closed/secret",
        "/closed%2Fsecret",
        "/%2e/closed/secret",
        "/open%2f..%2fclosed/secret",
        "/%63losed/secret",
    ] {
        let reply = web.get(target);
        assert!([401, 404].contains(&reply.head.status), "{target}: {reply:?}");
    }
}

#[test]
fn files_from_memory_are_those_on_disk() {
    let site = Scratch::new("router-cache").unwrap();
    let path = site.path().join("a.txt");
    std::fs::write(&path, "first text").unwrap();
    std::fs::write(site.path().join("large.bin"), vec![7; 200_000]).unwrap();
    let files = Files::new(Root::open(site.path()).unwrap()).cached(1_000_000);
    let web = Web::of(|routes| {
        routes.files("/", files);
        routes.errors(|_, error| Reply::text(format!("own page: {}", error.status())));
    });
    let first = web.get("/a.txt");
    assert_eq!(both(&first), (200, "first text".into()));
    let tag = first.field("etag").to_owned();
    // What the disk has now is not looked at before a second is over; what is in memory has the same validators.
    std::fs::write(&path, "another, and longer").unwrap();
    let again = web.get("/a.txt");
    assert_eq!((again.body_text(), again.field("etag")), ("first text".into(), tag.as_str()));
    let part = web.ask("GET", "/a.txt", &format!("Range: bytes=-4\r\nIf-Range: {tag}\r\n"), "");
    assert_eq!((both(&part), part.field("content-range")), ((206, "text".into()), "bytes 6-9/10"));
    assert_eq!(web.ask("GET", "/a.txt", &format!("If-None-Match: {tag}\r\n"), "").head.status, 304);
    assert_eq!(web.ask("HEAD", "/a.txt", "", "").field("content-length"), "10");
    support::await_that("the new text", || {
        (web.get("/a.txt").body_text() == "another, and longer").then_some(())
    });
    std::fs::remove_file(&path).unwrap();
    support::await_that("it is gone", || (web.get("/a.txt").head.status == 404).then_some(()));
    assert_eq!(web.get("/large.bin").body.len(), 200_000);
    assert_eq!(both(&web.get("/none")), (404, "own page: 404 Not Found".into()));
    assert_eq!(web.ask("PUT", "/large.bin", "", "x").field("allow"), "GET, HEAD, OPTIONS");
}

#[test]
fn other_sites_pages_may_what_they_are_told() {
    let web = Web::of(|routes| {
        routes.group("/open", |open| {
            open.cors(Cors::any_origin().credentials());
            open.get("/x", |_| "x");
        });
        routes.group("/named", |named| {
            named.cors(
                Cors::origins(["https://a.example"])
                    .credentials()
                    .expose(&["X-Count"])
                    .methods(&[Method::PUT]),
            );
            named.put("/x", |_| "x");
            named.get("/fails", |_| StatusCode::CONFLICT);
        });
    });
    let asks = "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-a, x-b\r\n";
    let (right, wrong) = ("Origin: https://a.example\r\n", "Origin: https://b.example\r\n");
    let open = web.ask("GET", "/open/x", wrong, "");
    assert_eq!((open.field("access-control-allow-origin"), open.field("vary")), ("*", ""));
    assert_eq!(open.field("access-control-allow-credentials"), "", "never for anybody");
    assert_eq!(web.get("/open/x").field("access-control-allow-origin"), "");
    let beforehand = web.ask("OPTIONS", "/named/x", &format!("{right}{asks}"), "");
    assert_eq!(beforehand.head.status, 204);
    for (field, value) in [
        ("access-control-allow-origin", "https://a.example"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "x-a, x-b"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
        ("vary", "Origin"),
    ] {
        assert_eq!(beforehand.field(field), value, "{field}");
    }
    let refused = web.ask("OPTIONS", "/named/x", &format!("{wrong}{asks}"), "");
    assert!(
        !refused.text.to_lowercase().contains("access-control") && refused.field("allow").contains("PUT")
    );
    let failed = web.ask("GET", "/named/fails", right, "");
    assert_eq!((failed.head.status, failed.field("access-control-expose-headers")), (409, "X-Count"));
}

#[test]
fn a_group_is_for_those_who_know_the_password() {
    let web = Web::of(|routes| {
        routes.group("/in", |inside| {
            inside.basic_auth("the \"house\"", |name, password| (name, password) == ("ann", "se:cret ü"));
            inside.get("/x", |exchange| exchange.context.data.get::<BasicUser>().map(|user| user.0.clone()));
        });
    });
    assert_eq!(web.curl(&["-u", "ann:se:cret ü"], "/in/x"), b"ann");
    for wrong in [
        &[][..],
        &["-u", "ann:"],
        &["-u", "bob:se:cret ü"],
        &["-H", "Authorization: Basic a"],
        &["-H", "Authorization: Bearer YW5uOg=="],
    ] {
        let arguments = [wrong, &["-w", "%{http_code} %header{www-authenticate}"]].concat();
        let said = String::from_utf8(web.curl(&arguments, "/in/x")).unwrap();
        assert!(said.ends_with("401 Basic realm=\"the  house \", charset=\"UTF-8\""), "{wrong:?}: {said}");
    }
    assert_eq!(web.get("/in/none").head.status, 401, "nobody else learns what is here");
}

#[test]
fn python_talks_to_it_on_one_connection() {
    let web = Web::of(|routes| {
        routes.post("/sum", |exchange| {
            let numbers: BTreeMap<String, u64> = exchange.context.json()?;
            Ok::<_, HttpError>(Json(numbers.values().sum::<u64>()))
        });
    });
    let script = "
import http.client, json, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=20)
for n in range(50):
    body = json.dumps({'a': n, 'b': 2 * n})
    connection.request('POST', '/sum', body, {'Content-Type': 'application/json'})
    reply = connection.getresponse()
    assert reply.status == 200 and json.load(reply) == 3 * n, reply.status
    connection.request('PUT', '/sum', b'x' * 1000)
    reply = connection.getresponse()
    assert reply.status == 405, reply.status
    reply.read()
";
    let output = program("python3").args(["-c", script, &web.address.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn garbage_is_answered_and_the_next_client_too() {
    let web = Web::of(|routes| {
        routes.get("/{a}/x{b}", |exchange| exchange.context.path::<String>("b"));
        routes.post("/json", |exchange| exchange.context.json::<BTreeMap<String, u8>>().map(Json));
    });
    let seed = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("TIDEGATE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..300 {
        let target: String = (0..random.usize(0..30))
            .map(|_| *random.choice(&['/', '%', 'x', '2', 'f', 'é', '{', '*', '?', '='][..]).unwrap())
            .collect();
        let body: String = (0..random.usize(0..20))
            .map(|_| *random.choice(&['{', '}', '"', '1', ':', ',', '\u{0}'][..]).unwrap())
            .collect();
        let (method, target) =
            if random.bool() { ("GET", format!("/{target}")) } else { ("POST", "/json".into()) };
        let mut wire = Wire::connect(web.address);
        wire.send(format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        let status = wire.reply().head.status;
        assert!([200, 400, 404, 405, 422].contains(&status), "{status} {target:?} {body:?}");
    }
    assert_eq!(both(&web.get("/a/xb")), (200, "b".into()));
}
