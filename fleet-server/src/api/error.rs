//! The body of every answer that is not a success: who failed, and what to do next.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::types::{ErrorBody, ErrorDetail};
use crate::store::StoreError;

/// Why a request was not carried out.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    next: String,
}

impl ApiError {
    /// An error with all that it tells.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            next: next.into(),
        }
    }

    /// The request itself is wrong.
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            code,
            message,
            "correct the request and send it again",
        )
    }

    /// There is no such thing.
    pub fn missing(what: &str, name: impl std::fmt::Display, list: &str) -> Self {
        let message = format!("there is no {what} {name}");
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            message,
            format!("look at {list}"),
        )
    }

    /// The present state does not allow it.
    pub fn conflict(
        code: &'static str,
        message: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self::new(StatusCode::CONFLICT, code, message, next)
    }

    /// We failed. The cause goes to the log, not to the client; that the disk is full does, since
    /// somebody can help it.
    pub fn ours(cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = cause.to_string();
        let mut full = is_full(cause);
        let mut source = cause.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            full = full || is_full(cause);
            source = cause.source();
        }
        tracing::error!("a request failed: {text}");
        if full {
            return Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk-full",
                "the server's disk is full; nothing was changed",
                "free some space where the server keeps its data, then try again",
            );
        }
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server failed to carry out the request",
            "look at the server's log, then try again",
        )
    }
}

fn is_full(cause: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let disk = cause
        .downcast_ref::<std::io::Error>()
        .is_some_and(|cause| matches!(cause.kind(), StorageFull | QuotaExceeded));
    disk || matches!(cause.downcast_ref(), Some(StoreError::DiskFull(_)))
}

impl From<StoreError> for ApiError {
    fn from(cause: StoreError) -> Self {
        Self::ours(&cause)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let detail = ErrorDetail {
            code: self.code.to_owned(),
            message: self.message,
            next: self.next,
        };
        let mut response = (self.status, Json(ErrorBody { error: detail })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = header::HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
