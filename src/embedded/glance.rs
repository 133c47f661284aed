//! The API: who asks, for what, and in which shape the answer goes.

use std::sync::{Arc, RwLock};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::EmbeddedOptions;
use super::answer::{Refused, empty, header, json, unauthorized};
use super::download::download;
use super::faults::{FaultsHandle, Route, occur};
use super::record::{Entry, Log};
use super::store::Store;
use super::upload::upload;
use super::wire::Control;

/// The longest JSON body that is taken, in bytes.
const JSON_BYTES: usize = 1 << 20;

/// What all requests share.
pub(super) struct Shared {
    pub(super) options: EmbeddedOptions,
    pub(super) endpoint: String,
    pub(super) token: RwLock<String>,
    pub(super) store: Arc<Store>,
    pub(super) faults: FaultsHandle,
    pub(super) log: Log,
    /// The only worker, where there is only one.
    pub(super) worker: Arc<Semaphore>,
}

/// One request.
pub(super) struct Call {
    pub(super) shared: Arc<Shared>,
    pub(super) control: Control,
    pub(super) entry: Arc<Entry>,
}

/// The service.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    // One handler for all paths: the answers to wrong methods and paths are Glance's, not axum's.
    Router::new().fallback(handle).with_state(shared)
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(control): ConnectInfo<Control>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let (route, id) = route(&parts.method, parts.uri.path());
    let entry = shared.log.begin(route, &parts);
    control.count_for(&entry);
    let single = shared.faults.lock().single_worker;
    let permit = if single { Arc::clone(&shared.worker).acquire_owned().await.ok() } else { None };
    let call = Call { shared, control, entry };
    let mut response = match call.stopped(route, &parts.headers) {
        Some(response) => response,
        None => {
            let answer =
                call.answer(route, id, &parts.method, &parts.uri, &parts.headers, body, permit).await;
            answer.unwrap_or_else(IntoResponse::into_response)
        }
    };
    if route == Route::Upload && !response.status().is_success() {
        // Parts of the body may never have been read: the connection cannot be used again.
        header(&mut response, "connection", "close");
    }
    call.entry.note(|record| {
        record.status = Some(response.status().as_u16());
        // The body of a download says so itself.
        record.finished |= route != Route::Download || !response.status().is_success();
    });
    response
}

/// Which call a method and a path make, and on which image.
fn route<'a>(method: &Method, path: &'a str) -> (Route, &'a str) {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (method.as_str(), &segments[..]) {
        ("GET", ["v2", "images"]) => (Route::List, ""),
        ("POST", ["v2", "images"]) => (Route::Create, ""),
        ("GET", ["v2", "images", id]) => (Route::Show, id),
        ("PATCH", ["v2", "images", id]) => (Route::Update, id),
        ("DELETE", ["v2", "images", id]) => (Route::Delete, id),
        ("GET", ["v2", "images", id, "file"]) => (Route::Download, id),
        ("PUT", ["v2", "images", id, "file"]) => (Route::Upload, id),
        _ => (Route::Other, ""),
    }
}

impl Call {
    /// The answer that a request gets before anyone looks at what it wants.
    fn stopped(&self, route: Route, headers: &HeaderMap) -> Option<Response> {
        let fault = self.shared.faults.lock().answer(route);
        if let Some(fault) = fault {
            let mut response = if fault.status == 401 {
                unauthorized(&self.shared.endpoint)
            } else {
                Refused::new(fault.status, fault.text).into_response()
            };
            if let Some(seconds) = fault.retry_after {
                header(&mut response, "retry-after", &seconds.to_string());
            }
            return Some(response);
        }
        let token = self.shared.token.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let right = headers.get("x-auth-token").is_some_and(|sent| sent.as_bytes() == token.as_bytes());
        (!right).then(|| unauthorized(&self.shared.endpoint))
    }

    #[allow(clippy::too_many_arguments, reason = "a request taken apart once")]
    async fn answer(
        &self,
        route: Route,
        id: &str,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Body,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, Refused> {
        let store = &self.shared.store;
        match route {
            Route::List => {
                let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
                let Query(query) = query.map_err(|error| Refused::new(400, error.to_string()))?;
                Ok(json(StatusCode::OK, &store.list(&query)))
            }
            Route::Show => Ok(json(StatusCode::OK, &store.show(id)?)),
            Route::Create => self.create(body).await,
            Route::Update => {
                let kind =
                    headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
                if !kind.starts_with("application/openstack-images-v2.") {
                    return Err(Refused::new(415, "Unsupported Content-Type for a patch"));
                }
                let patch = self.read_json(body).await?;
                let forbidden = self.shared.faults.lock().forbidden_properties.clone();
                Ok(json(StatusCode::OK, &store.update(id, &patch, &forbidden)?))
            }
            Route::Delete => store.delete(id).map(|()| empty(StatusCode::NO_CONTENT)),
            Route::Download => download(self, id, headers, permit),
            Route::Upload => upload(self, id, headers, body).await,
            Route::Other => Ok(other(method, uri.path())),
        }
    }

    async fn create(&self, body: Body) -> Result<Response, Refused> {
        let Value::Object(body) = self.read_json(body).await? else {
            return Err(Refused::new(400, "Expected 'image' to be an object"));
        };
        let forbidden = self.shared.faults.lock().forbidden_properties.clone();
        let image = self.shared.store.create(body, &forbidden)?;
        let mut response = json(StatusCode::CREATED, &image);
        let location = format!("{}{}", self.shared.endpoint, image["self"].as_str().unwrap_or_default());
        header(&mut response, "location", &location);
        header(&mut response, "openstack-image-import-methods", "glance-direct,web-download,copy-image");
        let lost = occur(&mut self.shared.faults.lock().create_lost);
        Ok(self.lose(lost, response))
    }

    async fn read_json(&self, body: Body) -> Result<Value, Refused> {
        let bytes = to_bytes(body, JSON_BYTES).await.map_err(|error| Refused::new(400, error.to_string()))?;
        self.entry.note(|record| record.received_bytes = bytes.len() as u64);
        serde_json::from_slice(&bytes).map_err(|_| Refused::new(400, "Malformed JSON in request body."))
    }
}

/// What is no call of the API: a wrong method, or a wrong path.
fn other(method: &Method, path: &str) -> Response {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let allow = match &segments[..] {
        ["v2", "images"] => "GET, POST",
        ["v2", "images", _] => "GET, PATCH, DELETE",
        ["v2", "images", _, "file"] => "GET, PUT",
        _ => return Refused::new(404, "The resource could not be found.").into_response(),
    };
    let text = format!("The method {method} is not allowed for this resource.");
    let mut response = Refused::new(405, text).into_response();
    header(&mut response, "allow", allow);
    response
}
