//! The way in: a connection is accepted, says what it is, and is served accordingly.

use crate::admission::{Admission, Place, Source};
use crate::connection;
use crate::core::Core;
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use crate::peers::hello::GREETING;
use crate::peers::{self, Callers, Listening, Own};
use crate::relay::Relay;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tracing::{debug, warn};
use wombat_proto::limits::HELLO_TIMEOUT;
use wombat_replica::ConnectionId;

/// How long no connection is accepted after one could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often [`Entrance::close_idle`] is called.
pub(crate) const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The server's listener, and where what it accepts is handed on.
pub(crate) struct Entrance {
    listener: TcpListener,
    next: ConnectionId,
    /// There may be no descriptor for a connection until then.
    paused_until: Instant,
    ways: Rc<Ways>,
}

/// Where a connection can lead.
pub(crate) struct Ways {
    pub(crate) inbox: Rc<Inbox>,
    pub(crate) listening: Listening,
    admission: Rc<Admission>,
    pub(crate) relay: Relay,
    own: Rc<Own>,
    callers: Rc<Callers>,
}

impl Entrance {
    pub(crate) fn new(listener: TcpListener, core: &Core) -> Entrance {
        let own = Rc::clone(core.peers.own());
        let ways = Rc::new(Ways {
            inbox: Rc::default(),
            listening: Listening::default(),
            admission: Rc::clone(core.admission()),
            relay: Relay { own: own.replica, master: core.master() },
            own,
            callers: Rc::clone(core.peers.callers()),
        });
        Entrance { listener, next: ConnectionId(1), paused_until: Instant::now(), ways }
    }

    pub(crate) fn ways(&self) -> &Rc<Ways> {
        &self.ways
    }

    /// Waits for the next connection.
    pub(crate) async fn accept(&self) -> std::io::Result<(TcpStream, SocketAddr)> {
        let pause = self.paused_until.saturating_duration_since(Instant::now());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.listener.accept().await
    }

    /// Lets a connection in that was accepted.
    pub(crate) fn admit(&mut self, core: &mut Core, accepted: std::io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => {
                let (id, now) = (self.next, Instant::now());
                self.next.0 += 1;
                debug!(connection = id.0, %peer, "accepted");
                let place = self.ways.admission.accept(id, Source::new(peer.ip()), now);
                let outbox = Rc::new(Outbox::default());
                core.connect(id, Rc::clone(&outbox));
                tokio::task::spawn_local(serve(id, stream, place, Rc::clone(&self.ways), outbox));
            }
            Err(error) => {
                // Out of descriptors, or the client is gone already. The others go on.
                warn!("cannot accept a connection: {error}");
                self.ways.admission.found_no_room();
                self.paused_until = Instant::now() + ACCEPT_PAUSE;
            }
        }
    }

    /// Closes connections that nobody uses.
    pub(crate) fn close_idle(&self, core: &mut Core) {
        self.ways.admission.close_idle(Instant::now(), |id| core.serves_session(id));
    }
}

/// The life of a connection.
async fn serve(id: ConnectionId, stream: TcpStream, place: Place, ways: Rc<Ways>, outbox: Rc<Outbox>) {
    tokio::select! {
        () = identify(id, stream, &place, &ways, &outbox) => {}
        () = place.closing() => {}
    }
    outbox.disconnect();
    ways.inbox.disconnected(id);
}

async fn identify(id: ConnectionId, stream: TcpStream, place: &Place, ways: &Ways, outbox: &Outbox) {
    // A replica's first byte is that of its greeting; a client's frame is never so long.
    let mut first = [0; 1];
    match timeout(HELLO_TIMEOUT, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first[0] == GREETING[0] => {
            // It is one of the connections until it has introduced itself.
            if let Some(talk) = peers::meet(stream, &ways.own, &ways.callers, &ways.inbox).await {
                ways.listening.add(talk);
            }
        }
        Ok(Ok(1)) => connection::serve(id, stream, place, (&ways.inbox, &ways.relay), outbox).await,
        Ok(_) => debug!(connection = id.0, "closed by the client"),
        Err(_) => debug!(connection = id.0, "closed: it said nothing"),
    }
}
