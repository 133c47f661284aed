//! A door in front of a Glance of the lab that can be held at a chosen moment of a transfer, so that
//! tests meet a run exactly there, however fast the machine is.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Lab;

/// Where a transfer is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// At the first request of all.
    Lookup,
    /// After so many bytes of the downloaded image.
    Download(u64),
    /// After so many bytes of the uploaded image.
    Upload(u64),
    /// When the upload is complete, before its answer.
    UploadAnswer,
}

/// A running door.
pub struct Proxy {
    pub url: String,
    state: Arc<State>,
}

struct State {
    upstream: String,
    hold: Hold,
    held: AtomicBool,
    cut: AtomicBool,
}

/// What a connection is about, by its last request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Talk {
    Other,
    Download,
    Upload,
}

impl Proxy {
    pub fn start(lab: &Lab, variant: &str, hold: Hold) -> Self {
        let upstream = lab.text(&format!("/variants/{variant}/url")).trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state =
            Arc::new(State { upstream, hold, held: AtomicBool::new(false), cut: AtomicBool::new(false) });
        let shared = Arc::clone(&state);
        // It ends with the test program.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || state.serve(client));
            }
        });
        Self { url, state }
    }

    /// A clouds.yaml with one cloud, `held`, that goes through the door.
    pub fn clouds_yaml(&self, lab: &Lab, folder: &Path) -> PathBuf {
        let file = folder.join("clouds.yaml");
        let (keystone, password) = (lab.text("/keystone"), lab.text("/users/lab-a/password"));
        let text = format!(
            "clouds:\n  held:\n    auth:\n      auth_url: {keystone}\n      username: lab-a\n      password: {password}\n      \
             project_name: lab-a\n      user_domain_name: Default\n      project_domain_name: Default\n    \
             region_name: RegionNoRanges\n    image_endpoint_override: {}\n",
            self.url
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    pub fn wait_until_held(&self, still_there: impl Fn() -> bool) {
        while !self.state.held.load(Ordering::SeqCst) {
            assert!(still_there(), "ended before {:?}", self.state.hold);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Cuts what is held; everything else passes from now on.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
    }
}

impl State {
    fn serve(&self, client: TcpStream) {
        let Ok(server) = TcpStream::connect(&self.upstream) else { return };
        let talk = Mutex::new(Talk::Other);
        std::thread::scope(|scope| {
            scope.spawn(|| self.requests(&client, &server, &talk));
            self.answers(&server, &client, &talk);
        });
    }

    fn requests(&self, mut client: &TcpStream, mut server: &TcpStream, talk: &Mutex<Talk>) {
        let mut buffer = vec![0; 64 << 10];
        let mut uploaded = 0;
        while let Ok(len @ 1..) = client.read(&mut buffer) {
            let head = String::from_utf8_lossy(&buffer[..len.min(200)]).into_owned();
            if ["GET /", "PUT /", "POST /", "PATCH /", "DELETE /", "HEAD /"]
                .iter()
                .any(|verb| head.starts_with(verb))
            {
                let is_file = head.lines().next().is_some_and(|line| line.contains("/file "));
                *talk.lock().unwrap() = match (is_file, head.starts_with("PUT")) {
                    (true, true) => Talk::Upload,
                    (true, false) => Talk::Download,
                    (false, _) => Talk::Other,
                };
                uploaded = 0;
            }
            if *talk.lock().unwrap() == Talk::Upload {
                uploaded += len as u64;
            }
            let reached = match self.hold {
                Hold::Lookup => true,
                Hold::Upload(bytes) => uploaded > bytes,
                _ => false,
            };
            if reached && self.hold_here() || server.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    }

    fn answers(&self, mut server: &TcpStream, mut client: &TcpStream, talk: &Mutex<Talk>) {
        let mut buffer = vec![0; 64 << 10];
        let mut downloaded = 0;
        while let Ok(len @ 1..) = server.read(&mut buffer) {
            let talk = *talk.lock().unwrap();
            downloaded = if talk == Talk::Download { downloaded + len as u64 } else { 0 };
            let reached = match self.hold {
                Hold::Download(bytes) => downloaded > bytes,
                Hold::UploadAnswer => talk == Talk::Upload,
                _ => false,
            };
            if reached && self.hold_here() || client.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }

    /// Waits to be cut; true if the connection is to end. Only what was held ends.
    fn hold_here(&self) -> bool {
        if self.cut.load(Ordering::SeqCst) {
            return false;
        }
        self.held.store(true, Ordering::SeqCst);
        while !self.cut.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}
