//! Claims and enrolment: from a one-use secret to a certificate.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwether_package::Attribute;
use bellwether_package::ids::ATTRIBUTES_MAX;
use bellwether_protocol::DeviceId;

use super::auth::{Input, Operator};
use super::error::ApiError;
use super::types::{Claim, ClaimRequest, EnrollRequest, Enrolled, ErrorBody};
use crate::app::App;
use crate::ca::CSR_BYTES_MAX;
use crate::store::{StoreError, devices, records};
use crate::{clock, secret};

/// How long a claim may be used if nobody says otherwise.
const CLAIM_SECS: u64 = 3600;
/// How long it may be used at most: a working day and a night.
const CLAIM_SECS_MAX: u64 = 24 * 3600;
/// Claims that may be open at once: beyond that somebody mints them in a loop.
const CLAIMS_MAX: u64 = 10_000;

/// Makes a claim for one enrolment.
#[utoipa::path(post, path = "/v1/claims", request_body = ClaimRequest,
    responses((status = 201, body = Claim), (status = "4XX", body = ErrorBody)))]
pub(super) async fn claim(
    _: Operator,
    State(app): State<Arc<App>>,
    Input(request): Input<ClaimRequest>,
) -> Result<(StatusCode, Json<Claim>), ApiError> {
    let now = clock::now();
    let device = request.device.as_deref().map(device_id).transpose()?;
    check_attributes("tags", &request.tags)?;
    let ttl = request.ttl_secs.unwrap_or(CLAIM_SECS);
    if ttl == 0 || ttl > CLAIM_SECS_MAX {
        let message = format!("ttl_secs must be from 1 to {CLAIM_SECS_MAX}");
        return Err(ApiError::bad("ttl", message));
    }
    let claim = secret::token().map_err(|cause| ApiError::ours(&cause))?;
    let expires = now.plus_secs(ttl);
    let mut tx = app.store.write().await?;
    if devices::open_claims(&mut tx).await? >= CLAIMS_MAX {
        return Err(ApiError::conflict(
            "claims-many",
            format!("{CLAIMS_MAX} claims are open"),
            "wait until some expire",
        ));
    }
    let digest = secret::digest(&claim);
    devices::put_claim(
        &mut tx,
        &digest,
        device.as_ref(),
        &request.tags,
        now,
        expires,
    )
    .await?;
    let subject = device.as_ref().map_or("any device", DeviceId::as_str);
    let text = format!("for {ttl} s");
    records::note(&mut tx, now, "operator", "claim", subject, &text).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let ca_sha256 = app.ca.fingerprint().to_string();
    Ok((
        StatusCode::CREATED,
        Json(Claim {
            claim,
            ca_sha256,
            expires: expires.0,
        }),
    ))
}

/// Enrols a device: uses a claim up, and certifies the device's key.
#[utoipa::path(post, path = "/v1/enroll", request_body = EnrollRequest,
    responses((status = 200, body = Enrolled), (status = "4XX", body = ErrorBody)))]
pub(super) async fn enroll(
    State(app): State<Arc<App>>,
    Input(request): Input<EnrollRequest>,
) -> Result<Json<Enrolled>, ApiError> {
    let now = clock::now();
    let device = device_id(&request.device)?;
    check_attributes("attributes", &request.attributes)?;
    if request.csr_pem.len() > CSR_BYTES_MAX {
        let message = format!("a certificate request has at most {CSR_BYTES_MAX} bytes");
        return Err(ApiError::bad("csr", message));
    }
    let digest = secret::digest(request.claim.trim());
    let mut tx = app.store.write().await?;
    // Nothing tells a stranger whether a claim is unknown, or meant for another device.
    let claim = devices::claim(&mut tx, &digest)
        .await?
        .filter(|claim| claim.device.as_ref().is_none_or(|only| *only == device))
        .ok_or_else(|| refused("claim-unknown", "the claim is not one of this server's"))?;
    if claim.used {
        return Err(refused("claim-used", "the claim was used already"));
    }
    if now >= claim.expires_at {
        return Err(refused("claim-expired", "the claim has expired"));
    }
    // A device that is known is replaced only by a claim that names it.
    if claim.device.is_none() && devices::is_enrolled(&mut tx, &device).await? {
        return Err(ApiError::conflict(
            "device-taken",
            format!("there is a device {device} already"),
            "choose another id, or ask the operator for a claim that names this device",
        ));
    }
    let mut attributes = request.attributes;
    attributes.extend(claim.tags);
    check_attributes("attributes and tags", &attributes)?;
    let days = app.config.device_certificate_days;
    let certificate_pem = app
        .ca
        .certify_device(&device, &request.csr_pem, days)
        .map_err(|cause| ApiError::bad("csr", cause.to_string()))?;
    devices::enrol(&mut tx, &digest, &device, &attributes, now).await?;
    let actor = format!("device:{device}");
    records::note(&mut tx, now, &actor, "enrol", device.as_str(), "").await?;
    tx.commit().await.map_err(StoreError::from)?;
    tracing::info!(%device, "enrolled");
    Ok(Json(Enrolled {
        certificate_pem,
        ca_pem: app.ca.certificate_pem().to_owned(),
        mqtts: app.mqtts.clone(),
        trust_root_b64: STANDARD.encode(app.trust().chain_file()),
        attributes,
    }))
}

fn refused(code: &'static str, message: &str) -> ApiError {
    let next = "ask the operator for a new claim: `bellwether device claim`";
    ApiError::new(StatusCode::FORBIDDEN, code, message, next)
}

pub(super) fn device_id(text: &str) -> Result<DeviceId, ApiError> {
    DeviceId::new(text).map_err(|cause| ApiError::bad("device", format!("the device id {cause}")))
}

fn check_attributes(what: &str, attributes: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if attributes.len() > ATTRIBUTES_MAX {
        let message = format!("there are more than {ATTRIBUTES_MAX} {what}");
        return Err(ApiError::bad("attributes", message));
    }
    for (key, value) in attributes {
        let bad = |cause| ApiError::bad("attributes", format!("{what}: {key:?} {cause}"));
        Attribute::new(key, value).map_err(bad)?;
    }
    Ok(())
}
