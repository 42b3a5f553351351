//! What clients were answered (SPEC §11): tokens, contents, and handles that were closed.

use super::history::History;
use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wombat_proto::wire::{self, request::Call, response::Result as Answer};
use wombat_proto::{Epoch, HandleId, Instance, LockMode, Sequencer, Token};

/// What a request is about that may come again.
struct Asked {
    client: usize,
    handle: u64,
    closes: bool,
    reads: bool,
}

/// How many sequencers go from hand to hand.
const SEQUENCERS: usize = 4;

#[derive(Default)]
pub(in crate::cell) struct Answers {
    /// To whom each token was granted, and the sequencers that were told last.
    tokens: BTreeMap<Token, usize>,
    sequencers: VecDeque<Sequencer>,
    /// The newest generation of each file that anyone has been told of.
    told: BTreeMap<Instance, u64>,
    /// The generations whose writers have been told so.
    written: BTreeSet<(Instance, u64)>,
    /// What was to be written, and was refused for good.
    refused: Vec<String>,
    /// What was asked with which handle, by session and number.
    asked: BTreeMap<(u64, u64), Asked>,
    /// The handles that were closed, and in which epoch the last time.
    closed: BTreeMap<(u64, u64), Epoch>,
}

impl Answers {
    /// I4: no two grants share a token.
    pub(in crate::cell) fn granted(&mut self, client: usize, sequencer: &Sequencer) {
        let earlier = self.tokens.insert(sequencer.token, client);
        assert!(earlier.is_none(), "I4: token {} was granted to {earlier:?} and {client}", sequencer.token);
        self.sequencers.push_front(sequencer.clone());
        self.sequencers.truncate(SEQUENCERS);
    }

    /// One of those that were granted lately, as a holder passes it on.
    pub(in crate::cell) fn some_sequencer(&self, random: &mut Random) -> Option<&Sequencer> {
        self.sequencers.get(random.below(SEQUENCERS as u64) as usize)
    }

    /// I3: of the clients whose own lease view is live, one holds exclusively or several share, up to the permits.
    pub(in crate::cell) fn check_holders(&self, holders: &[(usize, LockMode)], permits: usize) {
        let exclusive = holders.iter().filter(|(_, mode)| *mode == LockMode::Exclusive).count();
        assert!(exclusive == 0 || holders.len() == 1, "I3: {holders:?} hold together");
        assert!(holders.len() <= permits, "I3: {holders:?} hold {permits} permits");
    }

    /// A write was acknowledged. I13: of two acknowledged writes each has a generation of its own. I18: it is
    /// what was written.
    pub(in crate::cell) fn wrote(&mut self, history: &History, text: &str, stat: &wire::Stat) {
        let (instance, generation) = (Instance(stat.instance), stat.content_generation);
        let first = self.written.insert((instance, generation));
        assert!(first, "I13: generation {generation} was acknowledged twice");
        let is = history.contents(instance, generation);
        assert_eq!(is, Some(text.as_bytes()), "I18: generation {generation} is not what was written");
        self.tell(instance, generation);
    }

    /// A write was refused for good: nothing comes of it.
    pub(in crate::cell) fn refused(&mut self, text: String) {
        self.refused.push(text);
    }

    /// The end: what was refused is nowhere.
    pub(in crate::cell) fn check_refused(&self, history: &History) {
        let written: BTreeSet<&[u8]> = history.all_contents().collect();
        for text in &self.refused {
            assert!(!written.contains(text.as_bytes()), "the write of {text} was refused, and took effect");
        }
    }

    /// Somebody knows of that generation.
    pub(in crate::cell) fn tell(&mut self, instance: Instance, generation: u64) {
        let told = self.told.entry(instance).or_default();
        *told = generation.max(*told);
    }

    /// The newest generation of a file that anyone has been told of.
    pub(in crate::cell) fn told(&self, instance: Instance) -> u64 {
        self.told.get(&instance).copied().unwrap_or(1)
    }

    /// A read is current within the call: not older than what anyone had been told of when it began.
    pub(in crate::cell) fn read(
        &mut self,
        history: &History,
        stat: &wire::Stat,
        contents: Option<&[u8]>,
        at_least: u64,
    ) {
        let (instance, generation) = (Instance(stat.instance), stat.content_generation);
        assert!(
            generation >= at_least,
            "a read gave generation {generation}, but {at_least} was told before"
        );
        if let (Some(contents), true) = (contents, generation > 1) {
            let is = history.contents(instance, generation);
            assert_eq!(Some(contents), is, "I18: generation {generation} is not what was written");
        }
        self.tell(instance, generation);
    }

    // ---- Handles ----

    /// A client asks for something with a handle.
    pub(in crate::cell) fn asks(&mut self, client: usize, request: &wire::Request) {
        let handle = match &request.call {
            Some(Call::Open(_)) => request.number,
            Some(Call::Close(wire::Close { handle }))
            | Some(Call::GetContents(wire::GetContents { handle }))
            | Some(Call::GetStat(wire::GetStat { handle }))
            | Some(Call::Acquire(wire::Acquire { handle, .. }))
            | Some(Call::SetContents(wire::SetContents { handle, .. })) => handle.map_or(0, |h| h.id),
            _ => return,
        };
        let closes = matches!(request.call, Some(Call::Close(_)));
        let reads = !matches!(request.call, Some(Call::Close(_) | Call::SetContents(_)));
        self.asked.insert((request.session, request.number), Asked { client, handle, closes, reads });
    }

    /// Whose request it is that a response answers, and with which handle it was asked.
    pub(in crate::cell) fn asker(&self, response: &wire::Response) -> Option<(usize, HandleId)> {
        let asked = self.asked.get(&(response.session, response.number))?;
        Some((asked.client, HandleId(asked.handle)))
    }

    /// A master of an epoch answers. I16: a handle that was closed in its epoch is not made again in it.
    pub(in crate::cell) fn answers(&mut self, epoch: Epoch, response: &wire::Response) {
        let Some(asked) = self.asked.get(&(response.session, response.number)) else { return };
        let key = (response.session, asked.handle);
        match &response.result {
            Some(Answer::Error(_)) | None => {}
            Some(Answer::Done(_)) if asked.closes => drop(self.closed.insert(key, epoch)),
            Some(_) if asked.reads => {
                let closed = self.closed.get(&key) == Some(&epoch);
                assert!(!closed, "I16: handle {} was closed in epoch {epoch}, and is there again", key.1);
            }
            Some(_) => {}
        }
    }
}
