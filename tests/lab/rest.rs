//! Glance's plain HTTP interface, without the product's own client: what the tests believe.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::Lab;

/// Tries for one call: the lab's sqlite answers 500 with «database is locked» now and then.
const TRIES: u32 = 8;

/// A login of a user of the lab.
pub struct Rest {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Rest {
    /// Glance, as `lab-a`.
    pub fn new(lab: &Lab) -> Self {
        Self::of(lab, "lab-a", format!("{}/v2", lab.text("/variants/noranges/url")))
    }

    /// Keystone, as the administrator.
    pub fn identity(lab: &Lab) -> Self {
        Self::of(lab, "admin", lab.text("/keystone"))
    }

    /// Any service, as any user; the project has the user's name.
    pub fn of(lab: &Lab, user: &str, base: String) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let token = runtime.block_on(token(&client, lab, user));
        Self { runtime, client, base, token }
    }

    /// Status and JSON of an answer.
    pub fn call(&self, method: Method, path: &str, kind: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
        let body = body.into();
        let mut last = (0, Value::Null);
        for attempt in 0..TRIES {
            let request = self
                .client
                .request(method.clone(), format!("{}/{path}", self.base))
                .header("X-Auth-Token", &self.token)
                .header("Content-Type", kind)
                .body(body.clone());
            last = self.runtime.block_on(async {
                let answer = request.send().await.unwrap();
                let status = answer.status().as_u16();
                let text = answer.bytes().await.unwrap_or_default();
                let plain = || json!(String::from_utf8_lossy(&text));
                (status, serde_json::from_slice(&text).unwrap_or_else(|_| plain()))
            });
            if last.0 < 500 {
                break;
            }
            eprintln!("{method} {path}: {last:?}");
            std::thread::sleep(Duration::from_millis(100 << attempt));
        }
        last
    }

    pub fn show(&self, id: &str) -> Value {
        let (status, image) = self.call(Method::GET, &format!("images/{id}"), "application/json", "");
        assert_eq!(status, 200, "{image}");
        image
    }

    /// The images of that name in the project, hidden ones too.
    pub fn named(&self, name: &str) -> Vec<Value> {
        let get = |hidden: bool| {
            let path = format!("images?name={name}&os_hidden={hidden}");
            let (status, mut list) = self.call(Method::GET, &path, "application/json", "");
            assert_eq!(status, 200, "{list}");
            serde_json::from_value::<Vec<Value>>(list["images"].take()).unwrap()
        };
        [get(false), get(true)].concat()
    }

    pub fn create(&self, image: Value) -> String {
        let (status, made) = self.call(Method::POST, "images", "application/json", image.to_string());
        assert_eq!(status, 201, "{made}");
        made["id"].as_str().unwrap().to_owned()
    }

    pub fn patch(&self, id: &str, change: Value) {
        let kind = "application/openstack-images-v2.1-json-patch";
        let (status, answer) = self.call(Method::PATCH, &format!("images/{id}"), kind, change.to_string());
        assert_eq!(status, 200, "{answer}");
    }

    /// A small raw image, `active`.
    pub fn make(&self, name: &str, data: &[u8], more: Value) -> String {
        let mut image =
            json!({"name": name, "disk_format": "raw", "container_format": "bare", "visibility": "private"});
        image.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        // An upload that the lab's sqlite broke may stay `saving` for ever; a new record does not.
        for _ in 0..TRIES {
            let id = self.create(image.clone());
            let (status, answer) =
                self.call(Method::PUT, &format!("images/{id}/file"), "application/octet-stream", data);
            if status == 204 && self.show(&id)["status"] == "active" {
                return id;
            }
            eprintln!("upload: {status} {answer}");
            self.delete(&id);
        }
        panic!("no upload came through");
    }

    pub fn delete(&self, id: &str) {
        let (status, answer) = self.call(Method::DELETE, &format!("images/{id}"), "application/json", "");
        if status != 204 && status != 404 && !std::thread::panicking() {
            panic!("{status} {answer}");
        }
    }

    pub fn download(&self, id: &str, to: &Path) {
        let request =
            self.client.get(format!("{}/images/{id}/file", self.base)).header("X-Auth-Token", &self.token);
        let mut file = std::fs::File::create(to).unwrap();
        self.runtime.block_on(async {
            let mut answer = request.send().await.unwrap().error_for_status().unwrap();
            while let Some(bytes) = answer.chunk().await.unwrap() {
                file.write_all(&bytes).unwrap();
            }
        });
    }
}

async fn token(client: &reqwest::Client, lab: &Lab, name: &str) -> String {
    let domain = json!({"id": "default"});
    let password = lab.text(&format!("/users/{name}/password"));
    let user = json!({"name": name, "password": password, "domain": domain});
    let body = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": user}},
        "scope": {"project": {"name": name, "domain": domain}}
    }});
    let url = format!("{}/auth/tokens", lab.text("/keystone"));
    for attempt in 0..TRIES {
        let request = client.post(&url).header("Content-Type", "application/json").body(body.to_string());
        let answer = request.send().await.unwrap();
        if let Some(token) = answer.headers().get("x-subject-token") {
            return token.to_str().unwrap().to_owned();
        }
        // Keystone notes the day of a user's last login; two first ones at once may lock its database.
        eprintln!("log in to {url}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
    }
    panic!("no token from {url}")
}

/// A name that no other test and no earlier run has; all images that have it in the end are deleted.
pub struct Named<'a> {
    pub rest: &'a Rest,
    pub name: String,
}

impl<'a> Named<'a> {
    pub fn new(rest: &'a Rest, what: &str) -> Self {
        Self { rest, name: format!("snapcow-test-{what}-{}", snapcow::openstack::NewImage::new_id()) }
    }

    /// As the command takes it.
    pub fn glance(&self) -> String {
        format!("glance:{}", self.name)
    }

    pub fn images(&self) -> Vec<Value> {
        self.rest.named(&self.name)
    }

    #[track_caller]
    pub fn assert_none(&self) {
        let left = self.images();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        for image in self.images() {
            let id = image["id"].as_str().unwrap_or_default();
            if image["protected"] == true {
                self.rest.patch(id, json!([{"op": "replace", "path": "/protected", "value": false}]));
            }
            self.rest.delete(id);
        }
    }
}
