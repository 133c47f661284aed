//! The stand-in for Nova through its control interface: each test makes a server of its own.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use snapcow::openstack::NewImage;

use crate::lab::command::snapcow_in;
use crate::lab::disk::Noise;
use crate::lab::rest::Rest;
use crate::lab::{Lab, lab};

/// Longer than any stage takes.
const PATIENCE: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 48 * MIB;
pub const CLOUD: &str = "lab-noranges";

/// The lab's Glance and Nova, as tests ask them.
pub struct Nova<'a> {
    pub lab: &'a Lab,
    pub rest: Rest,
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

/// A server; with the test it goes, and with it all images that were made of it.
pub struct Server<'a> {
    nova: &'a Nova<'a>,
    pub id: String,
    pub name: String,
    /// Of the image that is to come.
    pub image: String,
}

/// Each case with a server and a thread of its own: most of the time they wait.
pub fn each<T: Copy + Sync>(cases: &[T], test: impl Fn(&Nova<'_>, T) + Sync) {
    let Some(lab) = lab() else { return };
    let (lab, test) = (&lab, &test);
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || test(&Nova::new(lab), *case));
        }
    });
}

impl<'a> Nova<'a> {
    pub fn new(lab: &'a Lab) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        Self { lab, rest: Rest::new(lab), runtime, client }
    }

    fn control(&self, method: Method, path: &str, body: &Value) -> Value {
        let url = format!("{}/stand-in/servers{path}", self.lab.text("/nova"));
        let request = self.client.request(method, url).body(body.to_string());
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let (status, text) = (answer.status(), answer.bytes().await.unwrap());
            assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&text));
            serde_json::from_slice(&text).unwrap()
        })
    }

    /// A server of project `lab-a` with a name that no other has.
    pub fn server(&'a self, what: &str, fields: Value) -> Server<'a> {
        let name = format!("snapcow-test-{what}-{}", NewImage::new_id());
        self.named_server(&name, fields)
    }

    pub fn named_server(&'a self, name: &str, fields: Value) -> Server<'a> {
        let mut body =
            json!({"name": name, "project": self.lab.text("/projects/lab-a"), "disk": disk(self.lab)});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let made = self.control(Method::POST, "", &body);
        let id = made["id"].as_str().unwrap().to_owned();
        Server { nova: self, id, name: name.to_owned(), image: format!("{name}-compact") }
    }
}

impl Server<'_> {
    /// The command for this server, with further words.
    pub fn snapshot(&self, words: &[&str]) -> Command {
        let front = ["snapshot", &self.id, &self.image, "--retry-time", "20s"];
        snapcow_in(self.nova.lab, CLOUD, front.iter().chain(words))
    }

    pub fn state(&self) -> Value {
        self.nova.control(Method::GET, &format!("/{}", self.id), &Value::Null)
    }

    pub fn change(&self, fields: Value) {
        self.nova.control(Method::PATCH, &format!("/{}", self.id), &fields);
    }

    /// What was asked of it, in order.
    pub fn events(&self) -> Vec<String> {
        let state = self.state();
        let events = state["events"].as_array().unwrap();
        events.iter().map(|event| event[0].as_str().unwrap().to_owned()).collect()
    }

    pub fn asked(&self, what: &str) -> usize {
        self.events().iter().filter(|event| event.starts_with(what)).count()
    }

    /// Waits until it has come to a stage.
    pub fn wait_at(&self, stage: &str, still_there: impl Fn() -> bool) {
        let begin = Instant::now();
        while self.state()["at"] != stage {
            assert!(still_there(), "ended before {stage}");
            assert!(begin.elapsed() < PATIENCE, "never came to {stage}: {}", self.state());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it is what it is to become, without a task.
    #[track_caller]
    pub fn wait_until(&self, status: &str) {
        let begin = Instant::now();
        loop {
            let state = self.state();
            if state["status"] == status && state["task_state"].is_null() {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "never {status}: {state}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// It is as it was before: it runs, nothing is under way, no note is on it.
    #[track_caller]
    pub fn runs(&self) {
        let state = self.state();
        assert_eq!((&state["status"], &state["task_state"]), (&json!("ACTIVE"), &Value::Null), "{state}");
        assert_eq!(state["metadata"], json!({}), "{state}");
    }

    /// All images that were made of it.
    pub fn images(&self) -> Vec<Value> {
        let path = format!("images?instance_uuid={}", self.id);
        let (status, mut list) = self.nova.rest.call(Method::GET, &path, "application/json", "");
        assert_eq!(status, 200, "{list}");
        serde_json::from_value(list["images"].take()).unwrap()
    }

    #[track_caller]
    pub fn has_no_image(&self) {
        let left = self.images();
        assert!(left.is_empty(), "{left:?}");
    }

    /// The one image there is: compact, finished, equal to the disk.
    #[track_caller]
    pub fn has_one_compact_image(&self, id: &str) {
        let images = self.images();
        assert_eq!(images.len(), 1, "{images:?}");
        self.is_compact(&images[0], id);
    }

    #[track_caller]
    pub fn is_compact(&self, image: &Value, id: &str) {
        assert_eq!((&image["id"], &image["name"]), (&json!(id), &json!(self.image)));
        assert_eq!((&image["status"], &image["disk_format"]), (&json!("active"), &json!("qcow2")));
        let notes: Vec<&String> =
            image.as_object().unwrap().keys().filter(|key| key.starts_with("snapcow_")).collect();
        assert!(notes.is_empty(), "{notes:?}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("compact.qcow2");
        self.nova.rest.download(id, &file);
        equal(&disk(self.nova.lab), &file);
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let url = format!("{}/stand-in/servers/{}", self.nova.lab.text("/nova"), self.id);
        if std::thread::panicking() {
            let last = async { self.nova.client.get(&url).send().await?.text().await };
            eprintln!("{:?}", self.nova.runtime.block_on(last));
        }
        let request = self.nova.client.delete(url);
        // One that has vanished is fine.
        let _ = self.nova.runtime.block_on(request.send());
        for image in self.images() {
            self.nova.rest.delete(image["id"].as_str().unwrap());
        }
    }
}

/// The independent judge.
#[track_caller]
pub fn equal(raw: &Path, qcow2: &Path) {
    for words in [&["check", "-q", "-f", "qcow2"][..], &["compare", "-q", "-f", "raw", "-F", "qcow2"]] {
        let mut command = Command::new("qemu-img");
        command.args(words);
        if words[0] == "compare" {
            command.arg(raw);
        }
        let done = command.arg(qcow2).output().expect("qemu-img, of Debian's qemu-utils");
        assert!(done.status.success(), "{words:?}: {done:?}");
    }
}

/// The disk of all servers: small, with text, noise and holes.
pub fn disk(lab: &Lab) -> PathBuf {
    static DISK: OnceLock<PathBuf> = OnceLock::new();
    DISK.get_or_init(|| {
        let folder = lab.folder.join("test-disk");
        std::fs::create_dir_all(&folder).unwrap();
        let path = std::fs::canonicalize(folder).unwrap().join("server-1.raw");
        if !path.exists() {
            let new = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
            let file = new.as_file();
            file.set_len(DISK_BYTES).unwrap();
            let text: String = (0..60_000).map(|line| format!("line {line} of a server's disk\n")).collect();
            file.write_all_at(text.as_bytes(), MIB).unwrap();
            file.write_all_at(&Noise(7).bytes(9 * MIB), 17 * MIB + 513).unwrap();
            file.write_all_at(b"end", DISK_BYTES - 3).unwrap();
            new.persist(&path).unwrap();
        }
        path
    })
    .clone()
}
