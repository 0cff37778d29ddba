use std::{net::IpAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net};

use crate::model::text::Invalid;

/// From where a key may be used.
///
/// Exhaustive on purpose, as everything that decides about access is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Networks {
    /// From anywhere.
    #[default]
    Any,
    /// From these networks only; an empty list means from nowhere, and a request whose address is
    /// not known is refused.
    Only(Arc<[IpNet]>),
}

impl Networks {
    /// Reads networks (`10.0.0.0/8`) and single addresses (`2001:db8::1`).
    ///
    /// # Errors
    /// If one of them is neither, or there are more than 100.
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
        let read = |text: &str| {
            let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            let network = network.map(canonical);
            network.map_err(|_| Invalid::new("network", "write 192.0.2.0/24 or 192.0.2.7"))
        };
        let all: Vec<IpNet> =
            networks.into_iter().map(|text| read(text.as_ref())).collect::<Result<_, _>>()?;
        if all.len() > MAX_NETWORKS {
            return Err(Invalid::new("networks", format!("more than {MAX_NETWORKS}")));
        }
        Ok(Self::Only(all.into()))
    }

    /// Whether a request from this address is let in.
    #[inline]
    pub fn allows(&self, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Any, _) => true,
            (Self::Only(_), None) => false,
            // An IPv4 client of a dual-stack socket arrives as an IPv6 address.
            (Self::Only(networks), Some(address)) => {
                let address = address.to_canonical();
                networks.iter().any(|network| network.contains(&address))
            }
        }
    }

    /// Whether everything that `other` lets in is let in here.
    pub fn cover(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Only(_), Self::Any) => false,
            (Self::Only(mine), Self::Only(theirs)) => {
                theirs.iter().all(|network| mine.iter().any(|wide| wide.contains(network)))
            }
        }
    }
}

/// An IPv4 network that is written as one of IPv6 (`::ffff:192.0.2.0/120`), as that IPv4 network:
/// the addresses of requests are looked at in that form.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED));
    v4.and_then(|(address, len)| Ipv4Net::new(address, len).ok()).map_or(network, IpNet::V4)
}

/// How many bits stand before the IPv4 address in an IPv6 address that is one.
const MAPPED: u8 = 96;
const MAX_NETWORKS: usize = 100;
