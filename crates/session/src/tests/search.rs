//! The search for the master: who is tried when, and what becomes of those that are silent, refuse, are slow, or
//! are of another cell.

use super::*;
use alloc::collections::BTreeMap;
use alloc::format;

/// How an endpoint behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// No connection is made: the packets are dropped.
    Dropped,
    /// The connection is made, and nothing answers on it.
    Mute,
    /// The connection is refused.
    Refused,
    /// A follower that names the master, wherever it is.
    Follows(&'static str),
    /// A follower that names a master, and passes links on to it.
    Relays(&'static str),
    /// A follower that knows no master.
    Lost,
    /// A replica of another cell.
    Foreign,
    /// A master that takes so long, in milliseconds, to answer each request.
    Master(u64),
    /// One that says Welcome as the master of an earlier epoch and nothing further.
    Deposed,
    /// A name that stands for these addresses.
    Name(&'static [&'static str]),
}

/// A session in a world of endpoints.
struct Race {
    script: Script,
    endpoints: BTreeMap<String, At>,
    links: BTreeMap<LinkId, String>,
    /// What arrives when.
    arrivals: Vec<(Instant, (LinkId, u64), Result<Answer>)>,
    begun: Instant,
    /// The attempts, with their time in milliseconds.
    attempts: Vec<String>,
    /// Most links at one time.
    most: usize,
    /// How many relays were asked for.
    relays: usize,
    /// Whether KeepAlives are answered, after a second.
    keeps: bool,
}

impl Race {
    fn new(endpoints: &[(&str, At)]) -> Race {
        let listed: Vec<&str> = endpoints.iter().map(|(address, _)| *address).collect();
        Race::among(Script::with_endpoints(&listed, 0), endpoints)
    }

    fn among(script: Script, endpoints: &[(&str, At)]) -> Race {
        Race {
            begun: script.now,
            script,
            endpoints: endpoints.iter().map(|(address, at)| ((*address).into(), *at)).collect(),
            links: BTreeMap::new(),
            arrivals: Vec::new(),
            attempts: Vec::new(),
            most: 0,
            relays: 0,
            keeps: false,
        }
    }

    fn elapsed(&self) -> u64 {
        self.script.now.since(self.begun).as_millis() as u64
    }

    /// Lets time pass until the session is up, on the link to this endpoint.
    fn until_up_at(&mut self, endpoint: &str) -> u64 {
        self.run(|race| race.up().is_some(), 60_000);
        assert_eq!(self.up().as_deref(), Some(endpoint), "{:?}", self.attempts);
        self.elapsed()
    }

    /// The endpoint of the session's link, if the master answers on it.
    fn up(&self) -> Option<String> {
        self.script.session.up_endpoint().map(ToString::to_string)
    }

    /// Lets time pass until then, at most for so long.
    fn run(&mut self, done: impl Fn(&Race) -> bool, most_ms: u64) {
        loop {
            self.script.tick();
            self.carry_out();
            if done(self) || self.elapsed() >= most_ms {
                return;
            }
            let arrival = self.arrivals.iter().map(|(at, ..)| *at).min();
            let deadline = self.script.session.next_deadline();
            assert!(deadline.is_none_or(|at| at > self.script.now), "it would be ticked without end");
            let end = self.begun + Duration::from_millis(most_ms);
            let next = arrival.into_iter().chain(deadline).chain([end]).min().expect("it has an end");
            self.script.now = next.max(self.script.now);
            let now = self.script.now;
            let (due, later) =
                core::mem::take(&mut self.arrivals).into_iter().partition(|(at, ..)| *at <= now);
            self.arrivals = later;
            let due: Vec<(Instant, (LinkId, u64), Result<Answer>)> = due;
            for (_, (link, number), result) in due {
                self.script.link = link;
                self.script.receive(number, result);
                self.carry_out();
            }
        }
    }

    fn carry_out(&mut self) {
        loop {
            let connects = core::mem::take(&mut self.script.effects.connect);
            let sent = core::mem::take(&mut self.script.effects.send);
            if connects.is_empty() && sent.is_empty() {
                break;
            }
            for (link, address) in connects {
                self.attempts.push(format!("{} {address}", self.elapsed()));
                self.links.insert(link, address.clone());
                self.most = self.most.max(self.links.len());
                let (now, effects) = (self.script.now, &mut self.script.effects);
                match self.endpoints[&address] {
                    At::Dropped => {}
                    At::Refused => {
                        self.links.remove(&link);
                        self.script.session.disconnected(now, link, "connection refused", effects);
                    }
                    At::Name(addresses) => {
                        self.links.remove(&link);
                        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                        self.script.session.resolved(now, link, &addresses);
                    }
                    _ => self.script.session.connected(now, link, effects),
                }
                self.script.tick();
            }
            for (link, request) in sent {
                let asks = |call: &Call| matches!(call, Call::Hello(hello) if hello.relay);
                self.relays += usize::from(request.call.as_ref().is_some_and(asks));
                let answer =
                    self.links.get(&link).and_then(|address| answer(self.endpoints[address], &request));
                let answer = answer.or_else(|| Some((1000, kept_alive(&request).filter(|_| self.keeps)?)));
                if let Some((after, result)) = answer {
                    let at = self.script.now + Duration::from_millis(after);
                    self.arrivals.push((at, (link, request.number), result));
                }
            }
            for link in core::mem::take(&mut self.script.effects.disconnect) {
                self.links.remove(&link);
            }
        }
    }
}

/// The answer to a KeepAlive that was held for a second.
fn kept_alive(request: &Request) -> Option<Result<Answer>> {
    let Some(Call::KeepAlive(_)) = &request.call else { return None };
    let (lease_ms, held_us) = (LEASE.as_millis() as u32, 1_000_000);
    Some(Ok(Answer::KeptAlive(wire::KeptAlive { lease_ms, held_us, epoch: 7, ..Default::default() })))
}

/// What an endpoint answers, and after how many milliseconds.
fn answer(at: At, request: &Request) -> Option<(u64, Result<Answer>)> {
    let welcome = |epoch, master: &str| {
        let welcome =
            wire::Welcome { cell: "test".into(), epoch, master: master.into(), ..Default::default() };
        Some((0, Ok(Answer::Welcome(welcome))))
    };
    let slowly = |after, answer: Option<(u64, Result<Answer>)>| answer.map(|(_, answer)| (after, answer));
    match (at, request.call.as_ref()?) {
        (At::Relays(_), Call::Hello(hello)) if hello.relay => {
            let welcome =
                wire::Welcome { cell: "test".into(), epoch: 7, relayed_by: 2, ..Default::default() };
            Some((0, Ok(Answer::Welcome(welcome))))
        }
        (At::Relays(_), Call::CreateSession(_) | Call::ResumeSession(_)) => answer(At::Master(0), request),
        (At::Follows(master) | At::Relays(master), Call::Hello(_)) => welcome(0, master),
        (At::Lost, Call::Hello(hello)) => slowly(u64::from(hello.wait_ms), welcome(0, "")),
        (At::Foreign, Call::Hello(_)) => Some((0, Err(Error::invalid("this is the cell other")))),
        (At::Deposed, Call::Hello(_)) => welcome(3, "deposed"),
        (At::Master(after), Call::Hello(_)) => slowly(after, welcome(7, "master")),
        (At::Master(after), Call::CreateSession(_) | Call::ResumeSession(_)) => {
            let lease_ms = LEASE.as_millis() as u32;
            let opened = wire::SessionOpened { session: 5, lease_ms, epoch: 7, ..Default::default() };
            Some((after, Ok(Answer::SessionOpened(opened))))
        }
        _ => None,
    }
}

/// Begins a session with these endpoints. It is up at the one that is called `m`, after the attempts that are
/// expected, each with its time in milliseconds.
fn check(endpoints: &[(&str, At)], expected: &[&str]) -> Race {
    let mut race = Race::new(endpoints);
    race.until_up_at("m");
    assert_eq!(race.attempts, expected);
    race
}

#[test]
fn the_next_endpoint_is_tried_while_the_first_is_silent() {
    use At::*;
    check(&[("m", Master(0)), ("a", Dropped), ("b", Dropped)], &["0 m"]);
    // A silent minority costs 250 ms in all, whatever it is.
    check(&[("a", Dropped), ("m", Master(0)), ("b", Dropped)], &["0 a", "250 m"]);
    check(
        &[("a", Mute), ("b", Dropped), ("m", Master(0)), ("c", Mute), ("d", Mute)],
        &["0 a", "125 b", "250 m"],
    );
    // What is refused, or of another cell, costs nothing.
    check(&[("a", Refused), ("b", Foreign), ("m", Master(0))], &["0 a", "0 b", "0 m"]);
}

#[test]
fn a_master_that_a_follower_names_is_tried_at_once() {
    use At::*;
    check(&[("a", Follows("m")), ("b", Mute), ("m", Master(0))], &["0 a", "0 m"]);
    // Also if it is not in the list: a replica may have been added.
    let mut race = Race::new(&[("a", Mute), ("b", Follows("m"))]);
    race.endpoints.insert("m".into(), Master(0));
    race.until_up_at("m");
    assert_eq!(race.attempts, ["0 a", "250 b", "250 m"]);
    // The follower has not noticed yet that the master it names is gone: the others are tried meanwhile.
    let race = check(&[("a", Follows("x")), ("x", Dropped), ("m", Master(0))], &["0 a", "0 x", "117 m"]);
    assert_eq!(race.links.len(), 1, "the others are given up");
}

#[test]
fn a_master_that_only_followers_reach_is_reached_through_one_of_them() {
    use At::*;
    let mut race = Race::new(&[("a", Relays("m")), ("b", Relays("m")), ("m", Dropped)]);
    race.keeps = true;
    race.run(|race| race.up().is_some(), 60_000);
    assert!(matches!(race.up().as_deref(), Some("a" | "b")));
    assert!((1000..2000).contains(&race.elapsed()), "the master has time to answer: {}", race.elapsed());
    assert_eq!(race.relays, 1, "one at a time is asked");
    // The master is preferred as soon as it is reached, and the relay kept until then.
    race.begun = race.script.now;
    race.run(|_| false, 40_000);
    assert!(matches!(race.up().as_deref(), Some("a" | "b")));
    race.endpoints.insert("m".into(), Master(0));
    race.run(|race| race.up().as_deref() == Some("m"), 61_000);
    assert_eq!((race.up().as_deref(), race.relays), (Some("m"), 1));
    assert!(race.script.events().is_empty());
}

#[test]
fn a_slow_master_is_waited_for_while_others_are_asked() {
    use At::*;
    let race = check(&[("m", Master(900)), ("a", Lost), ("b", Lost)], &["0 m", "250 a", "500 b"]);
    assert_eq!(race.elapsed(), 1800, "an answer to Hello, and one to CreateSession");
    // A connection that takes two seconds to answer is given up, and tried again.
    let mut race = Race::new(&[("m", Master(2500))]);
    race.run(|race| race.up().is_some(), 10_000);
    assert_eq!(race.up(), None);
}

#[test]
fn a_deposed_master_does_not_keep_the_session_from_the_next() {
    use At::*;
    check(&[("a", Deposed), ("b", Lost), ("m", Master(0))], &["0 a", "500 b", "750 m"]);
}

#[test]
fn a_name_that_stands_for_several_addresses_is_as_good_as_a_list() {
    use At::*;
    let mut race = Race::new(&[("name", Name(&["a", "b", "m"]))]);
    for (address, at) in [("a", Dropped), ("b", Refused), ("m", Master(0))] {
        race.endpoints.insert(address.into(), at);
    }
    race.until_up_at("m");
    assert_eq!(race.attempts, ["0 name", "0 a", "250 b", "250 m"]);
}

#[test]
fn every_order_of_bad_endpoints_leads_to_the_master_in_time() {
    use At::*;
    let bad = [Dropped, Mute, Refused, Foreign, Follows("0"), Lost];
    let mut orders = 0;
    for first in bad {
        for second in bad {
            for silent in 0..5 {
                for master in 0..5 {
                    let mut all = [Follows("m"); 5];
                    (all[silent], all[(silent + 2) % 5]) = (first, second);
                    let names = ["0", "1", "2", "3", "4"];
                    let mut endpoints: Vec<(&str, At)> = names.into_iter().zip(all).collect();
                    endpoints[master] = ("m", Master(0));
                    let mut race = Race::new(&endpoints);
                    let took = race.until_up_at("m");
                    assert!(took <= 250, "{endpoints:?}: {took} ms, {:?}", race.attempts);
                    assert!(race.most <= 6, "{endpoints:?}: {} links", race.most);
                    orders += 1;
                }
            }
        }
    }
    assert_eq!(orders, 6 * 6 * 5 * 5);
}

#[test]
fn without_a_master_every_endpoint_says_why_and_there_is_no_storm() {
    use At::*;
    let endpoints =
        [("a", Lost), ("b", Refused), ("c", Dropped), ("d", Foreign), ("e", Follows("c")), ("f", Mute)];
    let mut race = Race::new(&endpoints);
    race.run(|_| false, 10_000);
    let expected = "a answered: no master known; b: connection refused; c: no answer within 2 s; \
                    d answered: this is the cell other; e answered: the master is c; \
                    f: no answer within 2 s";
    assert_eq!(race.script.session.describe_search(), expected);
    assert!(race.attempts.len() < 60, "{} attempts in ten seconds", race.attempts.len());
    assert!(race.most <= 8);
}

#[test]
fn a_client_that_every_endpoint_refuses_is_refused() {
    use At::*;
    let mut race = Race::new(&[("a", Foreign), ("b", Foreign)]);
    race.run(|race| race.script.session.refusal().is_some(), 1000);
    assert_eq!((race.elapsed(), race.script.session.refusal().is_some()), (0, true));
    // One that does not answer may be of the cell.
    let mut race = Race::new(&[("a", Foreign), ("b", Dropped)]);
    race.run(|race| race.script.session.refusal().is_some(), 10_000);
    assert_eq!(race.script.session.refusal(), None);
}

#[test]
fn a_name_whose_addresses_all_refuse_refuses() {
    use At::*;
    for (second, refuses) in [(Foreign, true), (Dropped, false), (Refused, false)] {
        let mut race = Race::new(&[("name", Name(&["a", "b"]))]);
        race.endpoints.extend([("a".into(), Foreign), ("b".into(), second)]);
        race.run(|race| race.script.session.refusal().is_some(), 10_000);
        assert_eq!(race.script.session.refusal().is_some(), refuses, "{second:?}: {:?}", race.attempts);
    }
}

// ---- A master that falls silent ----

/// A session that is up at `m`, where from now on nothing answers, with others that would.
fn silenced(others: &[(&str, At)]) -> Race {
    let mut endpoints = others.to_vec();
    endpoints.push(("m", At::Master(0)));
    let mut race = Race::new(&endpoints);
    race.until_up_at("m");
    race.begun = race.script.now;
    race.attempts.clear();
    race.endpoints.insert("m".into(), At::Dropped);
    race
}

/// Lets time pass until the session is up at `n`, which is master by then. Returns when that is.
fn found(race: &mut Race) -> u64 {
    race.endpoints.insert("n".into(), At::Master(0));
    race.run(|race| race.up().is_some_and(|up| up == "n"), 60_000);
    assert_eq!(race.up().as_deref(), Some("n"), "{:?}", race.attempts);
    race.elapsed()
}

#[test]
fn a_master_that_is_late_with_a_keep_alive_is_searched_for_in_time() {
    use At::*;
    // The KeepAlive is held for 3.5 s; half a second later there is a probe, and after another one the search.
    let mut race = silenced(&[("a", Dropped), ("b", Mute), ("n", Follows("m")), ("c", Mute)]);
    let took = found(&mut race);
    assert_eq!(race.attempts, ["4500 n"], "it answered before");
    assert_eq!(took, 4500);
    assert!(race.script.events().iter().all(|event| matches!(event, SessionEvent::FailedOver { .. })));
}

#[test]
fn a_master_that_does_not_answer_a_call_is_searched_for_at_once() {
    use At::*;
    let mut race = silenced(&[("a", Dropped), ("n", Follows("m"))]);
    race.script.submit(set());
    assert_eq!(found(&mut race), 1000);
}

#[test]
fn a_link_that_answers_again_is_kept_and_the_search_ends() {
    use At::*;
    // The candidate says that it is the master, and does not open the session.
    let mut race = silenced(&[("a", Dropped), ("n", Deposed)]);
    let call = race.script.submit(set());
    race.run(|race| race.attempts.iter().any(|attempt| attempt.ends_with(" n")), 10_000);
    let welcome = race.elapsed() + 1;
    race.run(|_| false, welcome);
    assert_eq!(race.up().as_deref(), Some("m"));
    let up = LinkId(race.links.iter().find(|(_, address)| *address == "m").expect("it is there").0.0);
    race.endpoints.insert("m".into(), Master(0));
    race.keeps = true;
    race.script.link = up;
    race.script.receive(call, done());
    let pending = race.script.pending;
    race.script.keep_alive(pending, Duration::from_secs(1), 7, (1, Vec::new()));
    race.run(|_| false, 20_000);
    assert_eq!((race.up().as_deref(), race.links.len()), (Some("m"), 1), "{:?}", race.attempts);
}

#[test]
fn an_idle_session_whose_end_is_not_answered_rests() {
    use At::*;
    let mut race = Race::new(&[("m", Master(0)), ("n", Follows("m"))]);
    race.keeps = true;
    race.until_up_at("m");
    race.begun = race.script.now;
    race.run(|_| false, 59_500);
    race.endpoints.insert("m".into(), Dropped);
    race.keeps = false;
    race.run(|race| race.script.session.id().is_none(), 120_000);
    assert_eq!((race.up(), race.script.session.next_deadline()), (None, None), "nobody needs a master");
    race.endpoints.insert("n".into(), Master(0));
    race.script.submit(get());
    race.run(|race| race.up().is_some(), 240_000);
    assert_eq!(race.up().as_deref(), Some("n"));
}
