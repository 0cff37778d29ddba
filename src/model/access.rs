use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net};

use crate::model::{
    bounds::{MAX_NETWORKS, MAX_SCOPE_CHARS, MAX_SCOPES},
    text::Invalid,
};

/// A single permission, defined and checked by the host: `builds:read`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Arc<str>);

impl Scope {
    /// Parses a scope: 1 to 100 visible ASCII characters except `"` and `\`, as in RFC 6749.
    ///
    /// # Errors
    /// If the text violates this rule.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let is_valid = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if !(1..=MAX_SCOPE_CHARS).contains(&text.len()) || !text.bytes().all(is_valid) {
            let why = "use 1 to 100 visible ASCII characters without quotes or backslashes";
            return Err(Invalid::new("scope", why));
        }
        Ok(Self(text.into()))
    }

    /// Returns the scope as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A set of scopes. The empty set, the default, permits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scopes(Arc<[Scope]>);

impl Scopes {
    /// Parses a set. Order does not matter, and duplicates are removed.
    ///
    /// # Errors
    /// If an item is not a valid [`Scope`], or there are more than 200.
    pub fn new<T: AsRef<str>>(scopes: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        let all = Self::unbounded(scopes)?;
        all.check_bound().map(|()| all)
    }

    /// Parses a set of any size, as an older version may have stored it.
    pub(crate) fn unbounded<T: AsRef<str>>(
        scopes: impl IntoIterator<Item = T>,
    ) -> Result<Self, Invalid> {
        let parsed = scopes.into_iter().map(|scope| Scope::new(scope.as_ref()));
        let all = parsed.collect::<Result<BTreeSet<_>, _>>()?;
        Ok(Self(all.into_iter().collect()))
    }

    fn check_bound(&self) -> Result<(), Invalid> {
        match self.0.len() {
            0..=MAX_SCOPES => Ok(()),
            _ => Err(Invalid::new("scopes", "there are more than 200")),
        }
    }

    /// Whether the set contains a scope.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.binary_search_by(|known| known.as_str().cmp(scope)).is_ok()
    }

    /// Returns the scopes in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Scope::as_str)
    }

    fn union(&self, other: &Self) -> Self {
        let all: BTreeSet<_> = self.0.iter().chain(&*other.0).cloned().collect();
        Self(all.into_iter().collect())
    }

    fn intersection(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|scope| other.contains(scope.as_str())).cloned().collect())
    }
}

/// The scopes in ascending order, separated by spaces.
impl std::fmt::Display for Scopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.iter().collect::<Vec<_>>().join(" "))
    }
}

/// The permissions of an owner or an actor.
///
/// Exhaustive on purpose: code that decides about access must handle every case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Permissions {
    /// Every permission.
    All,
    /// Only these scopes.
    Only(Scopes),
}

impl Permissions {
    /// Whether a scope is permitted.
    #[inline]
    pub fn allows(&self, scope: &str) -> bool {
        let Self::Only(scopes) = self else { return true };
        scopes.contains(scope)
    }

    /// Whether these permissions include everything that `other` permits.
    pub fn covers(&self, other: &Self) -> bool {
        let Self::Only(theirs) = other else { return *self == Self::All };
        theirs.iter().all(|scope| self.allows(scope))
    }

    /// Parses a set of scopes and returns [`Only`](Permissions::Only) them.
    ///
    /// # Errors
    /// As for [`Scopes::new`].
    pub fn only<T: AsRef<str>>(scopes: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        Scopes::new(scopes).map(Self::Only)
    }

    /// Returns everything that either of the two permits. It may have more than 200 scopes: an owner or an actor may, but
    /// no key can be issued with them.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Only(mine), Self::Only(theirs)) => Self::Only(mine.union(theirs)),
        }
    }

    /// Returns everything that both permit.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, other) | (other, Self::All) => other.clone(),
            (Self::Only(mine), Self::Only(theirs)) => Self::Only(mine.intersection(theirs)),
        }
    }
}

/// The access of a key. It never exceeds the current permissions of the key's owner. Exhaustive on purpose, for
/// the same reason as [`Permissions`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// All current permissions of the owner.
    #[default]
    Inherited,
    /// Those of these scopes that the owner currently has. The empty set permits nothing.
    Only(Scopes),
}

impl Access {
    /// Parses a set of scopes and returns [`Only`](Access::Only) them.
    ///
    /// # Errors
    /// As for [`Scopes::new`].
    pub fn only<T: AsRef<str>>(scopes: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        Scopes::new(scopes).map(Self::Only)
    }

    /// Returns the effective permissions of a key whose owner has the permissions `owner`.
    pub fn within(&self, owner: &Permissions) -> Permissions {
        match self {
            Self::Inherited => owner.clone(),
            Self::Only(scopes) => Permissions::Only(scopes.clone()).intersection(owner),
        }
    }

    /// Checks the bound of a new value, which [`Scopes::new`] checks as well. The variant is public, and a union of
    /// permissions has no bound.
    pub(crate) fn check_bound(&self) -> Result<(), Invalid> {
        let Self::Only(scopes) = self else { return Ok(()) };
        scopes.check_bound()
    }

    /// Whether this access includes everything that `other` permits to a key of the same owner.
    pub fn covers(&self, other: &Self) -> bool {
        self.within(&Permissions::All).covers(&other.within(&Permissions::All))
    }

    /// Whether a scope is permitted to a key whose owner has the permissions `owner`. Does not allocate.
    #[inline]
    pub fn allows(&self, scope: &str, owner: &Permissions) -> bool {
        match self {
            Self::Inherited => owner.allows(scope),
            Self::Only(scopes) => scopes.contains(scope) && owner.allows(scope),
        }
    }
}

/// The networks from which a key may be used. Exhaustive on purpose, for the same reason as [`Permissions`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Networks {
    /// Any address.
    #[default]
    Any,
    /// Only addresses in these networks; without networks, none. A request with an unknown address is refused.
    Only(Arc<[IpNet]>),
}

impl Networks {
    /// Parses networks (`10.0.0.0/8`) and single addresses (`2001:db8::1`).
    ///
    /// # Errors
    /// If an item is neither, or there are more than 100.
    ///
    /// # Examples
    /// ```
    /// use keyward::model::Networks;
    ///
    /// let office = Networks::only(["192.0.2.0/24", "2001:db8::1"])?;
    /// assert!(office.allows("192.0.2.7".parse().ok()));
    /// assert!(office.allows("::ffff:192.0.2.7".parse().ok()));
    /// assert!(!office.allows("198.51.100.1".parse().ok()));
    /// # Ok::<(), keyward::model::Invalid>(())
    /// ```
    pub fn only<T: AsRef<str>>(networks: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        let parse = |text: T| {
            let text = text.as_ref();
            let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            let invalid = |_| Invalid::new("network", "write 192.0.2.0/24 or 192.0.2.7");
            network.map(canonical).map_err(invalid)
        };
        let all = Self::Only(networks.into_iter().map(parse).collect::<Result<_, _>>()?);
        all.check_bound().map(|()| all)
    }

    /// Checks the bound of a new value, also of one that [`only`](Self::only) did not make.
    pub(crate) fn check_bound(&self) -> Result<(), Invalid> {
        match self {
            Self::Only(all) if all.len() > MAX_NETWORKS => {
                Err(Invalid::new("networks", "there are more than 100"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a request from this address is allowed.
    #[inline]
    pub fn allows(&self, address: Option<IpAddr>) -> bool {
        let Self::Only(networks) = self else { return true };
        address.is_some_and(|address| {
            // An IPv4 client of a dual-stack socket arrives as an IPv6 address.
            let address = address.to_canonical();
            networks.iter().any(|network| network.contains(&address))
        })
    }

    /// Whether every address that `other` allows is allowed.
    pub fn covers(&self, other: &Self) -> bool {
        let Self::Only(mine) = self else { return true };
        let Self::Only(theirs) = other else { return false };
        theirs.iter().all(|network| mine.iter().any(|wide| wide.contains(network)))
    }
}

/// Converts an IPv4-mapped IPv6 network (`::ffff:192.0.2.0/120`) to the IPv4 network after its first 96 bits,
/// because request addresses are converted the same way.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, len)| Ipv4Net::new(address, len).ok()).map_or(network, IpNet::V4)
}
