//! A minimal HTTP client that sends arbitrary bytes, valid or not.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn map(&self) -> HeaderMap {
        let parsed = |(name, value): &(String, String)| {
            (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap())
        };
        self.fields.iter().map(parsed).collect()
    }

    /// Returns the stable code of the problem details, if the body contains them.
    pub fn code(&self) -> Option<String> {
        if self.field("content-type") != Some("application/problem+json") {
            return None;
        }
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        Some(problem["code"].as_str().unwrap().to_owned())
    }
}

/// Builds a `GET` request with these header lines.
pub fn get(path: &str, lines: &[u8]) -> Vec<u8> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    [head.as_bytes(), lines, b"\r\n"].concat()
}

/// Sends bytes and reads the whole response.
pub async fn send(to: SocketAddr, bytes: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // A server may close the connection before it has received everything.
    let _ = stream.write_all(bytes).await;
    receive(stream).await
}

/// Sends bytes, then that there are no more, and reads the whole response.
pub async fn send_and_close(to: SocketAddr, bytes: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    receive(stream).await
}

async fn receive(mut stream: TcpStream) -> Reply {
    let mut answer = Vec::new();
    let _ = timeout(TIMEOUT, stream.read_to_end(&mut answer))
        .await
        .expect("a response within the timeout");
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or("0");
    let fields = lines.filter_map(|line| line.split_once(':'));
    Reply {
        status: status.parse().unwrap(),
        fields: fields.map(|(name, value)| (name.to_lowercase(), value.trim().into())).collect(),
        body: body.into(),
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);
