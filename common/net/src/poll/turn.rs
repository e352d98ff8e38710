//! One session's turn: bytes moved between socket, protocol and attached socket.

use std::sync::Arc;

use crate::connection::Io;
use crate::pool::Pool;
use crate::protocol::{Answers, Control, Protocol};

/// What a [`Control`] needs beside its connection.
pub(super) struct Tools<'a, D> {
    pub(super) answers: &'a Arc<Answers<D>>,
    pub(super) pool: &'a Pool,
}

pub(super) struct Session<P> {
    pub(super) io: Io,
    pub(super) protocol: P,
    /// It stands in the line of those that wait for their turn.
    pub(super) queued: bool,
    pub(super) opened: bool,
}

impl<P: Protocol> Session<P> {
    pub(super) fn call<R>(
        &mut self,
        tools: &Tools<'_, P::Done>,
        event: impl FnOnce(&mut P, &mut Control<'_, P::Done>) -> R,
    ) -> R {
        let mut control = Control {
            io: &mut self.io,
            answers: tools.answers,
            pool: tools.pool,
        };
        event(&mut self.protocol, &mut control)
    }

    /// Moves what can be moved by one step; whether there may be more to do.
    pub(super) fn step(&mut self, tools: &Tools<'_, P::Done>, scratch: &mut [u8]) -> bool {
        self.io.flush();
        if self.io.is_gone() {
            return false;
        }
        if self.io.is_lingering() {
            return self.io.linger();
        }
        if self.io.is_handshaking() {
            let read = self.io.may_read() && self.io.fill(scratch);
            let up = self.io.shake_hands();
            if up && self.opened {
                let info = self.io.tls_info().cloned();
                info.inspect(|info| self.call(tools, |p, control| p.tls_up(info, control)));
            }
            return read || up;
        }
        if !self.opened {
            self.opened = true;
            self.call(tools, P::open);
        }
        let mut moved = self.feed(tools);
        moved |= self.feed_side(tools);
        moved |= self.io.may_read() && self.io.fill(scratch);
        moved |= self.io.fill_side(scratch);
        if !moved && self.io.take_eof() {
            self.call(tools, P::eof);
            moved = true;
        }
        if !moved && self.io.take_side_end() {
            self.call(tools, P::side_closed);
            moved = true;
        }
        self.io.flush();
        if self.io.take_flushed() {
            self.call(tools, P::flushed);
            moved = true;
        }
        // What is left to read is read in the next turn.
        moved || self.io.is_lingering()
    }

    fn feed(&mut self, tools: &Tools<'_, P::Done>) -> bool {
        let mut input = self.io.take_input();
        let (mut moved, mut stuck) = (false, false);
        while !input.is_empty() && !stuck && self.io.may_feed() {
            let consumed = self.call(tools, |p, control| p.input(input.bytes(), control));
            input.consume(consumed);
            stuck = consumed == 0;
            moved |= !stuck;
        }
        self.io.put_back(input, stuck);
        moved
    }

    fn feed_side(&mut self, tools: &Tools<'_, P::Done>) -> bool {
        let mut moved = false;
        let Some(mut input) = self.io.take_side_input() else {
            return false;
        };
        loop {
            let consumed = self.call(tools, |p, control| p.side(input.bytes(), control));
            input.consume(consumed);
            moved |= consumed > 0;
            if consumed == 0 || input.is_empty() || !self.io.may_feed_side() {
                break;
            }
        }
        self.io.put_side_back(input);
        moved
    }
}
