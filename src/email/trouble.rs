use super::retries::Failure;
use crate::model::one_line;

/// A letter did not go out; nothing in it is told, and not to whom.
pub(super) fn tell(attempt: u32, given_up: bool, failure: &Failure) {
    let reason = failure.to_string();
    let reason = one_line(&reason);
    tracing::warn!(target: "keyward::email", attempt, given_up, %reason, "a letter was not sent");
}

/// So many wait already that there is no room for another.
pub(super) fn tell_full() {
    tracing::warn!(target: "keyward::email", "too many letters wait; another was not written");
}
