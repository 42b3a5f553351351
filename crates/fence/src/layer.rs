//! The fence as a layer of tower: a request without a good sequencer does not reach the service.

use crate::{Fence, Refused};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;
use wombat_proto::{Error, Sequencer};

/// The header, and for gRPC the key of the metadata, that carries the sequencer's text.
pub const HEADER: HeaderName = HeaderName::from_static("wombat-sequencer");

const GRPC: &[u8] = b"application/grpc";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Which = dyn Fn(&Parts) -> Option<String> + Send + Sync;
type Ask = dyn Fn(Sequencer) -> Boxed<Result<(), Error>> + Send + Sync;

/// Puts a [`Fence`] before a service for HTTP or gRPC. What is refused is answered by the layer:
///
/// | the sequencer is | HTTP | gRPC |
/// |---|---|---|
/// | missing, damaged, of a lock that guards nothing here | 400 Bad Request | 3 INVALID_ARGUMENT |
/// | stale | 412 Precondition Failed | 9 FAILED_PRECONDITION |
/// | not to be judged now: the cell is silent, the disk is full | 503 Service Unavailable | 14 UNAVAILABLE |
///
/// The body, or the message, says what to do. A request is gRPC if its content type says so. The service finds
/// the [`Sequencer`] that was admitted among the request's extensions.
///
/// Where the service speaks of another body than one that can be made of a `String`, say how:
/// [`FenceLayer::with_body`].
pub struct FenceLayer<B> {
    rules: Arc<Rules<B>>,
}

/// The service behind the fence.
pub struct Fenced<S, B> {
    inner: S,
    rules: Arc<Rules<B>>,
}

struct Rules<B> {
    fence: Arc<Fence>,
    body: fn(String) -> B,
    optional: bool,
    which: Option<Arc<Which>>,
    ask: Option<Arc<Ask>>,
}

impl<B: From<String>> FenceLayer<B> {
    /// Every request must bring a sequencer that the fence admits.
    pub fn new(fence: Arc<Fence>) -> FenceLayer<B> {
        FenceLayer::with_body(fence, B::from)
    }
}

impl<B> FenceLayer<B> {
    /// As [`FenceLayer::new`], with a body for the answers of the layer; gRPC's are made of the empty text.
    pub fn with_body(fence: Arc<Fence>, body: fn(String) -> B) -> FenceLayer<B> {
        FenceLayer { rules: Arc::new(Rules { fence, body, optional: false, which: None, ask: None }) }
    }

    /// Lets requests pass that bring no sequencer at all, such as those that only look; one that is there must
    /// be good.
    #[must_use]
    pub fn optional(self) -> FenceLayer<B> {
        self.with(|rules| Rules { optional: true, ..rules })
    }

    /// Says which lock guards a request, `shards/7`; `None`: any of the fence's. Without it a holder of one
    /// lock passes with requests for what another lock guards.
    #[must_use]
    pub fn guarded_by(
        self,
        which: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> FenceLayer<B> {
        self.with(|rules| Rules { which: Some(Arc::new(which)), ..rules })
    }

    /// Asks the cell, too, as [`Fence::check_and_ask`]: `|sequencer| async move {
    /// cell.check_sequencer(&sequencer).await }` with a clone of the cell.
    #[must_use]
    pub fn asking<F>(self, ask: impl Fn(Sequencer) -> F + Send + Sync + 'static) -> FenceLayer<B>
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let ask = Arc::new(move |sequencer| Box::pin(ask(sequencer)) as Boxed<Result<(), Error>>);
        self.with(|rules| Rules { ask: Some(ask), ..rules })
    }

    fn with(self, change: impl FnOnce(Rules<B>) -> Rules<B>) -> FenceLayer<B> {
        FenceLayer { rules: Arc::new(change((*self.rules).clone())) }
    }
}

impl<B> Rules<B> {
    /// The sequencer that a request brings, once it is admitted; `None` if it needs none.
    async fn admit(&self, parts: &Parts) -> Result<Option<Sequencer>, Refused> {
        let mut brought = parts.headers.get_all(&HEADER).iter();
        let sequencer: Sequencer = match (brought.next(), brought.next()) {
            (None, _) if self.optional => return Ok(None),
            (None, _) => return Err(missing("there is none")),
            (Some(text), None) => text.to_str().unwrap_or_default().parse().map_err(Refused::Damaged)?,
            (Some(_), Some(_)) => return Err(missing("there are several")),
        };
        if let Some(lock) = self.which.as_ref().and_then(|which| which(parts)) {
            self.fence.is_of(&lock, &sequencer)?;
        }
        match &self.ask {
            Some(ask) => self.fence.check_and_ask(&sequencer, ask(sequencer.clone())).await?,
            None => self.fence.check(&sequencer)?,
        }
        Ok(Some(sequencer))
    }

    fn answer(&self, parts: &Parts, refused: &Refused) -> Response<B> {
        let (status, code) = match refused {
            Refused::Missing { .. } | Refused::Damaged(_) | Refused::OtherLock { .. } => {
                (StatusCode::BAD_REQUEST, 3)
            }
            Refused::Stale { .. } | Refused::Forgotten { .. } | Refused::NotHeld { .. } => {
                (StatusCode::PRECONDITION_FAILED, 9)
            }
            Refused::CellSilent(_) | Refused::NotKept(_) => (StatusCode::SERVICE_UNAVAILABLE, 14),
        };
        let text = refused.to_string();
        let grpc = parts.headers.get(CONTENT_TYPE).filter(|kind| kind.as_bytes().starts_with(GRPC));
        let Some(kind) = grpc else {
            let mut response = Response::new((self.body)(text + "\n"));
            *response.status_mut() = status;
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, plain);
            return response;
        };
        // Of gRPC, an answer that is all trailers: they are its headers.
        let mut response = Response::new((self.body)(String::new()));
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
        response.headers_mut().insert(GRPC_STATUS, HeaderValue::from(code));
        let message = HeaderValue::try_from(percent_encoded(&text)).expect("it is printable ASCII");
        response.headers_mut().insert(GRPC_MESSAGE, message);
        response
    }
}

fn missing(why: &str) -> Refused {
    let what = format!("a request here carries one sequencer in its header {HEADER}, and {why}");
    Refused::Missing { what }
}

/// As gRPC wants its messages: printable ASCII without `%` as it is.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => write!(encoded, "%{byte:02X}").expect("a string takes everything"),
            _ => encoded.push(byte as char),
        }
    }
    encoded
}

impl<S, B, Body> Service<Request<Body>> for Fenced<S, B>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    Body: Send + 'static,
    B: 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Boxed<Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was found ready goes with the request.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let rules = Arc::clone(&self.rules);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match rules.admit(&parts).await {
                Ok(sequencer) => {
                    sequencer.map(|sequencer| parts.extensions.insert(sequencer));
                    inner.call(Request::from_parts(parts, body)).await
                }
                Err(refused) => Ok(rules.answer(&parts, &refused)),
            }
        })
    }
}

impl<S, B> Layer<S> for FenceLayer<B> {
    type Service = Fenced<S, B>;

    fn layer(&self, inner: S) -> Fenced<S, B> {
        Fenced { inner, rules: Arc::clone(&self.rules) }
    }
}

// By hand: a body need not be `Clone` for this.
impl<B> Clone for FenceLayer<B> {
    fn clone(&self) -> FenceLayer<B> {
        FenceLayer { rules: Arc::clone(&self.rules) }
    }
}

impl<S: Clone, B> Clone for Fenced<S, B> {
    fn clone(&self) -> Fenced<S, B> {
        Fenced { inner: self.inner.clone(), rules: Arc::clone(&self.rules) }
    }
}

impl<B> Clone for Rules<B> {
    fn clone(&self) -> Rules<B> {
        let Rules { fence, body, optional, which, ask } = self;
        let fence = Arc::clone(fence);
        Rules { fence, body: *body, optional: *optional, which: which.clone(), ask: ask.clone() }
    }
}
