//! Plain data: keys, owners, actors, access, limits, timestamps. No locks, no I/O, no randomness.

/// Declares an enum without data, with the stable name of each variant, which `Display` writes.
macro_rules! named {
    ($(#[$of_enum:meta])* pub enum $enum:ident {
        $($(#[$of_variant:meta])* $variant:ident = $name:literal,)*
    }) => {
        $(#[$of_enum])*
        pub enum $enum {
            $($(#[$of_variant])* $variant,)*
        }

        impl $enum {
            /// All values.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            #[doc = concat!("Returns the stable name:", $(" `", $name, "`",)* ".")]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl std::str::FromStr for $enum {
            type Err = $crate::model::Invalid;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.into_iter().find(|value| value.as_str() == text);
                let why = concat!("use one of", $(" `", $name, "`",)*);
                found.ok_or_else(|| $crate::model::Invalid::new(stringify!($enum), why))
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use named;

/// Implements `Debug` with these fields only, because the others are secret or say nothing.
macro_rules! debug_only {
    ($type:ident $(<$lifetime:lifetime>)? { $($field:ident),* }) => {
        impl std::fmt::Debug for $type $(<$lifetime>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut shown = f.debug_struct(stringify!($type));
                $(shown.field(stringify!($field), &self.$field);)*
                shown.finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use debug_only;

mod access;
mod actor;
pub mod bounds;
mod key;
mod limits;
#[cfg(feature = "serde")]
mod serde;
mod text;
mod timestamp;

#[cfg(feature = "serde")]
pub(crate) use self::serde::{from_text as serde_from_text, serde_as_text};
pub use access::{Access, Networks, Permissions, Scope, Scopes};
pub use actor::Actor;
pub(crate) use actor::Grantable;
pub use key::{
    EventId, Expiry, Key, KeyId, OwnedScope, Owner, OwnerScope, RetiringSecret, Revocation, Status,
};
pub(crate) use limits::{DAY, HOUR, MAX_RATE_PERIOD_MICROS};
pub use limits::{KeyLimits, Limits, Period, Quota, Rate};
pub use text::{Invalid, Metadata, Name, one_line};
pub(crate) use text::{checked_text, push_json_string, truncated};
#[cfg(feature = "manage")]
pub(crate) use text::{needs_escape, push_json_character};
pub use timestamp::Timestamp;
