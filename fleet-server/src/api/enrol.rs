//! Claims, enrolment and renewal: from a one-use secret to a certificate, and to the next one.

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

use super::auth::{Holder, Input, Operator};
use super::error::ApiError;
use super::types::{
    Claim, ClaimRequest, EnrollRequest, Enrolled, ErrorBody, RenewRequest, Renewed,
};
use crate::app::App;
use crate::ca::{CSR_BYTES_MAX, Certified, Request};
use crate::store::{StoreError, certificates, devices, records};
use crate::{clock, secret};

/// How long a claim may be used if nobody says otherwise.
const CLAIM_SECS: u64 = 3600;
/// How long it may be used at most: a working day and a night.
const CLAIM_SECS_MAX: u64 = 24 * 3600;
/// Claims that may be open at once: beyond that somebody mints them in a loop.
const CLAIMS_MAX: u64 = 10_000;

/// A device's latest certificates that stay good when another is made: it may lose some answers.
const CERTIFICATES_KEPT: u32 = 4;

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
    let csr = read_request(&request.csr_pem)?;
    let digest = secret::digest(request.claim.trim());
    let mut tx = app.store.write().await?;
    // Nothing tells a stranger whether a claim is unknown, or meant for another device.
    let claim = devices::claim(&mut tx, &digest)
        .await?
        .filter(|claim| claim.device.as_ref().is_none_or(|only| *only == device))
        .ok_or_else(|| refused("claim-unknown", "the claim is not one of this server's"))?;
    // The same device with the same key asks again: the answer to its first request was lost.
    let again = claim.used == Some((device.clone(), Some(csr.key())));
    if claim.used.is_some() && !again {
        return Err(refused("claim-used", "the claim was used already"));
    }
    if now >= claim.expires_at {
        return Err(refused("claim-expired", "the claim has expired"));
    }
    // A device that is known is replaced only by a claim that names it.
    if claim.device.is_none() && !again && devices::is_enrolled(&mut tx, &device).await? {
        return Err(ApiError::conflict(
            "device-taken",
            format!("there is a device {device} already"),
            "choose another id, or ask the operator for a claim that names this device",
        ));
    }
    let mut attributes = request.attributes;
    attributes.extend(claim.tags);
    check_attributes("attributes and tags", &attributes)?;
    let certified = certify(&app, &device, &csr)?;
    devices::enrol(&mut tx, &digest, &device, &csr.key(), &attributes, now).await?;
    // Whoever holds an older key of this device is not the device any more.
    certificates::revoke_certificates(&mut tx, &device, now).await?;
    certificates::put_certificate(&mut tx, &device, &certified, now).await?;
    let actor = format!("device:{device}");
    records::note(&mut tx, now, &actor, "enrol", device.as_str(), "").await?;
    tx.commit().await.map_err(StoreError::from)?;
    tracing::info!(%device, "enrolled");
    app.revoked.look(&app.store).await?;
    app.sessions.end(&device).await;
    Ok(Json(Enrolled {
        certificate_pem: certified.pem,
        ca_pem: app.ca.certificate_pem().to_owned(),
        mqtts: app.mqtts.clone(),
        trust_root_b64: STANDARD.encode(app.trust().chain_file()),
        attributes,
    }))
}

/// Gives a device its next certificate, for a key of its choice; the one that it shows stays good.
#[utoipa::path(post, path = "/v1/renew", request_body = RenewRequest,
    responses((status = 200, body = Renewed), (status = "4XX", body = ErrorBody)))]
pub(super) async fn renew(
    holder: Holder,
    State(app): State<Arc<App>>,
    Input(request): Input<RenewRequest>,
) -> Result<Json<Renewed>, ApiError> {
    let now = clock::now();
    let Holder { device, serial } = holder;
    let certified = certify(&app, &device, &read_request(&request.csr_pem)?)?;
    let mut tx = app.store.write().await?;
    certificates::put_certificate(&mut tx, &device, &certified, now).await?;
    let kept = CERTIFICATES_KEPT;
    certificates::revoke_older_certificates(&mut tx, &device, &serial, kept, now).await?;
    let actor = format!("device:{device}");
    records::note(&mut tx, now, &actor, "renew", device.as_str(), "").await?;
    tx.commit().await.map_err(StoreError::from)?;
    app.revoked.look(&app.store).await?;
    tracing::info!(%device, "certificate renewed");
    Ok(Json(Renewed {
        certificate_pem: certified.pem,
        mqtts: app.mqtts.clone(),
    }))
}

fn read_request(csr_pem: &str) -> Result<Request, ApiError> {
    if csr_pem.len() > CSR_BYTES_MAX {
        let message = format!("a certificate request has at most {CSR_BYTES_MAX} bytes");
        return Err(ApiError::bad("csr", message));
    }
    Request::from_pem(csr_pem).map_err(|cause| ApiError::bad("csr", cause.to_string()))
}

fn certify(app: &App, device: &DeviceId, csr: &Request) -> Result<Certified, ApiError> {
    let days = app.config.device_certificate_days;
    app.ca
        .certify_device(device, csr, days)
        .map_err(|cause| ApiError::bad("csr", cause.to_string()))
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
