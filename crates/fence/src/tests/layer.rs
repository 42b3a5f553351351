//! Requests come to the layer, and reach the service behind it or do not.

use super::{primary, sequencer, shards};
use crate::{Fence, FenceLayer, HEADER};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;
use tower_layer::Layer;
use wombat_proto::{Error, Sequencer};

type Body = Full<Bytes>;

/// The service: it tells under which token it was called.
async fn work<B>(request: Request<B>) -> Result<Response<Body>, Infallible> {
    let token = request.extensions().get::<Sequencer>().map(|sequencer| sequencer.token.to_string());
    Ok(Response::new(Body::from(format!("done under {}", token.unwrap_or("none".into())))))
}

fn layer(fence: Fence) -> FenceLayer<Body> {
    FenceLayer::new(Arc::new(fence))
}

/// Brings requests to `/7` one after the other; each line of the script: the request's sequencers, separated by
/// `,`, then `:`, the status, and a part of the body.
#[track_caller]
fn check(layer: &FenceLayer<Body>, script: &str) {
    for line in script.lines().filter(|line| !line.trim().is_empty()) {
        let (brought, expected) = line.split_once(':').unwrap();
        let (status, says) = expected.trim().split_once(' ').unwrap();
        let response = answer(layer, Request::post("/7"), brought);
        let got = response.status();
        let body = run(response.into_body().collect()).unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(got.as_u16().to_string(), status, "{}: {body}", line.trim());
        assert!(body.contains(says), "{}: {body:?}", line.trim());
    }
}

fn answer(layer: &FenceLayer<Body>, mut request: http::request::Builder, brought: &str) -> Response<Body> {
    for brought in brought.split(',').map(str::trim).filter(|brought| !brought.is_empty()) {
        let written = brought.contains(' ').then(|| sequencer(brought).to_string());
        request = request.header(HEADER, written.unwrap_or(brought.into()));
    }
    let service = layer.layer(tower::service_fn(work::<()>));
    let Ok(response) = run(service.oneshot(request.body(()).unwrap()));
    response
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_good_sequencer_passes_and_the_service_sees_it() {
    check(
        &layer(primary()),
        "
        primary x 10 4.1: 200 done under 10
        primary x 12 4.2: 200 done under 12
        primary x 10 4.1: 412 acquire the lock again
        primary x 12 4.2: 200 done under 12
        mine x 99 5.1: 400 bring the sequencer of /ls/foo/primary
        wsq1.x.10: 400 send the holder's sequencer as it is
        : 400 carries one sequencer in its header wombat-sequencer, and there is none
        primary x 12 4.2, primary x 12 4.2: 400 there are several
        ",
    );
}

#[test]
fn a_missing_one_may_pass_but_not_a_bad_one() {
    check(
        &layer(primary()).optional(),
        "
        : 200 done under none
        primary x 12 4.2: 200 done under 12
        primary x 10 4.1: 412 stale
        wsq1.x.10: 400 is no sequencer
        ",
    );
}

#[test]
fn each_request_has_its_own_lock() {
    let of_path = |parts: &http::request::Parts| Some(format!("shards{}", parts.uri.path()));
    check(
        &layer(shards()).guarded_by(of_path),
        "
        shards/7 x 10 4.1: 200 done under 10
        shards/8 x 20 5.1: 400 bring the sequencer of /ls/foo/shards/7
        ",
    );
}

#[test]
fn the_cell_is_asked() {
    let cell = |sequencer: Sequencer| async move {
        match sequencer.token.0 {
            10 => Ok(()),
            20 => Err(Error::SequencerStale),
            _ => Err(Error::NoQuorum),
        }
    };
    check(
        &layer(primary()).asking(cell),
        "
        primary x 20 4.2: 412 no longer held
        primary x 30 4.3: 503 try again
        primary x 10 4.1: 200 done under 10
        ",
    );
}

/// An answer of gRPC is HTTP's 200, and its trailers are the headers.
#[track_caller]
fn check_grpc(layer: &FenceLayer<Body>, brought: &str, code: &str, says: &str) {
    let request = Request::post("/wombat.Seats/Sell").header("content-type", "application/grpc+proto");
    let response = answer(layer, request, brought);
    assert_eq!(response.status().as_u16(), 200);
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/grpc+proto");
    assert_eq!(header("grpc-status"), code);
    assert!(header("grpc-message").contains(says), "{}", header("grpc-message"));
    assert!(run(response.into_body().collect()).unwrap().to_bytes().is_empty());
}

#[test]
fn grpc_is_told_in_its_own_way() {
    let layer = layer(primary());
    check(&layer, "primary x 12 4.2: 200 done under 12");
    check_grpc(&layer, "primary x 10 4.1", "9", "12 was seen; stop");
    check_grpc(&layer, "", "3", "there is none");
    check_grpc(&layer, "100%, primary x 12 4.2", "3", "several");
    check_grpc(&layer, "100%", "3", "\"100%25\" is no sequencer");
    let down = layer.asking(async |_| Err(Error::NoQuorum));
    check_grpc(&down, "primary x 12 4.2", "14", "try again");
}

/// A real socket, a server of hyper's, and requests as they are written on the wire.
#[tokio::test]
async fn over_a_socket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let service = layer(primary()).layer(tower::service_fn(work::<hyper::body::Incoming>));
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let connection = hyper::server::conn::http1::Builder::new();
        connection.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await
    });
    let mut client = tokio::net::TcpStream::connect(at).await.unwrap();
    let (old, new) = (sequencer("primary x 10 4.1"), sequencer("primary x 12 4.2"));
    for (brought, last) in [(&old, ""), (&new, ""), (&old, "connection: close\r\n")] {
        let request = format!("POST / HTTP/1.1\r\nhost: here\r\nWombat-Sequencer: {brought}\r\n{last}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
    }
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    server.await.unwrap().unwrap();
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "200", "412"], "{answers}");
    assert!(answers.contains("done under 12") && answers.contains("12 was seen"), "{answers}");
}
