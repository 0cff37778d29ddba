//! What keys are for. Each handler is a stand-in for what the platform really does.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use keyward::audit::Outcome;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Lumio, Refused, audit, session::Someone};

pub async fn deploy(
    State(lumio): State<Lumio>,
    someone: Someone,
    Path(extension): Path<String>,
) -> Result<Json<Value>, Refused> {
    allow(&lumio, &someone, "deploy", "extension.deployed").await?;
    Ok(Json(json!({ "extension": extension, "team": someone.person.team })))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    #[serde(default)]
    price: u32,
}

pub async fn publish(
    State(lumio): State<Lumio>,
    someone: Someone,
    Path(extension): Path<String>,
    Json(offer): Json<Offer>,
) -> Result<Json<Value>, Refused> {
    let event = "extension.published";
    let may = someone.may(&lumio, "publish");
    if may && offer.price > 0 && !someone.person.has_a_factor() {
        audit::note(&lumio, &someone, event, Outcome::Failure).await?;
        return Err(Refused(StatusCode::FORBIDDEN, "second_factor_required"));
    }
    allow(&lumio, &someone, "publish", event).await?;
    if offer.price > 0 {
        lumio.people.change(|everyone| {
            let gone = Refused(StatusCode::UNAUTHORIZED, "sign_in");
            everyone.people.get_mut(someone.owner.account()).ok_or(gone)?.sells = true;
            Ok(())
        })?;
    }
    Ok(Json(json!({ "extension": extension, "price": offer.price })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bill {
    /// Who pays.
    to: String,
}

pub async fn bill(
    State(lumio): State<Lumio>,
    someone: Someone,
    Json(bill): Json<Bill>,
) -> Result<Json<Value>, Refused> {
    allow(&lumio, &someone, "billing", "billing.changed").await?;
    Ok(Json(json!({ "to": bill.to })))
}

/// Logs what is done, or refused. What cannot be logged is not done.
async fn allow(lumio: &Lumio, by: &Someone, power: &str, event: &str) -> Result<(), Refused> {
    if by.may(lumio, power) {
        return audit::note(lumio, by, event, Outcome::Success).await;
    }
    audit::note(lumio, by, event, Outcome::Failure).await?;
    Err(Refused(StatusCode::FORBIDDEN, "not_your_role"))
}
