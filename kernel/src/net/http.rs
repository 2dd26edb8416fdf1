//! As much of HTTP/1.1 (RFC 9112) as serving a few resources takes: reading a
//! request's head, and writing a response's. Each connection serves one request.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The longest request line, in bytes with its end.
const MAX_REQUEST_LINE: usize = 1024;

/// The longest head that is taken, request line and all, in bytes.
pub const MAX_HEAD: usize = 8192;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method; they differ by case.
    pub method: &'a str,
    /// The target's path, as it came: not decoded, without the query.
    pub path: &'a str,
}

/// How a request ended (RFC 9110, section 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 200.
    Ok,
    /// 400.
    BadRequest,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 408.
    RequestTimeout,
    /// 414.
    UriTooLong,
    /// 431.
    HeadersTooLarge,
    /// 505.
    VersionNotSupported,
}

impl Status {
    /// The code and its phrase.
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::UriTooLong => "414 URI Too Long",
            Self::HeadersTooLarge => "431 Request Header Fields Too Large",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

/// A request that is not taken: the status, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub Status, pub String);

/// Reads the head of a request. `None` if there has to come more.
///
/// # Errors
///
/// What is wrong with it; more will not mend it.
pub fn parse(bytes: &[u8]) -> Result<Option<Request<'_>>, Refusal> {
    let mut lines = Lines { rest: bytes, at: 0 };
    // 2.2: an empty line or two before the request line is passed over.
    let line = loop {
        match lines.next() {
            Some([]) => {}
            Some(line) => break line,
            None if lines.rest.len() >= MAX_REQUEST_LINE => return Err(too_long()),
            None if bytes.len() >= MAX_HEAD => return Err(too_large()),
            None => return Ok(None),
        }
    };
    if line.len() >= MAX_REQUEST_LINE {
        return Err(too_long());
    }
    let (request, version) = request_line(text(line)?)?;
    let mut host = false;
    loop {
        match lines.next() {
            Some([]) => break,
            Some(line) => host |= field_name(text(line)?)?.eq_ignore_ascii_case("host"),
            None if bytes.len() >= MAX_HEAD => return Err(too_large()),
            None => return Ok(None),
        }
    }
    if lines.at > MAX_HEAD {
        return Err(too_large());
    }
    // 3.2: whoever speaks 1.1 says whom it means to speak to.
    if version == "HTTP/1.1" && !host {
        return Err(bad("a request of HTTP/1.1 has to have a Host header"));
    }
    Ok(Some(request))
}

/// Lines that have ended, without their ends; `rest` has what comes after.
struct Lines<'a> {
    rest: &'a [u8],
    /// How many bytes are read.
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| byte == b'\n')?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        self.at += end + 1;
        // 2.2: the line feed alone may end a line as well.
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// Reads `GET /path HTTP/1.1`. The version comes back too.
fn request_line(line: &str) -> Result<(Request<'_>, &str), Refusal> {
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad("a request line has a method, a target and a version"));
    };
    if !is_token(method) {
        return Err(bad("the method is no token"));
    }
    match version {
        "HTTP/1.1" | "HTTP/1.0" => {}
        _ if version.starts_with("HTTP/") => {
            let message = "this server speaks HTTP/1.1 and HTTP/1.0";
            return Err(Refusal(Status::VersionNotSupported, message.to_string()));
        }
        _ => return Err(bad("the request line does not end in a version of HTTP")),
    }
    // 3.2.2: a proxy's form is accepted too.
    let scheme = "http://";
    let path = match target.get(..scheme.len()) {
        Some(start) if start.eq_ignore_ascii_case(scheme) => {
            let rest = &target[scheme.len()..];
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("the target is no path"));
    }
    Ok((Request { method, path }, version))
}

/// Checks a header's line, and finds its name.
fn field_name(line: &str) -> Result<&str, Refusal> {
    // 5.1: no space before the colon; 5.2: nor is a line folded.
    let name = line.split_once(':').map(|(name, _)| name);
    let name = name.filter(|name| is_token(name));
    name.ok_or_else(|| bad("a header is a name, a colon and a value"))
}

/// Whether a text is a token (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_char)
}

fn text(line: &[u8]) -> Result<&str, Refusal> {
    let text = core::str::from_utf8(line).ok();
    text.filter(|text| !text.contains('\0'))
        .ok_or_else(|| bad("the head is not text"))
}

fn bad(message: &str) -> Refusal {
    Refusal(Status::BadRequest, message.to_string())
}

fn too_long() -> Refusal {
    let message = format!("a request line has at most {MAX_REQUEST_LINE} bytes");
    Refusal(Status::UriTooLong, message)
}

fn too_large() -> Refusal {
    let message = format!("a request's head has at most {MAX_HEAD} bytes");
    Refusal(Status::HeadersTooLarge, message)
}

/// A part of a response's body.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Text of the program's.
    Static(&'static str),
    /// Text that others have too.
    Shared(Arc<str>),
    /// Text that was made for it.
    Owned(String),
}

impl AsRef<str> for Piece {
    fn as_ref(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
            Self::Owned(text) => text,
        }
    }
}

/// A body, in pieces, so that large ones are never copied into one.
pub type Body = Rc<Vec<Piece>>;

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// `text/html`.
    Html,
    /// `application/json`.
    Json,
    /// `text/plain`.
    Text,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// How the request ended.
    pub status: Status,
    /// What the body is.
    pub content: Content,
    /// The methods that the resource has, if that is the matter.
    pub allow: Option<&'static str>,
    /// The body.
    pub body: Body,
}

impl Response {
    /// A response with a body of a kind.
    pub fn new(status: Status, content: Content, body: Body) -> Self {
        Self {
            status,
            content,
            allow: None,
            body,
        }
    }

    /// A response in words.
    pub fn text(status: Status, message: String) -> Self {
        let body = Rc::new([Piece::Owned(message), Piece::Static("\n")].into());
        Self::new(status, Content::Text, body)
    }

    /// The head, with the empty line that ends it.
    pub fn head(&self) -> String {
        let content = match self.content {
            Content::Html => "text/html; charset=utf-8",
            Content::Json => "application/json",
            Content::Text => "text/plain; charset=utf-8",
        };
        let length: usize = self.body.iter().map(|piece| piece.as_ref().len()).sum();
        let allow = match self.allow {
            Some(methods) => format!("Allow: {methods}\r\n"),
            None => String::new(),
        };
        format!(
            "HTTP/1.1 {}\r\n\
             Content-Type: {content}\r\n\
             Content-Length: {length}\r\n\
             Cache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n\
             {allow}\
             Connection: close\r\n\r\n",
            self.status.line()
        )
    }
}

impl From<Refusal> for Response {
    fn from(Refusal(status, message): Refusal) -> Self {
        Self::text(status, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> Option<Status> {
        parse(text.as_bytes())
            .err()
            .map(|Refusal(status, _)| status)
    }

    #[test]
    fn a_request_is_its_method_and_its_path() {
        let get = |text: &'static str| {
            let request = parse(text.as_bytes()).unwrap().unwrap();
            (request.method, request.path)
        };
        assert_eq!(get("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), ("GET", "/"));
        assert_eq!(
            get("HEAD /a?b=/c HTTP/1.1\r\nhOST:\r\nX-Y: é\r\n\r\nbody"),
            ("HEAD", "/a")
        );
        assert_eq!(get("\r\n\nPOST /quit HTTP/1.0\n\n"), ("POST", "/quit"));
        assert_eq!(
            get("GET HTTP://h:80/x HTTP/1.1\r\nHost: h\r\n\r\n"),
            ("GET", "/x")
        );
        assert_eq!(get("GET http://h HTTP/1.0\r\n\r\n"), ("GET", "/"));
    }

    #[test]
    fn every_part_of_a_request_waits_for_more() {
        let whole = "\r\nGET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(parse(&whole.as_bytes()[..end]), Ok(None), "{end}");
        }
        assert!(parse(whole.as_bytes()).unwrap().is_some());
    }

    #[test]
    fn what_is_not_http_is_refused() {
        let bad = Some(Status::BadRequest);
        assert_eq!(status("GET /\r\n"), bad);
        assert_eq!(status("GET  / HTTP/1.1\r\n"), bad);
        assert_eq!(status("GET / HTTP/1.1 x\r\n"), bad);
        assert_eq!(status("G@T / HTTP/1.1\r\n"), bad);
        assert_eq!(status("GET x HTTP/1.1\r\n"), bad);
        assert_eq!(status("GET /\u{1} HTTP/1.1\r\n"), bad);
        assert_eq!(status("GET / FTP/1.1\r\n"), bad);
        assert_eq!(
            status("GET / HTTP/2.0\r\n"),
            Some(Status::VersionNotSupported)
        );
        let headers = |lines: &str| status(&format!("GET / HTTP/1.1\r\n{lines}\r\n"));
        assert_eq!(headers("Host: a\r\n"), None);
        assert_eq!(headers(""), bad, "no host");
        assert_eq!(headers("Host : a\r\n"), bad);
        assert_eq!(headers("Host: a\r\n folded: b\r\n"), bad);
        assert_eq!(headers("Host: a\r\nnothing\r\n"), bad);
        assert_eq!(headers("Host: a\r\n: b\r\n"), bad);
        assert_eq!(headers("Host: a\0\r\n"), bad);
        let error = parse(b"GET / HTTP/1.1\r\nHost: \xff\r\n").unwrap_err();
        assert_eq!(error.0, Status::BadRequest);
        assert_eq!(status("\u{16}\u{3}\u{1}\r\n"), bad, "TLS");
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_ends() {
        let line = |path: usize| format!("GET /{} HTTP/1.0", "x".repeat(path));
        let fits = MAX_REQUEST_LINE - line(0).len() - 1;
        assert_eq!(status(&format!("{}\n\n", line(fits))), None);
        let too_long = Some(Status::UriTooLong);
        assert_eq!(status(&format!("{}\n\n", line(fits + 1))), too_long);
        assert_eq!(status(&line(fits + 1)), too_long);
        assert_eq!(status(&line(fits)[..]), None);

        let head = |value: usize| format!("GET / HTTP/1.0\r\nX: {}", "x".repeat(value));
        let fits = MAX_HEAD - head(0).len() - 4;
        assert_eq!(status(&format!("{}\r\n\r\n", head(fits))), None);
        let too_large = Some(Status::HeadersTooLarge);
        assert_eq!(status(&format!("{}\r\n\r\n", head(fits + 1))), too_large);
        assert_eq!(status(&head(fits + 4)), too_large);
        assert_eq!(status(&head(fits + 3)), None);
        assert_eq!(status(&"\n".repeat(MAX_HEAD)), too_large);
    }

    #[test]
    fn a_head_says_how_long_the_body_is() {
        let pieces = [Piece::Static("é"), Piece::Owned("ab".into())];
        let mut response = Response::new(Status::Ok, Content::Html, Rc::new(pieces.into()));
        assert_eq!(
            response.head(),
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 4\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\r\n"
        );
        response.allow = Some("GET, HEAD");
        response.status = Status::MethodNotAllowed;
        let head = response.head();
        assert!(
            head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\nAllow: GET, HEAD\r\n"), "{head}");
    }

    #[test]
    fn a_refusal_is_a_text() {
        let response = Response::from(too_large());
        assert!(response.head().contains("431 Request Header Fields"));
        let body: String = response.body.iter().map(AsRef::as_ref).collect();
        assert_eq!(body, "a request's head has at most 8192 bytes\n");
    }
}
