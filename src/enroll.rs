//! Issues a first API key to a user who proves ownership of an e-mail address with a one-time code.
//!
//! [`request_code`](Enrollment::request_code) sends a six-digit code to an address;
//! [`redeem_code`](Enrollment::redeem_code) issues a key for it. The host's [`AccountLookup`] maps addresses to
//! accounts, and its [`CodeSender`] sends a [`CodeMessage`]. `http::manage::SignIn` provides the same over HTTP.
//!
//! # Security of six-digit codes
//! There are only a million codes, so guessing is limited in several ways:
//! - A code issues one key and expires after 10 minutes. It allows 5 attempts from the network that requested it, and 5
//!   from all other networks together, so that wrong codes from elsewhere do not use up the attempts of the user. Every
//!   store counts the attempt and compares the code in one atomic step.
//! - At most 5 codes are sent to an address per hour. All networks together therefore have 10 guesses per code, and 50
//!   for the codes that are sent to an address in an hour.
//! - A network may request 30 codes and make 60 attempts per hour, for all addresses together. A network is one IPv4
//!   address or one IPv6 /64. All callers without a known IP address count as one network with stricter limits: 10
//!   codes and 20 attempts per hour.
//! - Codes are stored as digests keyed by a [`Pepper`] that is kept outside the database, and bound to their
//!   address. Without the pepper, a stolen database does not reveal them; a plain hash of six digits, salted
//!   or not, could be reversed in less than a second. Addresses are stored as keyed digests, too.
//! - The account is looked up and the message is sent in the background. Neither the response nor its timing reveals
//!   whether an address has an account. For an address without an account, a code is stored but never sent.
//!
//! Remaining limitations: requests for another person's address use up its codes for the hour. A user whose network has
//! changed since the request shares the 5 attempts of all other networks.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    api::ApiKeys,
    audit::EventKind,
    error::{Error, ErrorKind},
    manage::{Issued, NewKey},
    model::{Actor, HOUR, Invalid, Owner, Period, debug_only, one_line},
    secret::{Hasher as _, HmacSha256Hasher, Pepper, Secret, SecretDigest},
    store::{
        Capability, ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, CounterKey, Counters,
        OneTimeCode, OneTimeCodes,
    },
    system::{EntropyError, fill_random},
    verify::seconds_to_wait,
};

/// Issues keys to users who prove ownership of an e-mail address. Cheap to clone.
///
/// # Examples
/// ```
/// use keyward::async_trait;
/// use keyward::{Actor, Owner, Pepper, enroll::{EmailAddress, Enrollment, HostError, CodeMessage, AccountLookup, CodeSender}};
///
/// struct Accounts;
/// #[async_trait]
/// impl AccountLookup for Accounts {
///     async fn owner_of(&self, address: &EmailAddress) -> Result<Option<Owner>, HostError> {
///         Ok((address.as_str() == "ada@example.com").then(|| Owner::account_only("ada")).transpose()?)
///     }
/// }
///
/// struct Mail;
/// #[async_trait]
/// impl CodeSender for Mail {
///     async fn send(&self, message: &CodeMessage) -> Result<(), HostError> {
///         // Send message.text() to message.to, with the subject message.subject().
///         # let _ = (&message.to, message.subject(), message.text());
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keys = keyward::testing::TestKeys::new().keys;
/// let pepper = Pepper::new(1, b"thirty-two bytes or more, from a vault".as_slice())?;
/// let enrollment = Enrollment::builder(keys, Accounts, Mail, pepper).product("Lua").build()?;
///
/// let (ada, by) = ("ada@example.com".parse()?, Actor::account("ada@example.com"));
/// enrollment.request_code(&ada, &by).await?;
/// assert!(enrollment.redeem_code(&ada, "not the code", &by).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Enrollment {
    inner: Arc<Inner>,
}

/// Builds an [`Enrollment`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct EnrollmentBuilder(Inner);

/// The reason why no code was sent, or no key was issued.
///
/// Exhaustive on purpose: each variant needs a different HTTP status.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Not the last code that was sent, or it was used already or has no attempts left. Respond with 400.
    #[error("the code is wrong or was already used: check it, or request a new one")]
    WrongCode,
    /// The code was correct, but has expired. Respond with 400.
    #[error("the code has expired: request a new one")]
    ExpiredCode,
    /// An hourly limit is reached. Contains the time until it resets. Respond with 429 and `Retry-After`.
    #[error("too many attempts: try again in {} s", seconds_to_wait(*.0))]
    TooManyAttempts(Duration),
    /// The store or the host failed (503), or no key can be issued. Respond as when issuing a key.
    #[error(transparent)]
    Failed(#[from] Error),
}

struct Inner {
    keys: ApiKeys,
    accounts: Box<dyn AccountLookup>,
    sender: Box<dyn CodeSender>,
    hasher: HmacSha256Hasher,
    new_key: Box<NewKeyFn>,
    product: String,
    /// Maximum numbers per hour.
    codes_per_address: u32,
    codes_per_network: NetworkLimit,
    attempts_per_network: NetworkLimit,
    pending_messages: Arc<Semaphore>,
}

/// A maximum for each network, and for all callers without a known IP address together.
#[derive(Clone, Copy)]
struct NetworkLimit {
    known: u32,
    /// Defaults to a third of `known`.
    unknown: Option<u32>,
}

type NewKeyFn = dyn Fn(&Owner) -> Result<NewKey, Invalid> + Send + Sync;

impl Enrollment {
    /// Starts an enrollment with the host's account lookup and code sender, and a pepper. The pepper keys the digests
    /// of codes. All nodes of a service MUST use the same one.
    pub fn builder(
        keys: ApiKeys,
        accounts: impl AccountLookup,
        sender: impl CodeSender,
        pepper: Pepper,
    ) -> EnrollmentBuilder {
        EnrollmentBuilder(Inner {
            keys,
            accounts: Box::new(accounts),
            sender: Box::new(sender),
            hasher: HmacSha256Hasher::new(pepper),
            new_key: Box::new(|owner| NewKey::new(owner, "signed in by e-mail")),
            product: String::new(),
            codes_per_address: 5,
            codes_per_network: NetworkLimit { known: 30, unknown: None },
            attempts_per_network: NetworkLimit { known: 60, unknown: None },
            pending_messages: Arc::new(Semaphore::new(MAX_PENDING_MESSAGES)),
        })
    }

    /// Sends a code to an address if it has an account. The result is the same if it has none.
    ///
    /// A caller can redeem the code that its network requested last for this address, and the one that any network
    /// requested last. Earlier codes become invalid. A request from another network does not invalidate the code of the
    /// user.
    ///
    /// `by` is the requester, as far as known. Requests are limited per address and per network. All requesters without
    /// an IP address share one stricter limit, so a host that knows the address MUST pass it.
    ///
    /// # Errors
    /// `TooManyAttempts`, and `Failed` if the store is unavailable or 1,000 messages are pending.
    pub async fn request_code(
        &self,
        address: &EmailAddress,
        by: &Actor,
    ) -> Result<(), EnrollError> {
        let inner = &self.inner;
        let pending = inner.pending_messages.clone().try_acquire_owned();
        let pending = pending.map_err(|_| {
            let message = "too many codes are waiting to be sent: try again later";
            Error::new(ErrorKind::Unavailable, message)
        })?;
        let limits = [
            (inner.digest(REQUESTS, address.as_str()), inner.codes_per_address),
            (inner.digest(REQUESTS, &network(by)), inner.codes_per_network.of(by)),
        ];
        inner.charge(&limits, "too_many_codes", by).await?;

        let code = generate_code(fill_random).map_err(Error::from)?;
        inner.put_code(address, &code, by).await?;
        let product = inner.product.clone();
        let message = CodeMessage { to: address.clone(), code, valid_for: CODE_LIFETIME, product };
        // In the background, so that the response time does not reveal whether there is an account.
        let (inner, by) = (inner.clone(), by.clone());
        tokio::spawn(async move {
            let _pending = pending;
            inner.deliver(&message, &by).await;
        });
        Ok(())
    }

    /// Issues a key in exchange for the code sent to an address. The code is used up even if issuing fails. A text that
    /// is not six digits, with or without spaces or dashes, uses up no attempt.
    ///
    /// # Errors
    /// Any [`EnrollError`]. A code is wrong, too, after five wrong codes from the network that requested it, or from
    /// all other networks together, and if there is no account or no code. It expires after ten minutes. `Failed` has
    /// the errors of [`ApiKeys::issue`].
    pub async fn redeem_code(
        &self,
        address: &EmailAddress,
        code: &str,
        by: &Actor,
    ) -> Result<Issued, EnrollError> {
        let inner = &self.inner;
        // The audit log contains the exact reason; the caller learns only that the code is wrong.
        let refuse = |reason, error| {
            inner.keys.note_refused_code(reason, by);
            Err(error)
        };
        let limit = (inner.digest(ATTEMPTS, &network(by)), inner.attempts_per_network.of(by));
        inner.charge(&[limit], "too_many_tries", by).await?;
        let Some(code) = parse_code(code) else {
            return refuse("malformed_code", EnrollError::WrongCode);
        };
        match inner.try_code(address, &code, by).await? {
            CodeOutcome::Accepted => {}
            CodeOutcome::Expired => return refuse("expired_code", EnrollError::ExpiredCode),
            CodeOutcome::Wrong => return refuse("wrong_code", EnrollError::WrongCode),
            CodeOutcome::NoTriesLeft => return refuse("no_tries_left", EnrollError::WrongCode),
            CodeOutcome::NotFound => return refuse("no_code", EnrollError::WrongCode),
        }
        let Some(owner) = inner.accounts.owner_of(address).await.map_err(Error::accounts)? else {
            return refuse("no_account", EnrollError::WrongCode);
        };
        let new = (inner.new_key)(&owner).map_err(Error::from)?;
        let issued = inner.keys.issue(new, by).await;
        let issued = issued.inspect_err(|_| inner.keys.note_refused_code("not_issued", by))?;
        // Best effort: the key exists and its own audit event is written, so the caller must receive it.
        let _ = inner.keys.note_code(EventKind::CodeAccepted, &owner, by);
        Ok(issued)
    }

    /// Returns the keys that this enrollment issues from.
    #[cfg(feature = "manage")]
    pub(crate) fn keys(&self) -> &ApiKeys {
        &self.inner.keys
    }
}

impl EnrollmentBuilder {
    /// Sets a function that describes the key to issue for an owner. By default the key is named "signed in
    /// by e-mail", does not expire, and has all of its owner's permissions.
    pub fn new_key(
        self,
        make: impl Fn(&Owner) -> Result<NewKey, Invalid> + Send + Sync + 'static,
    ) -> Self {
        Self(Inner { new_key: Box::new(make), ..self.0 })
    }

    /// Sets the product name that messages show. Defaults to none.
    pub fn product(self, name: &str) -> Self {
        Self(Inner { product: one_line(name).into_owned(), ..self.0 })
    }

    /// Sets the maximum number of codes that are sent to one address per hour. Defaults to 5. A code has six digits and
    /// allows 10 guesses over all networks, so an attacker who keeps guessing succeeds once in 20,000 hours on average.
    pub fn codes_per_address(self, per_hour: u32) -> Self {
        Self(Inner { codes_per_address: per_hour, ..self.0 })
    }

    /// Sets the maximum number of codes requested from one network per hour. Defaults to 30.
    pub fn codes_per_network(self, per_hour: u32) -> Self {
        let codes_per_network = NetworkLimit { known: per_hour, ..self.0.codes_per_network };
        Self(Inner { codes_per_network, ..self.0 })
    }

    /// Sets the maximum number of codes requested per hour by all callers without a known IP address together. Defaults
    /// to a third of [`codes_per_network`](Self::codes_per_network), 10. A host that passes no addresses needs a higher
    /// one.
    pub fn codes_without_address(self, per_hour: u32) -> Self {
        let codes_per_network =
            NetworkLimit { unknown: Some(per_hour), ..self.0.codes_per_network };
        Self(Inner { codes_per_network, ..self.0 })
    }

    /// Sets the maximum number of attempts to redeem codes from one network per hour. Defaults to 60.
    pub fn attempts_per_network(self, per_hour: u32) -> Self {
        let attempts_per_network = NetworkLimit { known: per_hour, ..self.0.attempts_per_network };
        Self(Inner { attempts_per_network, ..self.0 })
    }

    /// Sets the maximum number of attempts to redeem codes per hour by all callers without a known IP address together.
    /// Defaults to a third of [`attempts_per_network`](Self::attempts_per_network), 20. A host that passes no addresses
    /// needs a higher one.
    pub fn attempts_without_address(self, per_hour: u32) -> Self {
        let attempts_per_network =
            NetworkLimit { unknown: Some(per_hour), ..self.0.attempts_per_network };
        Self(Inner { attempts_per_network, ..self.0 })
    }

    /// Builds the enrollment.
    ///
    /// # Errors
    /// [`NotSupported`](ErrorKind::NotSupported) if the store has no one-time codes or no counters.
    pub fn build(self) -> Result<Enrollment, Error> {
        self.0.codes()?;
        self.0.counters()?;
        Ok(Enrollment { inner: Arc::new(self.0) })
    }
}

/// Maps e-mail addresses to accounts; implemented by the host.
#[async_trait]
pub trait AccountLookup: Send + Sync + 'static {
    /// Returns the account that an address belongs to, or `None` if it belongs to no account.
    ///
    /// Called in the background before a code is sent, and again when the code is redeemed, so that an
    /// address whose account was changed or deleted in the meantime issues no key to the former owner. The
    /// host MUST return an account only if it has verified that the address belongs to it.
    async fn owner_of(&self, address: &EmailAddress) -> Result<Option<Owner>, HostError>;
}

/// Sends one-time codes, by e-mail or another channel that reaches the owner of the address; implemented by
/// the host. With the feature `email`, `email::Mailer` implements it for SMTP.
#[async_trait]
pub trait CodeSender: Send + Sync + 'static {
    /// Sends a message. It MUST be sent to `message.to` only. Called in the background, and cancelled after one minute.
    /// A failure is audited, but not returned by `request_code`, which does not reveal whether a message was sent.
    async fn send(&self, message: &CodeMessage) -> Result<(), HostError>;
}

/// An error of the host's own code.
pub type HostError = Box<dyn std::error::Error + Send + Sync>;

/// A one-time code with the address that it is sent to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CodeMessage {
    /// The recipient.
    pub to: EmailAddress,
    /// The six digits. They belong in the message body, and MUST NOT be logged.
    pub code: Secret,
    /// The time until the code expires.
    pub valid_for: Duration,
    /// The product name set by [`EnrollmentBuilder::product`].
    pub product: String,
}

impl CodeMessage {
    /// Returns a subject line without the code, because subjects are shown on lock screens.
    pub fn subject(&self) -> String {
        match self.product.as_str() {
            "" => "Your sign-in code".into(),
            product => format!("Your sign-in code for {product}"),
        }
    }

    /// Returns a plain-text body in English. A host may write its own instead.
    pub fn text(&self) -> String {
        let Self { code, valid_for, .. } = self;
        let minutes = valid_for.as_secs() / 60;
        format!(
            "{}\n\nEnter this code to sign in. It can be used once and expires in {minutes} minutes.\n\n\
             If you did not request it, you can ignore this e-mail: no one can sign in without the code. \
             Please do not share it with anyone.\n",
            code.expose()
        )
    }
}

/// An e-mail address, in lower case.
///
/// Only ASCII is accepted. With Unicode, letters that look alike or fold to the same lower case could send
/// one person's code to another. An internationalized domain is written in its `xn--` form.
///
/// # Examples
/// ```
/// use keyward::enroll::EmailAddress;
///
/// let address: EmailAddress = " Ada@Example.com".parse()?;
/// assert_eq!(address.as_str(), "ada@example.com");
/// assert!("ada@example.com\nBcc: eve@example.com".parse::<EmailAddress>().is_err());
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EmailAddress(Arc<str>);

impl EmailAddress {
    /// Returns the address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EmailAddress {
    type Err = Invalid;

    /// Parses an address, and trims white space around it. Quoted local parts (`"ada l"@example.com`) are rejected.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |why| Invalid::new("e-mail address", why);
        let text = text.trim();
        let (local, domain) = text.split_once('@').ok_or_else(|| invalid("missing @"))?;
        let has_only = |part: &str, symbols: &[u8]| {
            let is_allowed = |b: u8| b.is_ascii_alphanumeric() || symbols.contains(&b);
            !part.is_empty() && part.bytes().all(is_allowed)
        };
        let is_atom = |atom: &str| has_only(atom, b"!#$%&'*+/=?^_`{|}~-");
        let is_label =
            |label: &str| has_only(label, b"-") && label.len() <= 63 && !label.starts_with('-');
        if local.len() > MAX_LOCAL_LEN || !local.split('.').all(is_atom) {
            return Err(invalid(
                "the part before the @ must be 1 to 64 ASCII characters, without quotes",
            ));
        }
        if text.len() > MAX_ADDRESS_LEN || !domain.split('.').all(is_label) {
            return Err(invalid(
                "the part after the @ is not a valid domain, or the address is too long",
            ));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Inner {
    fn codes(&self) -> Result<&dyn OneTimeCodes, Error> {
        let needed_by = "enrollment needs: use another store";
        let missing = || Error::not_supported(Capability::OneTimeCodes, needed_by);
        self.keys.store().one_time_codes().ok_or_else(missing)
    }

    fn counters(&self) -> Result<&dyn Counters, Error> {
        self.keys.counters("enrollment needs: use another store")
    }

    /// Returns a keyed digest: it cannot be reversed by trying all addresses. Prefixes keep kinds apart.
    fn digest(&self, prefix: &str, text: &str) -> SecretDigest {
        self.hasher.digest(format!("{prefix} {text}").as_bytes())
    }

    /// Binds the code to its address. An address contains no space, so the text is unambiguous.
    fn code_digest(&self, address: &EmailAddress, code: &str) -> SecretDigest {
        self.digest(CODE, &format!("{address} {code}"))
    }

    /// Stores a code once for the network that requested it and once for all others, each with attempts of its own, and
    /// the permission to use it once.
    async fn put_code(
        &self,
        address: &EmailAddress,
        code: &Secret,
        by: &Actor,
    ) -> Result<(), Error> {
        let digest = self.code_digest(address, code.expose());
        let ends_at = self.keys.checked_now().await?.after(CODE_LIFETIME);
        for (place, tries) in [
            (self.use_of(address, code), 1),
            (self.digest(ADDRESS, address.as_str()), MAX_ATTEMPTS),
            (self.own_place(address, by), MAX_ATTEMPTS),
        ] {
            self.codes()?.put_code(&place, &OneTimeCode { digest, ends_at, tries }).await?;
        }
        Ok(())
    }

    /// Compares a code with the one that was requested from the caller's network, and then with the last one of all
    /// networks. A code that was accepted in one of these places is used up in both.
    async fn try_code(
        &self,
        address: &EmailAddress,
        code: &Secret,
        by: &Actor,
    ) -> Result<CodeOutcome, Error> {
        let codes = self.codes()?;
        let own = CodeAttempt {
            address: self.own_place(address, by),
            digest: self.code_digest(address, code.expose()),
            at: self.keys.checked_now().await?,
        };
        let shared = CodeAttempt { address: self.digest(ADDRESS, address.as_str()), ..own };
        let outcome = match codes.try_code(&own).await? {
            accepted @ (CodeOutcome::Accepted | CodeOutcome::Expired) => accepted,
            CodeOutcome::NotFound => codes.try_code(&shared).await?,
            refused => match codes.try_code(&shared).await? {
                CodeOutcome::NotFound | CodeOutcome::NoTriesLeft => refused,
                outcome => outcome,
            },
        };
        match outcome {
            CodeOutcome::Accepted => {
                let once = CodeAttempt { address: self.use_of(address, code), ..own };
                Ok(codes.try_code(&once).await?)
            }
            refused => Ok(refused),
        }
    }

    /// The place of the code that the actor's network requested.
    fn own_place(&self, address: &EmailAddress, by: &Actor) -> SecretDigest {
        self.digest(ADDRESS_AND_NETWORK, &format!("{address} {}", network(by)))
    }

    /// The place of the permission to use a code once.
    fn use_of(&self, address: &EmailAddress, code: &Secret) -> SecretDigest {
        self.digest(USE, &format!("{address} {}", code.expose()))
    }

    /// Charges one use in the current hour to each counter.
    async fn charge(
        &self,
        limits: &[(SecretDigest, u32)],
        reason: &'static str,
        by: &Actor,
    ) -> Result<(), EnrollError> {
        let now = self.keys.checked_now().await?;
        let charges = limits.iter().map(|(counter, limit)| CounterCharge {
            counter_key: CounterKey::Anonymous(counter),
            // Stores have no hourly period: the window's start identifies the hour.
            period: Period::Ever,
            window: now.rounded_down_to(HOUR),
            latest_window: now.after(HOUR),
            limit: u64::from(*limit),
            uses: 1,
        });
        let charges: Vec<_> = charges.collect();
        match self.counters()?.charge(&charges).await.map_err(Error::from)? {
            ChargeOutcome::Granted(_) => Ok(()),
            ChargeOutcome::Exhausted(_) => {
                self.keys.note_refused_code(reason, by);
                Err(EnrollError::TooManyAttempts(self.keys.now().until_next(HOUR)))
            }
        }
    }

    async fn deliver(&self, message: &CodeMessage, by: &Actor) {
        let delivery = async {
            let Some(owner) = self.accounts.owner_of(&message.to).await? else {
                self.keys.note_refused_code("no_account", by);
                return Ok(());
            };
            self.keys.note_code(EventKind::CodeRequested, &owner, by)?;
            self.sender.send(message).await
        };
        let delivered: Result<Result<(), HostError>, _> = timeout(DELIVERY_TIMEOUT, delivery).await;
        if !matches!(delivered, Ok(Ok(()))) {
            self.keys.note_refused_code("not_sent", by);
        }
    }
}

debug_only!(Inner { product });

impl NetworkLimit {
    fn of(&self, by: &Actor) -> u32 {
        match by.ip {
            Some(_) => self.known,
            None => self.unknown.unwrap_or(self.known.div_ceil(3)),
        }
    }
}

/// Names the actor's network: one IPv4 address or one IPv6 /64, the smallest block that a subscriber has. All actors
/// without an IP address are one network.
fn network(by: &Actor) -> String {
    match by.ip {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("{:x}", u128::from(ip) >> 64),
        None => "unknown".into(),
    }
}

/// Returns six random digits. Private: a generator from outside could be seeded, cloned or shared.
fn generate_code(
    mut fill: impl FnMut(&mut [u8]) -> Result<(), EntropyError>,
) -> Result<Secret, EntropyError> {
    loop {
        let mut bytes = [0; 4];
        fill(&mut bytes)?;
        let number = u32::from_be_bytes(bytes);
        // Rejects the incomplete last million: with it, the remainder would favor small codes.
        if number < u32::MAX / CODE_COUNT * CODE_COUNT {
            return Ok(Secret::from(format!("{:06}", number % CODE_COUNT)));
        }
    }
}

/// Parses a code as a user types it: six digits, with optional spaces and dashes.
pub(crate) fn parse_code(text: &str) -> Option<Secret> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let is_code = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_code.then(|| Secret::from(digits))
}

/// Prefixes of the digested text.
const ADDRESS: &str = "address";
const ADDRESS_AND_NETWORK: &str = "address and network";
const CODE: &str = "code";
const USE: &str = "use of code";
const REQUESTS: &str = "codes of";
const ATTEMPTS: &str = "tries of";
const CODE_COUNT: u32 = 1_000_000;
const CODE_LIFETIME: Duration = Duration::from_secs(600);
/// From the network that requested the code, and from all others together.
const MAX_ATTEMPTS: u32 = 5;
/// The number of messages that may wait for the host's account lookup and code sender.
const MAX_PENDING_MESSAGES: usize = 1_000;
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// The limits of SMTP (RFC 5321), in bytes.
const MAX_LOCAL_LEN: usize = 64;
const MAX_ADDRESS_LEN: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::fail_random;

    #[test]
    fn all_codes_are_equally_likely() {
        let limit = 4_294 * CODE_COUNT;
        let table: [(&[u32], &str); 5] = [
            (&[0], "000000"),
            (&[7], "000007"),
            (&[CODE_COUNT], "000000"),
            (&[limit - 1], "999999"),
            (&[limit, u32::MAX, 42], "000042"), // the incomplete million is rejected
        ];
        for (numbers, code) in table {
            let mut numbers = numbers.iter();
            let fill = |bytes: &mut [u8]| {
                let Some(next) = numbers.next() else { return fail_random(bytes) };
                bytes.copy_from_slice(&next.to_be_bytes());
                Ok(())
            };
            assert_eq!(generate_code(fill).unwrap().expose(), code, "{numbers:?}");
        }
    }

    #[test]
    fn a_failing_generator_is_an_error_and_never_a_weak_code() {
        assert!(generate_code(fail_random).is_err());
    }
}
