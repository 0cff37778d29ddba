use http::StatusCode;

use crate::verify::LimitedReason;

/// The stable words for why a request was refused; what programs may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// It presents no key.
    MissingKey,
    /// What it presents is not a live key. Which of the many reasons it is, only audit is told.
    InvalidKey,
    /// The key may not do this.
    InsufficientScope,
    /// It presents more than one credential.
    RepeatedCredentials,
    /// The key, or its network, comes too often.
    RateLimited,
    /// A quota of the key, or of its owner, is used up.
    QuotaExhausted,
    /// Nobody can tell at the moment whether the key is good.
    Unavailable,
    /// The service is put together wrongly: a handler wants a key that no layer has looked for.
    MissingLayer,
}

impl ErrorCode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingKey => "missing_key",
            Self::InvalidKey => "invalid_key",
            Self::InsufficientScope => "insufficient_scope",
            Self::RepeatedCredentials => "repeated_credentials",
            Self::RateLimited => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Unavailable => "unavailable",
            Self::MissingLayer => "missing_layer",
        }
    }

    /// The status of HTTP.
    pub fn status(self) -> StatusCode {
        match self {
            Self::MissingKey | Self::InvalidKey => StatusCode::UNAUTHORIZED,
            Self::InsufficientScope => StatusCode::FORBIDDEN,
            Self::RepeatedCredentials => StatusCode::BAD_REQUEST,
            Self::RateLimited | Self::QuotaExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::MissingLayer => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The status of gRPC.
    pub fn grpc(self) -> u16 {
        match self {
            Self::MissingKey | Self::InvalidKey | Self::RepeatedCredentials => 16,
            Self::InsufficientScope => 7,
            Self::RateLimited | Self::QuotaExhausted => 8,
            Self::Unavailable => 14,
            Self::MissingLayer => 13,
        }
    }

    pub(crate) fn of_limit(reason: LimitedReason) -> Self {
        match reason {
            LimitedReason::Quota => Self::QuotaExhausted,
            LimitedReason::Rate | LimitedReason::Network => Self::RateLimited,
        }
    }

    /// What RFC 6750 calls it, if it does.
    pub(crate) fn challenge(self) -> Option<&'static str> {
        match self {
            Self::InvalidKey => Some("invalid_token"),
            Self::InsufficientScope => Some("insufficient_scope"),
            Self::RepeatedCredentials => Some("invalid_request"),
            _ => None,
        }
    }

    /// A sentence for people, and what to do.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::MissingKey => "this needs an API key: send it as Authorization: Bearer",
            Self::InvalidKey => "the API key is not valid",
            Self::InsufficientScope => "the API key may not do this: it lacks a scope",
            Self::RepeatedCredentials => "the request presents more than one credential: send one",
            Self::RateLimited => "too many requests: try again later",
            Self::QuotaExhausted => "the quota of the API key, or of its account, is used up",
            Self::Unavailable => {
                "API keys cannot be checked now: try again later, with the same key"
            }
            Self::MissingLayer => {
                "a handler takes keyward::Verified, but no layer verifies keys on this route: \
                 add keyward::axum::layer(guard) to the Router, or .wrap(keyward::actix::ApiKeyAuth::new(guard)) \
                 to the App"
            }
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
