use std::collections::HashMap;

use redis::{Cmd, Value};

use super::{Inner, errors::Failure, line::Sent, link::text, scripts::LAYOUT};
use crate::store::StoreError;

/// What a server has to be like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demands {
    pub(super) no_eviction: bool,
    pub(super) persistence: bool,
}

impl Default for Demands {
    fn default() -> Self {
        Self { no_eviction: true, persistence: true }
    }
}

impl Inner {
    /// Looks whether the server is fit to hold keys, and marks the store as one of this layout.
    pub(super) async fn check(&self, demands: Demands) -> Result<(), StoreError> {
        if demands.no_eviction || demands.persistence {
            let server = self.server().await?;
            if demands.no_eviction && server.policy != "noeviction" {
                return Err(evicts(&server.policy));
            }
            if demands.persistence && !server.persists {
                return Err(forgets(server.is_known));
            }
        }
        let layout = self.run_layout().await?;
        if layout > LAYOUT_VERSION {
            return Err(StoreError::unavailable(format!(
                "the data are of layout {layout}, this crate knows {LAYOUT_VERSION}: upgrade \
                 keyward on this node"
            )));
        }
        Ok(())
    }

    async fn run_layout(&self) -> Result<u64, StoreError> {
        let mut read = redis::cmd("HGET");
        read.arg(self.names.meta()).arg("layout");
        // Most nodes find it there, also when the server takes no writes at the moment.
        if let Ok(Value::BulkString(layout)) = self.ask(&read).await? {
            return super::reply::Reply(Value::BulkString(layout)).digits();
        }
        let version = LAYOUT_VERSION.to_string();
        self.change(&LAYOUT, &[version.as_bytes()], |_| false).await?.digits()
    }

    /// Asks for the settings; where that is forbidden, as managed servers do, for what they show.
    async fn server(&self) -> Result<Server, StoreError> {
        let mut config = redis::cmd("CONFIG");
        config.arg("GET").arg("maxmemory-policy").arg("appendonly").arg("save");
        if let Ok(settings) = self.ask(&config).await? {
            let settings = pairs(settings);
            let get = |name| settings.get(name).map(String::as_str).unwrap_or_default();
            return Ok(Server {
                policy: get("maxmemory-policy").into(),
                persists: get("appendonly") == "yes" || !get("save").is_empty(),
                is_known: true,
            });
        }
        let mut info = redis::cmd("INFO");
        info.arg("memory").arg("persistence");
        let info = self.ask(&info).await?.map(|info| text(&info)).unwrap_or_default();
        let get = |name| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(Server {
            policy: get("maxmemory_policy").unwrap_or("unknown").into(),
            // INFO does not tell whether there are save points.
            persists: get("aof_enabled") == Some("1"),
            is_known: false,
        })
    }

    /// The answer to a command, or that the server refuses it.
    async fn ask(&self, command: &Cmd) -> Result<Result<Value, redis::RedisError>, StoreError> {
        let deadline = self.link.deadline();
        let line = self.link.line(deadline).await.map_err(Failure::of_read)?;
        match line.send(command, deadline).await {
            Sent::Answer(answer) => Ok(Ok(answer)),
            Sent::Refused(error) => Ok(Err(error)),
            Sent::Lost(source) => Err(StoreError::unavailable(source)),
        }
    }
}

struct Server {
    policy: String,
    persists: bool,
    /// Whether the server told its settings, or this is what can be concluded.
    is_known: bool,
}

fn pairs(settings: Value) -> HashMap<String, String> {
    match settings {
        Value::Map(pairs) => pairs.iter().map(|(name, value)| (text(name), text(value))).collect(),
        Value::Array(words) => {
            words.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
        }
        _ => HashMap::new(),
    }
}

fn evicts(policy: &str) -> StoreError {
    StoreError::unavailable(format!(
        "this Redis may throw keys away: its maxmemory-policy is {policy}. Set `maxmemory-policy \
         noeviction`, or allow it with RedisOptions::danger_allow_eviction"
    ))
}

fn forgets(is_known: bool) -> StoreError {
    let what = if is_known {
        "this Redis keeps nothing on disk and forgets all keys when it restarts"
    } else {
        "this Redis has no append-only file, and does not tell whether it saves at all"
    };
    StoreError::unavailable(format!(
        "{what}. Set `appendonly yes`, and `appendfsync always` so that no acknowledged change is \
         lost; or allow it with RedisOptions::danger_allow_no_persistence"
    ))
}

const LAYOUT_VERSION: u64 = 1;
