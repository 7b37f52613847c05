//! One request, one answer or one [`Failure`]. Blocking; no proxy and no redirect is followed, so that the token goes to the
//! address that was named and nowhere else.

use super::answer::Windows;
use crate::tls;
use crate::tools::reach::{Access, Failure};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use ureq::http::{Method, Request};
use ureq::{Agent, Timeout};

/// For a whole request. A relay on the same host answers within milliseconds; more than this is an operator's patience.
const PATIENCE: Duration = Duration::from_secs(5);
/// For a reload: the relay may read files and the stores of new windows first.
const PATIENCE_WITH_RELOADS: Duration = Duration::from_secs(60);
/// To connect. One lost SYN is forgiven.
const CONNECT: Duration = Duration::from_secs(2);
/// Bytes of an answer. A thousand connections or windows with all their facts stay well below.
const MOST: u64 = 16 << 20;
/// The characters that a segment of a path may not hold as they are.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// A relay's admin listener.
#[derive(Clone, Debug)]
pub struct ApiClient {
    access: Access,
    agent: Agent,
    patience: Duration,
}

impl ApiClient {
    /// Connects when it is first asked.
    pub fn new(access: Access) -> ApiClient {
        ApiClient::within(access, PATIENCE)
    }

    /// The same, for reloads.
    pub fn for_reloads(access: Access) -> ApiClient {
        ApiClient::within(access, PATIENCE_WITH_RELOADS)
    }

    fn within(access: Access, patience: Duration) -> ApiClient {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(patience))
            .timeout_connect(Some(CONNECT))
            .tls_config(access.tls())
            .user_agent(concat!("hapax/", env!("CARGO_PKG_VERSION")));
        ApiClient { access, agent: config.build().new_agent(), patience }
    }

    /// Where it asks.
    pub fn url(&self) -> &str {
        self.access.url()
    }

    /// `GET` of `/api/v1/…`.
    pub fn get(&self, path: &Path) -> Result<Value, Failure> {
        self.call(Method::GET, path, None)
    }

    /// The same as a type.
    pub fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<T, Failure> {
        self.understand(self.get(path)?)
    }

    /// With or without a body of JSON.
    pub fn call(&self, method: Method, path: &Path, body: Option<&Value>) -> Result<Value, Failure> {
        let (status, text) = self.exchange(method, path, body).map_err(|error| self.failure(&error))?;
        let foreign = |why: String| Failure::Foreign { url: self.url().to_owned(), why };
        let value = serde_json::from_str::<Value>(&text).ok();
        if (200..300).contains(&status) {
            return value.ok_or_else(|| foreign(format!("the answer to {} is no JSON", path.0)));
        }
        if status == 401 {
            return Err(Failure::Token { url: self.url().to_owned(), sent: self.access.token().is_some() });
        }
        // Whatever answers here speaks JSON also when it refuses, unless it is somebody else.
        let error = value.as_ref().and_then(|value| value.get("error")).and_then(Value::as_str);
        let Some(error) = error else { return Err(foreign(format!("it answers {} with {status}", path.0))) };
        let errors = value.as_ref().and_then(|value| value.get("errors")).and_then(Value::as_array);
        let errors = errors.into_iter().flatten().map(show).collect();
        Err(Failure::Refused { status, error: error.to_owned(), errors })
    }

    /// As a type.
    pub fn understand<T: DeserializeOwned>(&self, value: Value) -> Result<T, Failure> {
        serde_json::from_value(value)
            .map_err(|error| Failure::Foreign { url: self.url().to_owned(), why: error.to_string() })
    }

    /// Sends a request about one window: where the relay does not know it, its names are looked up for the message.
    pub fn of_window(
        &self,
        method: Method,
        name: &str,
        rest: impl FnOnce(Path) -> Path,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let path = rest(Path::new("windows").then(name));
        match self.call(method, &path, body) {
            Err(Failure::Refused { status: 404, error, errors }) => {
                let known: Vec<String> = self
                    .read::<Windows>(&Path::new("windows"))?
                    .windows
                    .into_iter()
                    .map(|w| w.name)
                    .collect();
                // It is there, then something else is not.
                if known.iter().any(|known| known == name) {
                    return Err(Failure::Refused { status: 404, error, errors });
                }
                Err(Failure::UnknownWindow { name: name.to_owned(), known })
            }
            other => other,
        }
    }

    fn exchange(
        &self,
        method: Method,
        path: &Path,
        body: Option<&Value>,
    ) -> Result<(u16, String), ureq::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{}", self.url(), path.0))
            .header("accept", "application/json");
        if let Some(token) = self.access.token() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        // A change without a body has the type, too: that is how the relay tells it from a form of a foreign page.
        request = request.header("content-type", "application/json");
        let mut response = match body {
            Some(body) => self.agent.run(request.body(body.to_string())?)?,
            None => self.agent.run(request.body(())?)?,
        };
        let text = response.body_mut().with_config().limit(MOST).lossy_utf8(true).read_to_string()?;
        Ok((response.status().as_u16(), text))
    }

    fn failure(&self, error: &ureq::Error) -> Failure {
        let url = self.url().to_owned();
        match error {
            ureq::Error::Io(error) => Failure::of_io(url, error),
            ureq::Error::Rustls(error) => Failure::Untrusted { url, why: tls::explain(error) },
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                Failure::Unreachable { url, why: format!("no connection within {} s", CONNECT.as_secs()) }
            }
            ureq::Error::Timeout(_) => Failure::Silent { url, seconds: self.patience.as_secs() },
            ureq::Error::HostNotFound => {
                Failure::Unreachable { url, why: "there is no such host".to_owned() }
            }
            ureq::Error::ConnectionFailed => {
                Failure::Unreachable { url, why: "the connection failed".to_owned() }
            }
            other => Failure::Foreign { url, why: other.to_string() },
        }
    }
}

/// An element of `errors`: a text, or an object whose members are shown.
fn show(error: &Value) -> String {
    match error {
        Value::String(text) => text.clone(),
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| match value {
                Value::String(text) => format!("{key}: {text}"),
                other => format!("{key}: {other}"),
            });
            members.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// A path under `/api/v1`, encoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path(String);

impl Path {
    /// One of the API's own words.
    pub fn new(word: &'static str) -> Path {
        Path(format!("/api/v1/{word}"))
    }

    /// And then this segment, whatever it holds.
    #[must_use]
    pub fn then(self, segment: &str) -> Path {
        Path(format!("{}/{}", self.0, utf8_percent_encode(segment, SEGMENT)))
    }

    /// Behind the last segment.
    #[must_use]
    pub fn query(self, key: &str, value: &str) -> Path {
        let sign = if self.0.contains('?') { '&' } else { '?' };
        Path(format!("{}{sign}{key}={}", self.0, utf8_percent_encode(value, SEGMENT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_a_segment_stays_one() {
        let path = Path::new("windows")
            .then("a b")
            .then("ids")
            .then("../x?y#z%ü")
            .query("exchange", "a&b")
            .query("k", "=");
        assert_eq!(path.0, "/api/v1/windows/a%20b/ids/%2E%2E%2Fx%3Fy%23z%25%C3%BC?exchange=a%26b&k=%3D");
    }
}
