//! The statuses this server says, their reason phrases, and what each advises.

/// A status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(u16);

macro_rules! statuses {
    ($($name:ident $code:literal $phrase:literal),* $(,)?) => {
        impl Status {
            $(#[doc = concat!(stringify!($code), " ", $phrase)] pub const $name: Status = Status($code);)*

            /// The reason phrase that stands after the code.
            pub fn phrase(self) -> &'static str {
                match self.0 { $($code => $phrase,)* _ => "Status" }
            }
        }
    };
}

statuses! {
    OK 200 "OK",
    NO_CONTENT 204 "No Content",
    PARTIAL_CONTENT 206 "Partial Content",
    MOVED_PERMANENTLY 301 "Moved Permanently",
    NOT_MODIFIED 304 "Not Modified",
    BAD_REQUEST 400 "Bad Request",
    FORBIDDEN 403 "Forbidden",
    NOT_FOUND 404 "Not Found",
    METHOD_NOT_ALLOWED 405 "Method Not Allowed",
    REQUEST_TIMEOUT 408 "Request Timeout",
    LENGTH_REQUIRED 411 "Length Required",
    PRECONDITION_FAILED 412 "Precondition Failed",
    CONTENT_TOO_LARGE 413 "Content Too Large",
    URI_TOO_LONG 414 "URI Too Long",
    RANGE_NOT_SATISFIABLE 416 "Range Not Satisfiable",
    EXPECTATION_FAILED 417 "Expectation Failed",
    FIELDS_TOO_LARGE 431 "Request Header Fields Too Large",
    INTERNAL_ERROR 500 "Internal Server Error",
    NOT_IMPLEMENTED 501 "Not Implemented",
    UNAVAILABLE 503 "Service Unavailable",
    VERSION_NOT_SUPPORTED 505 "HTTP Version Not Supported",
}

impl Status {
    /// The number.
    pub fn code(self) -> u16 {
        self.0
    }

    /// Whether a reply with this status never has a body, nor says how long one would be.
    pub fn is_bodiless(self) -> bool {
        matches!(self.0, 100..=199 | 204 | 304)
    }

    /// A line for the person who reads an error page.
    pub fn advice(self) -> &'static str {
        match self {
            Status::FORBIDDEN => "The server may not read this file.",
            Status::NOT_FOUND => "There is no such file here.",
            Status::METHOD_NOT_ALLOWED => "Only GET, HEAD and OPTIONS work here.",
            Status::REQUEST_TIMEOUT => "The request did not come in time. Send it again.",
            Status::PRECONDITION_FAILED => "The file is not the one the request is about: it has changed.",
            Status::CONTENT_TOO_LARGE => "This server takes no uploads; leave the body out.",
            Status::URI_TOO_LONG => "The request target is longer than 8 KiB.",
            Status::RANGE_NOT_SATISFIABLE => "The range asked for lies beyond the end of the file.",
            Status::EXPECTATION_FAILED => "The only expectation understood is 100-continue.",
            Status::FIELDS_TOO_LARGE => "The request head is larger than 16 KiB or has more than 100 fields.",
            Status::INTERNAL_ERROR => "The server could not read this file.",
            Status::UNAVAILABLE => "The server is busy. Try again in a moment.",
            Status::VERSION_NOT_SUPPORTED => "This server speaks HTTP/1.1 and HTTP/1.0.",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_phrases_go_together() {
        assert_eq!((Status::NOT_FOUND.code(), Status::NOT_FOUND.phrase()), (404, "Not Found"));
        assert!(Status::NOT_MODIFIED.is_bodiless() && !Status::OK.is_bodiless());
    }
}
