use std::sync::Arc;

use crate::model::text::Invalid;

/// One permission that the host's own code asks for: `builds:read`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Arc<str>);

impl Scope {
    /// Reads a scope: 1 to 100 visible ASCII characters but `"` and `\`, as RFC 6749 has them.
    ///
    /// # Errors
    /// If it breaks that rule.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let token = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if text.is_empty() || text.len() > MAX_SCOPE || !text.bytes().all(token) {
            let why = "use 1 to 100 visible ASCII characters without quotes or backslashes";
            return Err(Invalid::new("scope", why));
        }
        Ok(Self(text.into()))
    }

    /// The scope as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A set of scopes. An empty one means nothing, never everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scopes(Arc<[Scope]>);

impl Scopes {
    /// Reads a set; order and repetition do not matter.
    ///
    /// # Errors
    /// If one of them is no scope, or there are more than 200.
    ///
    /// # Examples
    /// ```
    /// use keyward::model::Scopes;
    ///
    /// let scopes = Scopes::new(["builds:write", "builds:read"])?;
    /// assert!(scopes.contains("builds:read"));
    /// assert_eq!(scopes.to_string(), "builds:read builds:write");
    /// # Ok::<(), keyward::model::Invalid>(())
    /// ```
    pub fn new<T: AsRef<str>>(scopes: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        let mut all = Vec::new();
        for scope in scopes {
            all.push(Scope::new(scope.as_ref())?);
        }
        all.sort();
        all.dedup();
        if all.len() > MAX_SCOPES {
            return Err(Invalid::new("scopes", format!("more than {MAX_SCOPES}")));
        }
        Ok(Self(all.into()))
    }

    pub(crate) fn none() -> Self {
        Self(Arc::new([]))
    }

    /// Whether a scope is in the set.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.binary_search_by(|known| known.as_str().cmp(scope)).is_ok()
    }

    /// The scopes in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Scope::as_str)
    }

    fn cover(&self, other: &Self) -> bool {
        other.iter().all(|scope| self.contains(scope))
    }

    fn union(&self, other: &Self) -> Self {
        let mut all: Vec<_> = self.0.iter().chain(&*other.0).cloned().collect();
        all.sort();
        all.dedup();
        Self(all.into())
    }

    fn intersection(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|scope| other.contains(scope.as_str())).cloned().collect())
    }
}

impl std::fmt::Display for Scopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, scope) in self.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{scope}")?;
        }
        Ok(())
    }
}

/// What someone may do at most: an owner at present, or an actor.
///
/// Exhaustive on purpose: code that decides about access must see every case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Permissions {
    /// Everything that the host has to offer.
    All,
    /// These scopes and nothing else.
    Only(Scopes),
}

impl Permissions {
    /// Whether a scope is permitted.
    #[inline]
    pub fn allows(&self, scope: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(scopes) => scopes.contains(scope),
        }
    }

    /// Whether everything that `other` permits is permitted here.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Only(_), Self::All) => false,
            (Self::Only(mine), Self::Only(theirs)) => mine.cover(theirs),
        }
    }

    /// Only these scopes.
    ///
    /// # Errors
    /// As [`Scopes::new`].
    pub fn only<T: AsRef<str>>(scopes: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        Scopes::new(scopes).map(Self::Only)
    }

    /// What one of them permits or the other.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Only(mine), Self::Only(theirs)) => Self::Only(mine.union(theirs)),
        }
    }

    /// What both permit.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, both) | (both, Self::All) => both.clone(),
            (Self::Only(mine), Self::Only(theirs)) => Self::Only(mine.intersection(theirs)),
        }
    }
}

/// What a key may do: at most what its owner may do at that moment.
///
/// Exhaustive on purpose, as [`Permissions`] is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// All that its owner may do.
    #[default]
    Inherited,
    /// These scopes, as far as its owner has them. An empty set means nothing.
    Only(Scopes),
}

impl Access {
    /// Only these scopes.
    ///
    /// # Errors
    /// As [`Scopes::new`].
    pub fn only<T: AsRef<str>>(scopes: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        Scopes::new(scopes).map(Self::Only)
    }

    /// What is left of it under an owner's present permissions.
    pub fn within(&self, owner: &Permissions) -> Permissions {
        match self {
            Self::Inherited => owner.clone(),
            Self::Only(scopes) => Permissions::Only(scopes.clone()).intersection(owner),
        }
    }

    /// Whether a key with `other` may do at most what one of the same owner with this may do.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Inherited, _) => true,
            (Self::Only(_), Self::Inherited) => false,
            (Self::Only(mine), Self::Only(theirs)) => mine.cover(theirs),
        }
    }

    /// Whether a scope remains under an owner's present permissions; allocates nothing.
    #[inline]
    pub fn allows(&self, scope: &str, owner: &Permissions) -> bool {
        let own = match self {
            Self::Inherited => true,
            Self::Only(scopes) => scopes.contains(scope),
        };
        own && owner.allows(scope)
    }
}

const MAX_SCOPE: usize = 100;
const MAX_SCOPES: usize = 200;
