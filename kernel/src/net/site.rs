//! What is served: the results of this boot.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::http::{Body, Content, Piece, Request, Response, Status};
use super::page;
use crate::results::Snapshot;

/// The resources, with their methods.
const RESOURCES: &[(&str, &str)] = &[
    ("/", "GET, HEAD"),
    ("/results.json", "GET, HEAD"),
    ("/health", "GET, HEAD"),
    ("/quit", "POST"),
];

/// What is served, made anew when there are new results.
pub struct Site<S> {
    source: S,
    made: Option<Made>,
    /// Whether someone asked to end the run.
    pub quit: bool,
}

/// What was made of the results.
struct Made {
    /// How many records there had been.
    count: u64,
    page: Body,
    json: Body,
}

/// Where the results are.
pub trait Source {
    /// How many records there have been.
    fn count(&self) -> u64;
    /// Those that are kept.
    fn snapshot(&self) -> Snapshot;
}

impl<S: Source> Site<S> {
    /// A site about these results.
    pub fn new(source: S) -> Self {
        Self {
            source,
            made: None,
            quit: false,
        }
    }

    /// Answers a request.
    pub fn answer(&mut self, request: &Request<'_>) -> Response {
        let found = RESOURCES.iter().find(|(path, _)| *path == request.path);
        let Some((path, methods)) = found else {
            let message = format!("there is no {}; {}", request.path, what_there_is());
            return Response::text(Status::NotFound, message);
        };
        if !methods.split(", ").any(|method| method == request.method) {
            let method = request.method;
            let message = format!("{path} has no {method}; {}", what_there_is());
            let mut response = Response::text(Status::MethodNotAllowed, message);
            response.allow = Some(methods);
            return response;
        }
        match *path {
            "/" => Response::new(Status::Ok, Content::Html, self.made().page.clone()),
            "/results.json" => Response::new(Status::Ok, Content::Json, self.made().json.clone()),
            "/quit" => {
                self.quit = true;
                Response::text(Status::Ok, "the guest ends its run".to_string())
            }
            _ => Response::text(Status::Ok, "ok".to_string()),
        }
    }

    fn made(&mut self) -> &Made {
        let count = self.source.count();
        let made = self.made.take().filter(|made| made.count == count);
        let made = made.unwrap_or_else(|| {
            let snapshot = self.source.snapshot();
            Made {
                count,
                page: Rc::new([Piece::Owned(page::render(&snapshot))].into()),
                json: Rc::new(json(snapshot)),
            }
        });
        self.made.insert(made)
    }
}

/// A sentence about it.
fn what_there_is() -> String {
    let one = |(path, methods): &(&str, &str)| format!("{path} ({methods})");
    let all: Vec<String> = RESOURCES.iter().map(one).collect();
    format!("there are {}", all.join(", "))
}

/// All records in one object, each as it was emitted.
fn json(snapshot: Snapshot) -> Vec<Piece> {
    let dropped = snapshot.dropped;
    let mut pieces = Vec::with_capacity(2 * snapshot.records.len() + 2);
    pieces.push(Piece::Owned(format!(
        "{{\"v\":1,\"dropped\":{dropped},\"records\":["
    )));
    for (index, record) in snapshot.records.into_iter().enumerate() {
        pieces.push(Piece::Static(if index == 0 { "\n" } else { ",\n" }));
        pieces.push(Piece::Shared(record));
    }
    pieces.push(Piece::Static("\n]}\n"));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use serde_json::Value;
    use std::vec;

    struct Fake<'a>(&'a Cell<u64>, Vec<&'static str>);

    impl Source for Fake<'_> {
        fn count(&self) -> u64 {
            self.0.get()
        }

        fn snapshot(&self) -> Snapshot {
            Snapshot {
                records: self.1.iter().map(|&json| json.into()).collect(),
                dropped: 3,
            }
        }
    }

    fn ask(site: &mut Site<Fake<'_>>, method: &str, path: &str) -> (Response, String) {
        let response = site.answer(&Request { method, path });
        let body = response.body.iter().map(AsRef::as_ref).collect();
        (response, body)
    }

    #[test]
    fn all_records_are_one_object() {
        let count = Cell::new(2);
        let records = vec![r#"{"v":1,"kind":"a"}"#, r#"{"v":1,"kind":"b"}"#];
        let mut site = Site::new(Fake(&count, records));
        let (response, body) = ask(&mut site, "GET", "/results.json");
        assert_eq!(
            (response.status, response.content),
            (Status::Ok, Content::Json)
        );
        let value: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&value["v"], &value["dropped"]), (&1.into(), &3.into()));
        assert_eq!(value["records"][1]["kind"], "b");
        assert_eq!(value["records"].as_array().unwrap().len(), 2);

        let mut none = Site::new(Fake(&count, vec![]));
        let (_, body) = ask(&mut none, "GET", "/results.json");
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap()["records"],
            Value::Array(vec![])
        );
    }

    #[test]
    fn it_is_made_anew_with_new_results_only() {
        let count = Cell::new(2);
        let mut site = Site::new(Fake(&count, vec!["{}"]));
        let first = ask(&mut site, "GET", "/").0.body;
        assert!(Rc::ptr_eq(&first, &ask(&mut site, "HEAD", "/").0.body));
        count.set(3);
        assert!(!Rc::ptr_eq(&first, &ask(&mut site, "GET", "/").0.body));
    }

    #[test]
    fn what_is_not_there_is_told_from_what_is() {
        let count = Cell::new(0);
        let mut site = Site::new(Fake(&count, vec![]));
        let (response, body) = ask(&mut site, "GET", "/x");
        assert_eq!(response.status, Status::NotFound);
        assert_eq!(
            body,
            "there is no /x; there are / (GET, HEAD), /results.json (GET, HEAD), \
             /health (GET, HEAD), /quit (POST)\n"
        );
        let (response, body) = ask(&mut site, "GET", "/quit");
        assert_eq!(response.status, Status::MethodNotAllowed);
        assert_eq!(response.allow, Some("POST"));
        assert!(body.starts_with("/quit has no GET; there are "), "{body}");
        assert_eq!(
            ask(&mut site, "get", "/").0.status,
            Status::MethodNotAllowed
        );
        assert_eq!(ask(&mut site, "HEAD", "/health").1, "ok\n");
        assert!(!site.quit);
        assert_eq!(ask(&mut site, "POST", "/quit").0.status, Status::Ok);
        assert!(site.quit);
    }
}
