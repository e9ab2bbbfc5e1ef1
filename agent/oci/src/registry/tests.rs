use std::collections::VecDeque;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::manifest::sha256;
use crate::progress::Quiet;

/// A hostile peer: answers each request with the next of these texts, and keeps what was asked.
struct Peer {
    host: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    async fn start(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let own = host.clone();
        tokio::spawn(async move {
            let mut answers = VecDeque::from(answers);
            while let (Some(answer), Ok((mut stream, _))) = (answers.pop_front(), listener.accept().await) {
                let request = request(&mut stream).await;
                heard.lock().unwrap().push(request);
                let text = replaced(&answer, b"@HOST@", own.as_bytes());
                drop(stream.write_all(&text).await);
                if text.is_empty() {
                    // Silence: the connection stays open until the peer of it goes away.
                    tokio::spawn(
                        async move { while stream.read(&mut [0; 64]).await.is_ok_and(|len| len > 0) {} },
                    );
                }
            }
        });
        Self { host, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 1024];
    while !text.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(len) if len > 0 => text.extend_from_slice(&piece[..len]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match text.windows(from.len()).position(|at| at == from) {
        Some(at) => [&text[..at], to, &text[at + from.len()..]].concat(),
        None => text.to_vec(),
    }
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn limits() -> Limits {
    Limits {
        idle: Duration::from_millis(500),
        wait: Duration::from_millis(10),
        reserve_bytes: 0,
        document_bytes: 10_000,
        ..Limits::default()
    }
}

async fn manifest(host: &str, login: Login) -> Result<Vec<u8>, String> {
    let reference: Reference = format!("{host}/a/b:v1").parse().unwrap();
    let limits = limits();
    let registry = Registry::new(&reference, login, &limits, &Quiet).unwrap();
    registry.manifest("v1").await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn each_refusal_is_one_clear_sentence() {
    for (status, said) in [
        (
            "401 Unauthorized",
            "asks for a login (401), and the docker configuration has none for it: docker login 127",
        ),
        ("403 Forbidden", "refuses the login that there is for it (403)"),
        ("404 Not Found", "has no image a/b:v1 (404)"),
        ("418 Teapot", "answers 418: no \u{20}coffee"),
    ] {
        let body = br#"{"errors":[{"code":"X","message":"no \u0007coffee"}]}"#;
        let peer = Peer::start(vec![answer(status, "", body); 2]).await;
        let error = manifest(&peer.host, Login::Anonymous).await.unwrap_err();
        assert!(error.contains(said) && error.lines().count() == 1, "{status}: {error}");
    }
}

#[tokio::test]
async fn too_many_requests_are_tried_again_a_few_times() {
    let busy = answer("429 Too Many Requests", "retry-after: 3600\r\n", b"");
    let peer = Peer::start(vec![busy.clone(), busy.clone(), answer("200 OK", "", b"{}")]).await;
    assert_eq!(manifest(&peer.host, Login::Anonymous).await.unwrap(), b"{}");
    let peer = Peer::start(vec![busy; 10]).await;
    let error = manifest(&peer.host, Login::Anonymous).await.unwrap_err();
    assert!(error.contains("too many requests (429), 4 times in a row"), "{error}");
    assert_eq!(peer.asked().len(), 4);
    let peer = Peer::start(vec![answer("503 Service Unavailable", "", b""); 10]).await;
    assert!(manifest(&peer.host, Login::Anonymous).await.unwrap_err().contains("answers 503"));
    assert_eq!(peer.asked().len(), 4);
}

#[tokio::test]
async fn one_that_is_gone_or_silent_or_drips_is_given_up() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let error = manifest(&nobody, Login::Anonymous).await.unwrap_err();
    assert!(error.contains("cannot be reached") && error.contains("refused"), "{error}");
    let error = manifest("127.0.0.1:1", Login::Anonymous).await.unwrap_err();
    assert!(error.contains("cannot be reached"), "{error}");
    let silent = Peer::start(vec![Vec::new()]).await;
    let error = manifest(&silent.host, Login::Anonymous).await.unwrap_err();
    assert!(error.contains("too slow: no answer within 0.5 s"), "{error}");
    let peer = Peer::start(vec![b"SSH-2.0-OpenSSH\r\n".to_vec()]).await;
    assert!(manifest(&peer.host, Login::Anonymous).await.unwrap_err().contains("cannot be reached"));
}

#[tokio::test]
async fn long_documents_are_not_read_to_their_end() {
    let peer = Peer::start(vec![answer("200 OK", "", &vec![b' '; 20_000])]).await;
    let error = manifest(&peer.host, Login::Anonymous).await.unwrap_err();
    assert!(error.contains("sends a document of more than 10000 bytes"), "{error}");
    // Without an end.
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"1000\r\n".to_vec(), vec![b'a'; 0x1000], b"\r\n".to_vec()].concat();
    let peer = Peer::start(vec![[head, chunk.repeat(5)].concat()]).await;
    assert!(manifest(&peer.host, Login::Anonymous).await.unwrap_err().contains("more than 10000 bytes"));
}

#[tokio::test]
async fn a_token_is_fetched_as_the_challenge_asks() {
    let challenge = r#"www-authenticate: Bearer realm="http://@HOST@/token?x=1",service="the one",scope="repository:a/b:pull""#;
    let answers = vec![
        answer("401 Unauthorized", &format!("{challenge}\r\n"), b""),
        answer("200 OK", "", br#"{"access_token":"secret-token"}"#),
        answer("200 OK", "", b"{}"),
    ];
    let peer = Peer::start(answers.clone()).await;
    let login = Login::Password("me".into(), "pw".into());
    assert_eq!(manifest(&peer.host, login).await.unwrap(), b"{}");
    let asked = peer.asked();
    assert!(
        asked[1].starts_with("GET /token?x=1&scope=repository%3Aa%2Fb%3Apull&service=the+one "),
        "{}",
        asked[1]
    );
    assert!(asked[1].contains("authorization: Basic bWU6cHc="), "{}", asked[1]);
    assert!(!asked[0].contains("authorization") && asked[2].contains("authorization: Bearer secret-token"));
    let peer = Peer::start(answers).await;
    assert_eq!(manifest(&peer.host, Login::Token("refresh".into())).await.unwrap(), b"{}");
    assert!(peer.asked()[1].starts_with("POST /token"), "{}", peer.asked()[1]);
    for (token, said) in
        [(&b"{}"[..], "gives no token"), (b"[", "gives no token"), (b"{\"token\":\"a\\nb\"}", "no text")]
    {
        let first = answer("401 Unauthorized", &format!("{challenge}\r\n"), b"");
        let peer = Peer::start(vec![first, answer("200 OK", "", token)]).await;
        let error = manifest(&peer.host, Login::Anonymous).await.unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    let odd = answer("401 Unauthorized", "www-authenticate: Bearer realm=\"nowhere\"\r\n", b"");
    let peer = Peer::start(vec![odd]).await;
    assert!(manifest(&peer.host, Login::Anonymous).await.unwrap_err().contains("names 'nowhere'"));
}

async fn blob(peer: &Peer, sha256: &str, len_bytes: u64) -> (Result<(), String>, File) {
    let reference: Reference = format!("{}/a/b:v1", peer.host).parse().unwrap();
    let limits = limits();
    let registry = Registry::new(&reference, Login::Anonymous, &limits, &Quiet).unwrap();
    let directory = std::env::temp_dir();
    let mut file = tempfile::tempfile_in(&directory).unwrap();
    let space = Space::of(&directory, 0).unwrap();
    let blob = Blob { sha256: sha256.to_owned(), len_bytes };
    (registry.blob(&blob, &mut file, &space).await.map_err(|error| error.to_string()), file)
}

#[tokio::test]
async fn a_download_that_breaks_is_taken_up_where_it_broke() {
    let bytes: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
    let broken = |from: usize, to: usize, status: &str| {
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            bytes.len() - from
        );
        [head.as_bytes(), &bytes[from..to]].concat()
    };
    let rest = answer("206 Partial Content", "", &bytes[50_000..]);
    let peer = Peer::start(vec![broken(0, 50_000, "200 OK"), rest]).await;
    let (result, mut file) = blob(&peer, "0", bytes.len() as u64).await;
    result.unwrap();
    let mut found = Vec::new();
    file.rewind().unwrap();
    io::Read::read_to_end(&mut file, &mut found).unwrap();
    assert_eq!(sha256(&found), sha256(&bytes));
    assert!(peer.asked()[1].contains("range: bytes=50000-"), "{}", peer.asked()[1]);
    // One that does not know ranges starts again.
    let peer = Peer::start(vec![broken(0, 50_000, "200 OK"), answer("200 OK", "", &bytes)]).await;
    let (result, file) = blob(&peer, "0", bytes.len() as u64).await;
    result.unwrap();
    assert_eq!(file.metadata().unwrap().len(), bytes.len() as u64);
    // It does not go on for ever.
    let always = vec![broken(0, 10_000, "200 OK"); 10];
    let peer = Peer::start(always).await;
    assert!(blob(&peer, "0", bytes.len() as u64).await.0.unwrap_err().contains("cannot be reached"));
    assert_eq!(peer.asked().len(), 4);
}

#[tokio::test]
async fn a_blob_is_no_longer_than_it_says_and_does_not_drip() {
    let peer = Peer::start(vec![answer("200 OK", "", &[7; 200])]).await;
    assert!(blob(&peer, "0", 100).await.0.unwrap_err().contains("sends more than the 100 bytes"));
    let short = answer("200 OK", "", &[7; 50]);
    let peer = Peer::start(vec![short; 10]).await;
    assert!(blob(&peer, "0", 100).await.0.unwrap_err().contains("ended after 50 of 100 bytes"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dripping = Peer { host: listener.local_addr().unwrap().to_string(), asked: Arc::default() };
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await);
        let mut interval = tokio::time::interval(Duration::from_millis(50));
        while stream.write_all(b"x").await.is_ok() {
            interval.tick().await;
        }
    });
    let error = blob(&dripping, "0", 100_000).await.0.unwrap_err();
    assert!(error.contains("too slow") && error.contains("bytes in"), "{error}");
}

#[test]
fn only_this_machine_is_spoken_to_without_tls() {
    for plain in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
        assert!(is_plain(plain), "{plain}");
    }
    for tls in ["docker.io", "127.0.0.1.example:5000", "localhost.example", "10.0.0.1:5000", "[::2]:80"] {
        assert!(!is_plain(tls), "{tls}");
    }
}
