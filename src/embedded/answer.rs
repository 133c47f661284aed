//! Answers in Glance's own shapes: webob's HTML for errors, JSON for the rest.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// An answer that refuses, with what the HTML body says.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Refused {
    pub(super) fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// 404 for an image.
    pub(super) fn no_image(id: &str) -> Self {
        Self::new(404, format!("No image found with ID {id}"))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Unknown"));
        let text = self.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let html = format!(
            "<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n  \
             {text}<br /><br />\n\n\n </body>\n</html>"
        );
        let mut response = (status, html).into_response();
        header(&mut response, "content-type", "text/html; charset=UTF-8");
        response
    }
}

/// Sets a header; a value that HTTP cannot carry is left out.
pub(super) fn header(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = value.parse() {
        response.headers_mut().insert(name, value);
    }
}

/// A JSON body.
pub(super) fn json(status: StatusCode, body: &Value) -> Response {
    let mut response = (status, body.to_string()).into_response();
    header(&mut response, "content-type", "application/json");
    response
}

/// 401 as Keystone's middleware gives it.
pub(super) fn unauthorized(endpoint: &str) -> Response {
    let body = serde_json::json!({"error": {
        "message": "The request you have made requires authentication.", "code": 401, "title": "Unauthorized"
    }});
    let mut response = json(StatusCode::UNAUTHORIZED, &body);
    header(&mut response, "www-authenticate", &format!("Keystone uri=\"{endpoint}\""));
    response
}

/// A status without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
