//! Asking again: elsewhere, because a redirect says so, or once more, because it failed. Pure.

use std::time::Duration;

use super::error::ClientError;
use super::url::Url;
use crate::http::{HeaderMap, Method, StatusCode, header};

/// The first pause before a retry, on average. It doubles.
const BACK_OFF_FIRST: Duration = Duration::from_millis(200);
/// The longest pause of our own choosing.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// What a redirect asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    pub(super) url: Url,
    pub(super) method: Method,
    /// Whether the request's body goes along.
    pub(super) keeps_body: bool,
}

/// Where a reply leads, if it is a redirect (RFC 9110, section 15.4). A method that 301, 302 and 303 do not keep becomes GET,
/// as every browser has it.
pub(super) fn redirect(
    status: StatusCode,
    headers: &HeaderMap,
    method: &Method,
    url: &Url,
) -> Result<Option<Redirect>, ClientError> {
    let keeps = match status.as_u16() {
        301 | 302 => method != Method::POST,
        303 => matches!(*method, Method::GET | Method::HEAD),
        307 | 308 => true,
        _ => return Ok(None),
    };
    let Some(location) = headers.get(header::LOCATION) else { return Ok(None) };
    let to = String::from_utf8_lossy(location.as_bytes());
    let url = url.join(&to).map_err(|error| ClientError::Redirect(format!("to {to:?}: {error}")))?;
    let method = if keeps { method.clone() } else { Method::GET };
    Ok(Some(Redirect { url, method, keeps_body: keeps }))
}

/// Takes away what is no other server's business.
pub(super) fn forget_secrets(headers: &mut HeaderMap) {
    for name in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
}

/// Takes away what was about the body.
pub(super) fn forget_body(headers: &mut HeaderMap) {
    for name in [
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LOCATION,
        header::EXPECT,
    ] {
        headers.remove(name);
    }
}

/// Whether a request may be made twice without harm (RFC 9110, section 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Whether a reply says that it may go better later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// How long a server wants us to wait: seconds, or until a date (RFC 9110, section 10.2.3). `now` is seconds since 1970.
pub(super) fn retry_after(headers: &HeaderMap, now: Duration) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(std::time::UNIX_EPOCH).ok()?.saturating_sub(now))
}

/// How long to wait before retry number `retry`, from 1. `luck`, from 0 to 1, spreads those that failed together over half
/// to one and a half of it.
pub(super) fn back_off(retry: u32, luck: f64) -> Duration {
    let doubled = BACK_OFF_FIRST.saturating_mul(1 << retry.saturating_sub(1).min(16)).min(BACK_OFF_MAX);
    doubled.mul_f64(0.5 + luck.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeaderValue;

    fn to(location: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static(location))])
    }

    #[test]
    fn methods_change_as_the_standard_says() {
        let url = "http://a/b/c".parse().unwrap();
        for (status, method, becomes, keeps_body) in [
            (301, Method::GET, Method::GET, true),
            (301, Method::POST, Method::GET, false),
            (302, Method::POST, Method::GET, false),
            (302, Method::PUT, Method::PUT, true),
            (303, Method::POST, Method::GET, false),
            (303, Method::PUT, Method::GET, false),
            (303, Method::HEAD, Method::HEAD, true),
            (307, Method::POST, Method::POST, true),
            (308, Method::POST, Method::POST, true),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let redirect = redirect(status, &to("../x"), &method, &url).unwrap().unwrap();
            assert_eq!(
                redirect,
                Redirect { url: "http://a/x".parse().unwrap(), method: becomes, keeps_body }
            );
        }
        for status in [200, 300, 304, 404] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(redirect(status, &to("/x"), &Method::GET, &url).unwrap(), None);
        }
        assert_eq!(redirect(StatusCode::FOUND, &HeaderMap::new(), &Method::GET, &url).unwrap(), None);
        assert!(redirect(StatusCode::FOUND, &to("ftp://x/"), &Method::GET, &url).is_err());
    }

    #[test]
    fn pauses_double_and_have_a_bound() {
        assert_eq!(back_off(1, 0.5), Duration::from_millis(200));
        assert_eq!(back_off(3, 0.5), Duration::from_millis(800));
        assert_eq!((back_off(1, 0.0), back_off(1, 1.0)), (BACK_OFF_FIRST / 2, BACK_OFF_FIRST * 3 / 2));
        assert_eq!(back_off(u32::MAX, 0.5), BACK_OFF_MAX);
    }

    #[test]
    fn servers_say_how_long_to_wait() {
        let after = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(value))]);
            retry_after(&headers, Duration::from_secs(784_111_777))
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:39 GMT"), Some(Duration::from_secs(2)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:30 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
    }
}
