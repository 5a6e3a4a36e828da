//! Answers of authorizers that are used again. Pure, but for the lock.
//!
//! They are found by a digest of what was asked, so that tokens are not kept.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sha2::{Digest, Sha256};

/// Answers that are kept; with more the oldest goes.
pub(super) const MAX_ANSWERS: usize = 10_000;

/// What an authorizer has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// Whether the client may connect.
    pub(super) is_authorized: bool,
    /// Who it is.
    pub(super) subject: Option<Box<str>>,
    /// The second of the end of its right, since 1970.
    pub(super) expires_at: Option<i64>,
}

/// What makes two questions the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Question([u8; 32]);

impl Question {
    /// The question of these parts, in order.
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            // With its length, so that no part runs into the next.
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
}

/// The answers, each until its end.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    found: HashMap<Question, (Decision, Instant)>,
    /// In the order they came.
    order: VecDeque<Question>,
}

impl Answers {
    /// The answer to a question, if it holds at `now`.
    pub(super) fn get(&self, question: &Question, now: Instant) -> Option<Decision> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.found.get(question).filter(|(_, until)| *until > now).map(|(decision, _)| decision.clone())
    }

    /// Keeps an answer that holds until then.
    pub(super) fn keep(&self, question: Question, decision: Decision, until: Instant) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.found.insert(question, (decision, until)).is_none() {
            kept.order.push_back(question);
        }
        while kept.order.len() > MAX_ANSWERS {
            let Some(oldest) = kept.order.pop_front() else { return };
            kept.found.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn decision(subject: &str) -> Decision {
        Decision { is_authorized: true, subject: Some(subject.into()), expires_at: None }
    }

    #[test]
    fn an_answer_holds_for_its_question_and_its_time() {
        let (answers, now) = (Answers::default(), Instant::now());
        let question = Question::of(&["/ws", "token"]);
        answers.keep(question, decision("a"), now + Duration::from_secs(5));
        assert_eq!(answers.get(&question, now), Some(decision("a")));
        assert_eq!(answers.get(&Question::of(&["/wst", "oken"]), now), None);
        assert_eq!(answers.get(&question, now + Duration::from_secs(5)), None);
        answers.keep(question, decision("b"), now + Duration::from_secs(20));
        assert_eq!(answers.get(&question, now + Duration::from_secs(5)), Some(decision("b")));
    }

    #[test]
    fn the_oldest_answers_go_when_there_are_too_many() {
        let (answers, now) = (Answers::default(), Instant::now());
        let question = |number: usize| Question::of(&[&number.to_string()]);
        for number in 0..MAX_ANSWERS + 5 {
            answers.keep(question(number), decision("a"), now + Duration::from_secs(5));
        }
        let found: Vec<bool> = (0..7).map(|number| answers.get(&question(number), now).is_some()).collect();
        assert_eq!(found, [false, false, false, false, false, true, true]);
        assert_eq!(answers.0.lock().unwrap().found.len(), MAX_ANSWERS);
    }
}
