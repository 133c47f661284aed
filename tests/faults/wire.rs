//! What happens below HTTP, or to it on the way: nobody listens, names that do not exist, TLS that is none, a
//! proxy that buffers, answers that are lost in a reset, an image that stays `saving`, tokens that expire.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use snapcow::embedded::{Answer, EmbeddedOptions, Fault, Faults, Route};
use snapcow::error::{Kind, Stage};
use snapcow::openstack::{Cloud, CloudOptions, TlsOptions};
use snapcow::retry::Retry;

use super::bench::{Bench, MIB, Noise, Outcome, Tune, quick, run_in, wait, with};

/// What a door does with a connection, by the head of its first request.
enum Act {
    Pass,
    /// The whole request before any of it goes on, and the whole answer before any of it comes back.
    Buffer,
    /// After so many bytes of the body: this answer, and a reset.
    Refuse(usize, &'static str),
    /// This answer, in good order.
    Say(String),
    /// The whole request is swallowed, and the connection closed.
    Swallow,
}

/// A TCP door before a Glance.
fn door(upstream: &str, act: impl Fn(&str) -> Act + Send + Sync + 'static) -> String {
    let upstream = upstream.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let act = Arc::new(act);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (act, upstream) = (Arc::clone(&act), upstream.clone());
            std::thread::spawn(move || serve(client, &upstream, &*act));
        }
    });
    address
}

fn serve(mut client: TcpStream, upstream: &str, act: &dyn Fn(&str) -> Act) -> Option<()> {
    let (head, mut bytes) = read_head(&mut client)?;
    let begun = bytes.len() - head.len();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.trim().parse().ok());
    let missing = length.unwrap_or(0usize).saturating_sub(begun);
    match act(&head) {
        Act::Pass => {
            let mut server = TcpStream::connect(upstream).ok()?;
            server.write_all(&bytes).ok()?;
            let (mut up, mut down) = (client.try_clone().ok()?, server.try_clone().ok()?);
            let going = std::thread::spawn(move || {
                let _ = std::io::copy(&mut up, &mut down);
                let _ = down.shutdown(Shutdown::Write);
            });
            let _ = std::io::copy(&mut server, &mut client);
            let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            let _ = going.join();
        }
        Act::Buffer => {
            read_more(&mut client, missing, &mut bytes)?;
            let mut server = TcpStream::connect(upstream).ok()?;
            let text = String::from_utf8_lossy(&bytes[..head.len()]).into_owned();
            let closing = text.replacen("\r\n", "\r\nconnection: close\r\n", 1);
            server.write_all(closing.as_bytes()).ok()?;
            server.write_all(&bytes[head.len()..]).ok()?;
            let mut answer = Vec::new();
            server.read_to_end(&mut answer).ok()?;
            client.write_all(&answer).ok()?;
            client.shutdown(Shutdown::Write).ok()?;
            let _ = client.read(&mut [0; 1]);
        }
        Act::Refuse(after, answer) => {
            read_more(&mut client, after.saturating_sub(begun), &mut bytes)?;
            client.write_all(answer.as_bytes()).ok()?;
            // Closing with bytes unread sends a reset, which overtakes the answer more often than not.
        }
        Act::Say(answer) => {
            client.write_all(answer.as_bytes()).ok()?;
            client.shutdown(Shutdown::Write).ok()?;
            let _ = client.read(&mut [0; 1]);
        }
        Act::Swallow => read_more(&mut client, missing, &mut bytes)?,
    }
    Some(())
}

fn read_head(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            return Some((String::from_utf8_lossy(&bytes[..end + 4]).into_owned(), bytes));
        }
        read_more(client, 1, &mut bytes)?;
    }
}

fn read_more(client: &mut TcpStream, mut count: usize, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = vec![0; 64 << 10];
    while count > 0 {
        let len = client.read(&mut buffer).ok().filter(|len| *len > 0)?;
        bytes.extend_from_slice(&buffer[..len]);
        count = count.saturating_sub(len);
    }
    Some(())
}

fn is_upload(head: &str) -> bool {
    head.starts_with("PUT ")
}

/// A cloud behind an address of its own.
fn cloud_at(bench: &Bench, address: &str, retry: Retry) -> Cloud {
    let token = bench.glance.token().into();
    Cloud::with_token(address, token, &TlsOptions::default(), Stage::Plan).unwrap().with_retry(retry)
}

fn through(bench: &Bench, retry: Retry, act: impl Fn(&str) -> Act + Send + Sync + 'static) -> Outcome {
    let address = door(bench.glance.endpoint(), act);
    run_in(cloud_at(bench, &address, retry), &bench.source, &Tune::spool())
}

#[test]
fn nobody_listens_at_an_address_that_does_not_exist_or_speaks_no_tls() {
    let bench = Bench::new(with(Faults::default()), Noise::full(MIB));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plain = bench.glance.endpoint().replace("http:", "https:");
    let addresses = [format!("http://{closed}"), "http://no-such-host.invalid:9292".into(), plain];
    // A name server may take its time to say no.
    for (address, retries) in addresses.iter().zip([2, 1, 2]) {
        let cloud = cloud_at(&bench, address, Retry { retries, ..quick() });
        let (found, said) = heard(|| wait(cloud.for_stage(Stage::Source).find_images("x")));
        let error = found.unwrap_err();
        assert_eq!((error.stage(), error.kind()), (Stage::Source, Kind::Network), "{error}");
        let host = address.split("//").nth(1).unwrap();
        assert!(error.to_string().contains(host), "{error}");
        assert_eq!(said.matches("trying again in").count(), retries as usize, "{address}: {said}");
    }
}

/// What a call comes to, and what it says with `-v`.
fn heard<T>(call: impl FnOnce() -> T) -> (T, String) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(Arc::new(log.reopen().unwrap()))
        .finish();
    let answer = tracing::subscriber::with_default(subscriber, call);
    (answer, std::fs::read_to_string(log.path()).unwrap())
}

#[test]
fn a_proxy_that_buffers_everything_is_waited_for() {
    let bench = Bench::new(with(Faults::default()), Noise::full(12 * MIB));
    let outcome = through(&bench, quick(), |_| Act::Buffer);
    let receipt = outcome.result.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(receipt.delivered.unwrap().retries, 0);
    bench.prove(&outcome.id.unwrap());
}

#[test]
fn an_early_refusal_that_is_lost_in_a_reset_ends_the_run_all_the_same() {
    // The last one is lost for certain: nothing of it comes before the reset.
    for (answer, word) in [
        ("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "413"),
        ("HTTP/1.1 415 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "415"),
        ("", "nothing"),
    ] {
        let bench = Bench::new(with(Faults::default()), Noise::full(24 * MIB));
        let tries = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tries);
        let outcome = through(&bench, Retry { retries: 2, ..quick() }, move |head| {
            if !is_upload(head) {
                return Act::Pass;
            }
            count.fetch_add(1, Ordering::SeqCst);
            Act::Refuse(MIB as usize, answer)
        });
        let (error, tries) = (outcome.result.unwrap_err(), tries.load(Ordering::SeqCst));
        assert_eq!(error.stage(), Stage::Sink, "{error}");
        // Either the answer came through, or what it may have been is said.
        if error.kind() == Kind::Target {
            assert!(error.to_string().contains(word) && (1..=3).contains(&tries), "{tries}: {error}");
        } else {
            assert_eq!((error.kind(), tries), (Kind::Network, 3), "{error}");
            assert!(error.to_string().contains("where a quota is full"), "{error}");
        }
        assert_eq!(bench.glance.images().len(), 1);
    }
}

#[test]
fn an_image_that_stays_saving_is_given_up_and_deleted() {
    let bench = Bench::new(with(Faults::default()), Noise::full(2 * MIB));
    let uploaded = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&uploaded);
    let source = bench.source.clone();
    let outcome = through(&bench, Retry { time: Duration::from_secs(1), ..quick() }, move |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let id = path.rsplit('/').next().unwrap_or_default();
        if is_upload(head) {
            seen.fetch_add(1, Ordering::SeqCst);
            return Act::Swallow;
        }
        if head.starts_with("GET ") && seen.load(Ordering::SeqCst) > 0 && id != source {
            let body = format!(r#"{{"id": "{id}", "status": "saving"}}"#);
            return Act::Say(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            ));
        }
        Act::Pass
    });
    let error = outcome.result.unwrap_err();
    assert_eq!((error.stage(), error.kind()), (Stage::Sink, Kind::Network), "{error}");
    assert!(error.to_string().contains("still `saving`"), "{error}");
    assert_eq!(uploaded.load(Ordering::SeqCst), 1, "nothing is sent while it is not clear");
    assert_eq!(bench.glance.images().len(), 1);
}

/// A Keystone that gives out whatever token is good at the moment.
fn keystone(bench: &Bench) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let logins = Arc::new(AtomicUsize::new(0));
    let (count, token) = (Arc::clone(&logins), bench.glance.token_reader());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            if read_head(&mut client).is_none() {
                continue;
            }
            count.fetch_add(1, Ordering::SeqCst);
            let body = r#"{"token": {"expires_at": "2030-01-01T01:00:00Z", "issued_at": "2030-01-01T00:00:00Z",
                "user": {"id": "u", "name": "u"}, "project": {"id": "p", "name": "p", "domain": {"id": "default"}},
                "catalog": []}}"#;
            let answer = format!(
                "HTTP/1.1 201 Created\r\nX-Subject-Token: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                token(),
                body.len()
            );
            let _ = client.write_all(answer.as_bytes());
            let _ = client.shutdown(Shutdown::Write);
            let _ = client.read(&mut [0; 1 << 16]);
        }
    });
    (address, logins)
}

#[test]
fn a_token_that_expires_between_the_passes_or_on_the_way_is_renewed() {
    for ranges in [false, true] {
        // Slow enough for the token to expire in the middle of pass 1.
        let faults = Faults { download_rate: Some(24 * MIB), ..Faults::default() };
        let bench = Bench::new(EmbeddedOptions { ranges, ..with(faults) }, Noise::full(24 * MIB));
        let (keystone, logins) = keystone(&bench);
        let vars = [
            ("OS_AUTH_URL", keystone),
            ("OS_USERNAME", "u".into()),
            ("OS_PASSWORD", "p".into()),
            ("OS_PROJECT_ID", "p".into()),
            ("OS_IMAGE_ENDPOINT_OVERRIDE", bench.glance.endpoint().to_owned()),
        ];
        let var = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        let options = CloudOptions { retry: quick(), ..CloudOptions::default() };
        let cloud = wait(Cloud::connect_with(&options, &var, Stage::Plan)).unwrap();
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                while bench.records(Route::Create).is_empty() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                std::thread::sleep(Duration::from_millis(300));
                bench.glance.renew_token();
            });
            run_in(cloud, &bench.source, &Tune::reread())
        });
        outcome.result.unwrap_or_else(|error| panic!("{error}"));
        bench.prove(&outcome.id.unwrap());
        assert_eq!(logins.load(Ordering::SeqCst), 2, "one at the beginning, one for all who were refused");
        assert!(bench.glance.records().iter().any(|record| record.status == Some(401)));
    }
}

#[test]
fn answers_that_stand_end_the_run_at_once() {
    const TEXT: &str = "Not for you: the reason is 4713.";
    use Route::{Create, Download, Upload};
    let (source, sink) = (Stage::Source, Stage::Sink);
    for (route, skip, status, stage, kind) in [
        (Download, 1, 403, source, Kind::Login),
        (Download, 1, 401, source, Kind::Login),
        // Deleted meanwhile: before pass 1, before pass 2.
        (Download, 1, 404, source, Kind::Source),
        (Download, 2, 404, source, Kind::Source),
        (Create, 0, 403, sink, Kind::Login),
        (Create, 0, 413, sink, Kind::Target),
        (Upload, 0, 403, sink, Kind::Login),
        (Upload, 0, 404, sink, Kind::Target),
        (Upload, 0, 410, sink, Kind::Target),
    ] {
        let mut faults = Faults::default();
        let what = Answer { text: TEXT.into(), ..Answer::status(status) };
        faults.answers.push((Some(route), Fault { skip, times: u32::MAX, what }));
        let bench = Bench::new(with(faults), Noise::full(12 * MIB));
        let error = bench.fails(&Tune::reread(), stage, kind);
        // What refuses a token stands before Glance, and has a text of its own.
        let text = if status == 401 { "requires authentication" } else { TEXT };
        assert!(error.contains(&status.to_string()) && error.contains(text), "{error}");
        let refused = bench.records(route).iter().filter(|record| record.status == Some(status)).count();
        assert_eq!(refused, 1, "{route:?} {status}: tried again");
    }
}
