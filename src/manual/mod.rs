//! The manual: one page for each question. The documentation of the modules and types is the reference.
//!
//! | question | page |
//! |---|---|
//! | How do I add API keys to a service with axum, actix-web or tonic? | [`first_service`] |
//! | Where are keys stored, and what does each store guarantee? | [`choosing_a_store`] |
//! | How do keys follow my accounts, plans, roles and suspensions? | [`accounts`] |
//! | How does a client replace its secret without downtime? | [`rotation`] |
//! | How fast does a revoked key stop working, and what is promised? | [`revocation`] |
//! | How are rates and quotas counted, also over many nodes? | [`limits`] |
//! | What is in the audit log, and for how long? | [`audit`] |
//! | Which routes, fields and errors does the management API have? | [`management_api`] |
//! | How do I test my own service? | [`testing`] |
//! | How do I deploy and monitor it, and what do I do in an incident? | [`operating`] |
//! | How much memory, disk and database does it need? | [`sizing`] |
//! | What is protected, against which attackers? | [`threat_model`] |
//! | How do I move keys from another system? | [`migrating`] |
//! | How do I keep keys in a database that the crate does not know? | [`writing_a_store`] |
//!
//! Every Rust snippet is compiled by the tests; those that need no server also run.

#[doc = include_str!("first_service.md")]
pub mod first_service {}

#[doc = include_str!("choosing_a_store.md")]
pub mod choosing_a_store {}

#[doc = include_str!("accounts.md")]
pub mod accounts {}

#[doc = include_str!("rotation.md")]
pub mod rotation {}

#[doc = include_str!("revocation.md")]
pub mod revocation {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("audit.md")]
pub mod audit {}

#[doc = include_str!("management_api.md")]
pub mod management_api {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("sizing.md")]
pub mod sizing {}

#[doc = include_str!("threat_model.md")]
pub mod threat_model {}

#[doc = include_str!("migrating.md")]
pub mod migrating {}

#[doc = include_str!("writing_a_store.md")]
/// ```no_run
#[doc = include_str!("json_store.rs")]
/// ```
pub mod writing_a_store {}
