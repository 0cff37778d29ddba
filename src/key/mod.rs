//! Plain data: what the words of this crate mean, without any behaviour of stores or servers.

mod secret;

pub use secret::Secret;
