//! Requests per second through axum with the layer, divided by those without it: one route, one
//! run, real sockets, a key that is in the cache. `cargo bench --bench http`.

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
    // `cargo test --all-targets` starts it as well, without this.
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
    // In turns, so that whatever else the machine does slows both.
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
    println!("ratio              {:>9.3} (median; wanted: 0.9)", ratios[ratios.len() / 2]);
    Ok(())
}

async fn serve(app: Router) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

/// How many requests a second a few connections get answered.
async fn measure(to: SocketAddr, request: &str) -> std::io::Result<f64> {
    let mut connections = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..CONNECTIONS {
        let request = request.to_owned();
        connections.spawn(async move {
            let mut stream = TcpStream::connect(to).await?;
            let (mut answer, mut count) = ([0; 4_096], 0_u32);
            while begun.elapsed() < ROUND {
                stream.write_all(request.as_bytes()).await?;
                // An answer is so small that it comes in one piece.
                let length = stream.read(&mut answer).await?;
                assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "the key works");
                assert!(answer[..length].ends_with(b"hello"), "the answer is whole");
                count += 1;
            }
            Ok::<_, std::io::Error>(count)
        });
    }
    let mut count = 0;
    while let Some(done) = connections.join_next().await {
        count += done.expect("no connection panics")?;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

const CONNECTIONS: usize = 8;
const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(500);
