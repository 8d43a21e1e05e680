//! Who asks: an operator with the API token, or a device with its certificate.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum_server::tls::TlsInfo;
use bellwether_protocol::DeviceId;
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::app::App;
use crate::ca::{common_name, serial_number};
use crate::secret;

/// An operator, known by the API token.
#[derive(Debug, Clone, Copy)]
pub struct Operator;

/// An operator or a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Known by the API token.
    Operator,
    /// Known by its certificate.
    Device(DeviceId),
}

/// A device, known by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The device.
    pub device: DeviceId,
    /// Serial number of the certificate that it shows.
    pub serial: String,
}

/// A request's JSON body; what cannot be read gets our own error body.
#[derive(Debug)]
pub struct Input<T>(pub T);

impl FromRequestParts<Arc<App>> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        match bearer(parts) {
            Some(token) if secret::digest(token) == app.token => Ok(Self),
            Some(_) => Err(unauthorized(
                "token-wrong",
                "the API token is not this server's",
            )),
            None => Err(unauthorized(
                "token-missing",
                "the request has no API token",
            )),
        }
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        if bearer(parts).is_some() {
            return Operator::from_request_parts(parts, app)
                .await
                .map(|Operator| Self::Operator);
        }
        let holder = Holder::from_request_parts(parts, app).await?;
        Ok(Self::Device(holder.device))
    }
}

impl FromRequestParts<Arc<App>> for Holder {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let holder = shown(parts).ok_or_else(|| {
            unauthorized(
                "credentials-missing",
                "the request has neither token nor certificate",
            )
        })?;
        if app.revoked.holds(&holder.device, Some(&holder.serial)) {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "certificate-revoked",
                "the device, or its certificate, was taken back",
                "enrol the device again with a claim that names it: `bellwether device claim`",
            ));
        }
        if app.store.device(&holder.device).await?.is_none() {
            return Err(unauthorized(
                "device-unknown",
                "the certificate's device is not enrolled",
            ));
        }
        Ok(holder)
    }
}

/// Who the certificate is of. The handshake has checked it against our CA; here it is only read.
fn shown(parts: &Parts) -> Option<Holder> {
    let tls = parts.extensions.get::<Arc<TlsInfo>>()?;
    let certificate = CertificateDer::from(tls.peer_certificates.first()?.as_slice());
    Some(Holder {
        device: DeviceId::new(&common_name(&certificate)?).ok()?,
        serial: serial_number(&certificate)?,
    })
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, app).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too-large",
                    "the body is larger than this request may have",
                    "send less",
                ))
            }
            Err(rejection) => Err(ApiError::bad("body-unreadable", rejection.body_text())),
        }
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim)
}

fn unauthorized(code: &'static str, message: &str) -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        code,
        message,
        "send `Authorization: Bearer` with the token in the data folder's `api-token`, or connect \
         with a device's certificate",
    )
}
