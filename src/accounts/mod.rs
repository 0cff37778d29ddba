//! What the host defines: accounts of owners, roles, and the policy for second factors.

mod account;
mod step_up;

pub use account::{Account, Accounts, AccountsError, NoAccounts, Roles};
pub(crate) use step_up::NoStepUp;
pub use step_up::{SensitiveChange, StepUp, StepUpError};
