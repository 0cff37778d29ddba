//! Measures requests per second through axum with and without the layer, and prints the ratio: one
//! route, one run, real sockets, a cached key. `cargo bench -p keyward-tests --bench http`.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use keyward::{
    Access, Actor, ApiKeys, KeyFormat, MemoryStore, NewKey, Owner, Verified, http::Guard,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `cargo test --all-targets` also starts benches, without this argument.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let keys = ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build()?).build();
    let owner = Owner::account_only("ada")?;
    let new = NewKey::new(&owner, "bench")?.access(Access::only(["builds:read"])?);
    let issued = keys.issue(new, &Actor::system("bench")).await?;
    let guard = Guard::builder(keys).require("builds:read").build()?;
    let layer = keyward::axum::layer(guard);
    let guarded = Router::new().route("/", get(async |_: Verified| "hello").layer(layer));
    let bare = Router::new().route("/", get(async || "hello"));
    let (guarded, bare) = (serve(guarded).await?, serve(bare).await?);

    let request = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        issued.secret.expose()
    );
    let (mut with, mut without, mut ratios) = (0.0, 0.0, Vec::new());
    // Alternately, so that other load on the machine slows both.
    for round in 0..ROUNDS {
        let (a, b) = (measure(guarded, &request).await?, measure(bare, &request).await?);
        if round > 0 {
            ratios.push(a / b);
            (with, without) = (with + a, without + b);
        }
    }
    ratios.sort_by(f64::total_cmp);
    let counted = ratios.len() as f64;
    println!("with the layer     {:>9.0} requests per second", with / counted);
    println!("without the layer  {:>9.0} requests per second", without / counted);
    println!("ratio              {:>9.3} (median; target ≥ 0.9)", ratios[ratios.len() / 2]);
    Ok(())
}

async fn serve(app: Router) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

/// Returns the number of responses per second over `CONNECTIONS` connections.
async fn measure(to: SocketAddr, request: &str) -> std::io::Result<f64> {
    let mut connections = JoinSet::new();
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        let request = request.to_owned();
        connections.spawn(async move {
            let mut stream = TcpStream::connect(to).await?;
            let (mut response, mut count) = ([0; 4_096], 0_u32);
            while start.elapsed() < ROUND {
                stream.write_all(request.as_bytes()).await?;
                // A response is small enough to arrive in one read.
                let length = stream.read(&mut response).await?;
                assert!(response[..length].starts_with(b"HTTP/1.1 200"), "the key works");
                assert!(response[..length].ends_with(b"hello"), "the response is complete");
                count += 1;
            }
            Ok::<_, std::io::Error>(count)
        });
    }
    let mut count = 0;
    while let Some(done) = connections.join_next().await {
        count += done.expect("no connection panics")?;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

const CONNECTIONS: usize = 8;
const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(500);
