use utoipa::openapi::{
    path::Operation,
    security::{SecurityRequirement, SecurityScheme},
};

use crate::http::Guard;

/// How the callers of the management API say who they are: what the host's extractor looks at.
#[derive(Clone)]
pub struct CallerAuth {
    ways: Vec<(String, SecurityScheme)>,
    guard: Option<Guard>,
}

impl CallerAuth {
    /// In a way of the host's own, under a name for it: a cookie, a token of another system.
    pub fn by(name: &str, scheme: SecurityScheme) -> Self {
        Self { ways: vec![(name.into(), scheme)], guard: None }
    }

    /// By an API key: this guard stands in front of the router.
    pub fn by_key(guard: &Guard) -> Self {
        Self { ways: Vec::new(), guard: Some(guard.clone()) }
    }

    pub(super) fn schemes(&self) -> impl Iterator<Item = (String, SecurityScheme)> {
        let guards = self.guard.iter().flat_map(Guard::security_schemes);
        self.ways.iter().cloned().chain(guards)
    }

    pub(super) fn describe(&self, operation: &mut Operation) {
        if let Some(guard) = &self.guard {
            guard.describe(operation);
        }
        for (name, _) in &self.ways {
            let requirement = SecurityRequirement::new(name, [""; 0]);
            operation.security.get_or_insert_default().push(requirement);
        }
    }
}

impl std::fmt::Debug for CallerAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.schemes().map(|(name, _)| name).collect();
        f.debug_tuple("CallerAuth").field(&names).finish()
    }
}
