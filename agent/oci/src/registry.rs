//! A registry, by the pull half of the OCI distribution API 1.1.
//!
//! Written on an HTTP client rather than taken from a registry client: those read manifests, tokens and errors of any
//! length into memory, and do not show how long a registry asks to wait. A registry is as hostile as what it serves.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http_auth::{ChallengeRef, parse_challenges};
use oci_spec::distribution::Reference;
use reqwest::header::{AUTHORIZATION, HeaderValue, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use crate::credentials::Login;
use crate::limits::Limits;
use crate::manifest::{ACCEPT, Blob};
use crate::progress::Progress;
use crate::staging::{Space, append};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest text of an error that is read, in bytes.
const COMPLAINT_BYTES: u64 = 16 << 10;
/// Longest text of an error that is shown, in characters.
const COMPLAINT_CHARS: usize = 200;

/// Why a registry gives no image.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it broke.
    #[error("the registry {0} cannot be reached: {1}")]
    Gone(String, String),
    /// There are no certificates to know it by.
    #[error("cannot speak TLS to the registry {0}: {1} (Debian package ca-certificates)")]
    Tls(String, String),
    /// It does not answer, or drips.
    #[error("the registry {0} is too slow: {1}")]
    Slow(String, String),
    /// 401 without credentials.
    #[error(
        "the registry {0} asks for a login (401), and the docker configuration has none for it: docker login {0}"
    )]
    NoLogin(String),
    /// 401 or 403 with credentials.
    #[error("the registry {0} refuses the login that there is for it ({1})")]
    Refused(String, u16),
    /// 404.
    #[error("the registry {0} has no {1} (404)")]
    Absent(String, String),
    /// 429, again and again.
    #[error(
        "the registry {0} says that it gets too many requests (429), {1} times in a row: try later or log in"
    )]
    TooMany(String, u32),
    /// Another status.
    #[error("the registry {0} answers {1}{2}")]
    Status(String, u16, String),
    /// It does not keep to the protocol.
    #[error("the registry {0} {1}")]
    Protocol(String, String),
    /// This machine's fault.
    #[error("cannot keep what the registry sends: {0}")]
    Io(#[from] io::Error),
}

/// One repository of a registry, with our standing there.
pub struct Registry<'a> {
    http: Client,
    /// What people call it.
    host: &'a str,
    /// `https://host/v2/repository`.
    base: String,
    repository: &'a str,
    login: Login,
    authorization: Mutex<Option<HeaderValue>>,
    limits: &'a Limits,
    progress: &'a dyn Progress,
}

/// Whether a registry is spoken to without TLS: only on this machine, as Docker does.
fn is_plain(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => registry,
    };
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

impl<'a> Registry<'a> {
    /// The repository of `reference`.
    pub fn new(
        reference: &'a Reference,
        login: Login,
        limits: &'a Limits,
        progress: &'a dyn Progress,
    ) -> Result<Self, RegistryError> {
        let host = reference.registry();
        let plain = is_plain(host);
        // The first caller in the process decides; that it is decided already is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = |without_roots: bool| {
            let mut builder = Client::builder()
                .user_agent(concat!("orlop/", env!("CARGO_PKG_VERSION")))
                .https_only(!plain)
                .connect_timeout(CONNECT.min(limits.idle))
                .read_timeout(limits.idle);
            if plain {
                builder = builder.no_proxy();
            }
            if without_roots { builder.tls_certs_only([]).build() } else { builder.build() }
        };
        let http = match client(false) {
            // A machine without certificates can still speak to itself.
            Err(_) if plain => client(true),
            client => client,
        };
        let http = http.map_err(|error| RegistryError::Tls(host.to_owned(), innermost(&error)))?;
        let scheme = if plain { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/{}", reference.resolve_registry(), reference.repository());
        let authorization = Mutex::new(None);
        Ok(Self {
            http,
            host,
            base,
            repository: reference.repository(),
            login,
            authorization,
            limits,
            progress,
        })
    }

    /// The manifest called `which`, a tag or `sha256:` and a digest.
    pub async fn manifest(&self, which: &str) -> Result<Vec<u8>, RegistryError> {
        let url = format!("{}/manifests/{which}", self.base);
        let what = format!("image {}:{which}", self.repository);
        let response = self.get(&url, &what, |request| request.header("accept", ACCEPT)).await?;
        self.body(response, self.limits.document_bytes).await
    }

    /// Writes `blob` into the empty `file`. A connection that breaks is taken up again where it broke.
    pub async fn blob(&self, blob: &Blob, file: &mut File, space: &Space) -> Result<(), RegistryError> {
        let url = format!("{}/blobs/sha256:{}", self.base, blob.sha256);
        let what = format!("layer sha256:{} of {}", blob.sha256, self.repository);
        let mut breaks = 0;
        let mut done = 0;
        loop {
            let range = format!("bytes={done}-");
            let ask =
                |request: RequestBuilder| if done > 0 { request.header(RANGE, &range) } else { request };
            let response = self.get(&url, &what, ask).await?;
            if response.status() != StatusCode::PARTIAL_CONTENT {
                done = 0;
            }
            file.set_len(done)?;
            file.seek(SeekFrom::Start(done))?;
            let before = done;
            match self.copy(response, blob, &mut done, file, space).await {
                Err(RegistryError::Gone(..)) if done > before && breaks + 1 < self.limits.attempts => {
                    breaks += 1
                }
                result => return result,
            }
        }
    }

    async fn copy(
        &self,
        mut response: Response,
        blob: &Blob,
        done: &mut u64,
        file: &mut File,
        space: &Space,
    ) -> Result<(), RegistryError> {
        let (mut since, mut then) = (Instant::now(), *done);
        while let Some(bytes) = response.chunk().await.map_err(|error| self.failed(&error))? {
            *done += bytes.len() as u64;
            if *done > blob.len_bytes {
                return Err(self.protocol(format!("sends more than the {} bytes of a blob", blob.len_bytes)));
            }
            append(file, &bytes, space)?;
            self.progress.bytes(*done, Some(blob.len_bytes));
            if since.elapsed() >= self.limits.idle {
                let sent = *done - then;
                if sent < self.limits.trickle_bytes {
                    let text = format!("{sent} bytes in {} s", since.elapsed().as_secs());
                    return Err(RegistryError::Slow(self.host.to_owned(), text));
                }
                (since, then) = (Instant::now(), *done);
            }
        }
        if *done < blob.len_bytes {
            let text = format!("the connection ended after {done} of {} bytes", blob.len_bytes);
            return Err(RegistryError::Gone(self.host.to_owned(), text));
        }
        Ok(())
    }

    /// Asks until there is an answer that is worth one: logs in once where that is asked for, waits where that is.
    async fn get(
        &self,
        url: &str,
        what: &str,
        ask: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let mut tried = 0;
        let mut logged_in = false;
        loop {
            let mut request = ask(self.http.get(url));
            let authorization = self.authorization.lock().ok().and_then(|held| held.clone());
            if let Some(value) = authorization {
                request = request.header(AUTHORIZATION, value);
            }
            let response = self.send(request).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && !logged_in {
                logged_in = true;
                self.log_in(&response).await?;
                continue;
            }
            tried += 1;
            let again = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            if !again || tried >= self.limits.attempts {
                return Err(self.refusal(response, what, tried).await);
            }
            let wait = self.wait(&response, tried);
            self.progress.say(&format!(
                "the registry {} answers {}: once more in {:.1} s",
                self.host,
                status.as_u16(),
                wait.as_secs_f64()
            ));
            tokio::time::sleep(wait).await;
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        // Headers that drip in one by one do not count as an answer.
        match tokio::time::timeout(self.limits.idle * 2, request.send()).await {
            Ok(sent) => sent.map_err(|error| self.failed(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    /// How long to wait before the next try: what the registry asks for (RFC 9110 §10.2.3), else twice as long each time.
    fn wait(&self, response: &Response, tried: u32) -> Duration {
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let own = Duration::from_secs(1 << tried.min(6)) / 2;
        asked.map_or(own, Duration::from_secs).min(self.limits.wait)
    }

    async fn refusal(&self, response: Response, what: &str, tried: u32) -> RegistryError {
        let host = self.host.to_owned();
        let status = response.status();
        match status {
            StatusCode::UNAUTHORIZED if self.login == Login::Anonymous => RegistryError::NoLogin(host),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Refused(host, status.as_u16()),
            StatusCode::NOT_FOUND => RegistryError::Absent(host, what.to_owned()),
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooMany(host, tried),
            _ => {
                let body = self.body(response, COMPLAINT_BYTES).await.unwrap_or_default();
                RegistryError::Status(host, status.as_u16(), complaint(&body))
            }
        }
    }

    /// Logs in as the challenge of a 401 asks (distribution API; RFC 7235, RFC 6750).
    async fn log_in(&self, response: &Response) -> Result<(), RegistryError> {
        let mut challenges = Vec::new();
        for value in response.headers().get_all(WWW_AUTHENTICATE) {
            let text = value.to_str().unwrap_or_default();
            challenges.extend(parse_challenges(text).unwrap_or_default());
        }
        let by = |scheme: &str| challenges.iter().find(|c| c.scheme.eq_ignore_ascii_case(scheme));
        let value = match (by("bearer"), &self.login) {
            (Some(challenge), _) => format!("Bearer {}", self.token(challenge).await?),
            (None, Login::Password(user, password)) if by("basic").is_some() => basic(user, password),
            _ => return Ok(()),
        };
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| self.protocol("gives a token that is no text".into()))?;
        value.set_sensitive(true);
        if let Ok(mut held) = self.authorization.lock() {
            *held = Some(value);
        }
        Ok(())
    }

    async fn token(&self, challenge: &ChallengeRef<'_>) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").unwrap_or_default();
        let mut url = Url::parse(&realm)
            .map_err(|_| self.protocol(format!("names '{}' as the place to log in", printable(&realm))))?;
        let scope = parameter("scope").unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let mut fields = vec![("scope", scope)];
        fields.extend(parameter("service").map(|service| ("service", service)));
        let request = match &self.login {
            Login::Token(token) => {
                fields.push(("grant_type", "refresh_token".to_owned()));
                fields.push(("client_id", "orlop".to_owned()));
                fields.push(("refresh_token", token.clone()));
                let mut form = url.clone();
                form.query_pairs_mut().clear().extend_pairs(&fields);
                let body = form.query().unwrap_or_default().to_owned();
                self.http.post(url).header("content-type", "application/x-www-form-urlencoded").body(body)
            }
            login => {
                url.query_pairs_mut().extend_pairs(&fields);
                let request = self.http.get(url);
                match login {
                    Login::Password(user, password) => request.header(AUTHORIZATION, basic(user, password)),
                    _ => request,
                }
            }
        };
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response, "place to log in", 1).await);
        }
        let body = self.body(response, self.limits.document_bytes).await?;
        let answer: Option<Answer> = serde_json::from_slice(&body).ok();
        answer
            .and_then(|answer| answer.token.or(answer.access_token))
            .ok_or_else(|| self.protocol("gives no token where it says that one logs in".into()))
    }

    /// All of a body that has at most `limit_bytes`.
    async fn body(&self, mut response: Response, limit_bytes: u64) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        let all = async {
            while let Some(bytes) = response.chunk().await.map_err(|error| self.failed(&error))? {
                if (body.len() + bytes.len()) as u64 > limit_bytes {
                    return Err(self.protocol(format!("sends a document of more than {limit_bytes} bytes")));
                }
                body.extend_from_slice(&bytes);
            }
            Ok(())
        };
        match tokio::time::timeout(self.limits.idle * 2, all).await {
            Ok(result) => result.map(|()| body),
            Err(_) => Err(self.silent()),
        }
    }

    fn failed(&self, error: &reqwest::Error) -> RegistryError {
        if error.is_timeout() {
            return self.silent();
        }
        RegistryError::Gone(self.host.to_owned(), innermost(error))
    }

    fn silent(&self) -> RegistryError {
        let text = format!("no answer within {} s", self.limits.idle.as_secs_f64());
        RegistryError::Slow(self.host.to_owned(), text)
    }

    fn protocol(&self, what: String) -> RegistryError {
        RegistryError::Protocol(self.host.to_owned(), what)
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes()))
}

/// The cause of an error that has the most to say: the last one.
fn innermost(error: &reqwest::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    printable(&error.to_string())
}

/// What a registry complains about, in the form of the distribution API, ready to stand at the end of a sentence.
fn complaint(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Complaint {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        message: String,
    }
    let message = serde_json::from_slice(body).ok().and_then(|c: Complaint| c.errors.into_iter().next());
    message.map_or_else(String::new, |one| format!(": {}", printable(&one.message)))
}

/// Text of a stranger, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(COMPLAINT_CHARS).collect()
}

#[cfg(test)]
mod tests;
