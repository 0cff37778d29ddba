//! How the example servers listen and serve: with bounds that slow clients cannot exhaust.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{ConnectInfo, Request},
    http::StatusCode,
    middleware::map_request,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tower_http::timeout::TimeoutLayer;

/// Listens on an address, or says which one is in use.
pub async fn listen(address: &str) -> Result<TcpListener, String> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| {
        format!(
            "cannot listen on {address}: {error}. Choose another address with --listen 127.0.0.1:0"
        )
    })
}

/// Serves HTTP/1.1 and HTTP/2 until the process is interrupted or terminated, then lets requests under way end.
///
/// `axum::serve` waits without a bound for a client that sends half a request, or does not read its response: enough
/// such clients use up all open files, and no other client is served. Here each wait is bounded, and so is the number of
/// connections.
pub async fn serve(listener: TcpListener, app: Router) -> io::Result<()> {
    let app = app.layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST));
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stop, stopping) = watch::channel(());
    let mut ended = pin!(ended());
    loop {
        select! {
            () = &mut ended => break,
            (permit, stream, peer) = accept(&listener, &connections) => {
                let app = app.clone().layer(Extension(ConnectInfo(peer)));
                tokio::spawn(serve_connection(stream, app, stopping.clone(), permit));
            }
        }
    }
    drop(stop);
    let _ = timeout(REQUEST, connections.acquire_many(MAX_CONNECTIONS as u32)).await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
    let permit = connections.clone().acquire_owned().await.expect("it is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (permit, stream, peer),
            // The client has gone, or the process has no file left for a moment.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    app: Router,
    mut stopping: watch::Receiver<()>,
    _permit: OwnedSemaphorePermit,
) {
    // Closes the connection of a client that reads nothing of what was sent. Elsewhere, `CONNECTION` bounds it.
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, REQUEST.as_millis() as u32);
    let (begun, mut requests) = watch::channel(());
    let app = app.layer(map_request(move |request: Request| {
        begun.send_replace(());
        async { request }
    }));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let service = TowerToHyperService::new(app);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let (mut has_begun, closes_at) = (false, Instant::now() + CONNECTION);
    // The version of HTTP and HTTP/2 itself have no limit of time. A next request must begin soon after the previous one
    // can have ended.
    let mut next = Instant::now() + HEADERS;
    loop {
        select! {
            _ = connection.as_mut() => return,
            Ok(()) = requests.changed() => {
                (has_begun, next) = (true, Instant::now() + REQUEST + HEADERS);
            }
            _ = stopping.changed() => break,
            () = sleep_until(next.min(closes_at)) => {
                if has_begun { break } else { return }
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(REQUEST, connection).await;
}

/// Waits for Ctrl-C, or for the signal with which service managers end a process.
async fn ended() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            select! {
                _ = terminated.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// The longest time for the head of a request, also of the next one on an open connection.
const HEADERS: Duration = Duration::from_secs(5);
/// The longest time for a request: reading its body, and computing the response.
const REQUEST: Duration = Duration::from_secs(20);
/// The longest time for which a connection is used. A client that reads slowly can keep it for `REQUEST` longer.
const CONNECTION: Duration = Duration::from_secs(60);
/// Below the number of files that the process may open (`ulimit -n`).
const MAX_CONNECTIONS: usize = 64;
