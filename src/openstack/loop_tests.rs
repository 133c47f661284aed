//! The loop of requests against a scripted server: one test for each way in which a service fails.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

#[path = "sharing_tests.rs"]
mod sharing;

/// A server that answers every request by `script(number, head, body)`; an empty answer is a reset.
struct Script {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Script {
    async fn start(script: impl Fn(usize, &str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (script, seen, count) = (Arc::new(script), Arc::clone(&requests), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, seen, count) = (Arc::clone(&script), Arc::clone(&seen), Arc::clone(&count));
                tokio::spawn(async move {
                    let head = read_request(stream, |stream, text| async move {
                        seen.lock().unwrap().push(text.clone());
                        let answer = script(count.fetch_add(1, Ordering::SeqCst), &text);
                        let mut stream = stream;
                        let _ = stream.write_all(answer.as_bytes()).await;
                        let _ = stream.shutdown().await;
                    });
                    head.await;
                });
            }
        });
        Self { url, requests }
    }

    fn count(&self, start: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|request| request.starts_with(start)).count()
    }

    fn cloud(&self) -> Cloud {
        let endpoint = auth::endpoint_root(&self.url, Stage::Source).unwrap();
        let tls = client::Tls::load(&TlsOptions::default(), Stage::Source).unwrap();
        let token = Token::bare("the-token".into());
        Cloud::assemble(
            endpoint,
            Err(no_catalogue()),
            "scripted".into(),
            None,
            tls,
            None,
            token,
            Stage::Source,
            quick(),
        )
    }
}

fn quick() -> Retry {
    let (first, longest) = (Duration::from_millis(10), Duration::from_millis(50));
    Retry { retries: 3, first, longest, ..Retry::default() }
}

/// Reads one request, head and body, and hands it on.
async fn read_request<F: Future<Output = ()>>(
    mut stream: TcpStream,
    then: impl FnOnce(TcpStream, String) -> F,
) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text[..end].lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
            });
            if bytes.len() >= end + 4 + length.map_or(0, |length| length.parse().unwrap()) {
                return then(stream, text).await;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

fn reply(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

const IMAGE: &str = r#"{"id": "a", "status": "active", "name": "n"}"#;

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn what_may_pass_is_tried_again_and_what_stands_is_not() {
    run(async {
        let failures =
            [reply("503 Unavailable", "x"), reply("429 Slow\r\nRetry-After: 0", ""), String::new()];
        let server =
            Script::start(move |n, _| failures.get(n).cloned().unwrap_or_else(|| reply("200 OK", IMAGE)))
                .await;
        assert_eq!(server.cloud().show("a").await.unwrap().id, "a");
        assert_eq!(server.count("GET"), 4);
        let server = Script::start(|_, _| reply("502 Bad Gateway", "<html><h1>502</h1>proxy</html>")).await;
        let error = server.cloud().show("a").await.unwrap_err();
        assert!(error.kind() == Kind::Network && error.to_string().contains("proxy"), "{error}");
        assert_eq!(server.count("GET"), 4);
        for (status, kind) in [
            ("403 No", Kind::Login),
            ("401 No", Kind::Login),
            ("404 No", Kind::Source),
            ("400 No", Kind::Source),
            ("501 No", Kind::Source),
        ] {
            let server = Script::start(move |_, _| reply(status, "")).await;
            assert_eq!(server.cloud().show("a").await.unwrap_err().kind(), kind, "{status}");
            assert_eq!(server.count("GET"), 1, "{status}");
        }
    });
}

#[test]
fn a_redirect_does_not_carry_the_token_away() {
    run(async {
        let thief = Script::start(|_, _| reply("200 OK", IMAGE)).await;
        let away = format!("302 Found\r\nLocation: {}/v2/images/a", thief.url);
        let server = Script::start(move |_, _| reply(&away, "")).await;
        assert_eq!(server.cloud().show("a").await.unwrap_err().kind(), Kind::Network);
        assert_eq!(thief.count(""), 0);
        assert!(server.requests.lock().unwrap()[0].to_ascii_lowercase().contains("x-auth-token: the-token"));
    });
}

#[test]
fn hostile_answers_are_errors_and_never_endless() {
    run(async {
        for body in ["", "{", "[]", "null", "<html>", r#"{"id": "../x", "status": "active"}"#, r#"{"id": 1}"#]
        {
            let server = Script::start(move |_, _| reply("200 OK", body)).await;
            assert_eq!(server.cloud().show("a").await.unwrap_err().kind(), Kind::Network, "{body}");
        }
        let huge = format!("\"{}\"", "x".repeat(answer::MOST_JSON_BYTES + 1));
        let server = Script::start(move |_, _| reply("200 OK", &huge)).await;
        assert!(server.cloud().show("a").await.unwrap_err().to_string().contains("larger"));
        let server = Script::start(|n, _| {
            reply("200 OK", &format!(r#"{{"images": [], "next": "/v2/images?marker={n}"}}"#))
        })
        .await;
        assert!(server.cloud().find_images("x").await.unwrap_err().to_string().contains("does not end"));
        let server =
            Script::start(|_, _| reply("200 OK", r#"{"images": [], "next": "http://evil/?marker=1"}"#)).await;
        assert!(server.cloud().find_images("x").await.unwrap().is_empty());
    });
}

fn part(range: &str, length: &str, body: &str) -> String {
    format!("HTTP/1.1 206 Partial\r\nContent-Range: bytes {range}\r\n{length}Connection: close\r\n\r\n{body}")
}

#[test]
fn a_part_that_is_longer_or_shorter_than_asked_is_noticed() {
    run(async {
        let fetch = |answer: String| async move {
            let server = Script::start(move |_, _| answer.clone()).await;
            let cloud = server.cloud();
            let probe = cloud.probe_range("a", 20).await.unwrap();
            let Download::Part(mut body) = cloud.download("a", Some(10..20)).await.unwrap() else {
                return (probe, None);
            };
            loop {
                match body.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return (probe, Some(Ok(body.received()))),
                    Err(error) => return (probe, Some(Err(error.is_retryable()))),
                }
            }
        };
        assert_eq!(
            fetch(part("10-19/20", "Content-Length: 10\r\n", "0123456789")).await,
            (true, Some(Ok(10)))
        );
        assert_eq!(fetch(part("10-19/20", "", "0123456789")).await, (true, Some(Ok(10))));
        assert_eq!(fetch(part("10-19/20", "", "0123456789x")).await, (false, Some(Err(false))));
        assert_eq!(fetch(part("10-19/20", "", "012345678")).await, (false, Some(Err(true))));
        assert_eq!(
            fetch(part("10-19/20", "Content-Length: 10\r\n", "012345678")).await,
            (false, Some(Err(true)))
        );
        assert_eq!(
            fetch(part("0-19/20", "Content-Length: 20\r\n", "01234567890123456789")).await,
            (false, None)
        );
        assert_eq!(fetch(reply("200 OK", "01234567890123456789")).await, (false, None));
        assert_eq!(fetch(reply("400 Bad", "")).await, (false, None));
    });
}

#[test]
fn a_lost_answer_to_a_creation_is_asked_for_by_its_id() {
    run(async {
        let new = NewImage { id: NewImage::new_id(), name: "n".into(), ..NewImage::default() };
        let record = format!(r#"{{"id": "{}", "status": "queued"}}"#, new.id);
        let (known, unknown) = (record.clone(), record);
        let server =
            Script::start(
                move |_, head| if head.starts_with("POST") { String::new() } else { reply("200 OK", &known) },
            )
            .await;
        assert_eq!(server.cloud().create(&new).await.unwrap().image.id, new.id);
        assert_eq!((server.count("POST"), server.count("GET")), (1, 1));
        let posts = AtomicUsize::new(0);
        let server = Script::start(move |_, head| match head.starts_with("POST") {
            true if posts.fetch_add(1, Ordering::SeqCst) == 0 => reply("504 Gateway Timeout", ""),
            true => reply("201 Created", &unknown),
            false => reply("404 Not Found", ""),
        })
        .await;
        assert_eq!(server.cloud().create(&new).await.unwrap().image.id, new.id);
        assert_eq!(server.count("POST"), 2);
        let server = Script::start(|_, _| reply("409 Conflict", "")).await;
        let error = server.cloud().for_stage(Stage::Sink).create(&new).await.unwrap_err();
        assert_eq!((error.kind(), server.count("POST")), (Kind::Target, 1));
    });
}

#[test]
fn an_uploads_answers_fall_into_three_heaps() {
    run(async {
        for (status, heap) in [
            ("204 No Content", "done"),
            ("500 E", "lost"),
            ("503 E", "lost"),
            ("429 E", "lost"),
            ("413 E", "refused"),
            ("415 E", "refused"),
            ("409 E", "refused"),
            ("403 E", "refused"),
            ("401 E", "refused"),
        ] {
            let server = Script::start(move |_, _| reply(status, "")).await;
            let found = match server.cloud().upload("a", 3, Some("s1"), reqwest::Body::from("abc")).await {
                Upload::Done => "done",
                Upload::Lost(..) => "lost",
                Upload::Refused(_) => "refused",
            };
            assert_eq!(found, heap, "{status}");
            let request = server.requests.lock().unwrap()[0].to_ascii_lowercase();
            for header in [
                "content-length: 3\r\n",
                "x-openstack-image-size: 3\r\n",
                "x-image-meta-store: s1\r\n",
                "content-type: application/octet-stream\r\n",
            ] {
                assert!(request.contains(header), "{request}");
            }
            assert!(!request.contains("expect:") && !request.contains("accept-encoding"), "{request}");
        }
        let server = Script::start(|_, _| String::new()).await;
        let lost = server.cloud().upload("a", 3, None, reqwest::Body::from("abc")).await;
        assert!(matches!(lost, Upload::Lost(..)));
        assert_eq!(server.count("PUT"), 1);
    });
}

#[test]
fn a_status_is_waited_for_and_believed_only_when_it_is_clear() {
    run(async {
        let image = |status: &str| reply("200 OK", &format!(r#"{{"id": "a", "status": "{status}"}}"#));
        let settle = |statuses: Vec<&'static str>| async move {
            let server = Script::start(move |n, _| image(statuses[n.min(statuses.len() - 1)])).await;
            server.cloud().settle("a", Duration::from_millis(400)).await
        };
        assert!(matches!(settle(vec!["saving", "saving", "active"]).await, Ok(Settled::Active(_))));
        assert!(matches!(settle(vec!["queued", "saving", "queued", "queued"]).await, Ok(Settled::Queued)));
        assert!(matches!(settle(vec!["queued", "active"]).await, Ok(Settled::Active(_))));
        assert!(matches!(settle(vec!["killed"]).await, Ok(Settled::Gone(status)) if status == "killed"));
        assert!(settle(vec!["saving"]).await.unwrap_err().is_retryable());
    });
}

#[test]
fn an_expired_token_is_renewed_once_for_all() {
    run(async {
        let server = Script::start(|_, head| {
            let line = head.lines().next().unwrap_or_default().to_owned();
            let login = head.matches("token-").next().is_some();
            if line.starts_with("GET /v3") {
                let url = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("host: ").map(str::to_owned)).unwrap();
                return reply("200 OK", &format!(r#"{{"version": {{"id": "v3.14", "status": "stable", "links": [{{"rel": "self", "href": "http://{url}/v3/"}}]}}}}"#));
            }
            if line.starts_with("POST /v3/auth/tokens") {
                let token = r#"{"token": {"expires_at": "2030-01-01T01:00:00Z", "issued_at": "2030-01-01T00:00:00Z", "user": {"id": "u", "name": "u"},
                    "project": {"id": "p", "name": "p", "domain": {"id": "default"}}, "catalog": []}}"#;
                static LOGINS: AtomicUsize = AtomicUsize::new(0);
                let name = format!("token-{}", LOGINS.fetch_add(1, Ordering::SeqCst));
                return reply(&format!("201 Created\r\nX-Subject-Token: {name}\r\nContent-Type: application/json"), token);
            }
            if login && head.contains("token-0") { reply("401 Unauthorized", "") } else { reply("200 OK", IMAGE) }
        })
        .await;
        let vars = [
            ("OS_AUTH_URL", format!("{}/v3", server.url)),
            ("OS_USERNAME", "u".into()),
            ("OS_PASSWORD", "p".into()),
            ("OS_PROJECT_ID", "p".into()),
            ("OS_IMAGE_ENDPOINT_OVERRIDE", server.url.clone()),
        ];
        let var = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        let chosen =
            config::choose(&CloudOptions::default(), &config::Env::with(&var), Stage::Source).unwrap();
        let cloud = Cloud::connect_chosen(chosen, Stage::Source, quick()).await.unwrap();
        assert_eq!((cloud.project_id(), cloud.token().life), (Some("p"), Some(Duration::from_secs(3600))));
        let (a, b, c) = tokio::join!(cloud.show("a"), cloud.show("b"), cloud.show("c"));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(server.count("POST /v3/auth/tokens"), 2);
        assert!(!format!("{cloud:?}").contains("token-"));
    });
}
