use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::timeout};

use super::{
    AccountLookup, CodeMessage, CodeSender, EmailAddress, EnrollError, HostError, code,
    limits::{ADDRESS, CODE, CODES_OF, Hourly, TRIES_OF, digest, network, one_of, rest_of_hour},
};
use crate::{
    api::ApiKeys,
    audit::EventKind,
    error::{Error, ErrorKind},
    manage::{Issued, NewKey},
    model::{Actor, Invalid, Owner},
    secret::{HmacSha256Hasher, Pepper},
    store::{ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, OneTimeCode},
};

/// Keys for people who prove that an e-mail address is theirs. Cheap to clone.
///
/// # Examples
/// ```
/// use async_trait::async_trait;
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
///     async fn send(&self, letter: &CodeMessage) -> Result<(), HostError> {
///         // Hand letter.to, letter.subject() and letter.text() to the mail server.
///         # let _ = (&letter.to, letter.subject(), letter.text());
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keys = keyward::testing::TestKeys::new().keys;
/// let pepper = Pepper::new(1, b"thirty-two bytes or more, from a vault".as_slice())?;
/// let enrollment = Enrollment::builder(keys, Accounts, Mail, pepper).product("Lua").build();
///
/// let (ada, by) = ("ada@example.com".parse()?, Actor::account("ada@example.com"));
/// enrollment.request_code(&ada, &by).await?;
/// assert!(enrollment.redeem_code(&ada, "not the code", &by).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Enrollment {
    inner: Arc<Inner>,
}

/// Puts an [`Enrollment`] together.
#[must_use = "a builder does nothing until `build` is called"]
pub struct EnrollmentBuilder {
    inner: Inner,
}

struct Inner {
    keys: ApiKeys,
    members: Box<dyn AccountLookup>,
    post: Box<dyn CodeSender>,
    hasher: HmacSha256Hasher,
    new_key: Box<Make>,
    product: String,
    hourly: Hourly,
    sending: Arc<Semaphore>,
}

type Make = dyn Fn(&Owner) -> Result<NewKey, Invalid> + Send + Sync;

impl Enrollment {
    /// Begins with the keys, what the host knows and does, and a secret of the service that keeps
    /// codes apart from whoever reads the database. All nodes of a service use the same one.
    pub fn builder(
        keys: ApiKeys,
        members: impl AccountLookup,
        post: impl CodeSender,
        pepper: Pepper,
    ) -> EnrollmentBuilder {
        EnrollmentBuilder {
            inner: Inner {
                keys,
                members: Box::new(members),
                post: Box::new(post),
                hasher: HmacSha256Hasher::new(pepper),
                new_key: Box::new(|owner| NewKey::new(owner, "signed in by e-mail")),
                product: String::new(),
                hourly: Hourly::default(),
                sending: Arc::new(Semaphore::new(MOST_LETTERS)),
            },
        }
    }

    /// Has a code sent to an address, if it has an account; the answer is the same if it has none.
    /// The former code for it is of no use from now on.
    ///
    /// `by` is who asks, as far as one can tell. Its network is limited beside the address; an actor
    /// without an IP has none.
    ///
    /// # Errors
    /// [`TooManyAttempts`](EnrollError::TooManyAttempts); and [`Failed`](EnrollError::Failed) if the store, or too many
    /// letters that wait to be sent, make it unavailable.
    pub async fn request_code(
        &self,
        address: &EmailAddress,
        by: &Actor,
    ) -> Result<(), EnrollError> {
        let inner = &self.inner;
        let sending = inner.sending.clone().try_acquire_owned().map_err(|_| busy())?;
        let now = inner.keys.now();
        let codes_of = digest(&inner.hasher, CODES_OF, address.as_str());
        let network = network(&inner.hasher, CODES_OF, by);
        let mut charges = vec![one_of(inner.hourly.codes_per_address, &codes_of, now)];
        let of_network = |network| one_of(inner.hourly.codes_per_network, network, now);
        charges.extend(network.as_ref().map(of_network));
        inner.charge(&charges, "too_many_codes", by).await?;

        let code = code::generate().map_err(Error::from)?;
        let kept = OneTimeCode {
            digest: inner.code_digest(address, code.expose()),
            ends_at: now.after(VALID_FOR),
            tries: TRIES,
        };
        inner.keys.put_code(&inner.address_digest(address), &kept).await?;
        let product = inner.product.clone();
        let letter = CodeMessage { to: address.clone(), code, valid_for: VALID_FOR, product };
        // From here on nobody waits: what is done depends on whether there is an account.
        let (inner, by) = (inner.clone(), by.clone());
        tokio::spawn(async move {
            let _sending = sending;
            inner.deliver(&letter, &by).await;
        });
        Ok(())
    }

    /// Issues a key to whoever has the code for an address. The code is used up by that, also if the
    /// key cannot be issued.
    ///
    /// # Errors
    /// [`WrongCode`](EnrollError::WrongCode), also where there is no account or no code at all, and
    /// after five wrong codes; [`ExpiredCode`](EnrollError::ExpiredCode) after ten minutes;
    /// [`TooManyAttempts`](EnrollError::TooManyAttempts) for the network; [`Failed`](EnrollError::Failed) with what
    /// [`ApiKeys::issue`] has to say.
    pub async fn redeem_code(
        &self,
        address: &EmailAddress,
        code: &str,
        by: &Actor,
    ) -> Result<Issued, EnrollError> {
        let inner = &self.inner;
        let now = inner.keys.now();
        if let Some(network) = network(&inner.hasher, TRIES_OF, by) {
            let one = one_of(inner.hourly.attempts_per_network, &network, now);
            inner.charge(&[one], "too_many_tries", by).await?;
        }
        // A slip of the finger is no guess, and takes no try.
        let Some(code) = code::read(code) else { return Err(inner.refuse("malformed_code", by)) };
        let guess = CodeAttempt {
            address: inner.address_digest(address),
            digest: inner.code_digest(address, code.expose()),
            at: now,
        };
        match inner.keys.try_code(&guess).await? {
            CodeOutcome::Accepted => {}
            CodeOutcome::Expired => {
                inner.keys.note_refused_code("late_code", by);
                return Err(EnrollError::ExpiredCode);
            }
            CodeOutcome::Wrong => return Err(inner.refuse("wrong_code", by)),
            CodeOutcome::NoTriesLeft => return Err(inner.refuse("no_tries_left", by)),
            CodeOutcome::NotFound => return Err(inner.refuse("no_code", by)),
        }
        let Some(owner) = inner.members.owner_of(address).await.map_err(Error::accounts)? else {
            return Err(inner.refuse("no_account", by));
        };
        let new = (inner.new_key)(&owner).map_err(Error::from)?;
        let issued = match inner.keys.issue(new, by).await {
            Ok(issued) => issued,
            Err(error) => {
                inner.keys.note_refused_code("not_issued", by);
                return Err(error.into());
            }
        };
        // The key is made, and its own event is written: nothing may keep it from its owner now.
        let _ = inner.keys.note_code(EventKind::CodeAccepted, &owner, by);
        Ok(issued)
    }

    /// The keys that it issues.
    #[cfg(feature = "manage")]
    pub(crate) fn keys(&self) -> &ApiKeys {
        &self.inner.keys
    }
}

impl EnrollmentBuilder {
    /// What a key is that a code is turned into; by default one that may do all that its owner may
    /// do, does not expire, and is named "signed in by e-mail".
    pub fn new_key(
        mut self,
        make: impl Fn(&Owner) -> Result<NewKey, Invalid> + Send + Sync + 'static,
    ) -> Self {
        self.inner.new_key = Box::new(make);
        self
    }

    /// What the letters call the product.
    pub fn product(mut self, name: &str) -> Self {
        self.inner.product = crate::model::one_line(name).into_owned();
        self
    }

    /// How many codes an hour are sent to one address; 5 by default. With 5 tries each, who wants to
    /// guess one hits it once in 40,000 hours.
    pub fn codes_per_address(mut self, hourly: u32) -> Self {
        self.inner.hourly.codes_per_address = hourly;
        self
    }

    /// How many codes an hour are requested from one network; 30 by default.
    pub fn codes_per_network(mut self, hourly: u32) -> Self {
        self.inner.hourly.codes_per_network = hourly;
        self
    }

    /// How many codes an hour are tried from one network; 60 by default.
    pub fn attempts_per_network(mut self, hourly: u32) -> Self {
        self.inner.hourly.attempts_per_network = hourly;
        self
    }

    /// Builds it.
    pub fn build(self) -> Enrollment {
        Enrollment { inner: Arc::new(self.inner) }
    }
}

impl Inner {
    fn address_digest(&self, address: &EmailAddress) -> crate::secret::SecretDigest {
        digest(&self.hasher, ADDRESS, address.as_str())
    }

    /// Bound to the address: the same code for another one looks different. No address has a space.
    fn code_digest(&self, address: &EmailAddress, code: &str) -> crate::secret::SecretDigest {
        digest(&self.hasher, CODE, &format!("{address} {code}"))
    }

    async fn charge(
        &self,
        charges: &[CounterCharge<'_>],
        reason: &'static str,
        by: &Actor,
    ) -> Result<(), EnrollError> {
        match self.keys.charge(charges).await? {
            ChargeOutcome::Granted(_) => Ok(()),
            ChargeOutcome::Exhausted(_) => {
                self.keys.note_refused_code(reason, by);
                Err(EnrollError::TooManyAttempts(rest_of_hour(self.keys.now())))
            }
        }
    }

    fn refuse(&self, reason: &'static str, by: &Actor) -> EnrollError {
        self.keys.note_refused_code(reason, by);
        EnrollError::WrongCode
    }

    async fn deliver(&self, letter: &CodeMessage, by: &Actor) {
        let delivered = async {
            let Some(owner) = self.members.owner_of(&letter.to).await? else {
                self.keys.note_refused_code("no_account", by);
                return Ok(());
            };
            self.keys.note_code(EventKind::CodeRequested, &owner, by)?;
            self.post.send(letter).await
        };
        let delivered: Result<Result<(), HostError>, _> = timeout(PATIENCE, delivered).await;
        if !matches!(delivered, Ok(Ok(()))) {
            self.keys.note_refused_code("not_sent", by);
        }
    }
}

fn busy() -> Error {
    Error::new(ErrorKind::Unavailable, "too many letters wait to be sent; try again later")
}

impl std::fmt::Debug for Enrollment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrollment").field("hourly", &self.inner.hourly).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for EnrollmentBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrollmentBuilder").finish_non_exhaustive()
    }
}

const VALID_FOR: Duration = Duration::from_secs(600);
const TRIES: u32 = 5;
/// How many may wait for the host and its mail server at a time.
const MOST_LETTERS: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);
