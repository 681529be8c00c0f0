//! A name and a password for a group (RFC 7617).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{HttpError, Routes};
use crate::http::StatusCode;
use crate::http::codec::request::Request;

/// Who asks, as [`Routes::basic_auth`] found out: in the exchange's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicUser(pub String);

impl Routes<'_> {
    /// Lets in only who has a name and a password that `is_right` knows; everybody else is asked for them (401). What the
    /// handler finds in its [`data`](crate::http::ExchangeContext::data) is a [`BasicUser`].
    ///
    /// The password goes over the wire with each request: only under TLS is it a secret. `is_right` is called on the
    /// poller for each request, so it must be quick; it should compare in a time that does not depend on where they differ.
    pub fn basic_auth(&mut self, realm: &str, is_right: impl Fn(&str, &str) -> bool + Send + Sync + 'static) {
        let realm = realm.replace(['"', '\\'], " ");
        self.before(move |exchange| {
            let said = credentials(exchange.context.request());
            match said.filter(|(name, password)| is_right(name, password)) {
                Some((name, _)) => {
                    exchange.context.data.insert(BasicUser(name));
                    Ok(())
                }
                None => {
                    let error =
                        HttpError::explained(StatusCode::UNAUTHORIZED, "A name and a password are needed.");
                    let challenge = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"");
                    Err(error.header("WWW-Authenticate", challenge))
                }
            }
        });
    }
}

/// Name and password, if a request says them.
fn credentials(request: &Request) -> Option<(String, String)> {
    let field = request.header("authorization")?;
    let (scheme, coded) = field.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(coded.trim_ascii()).ok()?).ok()?;
    // A name has no colon; a password may.
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}
