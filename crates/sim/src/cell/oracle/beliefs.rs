//! What clients believe to have: sessions, locks and temporary files, as long as their own lease view is live.

use super::Oracle;
use super::view::View;
use crate::cell::client::Client;

impl Oracle {
    /// I3: no two clients believe in the same lock, but for those that share it. I5, I6: what a client believes in
    /// is there.
    pub(in crate::cell) fn check_beliefs(&self, view: &View<'_>) {
        for lock in Client::locks() {
            let holds = |client: &Client| Some((client.name, client.surely_holds(lock, view.now)?));
            let holders: Vec<_> = view.clients.iter().filter_map(holds).collect();
            self.answers.check_holders(&holders, Client::permits(lock));
        }
        for client in view.clients {
            client.check(view.now, &self.history);
        }
    }

    /// I8: when a change is made, no client has anything older in its cache that it may use, whether it runs or not.
    pub(in crate::cell) fn check_cached(&self, view: &View<'_>) {
        for client in view.clients.iter().filter(|client| !client.dead) {
            client.check_cached(view.now, self.history.state());
        }
    }
}
