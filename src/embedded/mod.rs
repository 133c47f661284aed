//! An image service in this process: Glance's API on loopback, for the demo and for faults that a
//! real Glance does not produce on demand.
//!
//! Takes options and seeded images ([`ImageData`]: stored, or generated on the fly as
//! [`VmImage`]); gives an endpoint and a token that any Glance client can use, the data that was
//! uploaded, a record of every request, and, through [`prove_equal`], the proof that an uploaded
//! qcow2 image holds exactly a seeded image's bytes.
//!
//! Holds at most [`EmbeddedOptions::upload_limit_bytes`] of each upload, in memory; of a generated
//! image nothing but the 1 MiB frames under way, a few for each connection. It imitates what was
//! measured on Glance 33 (statuses, error bodies, refusals); it is not a substitute for it where a
//! real one can serve.

mod answer;
mod data;
mod download;
mod faults;
mod generate;
mod glance;
mod hash;
mod image;
mod inspect;
mod looks;
mod proof;
mod record;
mod store;
mod upload;
mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, oneshot};

pub use data::{FileData, ImageData};
pub use faults::{
    Answer, Cut, Fault, Faults, FaultsHandle, Floor, HashFault, LostAnswer, RangeAnswer, Refusal, Route,
    Stall,
};
pub use generate::{Shape, VmImage};
pub use hash::Hashes;
pub use proof::{Proof, prove_equal};
pub use record::Record;

/// Connections that may wait to be taken.
const BACKLOG: u32 = 128;

/// How the server behaves.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Whether the store can read at random; `false` answers every `Range` with 400, as Glance does
    /// on Ceph RBD, Swift and S3. Default: `false`.
    pub ranges: bool,
    /// Largest upload that is kept, in memory; a larger one gets 413. Default: 1 GiB.
    pub upload_limit_bytes: u64,
    /// Size of the sockets' buffers, where a small one is wanted so that a slow peer is felt at
    /// once. Default: the system's.
    pub socket_buffer_bytes: Option<u32>,
    /// Length of the window of [`Record::slowest_window_bytes`]. Default: 2 s.
    pub pace_window: Duration,
    /// What goes wrong from the start. Default: nothing.
    pub faults: Faults,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            ranges: false,
            upload_limit_bytes: 1 << 30,
            socket_buffer_bytes: None,
            pace_window: Duration::from_secs(2),
            faults: Faults::default(),
        }
    }
}

/// Which hashes a seeded image shows.
#[derive(Clone, Debug)]
pub enum SeedHash {
    /// Those of its data, computed while seeding: about 1.5 s a GiB.
    Compute,
    /// These, right or wrong.
    Known(Hashes),
    /// None: null, as for a Ceph direct snapshot.
    Missing,
}

/// An image to begin with.
pub struct ImageSpec {
    /// Its name.
    pub name: String,
    /// Further attributes, over those that an active raw image has: properties, `tags`,
    /// `min_disk`, and also what no client may set, such as `status`, `size`, `id` or `os_hidden`.
    pub attributes: Map<String, Value>,
    /// Its hashes.
    pub hash: SeedHash,
    /// Its content.
    pub data: Arc<dyn ImageData>,
}

/// A running server; dropping it stops it, whatever is under way.
pub struct EmbeddedGlance {
    shared: Arc<glance::Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedGlance {
    /// Starts a server on a free port of 127.0.0.1, on a thread of its own.
    ///
    /// # Errors
    /// No socket, or no thread.
    pub fn start(options: EmbeddedOptions) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            let socket = TcpSocket::new_v4()?;
            if let Some(bytes) = options.socket_buffer_bytes {
                // Connections inherit both from the listening socket.
                socket.set_recv_buffer_size(bytes)?;
                socket.set_send_buffer_size(bytes)?;
            }
            socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            socket.listen(BACKLOG)?
        };
        let shared = Arc::new(glance::Shared {
            endpoint: format!("http://{}", listener.local_addr()?),
            token: RwLock::new(new_token()),
            store: Arc::default(),
            faults: FaultsHandle::new(options.faults.clone()),
            log: record::Log::new(options.pace_window),
            worker: Arc::new(Semaphore::new(1)),
            options,
        });
        let service =
            glance::router(Arc::clone(&shared)).into_make_service_with_connect_info::<wire::Control>();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("embedded-glance".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = axum::serve(wire::Door(listener), service).into_future() => {}
                    _ = stopped => {}
                }
            });
            // Connections are tasks of the runtime: they end with it, here.
            drop(runtime);
        })?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where the service is: `http://127.0.0.1:PORT`, without a version.
    pub fn endpoint(&self) -> &str {
        &self.shared.endpoint
    }

    /// What every request has to carry in `X-Auth-Token`.
    pub fn token(&self) -> String {
        self.shared.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the token that is good at the moment, also after this server has gone out of reach.
    pub fn token_reader(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the token expire: from the next request on only the new one, returned here, is good.
    pub fn renew_token(&self) -> String {
        let token = new_token();
        *self.shared.token.write().unwrap_or_else(PoisonError::into_inner) = token.clone();
        token
    }

    /// Adds an active image (raw, bare, private, unless the attributes say otherwise); its ID.
    pub fn seed(&self, spec: ImageSpec) -> String {
        let mut attributes = Map::new();
        let size = spec.data.len();
        for (name, value) in [
            ("name", Value::from(spec.name)),
            ("status", "active".into()),
            ("visibility", "private".into()),
            ("disk_format", "raw".into()),
            ("container_format", "bare".into()),
            ("size", size.into()),
            ("virtual_size", size.into()),
        ] {
            attributes.insert(name.into(), value);
        }
        match spec.hash {
            SeedHash::Compute => Hashes::of(&*spec.data).put(&mut attributes),
            SeedHash::Known(hashes) => hashes.put(&mut attributes),
            SeedHash::Missing => {}
        }
        attributes.extend(spec.attributes);
        self.shared.store.seed(attributes, spec.data)
    }

    /// An image's record, as `GET /v2/images/ID` shows it.
    pub fn image(&self, id: &str) -> Option<Value> {
        self.shared.store.show(id).ok()
    }

    /// All images' records, hidden ones too, the newest first.
    pub fn images(&self) -> Vec<Value> {
        let list =
            |hidden: &str| self.shared.store.list(&[("os_hidden".into(), hidden.into())])["images"].take();
        let all = [list("false"), list("true")];
        all.into_iter().filter_map(|list| list.as_array().cloned()).flatten().collect()
    }

    /// An image's data, seeded or uploaded.
    pub fn data(&self, id: &str) -> Option<Arc<dyn ImageData>> {
        self.shared.store.data(id)
    }

    /// What goes wrong; can be changed while requests are under way, and holds for those that come.
    pub fn faults(&self) -> FaultsHandle {
        self.shared.faults.clone()
    }

    /// All requests so far, in the order they came.
    pub fn records(&self) -> Vec<Record> {
        self.shared.log.records()
    }

    /// Forgets all requests so far.
    pub fn clear_records(&self) {
        self.shared.log.clear();
    }
}

impl Drop for EmbeddedGlance {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// 32 random bytes.
fn new_token() -> String {
    hash::hex(&rand::random::<[u8; 32]>())
}

/// A mutex that goes on after a panic elsewhere: what it guards here is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
