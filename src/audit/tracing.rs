use super::{AuditEvent, AuditSink, Outcome};
use crate::model::one_line;

/// Writes each event to `tracing` under the target `keyward::audit`: done things at info, refused
/// ones at warn. Text from outside is one harmless line in every field.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingSink;

impl AuditSink for TracingSink {
    fn event(&self, event: &AuditEvent) {
        macro_rules! emit {
            ($level:ident) => {
                tracing::$level!(
                    target: "keyward::audit",
                    event = event.kind.as_str(),
                    result = event.outcome.as_str(),
                    at = %event.at,
                    actor = %one_line(&event.actor),
                    tenant = %one_line(&event.tenant),
                    account = event.account.as_deref().map(one_line).as_deref(),
                    key_id = event.key_id.map(tracing::field::display),
                    ip = event.ip.map(tracing::field::display),
                    user_agent = event.user_agent.as_deref().map(one_line).as_deref(),
                    reason = event.reason.as_deref().map(one_line).as_deref(),
                    count = event.count,
                )
            };
        }
        match event.outcome {
            Outcome::Success => emit!(info),
            Outcome::Failure => emit!(warn),
        }
    }
}
