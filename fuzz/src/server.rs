//! A server on loopback that answers as the fuzzer says: raw TCP, since HTTP libraries are too polite.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use arbitrary::Arbitrary;

/// What every request carries, and no message may show.
pub const TOKEN: &str = "gAAAAABtokenOfTheFuzzer";

/// Longest head of a request.
const HEAD_MAX: usize = 64 << 10;

/// A header of an answer.
#[derive(Arbitrary, Clone, Debug)]
pub enum Header {
    Length(u16),
    /// The true one.
    RightLength,
    ContentRange {
        start: u16,
        len: u16,
        total: Option<u16>,
    },
    Chunked,
    RetryAfter(u8),
    Location(String),
    Encoding,
    Other(String, String),
}

/// The body of an answer.
#[derive(Arbitrary, Clone, Debug)]
pub enum Content {
    Nothing,
    Bytes(Vec<u8>),
    /// The same byte many times, up to 16 MiB.
    Much(u8, u8),
    Html(String),
    /// A JSON object of an image, as right as the fields are.
    Image(Vec<Field>),
    /// A page of such objects.
    Images(Vec<Vec<Field>>, Option<String>),
    /// What the server was told in confidence.
    Token(String),
    Json(String),
}

/// A field of an image.
#[derive(Arbitrary, Clone, Debug)]
pub enum Field {
    Id(String),
    RightId,
    Status(u8),
    Name(String),
    Size(i64),
    Text(String, String),
    Number(String, i32),
    Deep(u8),
}

/// One answer.
#[derive(Arbitrary, Clone, Debug)]
pub struct Answer {
    status: u8,
    odd_status: u16,
    headers: Vec<Header>,
    content: Content,
    /// Where it is cut, if it is.
    cut: Option<u16>,
    /// How much of the request's body is read first, in KiB.
    reads: u8,
    /// Whether further requests may come on the same connection.
    goes_on: bool,
    /// In place of all that.
    raw: Option<Vec<u8>>,
}

const STATUSES: [u16; 22] = [
    200, 201, 204, 206, 300, 301, 302, 400, 401, 403, 404, 408, 409, 410, 413, 415, 416, 429, 500, 501, 502,
    503,
];
const STATES: [&str; 8] =
    ["active", "queued", "saving", "deactivated", "killed", "deleted", "importing", "x\u{1b}[2J"];

static SCRIPT: Mutex<Vec<Answer>> = Mutex::new(Vec::new());

/// Starts the server if it does not run yet, gives it a script, and tells its address.
pub fn play(mut script: Vec<Answer>) -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    script.reverse();
    *SCRIPT.lock().expect("nobody panics with it") = script;
    ADDRESS.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever hangs up on us is right.
                let _ = serve(stream);
            }
        });
        address
    })
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(3)))?;
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    loop {
        let mut head = Vec::new();
        let mut piece = [0; 4096];
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let len = stream.read(&mut piece)?;
            if len == 0 || head.len() > HEAD_MAX {
                return Ok(());
            }
            head.extend_from_slice(&piece[..len]);
        }
        let Some(answer) = SCRIPT.lock().expect("nobody panics with it").pop() else { return Ok(()) };
        let mut left = usize::from(answer.reads) << 10;
        while left > 0 {
            // A request without a body: nothing comes, and the time is up.
            let Ok(len @ 1..) = stream.read(&mut piece) else { break };
            left = left.saturating_sub(len);
        }
        stream.write_all(&answer.bytes())?;
        if !answer.goes_on {
            return Ok(());
        }
    }
}

impl Answer {
    fn bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let status = match STATUSES.get(usize::from(self.status) % (STATUSES.len() + 2)) {
            Some(&status) => status,
            None => self.odd_status % 1000,
        };
        let body = self.content.bytes();
        let mut bytes = format!("HTTP/1.1 {status:03} Whatever\r\n").into_bytes();
        let mut chunked = false;
        for header in &self.headers {
            let line = match header {
                Header::Length(len) => format!("Content-Length: {len}"),
                Header::RightLength => format!("Content-Length: {}", body.len()),
                Header::ContentRange { start, len, total } => {
                    let total = total.map_or("*".to_owned(), |total| total.to_string());
                    format!("Content-Range: bytes {start}-{}/{total}", u32::from(*start) + u32::from(*len))
                }
                Header::Chunked => {
                    chunked = true;
                    "Transfer-Encoding: chunked".to_owned()
                }
                Header::RetryAfter(seconds) => format!("Retry-After: {seconds}"),
                Header::Location(place) => format!("Location: {place}"),
                Header::Encoding => "Content-Encoding: gzip".to_owned(),
                Header::Other(name, value) => format!("{name}: {value}"),
            };
            bytes.extend(line.into_bytes());
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"\r\n");
        if chunked {
            for piece in body.chunks(1 << 16) {
                bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
                bytes.extend(piece);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        } else {
            bytes.extend(body);
        }
        if let Some(cut) = self.cut {
            bytes.truncate(usize::from(cut));
        }
        bytes
    }
}

/// Text as JSON has it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if (c as u32) < 32 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out + "\""
}

fn image(fields: &[Field]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|field| match field {
            Field::Id(id) => format!("\"id\": {}", quoted(id)),
            Field::RightId => "\"id\": \"11111111-2222-3333-4444-555555555555\"".to_owned(),
            Field::Status(status) => {
                format!("\"status\": {}", quoted(STATES[usize::from(*status) % STATES.len()]))
            }
            Field::Name(name) => format!("\"name\": {}", quoted(name)),
            Field::Size(size) => format!("\"size\": {size}"),
            Field::Text(name, value) => format!("{}: {}", quoted(name), quoted(value)),
            Field::Number(name, value) => format!("{}: {value}", quoted(name)),
            Field::Deep(depth) => {
                let depth = usize::from(*depth) * 8;
                format!("\"deep\": {}{}", "[".repeat(depth), "]".repeat(depth))
            }
        })
        .collect();
    format!("{{{}}}", fields.join(", "))
}

impl Content {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Bytes(bytes) => bytes.clone(),
            Self::Much(byte, count) => vec![*byte; usize::from(*count) << 16],
            Self::Html(text) => {
                format!("<html><head><title>t</title></head><body><h1>h</h1>{text}</body></html>")
                    .into_bytes()
            }
            Self::Image(fields) => image(fields).into_bytes(),
            Self::Images(images, next) => {
                let images: Vec<String> = images.iter().map(|fields| image(fields)).collect();
                let next =
                    next.as_ref().map_or(String::new(), |next| format!(", \"next\": {}", quoted(next)));
                format!("{{\"images\": [{}]{next}}}", images.join(", ")).into_bytes()
            }
            Self::Token(text) => format!("{text}{TOKEN}{text}").into_bytes(),
            Self::Json(text) => format!("{{\"message\": {}}}", quoted(text)).into_bytes(),
        }
    }
}
