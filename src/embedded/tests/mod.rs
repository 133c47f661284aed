//! The API as a client over HTTP sees it.

mod faults;

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::json;

use super::*;

/// A server, a client, and a runtime for the client.
struct Bench {
    glance: EmbeddedGlance,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(options: EmbeddedOptions) -> Self {
        Self {
            glance: EmbeddedGlance::start(options).expect("a server"),
            client: Client::builder().no_proxy().build().expect("a client"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        }
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().expect("a method");
        let url = format!("{}{path}", self.glance.endpoint());
        self.client.request(method, url).header("x-auth-token", self.glance.token())
    }

    fn send(&self, request: RequestBuilder) -> reqwest::Result<Response> {
        self.runtime.block_on(request.send())
    }

    /// Status and JSON (null if it is none).
    fn json(&self, request: RequestBuilder) -> (u16, Value) {
        let response = self.send(request).expect("an answer");
        let status = response.status().as_u16();
        let text = self.runtime.block_on(response.text()).expect("a body");
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    fn status(&self, request: RequestBuilder) -> u16 {
        self.json(request).0
    }

    fn create(&self, body: Value) -> (u16, Value) {
        self.json(self.request("POST", "/v2/images").body(body.to_string()))
    }

    /// A queued qcow2 image; the path of its data.
    fn queued(&self) -> (String, String) {
        let body = json!({"name": "new", "disk_format": "qcow2", "container_format": "bare"});
        let (status, image) = self.create(body);
        assert_eq!(status, 201);
        let id = image["id"].as_str().expect("an id").to_owned();
        let path = format!("/v2/images/{id}/file");
        (id, path)
    }

    fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request("PUT", path).header("content-type", "application/octet-stream").body(body)
    }

    fn shown(&self, id: &str, attribute: &str) -> Value {
        self.glance.image(id).expect("an image")[attribute].clone()
    }

    /// Waits for a status that comes a moment after the client's view of things.
    fn wait_for(&self, id: &str, status: &str) {
        let began = Instant::now();
        while self.shown(id, "status") != status {
            assert!(began.elapsed() < Duration::from_secs(5), "still {}", self.shown(id, "status"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn seed(&self, data: Arc<dyn ImageData>) -> String {
        let spec = ImageSpec { name: "source".into(), attributes: Map::new(), hash: SeedHash::Compute, data };
        let id = self.glance.seed(spec);
        format!("/v2/images/{id}/file")
    }

    /// Status, and as much of the body as came, and whether it came to its announced end.
    fn download(&self, request: RequestBuilder) -> (u16, Vec<u8>, bool) {
        self.runtime.block_on(async {
            let mut response = request.send().await.expect("an answer");
            let mut body = Vec::new();
            loop {
                match response.chunk().await {
                    Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                    Ok(None) => return (response.status().as_u16(), body, true),
                    Err(_) => return (response.status().as_u16(), body, false),
                }
            }
        })
    }
}

/// 100 000 bytes that differ from each other.
fn sample() -> Bytes {
    (0..100_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// The least that passes for a qcow2 image.
fn qcow2_bytes(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    bytes[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
    Bytes::from(bytes)
}

#[test]
fn an_image_is_created_uploaded_read_and_deleted() {
    let bench = Bench::new(EmbeddedOptions::default());
    let id = "6a0f1c6e-2f4f-4a57-9c0c-6f5a3b1d2e3f";
    let body = json!({
        "id": id, "name": "copy", "disk_format": "qcow2", "container_format": "bare", "visibility": "private",
        "tags": ["a"], "min_disk": 1, "os_distro": "debian"
    });
    let (status, image) = bench.create(body.clone());
    assert_eq!((status, &image["status"], &image["os_distro"]), (201, &json!("queued"), &json!("debian")));
    assert_eq!(
        (&image["size"], &image["min_ram"], &image["os_hidden"]),
        (&Value::Null, &json!(0), &json!(false))
    );
    assert_eq!(bench.create(body).0, 409);

    let file = format!("/v2/images/{id}/file");
    let empty = bench.send(bench.request("GET", &file)).expect("an answer");
    assert_eq!((empty.status().as_u16(), empty.content_length()), (204, Some(0)));
    let data = qcow2_bytes(70_000);
    let put = bench.put(&file, data.clone()).header("x-openstack-image-size", data.len());
    assert_eq!(bench.status(put), 204);
    assert_eq!(bench.status(bench.put(&file, data.clone())), 409);

    let (_, image) = bench.json(bench.request("GET", &format!("/v2/images/{id}")));
    let hashes = Hashes::of(&data);
    for (name, value) in [
        ("status", json!("active")),
        ("size", json!(70_000)),
        ("virtual_size", json!(1 << 30)),
        ("checksum", json!(hashes.md5)),
        ("os_hash_algo", json!("sha512")),
        ("os_hash_value", json!(hashes.sha512)),
    ] {
        assert_eq!(image[name], value, "{name}");
    }
    assert_eq!(bench.download(bench.request("GET", &file)), (200, data.to_vec(), true));
    assert_eq!(ImageData::len(&*bench.glance.data(id).expect("data")), 70_000);

    let patch =
        json!([{"op": "replace", "path": "/name", "value": "b"}, {"op": "remove", "path": "/os_distro"}]);
    let request = bench.request("PATCH", &format!("/v2/images/{id}")).body(patch.to_string());
    let request = request.header("content-type", "application/openstack-images-v2.1-json-patch");
    let (status, image) = bench.json(request);
    assert_eq!((status, &image["name"], image.get("os_distro")), (200, &json!("b"), None));

    assert_eq!(bench.status(bench.request("DELETE", &format!("/v2/images/{id}"))), 204);
    assert_eq!(bench.status(bench.request("GET", &format!("/v2/images/{id}"))), 404);
    assert_eq!(bench.status(bench.request("GET", &file)), 404);
}

#[test]
fn refusals_look_like_those_of_glance() {
    let bench = Bench::new(EmbeddedOptions { upload_limit_bytes: 90_000, ..EmbeddedOptions::default() });
    let url = format!("{}/v2/images", bench.glance.endpoint());
    assert_eq!(bench.status(bench.client.get(&url)), 401);
    assert_eq!(bench.status(bench.client.get(&url).header("x-auth-token", "wrong")), 401);
    assert_eq!(bench.create(json!({"name": "x", "size": 5})).0, 403);
    assert_eq!(bench.create(json!({"x": null})).0, 400);
    assert_eq!(bench.create(json!([])).0, 400);
    assert_eq!(bench.status(bench.request("GET", "/v2/nothing")), 404);

    let (id, file) = bench.queued();
    let head = bench.send(bench.request("HEAD", &file)).expect("an answer");
    assert_eq!((head.status().as_u16(), head.headers()["allow"].as_bytes()), (405, &b"GET, PUT"[..]));
    let missing = bench.send(bench.request("GET", "/v2/images/none")).expect("an answer");
    assert_eq!(missing.headers()["content-type"], "text/html; charset=UTF-8");
    let text = bench.runtime.block_on(missing.text()).expect("a body");
    assert!(
        text.contains("<title>404 Not Found</title>") && text.contains("No image found with ID none"),
        "{text}"
    );

    for (request, status) in [
        (bench.request("PUT", &file).body(qcow2_bytes(600)), 415),
        (bench.put(&file, sample().slice(..600)), 415),
        (bench.put(&file, qcow2_bytes(511)), 415),
        (bench.put(&file, qcow2_bytes(600)).header("x-openstack-image-size", 700), 400),
        (bench.put(&file, qcow2_bytes(600)).header("x-openstack-image-size", 500), 400),
        (bench.put(&file, qcow2_bytes(600)).header("x-openstack-image-size", "x"), 400),
        (bench.put(&file, qcow2_bytes(90_001)), 413),
    ] {
        assert_eq!(bench.status(request), status);
        bench.wait_for(&id, "queued");
    }
    assert_eq!(bench.status(bench.put(&file, Bytes::new())), 204);
    assert_eq!((bench.shown(&id, "status"), bench.shown(&id, "size")), (json!("active"), json!(0)));
}

#[test]
fn listing_finds_by_name_and_keeps_hidden_images_apart() {
    let bench = Bench::new(EmbeddedOptions::default());
    for (name, hidden) in [("a b", false), ("a b", true), ("c", false)] {
        let spec = ImageSpec {
            name: name.into(),
            attributes: [("os_hidden".to_owned(), json!(hidden))].into_iter().collect(),
            hash: SeedHash::Missing,
            data: Arc::new(sample()),
        };
        bench.glance.seed(spec);
    }
    for (query, count) in [
        ("", 2),
        ("?name=a%20b", 1),
        ("?name=a+b&os_hidden=true&limit=9", 1),
        ("?name=d", 0),
        ("?os_hidden=true", 1),
        ("?visibility=public&name=c&status=active", 1),
    ] {
        let (_, list) = bench.json(bench.request("GET", &format!("/v2/images{query}")));
        assert_eq!(list["images"].as_array().map(Vec::len), Some(count), "{query}");
    }
    assert_eq!(bench.glance.images().len(), 3);
}

#[test]
fn ranges_only_where_the_store_can() {
    for able in [false, true] {
        let bench = Bench::new(EmbeddedOptions { ranges: able, ..EmbeddedOptions::default() });
        let file = bench.seed(Arc::new(sample()));
        let ranged = |range: &str| bench.request("GET", &file).header("range", range);
        if !able {
            assert_eq!(bench.status(ranged("bytes=0-")), 400);
            continue;
        }
        let response = bench.send(ranged("bytes=99990-200000")).expect("an answer");
        assert_eq!(response.headers()["content-range"], "bytes 99990-99999/100000");
        assert_eq!(response.headers()["content-length"], "10");
        assert_eq!(bench.download(ranged("bytes=5-9")), (206, sample()[5..10].to_vec(), true));
        assert_eq!(bench.status(ranged("bytes=100000-")), 416);
        assert_eq!(bench.glance.records().last().expect("a record").range.as_deref(), Some("bytes=100000-"));
    }
}

#[test]
fn a_client_that_breaks_off_leaves_a_queued_image() {
    use std::io::Write as _;
    let bench = Bench::new(EmbeddedOptions::default());
    let (id, file) = bench.queued();
    let address = bench.glance.endpoint().trim_start_matches("http://").to_owned();
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    let head = format!(
        "PUT {file} HTTP/1.1\r\nhost: x\r\nx-auth-token: {}\r\ncontent-type: application/octet-stream\r\n\
         content-length: 5000\r\n\r\n",
        bench.glance.token()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&[1; 2000])).expect("half an upload");
    bench.wait_for(&id, "saving");
    assert_eq!(bench.status(bench.put(&file, qcow2_bytes(600))), 409);
    drop(stream);
    bench.wait_for(&id, "queued");
    assert!(bench.glance.data(&id).is_none());
    assert_eq!(bench.status(bench.put(&file, qcow2_bytes(600))), 204);
}

#[test]
fn dropping_the_server_closes_everything() {
    let bench = Bench::new(EmbeddedOptions::default());
    let file = bench.seed(Arc::new(VmImage::new(1, 1 << 30, 0.0)));
    // A download under way does not hold it up.
    let response = bench.send(bench.request("GET", &file)).expect("an answer");
    let address = bench.glance.endpoint().trim_start_matches("http://").to_owned();
    let began = Instant::now();
    drop(bench.glance);
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(bench.runtime.block_on(response.bytes()).is_err());
}

/// Figures rather than a check: `cargo test --release -- --ignored --nocapture embedded::tests::speed`.
#[test]
#[ignore = "prints figures"]
fn speed() {
    let rate = |bytes: u64, began: Instant| bytes as f64 / 1e6 / began.elapsed().as_secs_f64();
    let mut buf = vec![0; 1 << 20];
    for (what, fraction) in [("holes", 0.0), ("15 % data", 0.15), ("all data", 1.0)] {
        let image = VmImage::new(2, 2 << 30, fraction);
        let began = Instant::now();
        for at in (0..image.len()).step_by(buf.len()) {
            image.read_at(at, &mut buf);
        }
        println!("generate, {what}: {:.0} MB/s", rate(image.len(), began));
    }
    let demo = VmImage::new(1, 3 << 30, 0.15);
    let began = Instant::now();
    Hashes::of(&demo);
    println!("both hashes of 3 GiB: {:.1} s", began.elapsed().as_secs_f64());
    for (what, fraction, size) in [("holes", 0.0, 8 << 30), ("15 % data", 0.15, 4 << 30)] {
        let bench = Bench::new(EmbeddedOptions::default());
        let data = Arc::new(VmImage::new(2, size, fraction));
        let spec = ImageSpec { name: "x".into(), attributes: Map::new(), hash: SeedHash::Missing, data };
        let file = format!("/v2/images/{}/file", bench.glance.seed(spec));
        let began = Instant::now();
        bench.runtime.block_on(async {
            let mut response = bench.request("GET", &file).send().await.expect("an answer");
            while response.chunk().await.expect("bytes").is_some() {}
        });
        println!("download, {what}: {:.0} MB/s", rate(size, began));
    }
    let bench = Bench::new(EmbeddedOptions::default());
    let (_, file) = bench.queued();
    let began = Instant::now();
    assert_eq!(bench.status(bench.put(&file, qcow2_bytes(512 << 20))), 204);
    println!("upload: {:.0} MB/s", rate(512 << 20, began));
}
