use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use keyward::Secret;
use serde_json::{Value, json};

/// A small HTTP server with the endpoints that `examples/lua_cli` calls.
pub struct AuthServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    valid_keys: HashSet<String>,
    codes: HashMap<String, IssuedCode>,
    sent_codes: Vec<String>,
    down: bool,
    stopped: bool,
}

struct IssuedCode {
    digits: String,
    expired: bool,
}

impl AuthServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let served = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if served.lock().unwrap().stopped {
                    return;
                }
                // A killed client closes the connection early.
                let _ = serve(&stream.unwrap(), &served);
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn accept_key(&self, key: &Secret) {
        self.state.lock().unwrap().valid_keys.insert(key.expose().to_owned());
    }

    pub fn is_valid(&self, key: &str) -> bool {
        self.state.lock().unwrap().valid_keys.contains(key)
    }

    pub fn valid_keys(&self) -> Vec<String> {
        self.state.lock().unwrap().valid_keys.iter().cloned().collect()
    }

    pub fn go_down(&self) {
        self.state.lock().unwrap().down = true;
    }

    /// Returns the most recently sent code.
    pub fn last_code(&self) -> String {
        self.state.lock().unwrap().sent_codes.last().expect("a code was sent").clone()
    }

    pub fn expire_codes(&self) {
        self.state.lock().unwrap().codes.values_mut().for_each(|code| code.expired = true);
    }
}

impl Drop for AuthServer {
    fn drop(&mut self) {
        self.state.lock().unwrap().stopped = true;
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut key, mut length) = (String::new(), None, 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match &*name.to_ascii_lowercase() {
            "authorization" => key = value.strip_prefix("Bearer ").map(str::to_owned),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let call = request.rsplit_once(' ').unwrap_or_default().0;
    let (status, response) = state.lock().unwrap().response(call, key, &body);
    let response = response.to_string();
    let length = response.len();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} .\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{response}"
    )
}

impl State {
    fn response(&mut self, call: &str, key: Option<String>, body: &Value) -> (u16, Value) {
        if self.down {
            return (503, json!({}));
        }
        let email = body["email"].as_str().unwrap_or_default().to_owned();
        let key = key.unwrap_or_default();
        match call {
            "POST /auth/otp" if email == REFUSED_EMAIL => {
                let detail = format!("no\u{1b}[2J\r\n: \u{9b}1mbecause{}", "é".repeat(1_000));
                (409, json!({ "code": "refused", "detail": detail }))
            }
            "POST /auth/otp" => {
                let digits = format!("{:06}", 123_456 + self.sent_codes.len());
                self.sent_codes.push(digits.clone());
                self.codes.insert(email, IssuedCode { digits, expired: false });
                (202, json!({}))
            }
            "POST /auth/otp/verify" => match self.codes.get(&email) {
                Some(code) if code.digits == body["code"].as_str().unwrap_or_default() => {
                    if code.expired {
                        return (400, json!({ "code": "expired_code" }));
                    }
                    self.codes.remove(&email);
                    let key = super::key().expose().to_owned();
                    self.valid_keys.insert(key.clone());
                    (201, json!({ "key": key }))
                }
                _ => (400, json!({ "code": "invalid_code" })),
            },
            _ if !self.valid_keys.contains(&key) => (401, json!({ "code": "unauthorized" })),
            "GET /auth/key" | "POST /push" => (200, json!({})),
            "DELETE /auth/key" => {
                self.valid_keys.remove(&key);
                (200, json!({}))
            }
            _ => (404, json!({})),
        }
    }
}

/// The server refuses to send a code to this address, with a long reason that contains control characters.
pub const REFUSED_EMAIL: &str = "eve@example.com";
