//! What other replicas say is heard ahead of all clients. A connection's task has its turn when those before it have
//! had theirs, and after an event that thousands of clients wait for those are thousands: an answer to a heartbeat
//! must not wait for them. So the connections of replicas are no tasks; the core looks at them whenever it looks
//! whether there is anything to do, which is after every few dozen tasks.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

type Talk = Pin<Box<dyn Future<Output = ()>>>;

/// The connections of other replicas.
#[derive(Default)]
pub(crate) struct Listening {
    talks: RefCell<Vec<Talk>>,
}

impl Listening {
    /// Listens to one more, from the next look on: the core has to be woken for that. No talk adds another.
    pub(crate) fn add(&self, talk: impl Future<Output = ()> + 'static) {
        self.talks.borrow_mut().push(Box::pin(talk));
    }

    /// Listens for as long as it is polled.
    pub(crate) async fn listen(&self) {
        poll_fn(|context| {
            let mut talks = self.talks.borrow_mut();
            if !talks.is_empty() {
                talks.rotate_left(1); // What one poll may read, tokio bounds: each time another one is first.
            }
            talks.retain_mut(|talk| talk.as_mut().poll(context).is_pending());
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;
    use tokio::sync::oneshot;
    use tokio::task::{LocalSet, spawn_local};

    #[test]
    fn a_replica_does_not_wait_for_a_crowd_of_clients_that_have_something_to_say() {
        const CROWD: usize = 10_000;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (listening, heard) = (Listening::default(), Rc::new(Cell::new(0)));
            let (says, comes) = oneshot::channel();
            let (tells, told) = oneshot::channel();
            let before = Rc::clone(&heard);
            listening.add(async move {
                comes.await.unwrap();
                tells.send(before.get()).unwrap();
            });
            spawn_local(async { says.send(()).unwrap() });
            for _ in 0..CROWD {
                let heard = Rc::clone(&heard);
                spawn_local(async move { heard.set(heard.get() + 1) });
            }
            let before = tokio::select! {
                () = listening.listen() => unreachable!("it listens for as long as it is polled"),
                told = told => told.unwrap(),
            };
            assert!(before < CROWD / 10, "{before} clients were heard before the replica");
        });
    }
}
