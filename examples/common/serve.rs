//! How the example servers serve: with bounds that slow clients cannot exhaust.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Extension, Router, extract::ConnectInfo, http::StatusCode};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tower_http::timeout::TimeoutLayer;

/// Serves until the process is interrupted or terminated, then lets requests under way end.
///
/// `axum::serve` waits without a bound for a client that sends half a request: enough such clients use up all open
/// files, and no other client is served. Here each wait is bounded, and so is the number of connections.
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
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
    );
    select! {
        _ = connection.as_mut() => return,
        _ = stopping.changed() => {}
        () = sleep(CONNECTION) => {}
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
/// The longest time for which a connection is used.
const CONNECTION: Duration = Duration::from_secs(300);
/// Below the number of files that the process may open (`ulimit -n`).
const MAX_CONNECTIONS: usize = 64;
