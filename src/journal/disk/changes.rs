//! What is asked of the journal while triggers and paths change.

use std::sync::{PoisonError, mpsc};

use tokio::sync::watch;

use super::writer::{Command, NewPath};
use super::{ActionId, Disk, PathState, SourceId, reader};
use crate::journal::{Paths, ReadError};
use crate::model::gateway::{Durability, PathKey, Retention};

impl Disk {
    /// These actions are retired: their triggers are no more, or go elsewhere. What they have broadcast stays. Call it
    /// when their batches have been appended: from now on nothing is.
    pub fn retire(&self, actions: Vec<ActionId>) {
        self.state().actions.retain(|action, _| !actions.contains(action));
        // An error means that the writer has ended: at the next start nobody asks for them.
        let _ = self.commands.send(Command::Retire { actions });
    }

    /// Whether an action takes nothing for a while: then what it has not had is kept within its path's retention.
    pub fn hold(&self, action: ActionId, is_held: bool) {
        if let Some(state) = self.state().actions.get_mut(&action) {
            state.is_held = is_held;
        }
        // An error means that the writer has ended, and with it retention.
        let _ = self.commands.send(Command::Hold { action, is_held });
    }

    /// Lets an action go on, behind what retention has let pass. Gives the offset. Blocks.
    pub fn resume(&self, action: ActionId) -> Result<u64, ReadError> {
        let source = match self.state().actions.get(&action) {
            Some(state) if state.is_held => state.source,
            state => return Ok(state.map_or(0, |state| state.cursor)),
        };
        self.hold(action, false);
        // From here on nothing passes any more.
        self.flushed(source)?;
        let passed = self.with_reader(|reader| reader.passed(action))?;
        let mut state = self.state();
        let Some(state) = state.actions.get_mut(&action) else { return Ok(passed) };
        state.cursor = state.cursor.max(passed);
        Ok(state.cursor)
    }

    /// Knows these paths from now on. Those that it knows keep what they have. Blocks for one commit at most.
    pub fn add_paths(&self, paths: &Paths) -> Result<(), ReadError> {
        let of_disk = paths.iter().filter(|(_, (durability, _))| *durability == Durability::Disk);
        for (key, (_, retention)) in of_disk {
            if self.state().paths.contains_key(key) {
                continue;
            }
            let (facts, committed) = self.path(key, *retention)?;
            let at = facts.times.map_or(0, |(_, newest)| reader::millis(newest));
            let state = PathState { id: facts.id, next: facts.next, at, committed };
            self.state().paths.entry(key.clone()).or_insert(state);
        }
        Ok(())
    }

    /// Keeps so much of these paths from now on, which it knows. Blocks for one commit at most.
    pub fn retain(&self, paths: &Paths) -> Result<(), ReadError> {
        let of_disk = paths.iter().filter(|(_, (durability, _))| *durability == Durability::Disk);
        of_disk.into_iter().try_for_each(|(key, (_, retention))| self.path(key, *retention).map(drop))
    }

    /// Tells the writer of a path, and what to keep of it.
    fn path(&self, key: &PathKey, retention: Retention) -> Result<NewPath, ReadError> {
        let (reply, done) = mpsc::channel();
        self.ask(Command::Path { name: key.to_string(), retention, reply }, &done)?
    }

    /// An action has taken the events before this offset, and has made nothing of the last of them.
    pub fn took(&self, action: ActionId, end: u64) {
        if let Some(action) = self.state().actions.get_mut(&action) {
            action.cursor = action.cursor.max(end);
        }
        // An error means that the writer has ended; then they are taken again.
        let _ = self.commands.send(Command::Took { action, end });
    }

    /// How far a source is committed, told from now on.
    pub fn durable(&self, source: SourceId) -> Result<watch::Receiver<u64>, ReadError> {
        let told = {
            let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
            durable.entry(source).or_insert_with(|| watch::Sender::new(0)).subscribe()
        };
        let end = self.flushed(source)?;
        let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = durable.get(&source) {
            sender.send_if_modified(|known| end > std::mem::replace(known, end.max(*known)));
        }
        drop(durable);
        Ok(told)
    }
}
