//! The endpoints that API keys are used for. Each handler only simulates its action.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use keyward::audit::Outcome;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiError, Lumio, audit,
    session::{Requester, SECOND_FACTOR_REQUIRED},
};

pub async fn deploy(
    State(lumio): State<Lumio>,
    requester: Requester,
    Path(extension): Path<String>,
) -> Result<Json<Value>, ApiError> {
    authorize(&lumio, &requester, "deploy", "extension.deployed").await?;
    Ok(Json(json!({ "extension": extension, "team": requester.user.team })))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    #[serde(default)]
    price: u32,
}

pub async fn publish(
    State(lumio): State<Lumio>,
    requester: Requester,
    Path(extension): Path<String>,
    Json(offer): Json<Offer>,
) -> Result<Json<Value>, ApiError> {
    let event = "extension.published";
    let permitted = requester.allows(&lumio, "publish");
    if permitted && offer.price > 0 && !requester.user.has_second_factor() {
        audit::record(&lumio, &requester, event, Outcome::Failure).await?;
        return Err(SECOND_FACTOR_REQUIRED);
    }
    authorize(&lumio, &requester, "publish", event).await?;
    if offer.price > 0 {
        lumio.users.update(|data| {
            let deleted = ApiError(StatusCode::UNAUTHORIZED, "sign_in");
            data.users.get_mut(requester.owner.account()).ok_or(deleted)?.has_paid_extension = true;
            Ok(())
        })?;
    }
    Ok(Json(json!({ "extension": extension, "price": offer.price })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bill {
    to: String,
}

pub async fn bill(
    State(lumio): State<Lumio>,
    requester: Requester,
    Json(bill): Json<Bill>,
) -> Result<Json<Value>, ApiError> {
    authorize(&lumio, &requester, "billing", "billing.changed").await?;
    Ok(Json(json!({ "to": bill.to })))
}

/// Authorizes an action and records it. The action is refused if it cannot be recorded.
async fn authorize(
    lumio: &Lumio,
    by: &Requester,
    permission: &str,
    event: &str,
) -> Result<(), ApiError> {
    if by.allows(lumio, permission) {
        return audit::record(lumio, by, event, Outcome::Success).await;
    }
    audit::record(lumio, by, event, Outcome::Failure).await?;
    Err(ApiError(StatusCode::FORBIDDEN, "not_your_role"))
}
