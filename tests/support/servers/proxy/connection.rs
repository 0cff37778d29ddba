//! One connection through a proxy: requests in one direction, replies in the other.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, sync::Mutex};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::rules::{Direction, Fault, Rules};

pub async fn serve_tcp(
    listener: std::net::TcpListener,
    server: SocketAddr,
    rules: Arc<Rules>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (client, _) = listener.accept().await?;
        let rules = rules.clone();
        tokio::spawn(async move {
            if let Ok(server) = TcpStream::connect(server).await {
                forward(client, server, &rules).await;
            }
        });
    }
}

pub async fn serve_unix(
    listener: std::os::unix::net::UnixListener,
    server: PathBuf,
    rules: Arc<Rules>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    loop {
        let (client, _) = listener.accept().await?;
        let (server, rules) = (server.clone(), rules.clone());
        tokio::spawn(async move {
            if let Ok(server) = UnixStream::connect(server).await {
                forward(client, server, &rules).await;
            }
        });
    }
}

/// Forwards bytes until one side closes the connection or a rule cuts it.
async fn forward<S: Socket>(mut client: S, mut server: S, rules: &Rules) {
    let _connected = rules.connected();
    let reply = Mutex::new(None);
    let end = {
        let (from_client, to_client) = split(&mut client);
        let (from_server, to_server) = split(&mut server);
        tokio::select! {
            end = requests(from_client, to_server, rules, &reply) => end,
            end = replies(from_server, to_client, rules, &reply) => end,
            () = rules.cut() => Ok(End::Reset),
        }
    };
    // The server always sees an orderly close: after a reset it might not read bytes that were sent to it.
    if let Ok(End::Reset) = end {
        client.reset();
    }
    drop((client, server));
    if let Ok(End::Reset | End::Cut) = end {
        rules.spring();
    }
}

async fn requests<S: Socket>(
    mut client: ReadHalf<&mut S>,
    mut server: WriteHalf<&mut S>,
    rules: &Rules,
    reply: &Mutex<Option<Fault>>,
) -> io::Result<End> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = client.read(&mut buffer).await?;
        if length == 0 {
            return Ok(End::Closed);
        }
        rules.gate().await;
        match rules.fault_for(&buffer[..length]) {
            Some(Fault::CutRequest) => return Ok(End::Reset),
            // Set before the request is forwarded, so that the reply cannot arrive earlier.
            Some(fault) => *reply.lock().unwrap() = Some(fault),
            None => {}
        }
        let passes = rules.charge(Direction::ToServer, length);
        server.write_all(&buffer[..passes.unwrap_or(length)]).await?;
        if passes.is_some() {
            return Ok(End::Reset);
        }
    }
}

async fn replies<S: Socket>(
    mut server: ReadHalf<&mut S>,
    mut client: WriteHalf<&mut S>,
    rules: &Rules,
    reply: &Mutex<Option<Fault>>,
) -> io::Result<End> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = server.read(&mut buffer).await?;
        if length == 0 {
            return Ok(End::Closed);
        }
        let fault = reply.lock().unwrap().take();
        match fault {
            Some(Fault::SwallowReply) => return Ok(End::Reset),
            Some(Fault::HoldReply) => rules.released().await,
            _ => {}
        }
        rules.gate().await;
        let passes = rules.charge(Direction::ToClient, length);
        client.write_all(&buffer[..passes.unwrap_or(length)]).await?;
        if passes.is_some() {
            return Ok(End::Cut);
        }
    }
}

enum End {
    /// One side closed.
    Closed,
    /// The client receives all forwarded bytes, and then an orderly close.
    Cut,
    /// The client sees a reset.
    Reset,
}

/// The operations that TCP and Unix sockets share.
trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Turns the next close into a reset.
    fn reset(&self);
}

impl Socket for TcpStream {
    fn reset(&self) {
        let _ = self.set_zero_linger();
    }
}

impl Socket for UnixStream {
    /// Unix sockets have no reset: the peer sees a close or a broken pipe.
    fn reset(&self) {}
}

const CHUNK: usize = 64 * 1024;
