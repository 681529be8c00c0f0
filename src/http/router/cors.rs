//! Which other sites' pages may read what is answered (the Fetch standard, section 3.2).

use std::time::Duration;

use super::Routes;
use crate::http::{Exchange, ExchangeContext, Method, Reply, StatusCode};

/// What pages of other origins may do with the routes of a group. Without it browsers let them read nothing.
#[derive(Clone, Debug)]
pub struct Cors {
    /// `None`: whoever asks.
    origins: Option<Vec<String>>,
    methods: String,
    credentials: bool,
    exposed: Option<String>,
    max_age: Duration,
}

impl Cors {
    /// Pages of any origin may read replies, without the cookies of whoever looks at them.
    pub fn any_origin() -> Cors {
        Cors {
            origins: None,
            methods: "GET, HEAD, POST, PUT, PATCH, DELETE".into(),
            credentials: false,
            exposed: None,
            max_age: Duration::from_secs(600),
        }
    }

    /// Pages of these origins may, each written as browsers do: `https://example.org`, with the port if it is not the
    /// scheme's own.
    pub fn origins(origins: impl IntoIterator<Item = impl Into<String>>) -> Cors {
        let origins = origins.into_iter().map(Into::into).collect();
        Cors { origins: Some(origins), ..Cors::any_origin() }
    }

    /// With these methods. By default with GET, HEAD, POST, PUT, PATCH and DELETE.
    #[must_use]
    pub fn methods(mut self, methods: &[Method]) -> Cors {
        self.methods = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        self
    }

    /// With the cookies of whoever looks at the page. For origins that were named only: any page could act for its
    /// reader otherwise.
    #[must_use]
    pub fn credentials(mut self) -> Cors {
        self.credentials = self.origins.is_some();
        self
    }

    /// Lets pages read these fields of a reply besides the few that they always may.
    #[must_use]
    pub fn expose(mut self, fields: &[&str]) -> Cors {
        self.exposed = Some(fields.join(", "));
        self
    }

    /// For how long a browser need not ask again. 10 minutes by default.
    #[must_use]
    pub fn max_age(mut self, time: Duration) -> Cors {
        self.max_age = time;
        self
    }

    /// Answers a browser that asks beforehand. Any field may be sent.
    fn asked_beforehand(&self, exchange: &Exchange) -> Option<Reply> {
        let request = exchange.context.request();
        let asks =
            *request.method() == Method::OPTIONS && request.header("access-control-request-method").is_some();
        if !asks || !self.allows(request.header("origin")?) {
            return None;
        }
        let mut reply = Reply::new(StatusCode::NO_CONTENT);
        reply.headers.add("Access-Control-Allow-Methods", &self.methods);
        reply.headers.add("Access-Control-Max-Age", self.max_age.as_secs());
        if let Some(fields) = request.header("access-control-request-headers") {
            reply.headers.add("Access-Control-Allow-Headers", fields);
        }
        Some(reply)
    }

    fn say(&self, context: &mut ExchangeContext) {
        let request = context.request().clone();
        let fields = &mut context.reply.headers;
        // A cache must not give one origin what was said to another.
        if self.origins.is_some() {
            fields.add("Vary", "Origin");
        }
        let Some(origin) = request.header("origin").filter(|origin| self.allows(origin)) else { return };
        match self.origins {
            None => fields.add("Access-Control-Allow-Origin", "*"),
            Some(_) => fields.add("Access-Control-Allow-Origin", origin),
        }
        if self.credentials {
            fields.add("Access-Control-Allow-Credentials", "true");
        }
        if let Some(exposed) = &self.exposed {
            fields.add("Access-Control-Expose-Headers", exposed);
        }
    }

    fn allows(&self, origin: &[u8]) -> bool {
        self.origins.as_ref().is_none_or(|origins| origins.iter().any(|allowed| allowed.as_bytes() == origin))
    }
}

impl Routes<'_> {
    /// Says which other sites' pages may use the routes of the group, and answers browsers that ask beforehand.
    pub fn cors(&mut self, cors: Cors) {
        let beforehand = cors.clone();
        self.before(move |exchange| beforehand.asked_beforehand(exchange));
        self.after(move |context| cors.say(context));
    }
}
