//! What the statuses that this server says mean, and advise.

use ::http::StatusCode;

/// Whether a reply with this status never has a body, nor says how long one would be (RFC 9110, section 6.4.1).
pub fn is_bodiless(status: StatusCode) -> bool {
    matches!(status.as_u16(), 100..=199 | 204 | 304)
}

/// The reason phrase that stands after the code.
pub fn phrase(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Status")
}

/// A line for the person who reads an error page.
pub fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => "The server may not read this file.",
        StatusCode::NOT_FOUND => "There is nothing of this name here.",
        StatusCode::METHOD_NOT_ALLOWED => {
            "This method does not work here; the Allow field has those that do."
        }
        StatusCode::REQUEST_TIMEOUT => "The request did not come in time. Send it again.",
        StatusCode::PRECONDITION_FAILED => "The file is not the one the request is about: it has changed.",
        StatusCode::PAYLOAD_TOO_LARGE => "The body has more bytes than are taken here.",
        StatusCode::URI_TOO_LONG => "The request target is longer than 8 KiB.",
        StatusCode::RANGE_NOT_SATISFIABLE => "The range asked for lies beyond the end of the file.",
        StatusCode::EXPECTATION_FAILED => "The only expectation understood is 100-continue.",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "The request head is larger than 16 KiB or has more than 100 fields."
        }
        StatusCode::INTERNAL_SERVER_ERROR => "Something went wrong here. The server's log has more.",
        StatusCode::NOT_IMPLEMENTED => "This is not known here.",
        StatusCode::SERVICE_UNAVAILABLE => "The server is busy. Try again in a moment.",
        StatusCode::HTTP_VERSION_NOT_SUPPORTED => "This server speaks HTTP/1.1 and HTTP/1.0.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_phrases_go_together() {
        assert_eq!(phrase(StatusCode::NOT_FOUND), "Not Found");
        assert!(is_bodiless(StatusCode::NOT_MODIFIED) && !is_bodiless(StatusCode::OK));
    }
}
