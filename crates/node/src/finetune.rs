//! A training run as JavaScript sees it.

use candlewick_train::TrainError;
use candlewick_train::trainer::Session;
use napi_derive::napi;

use crate::answer::Answer;
use crate::error::{Error, Failure, Result};
use crate::mailbox::Mailbox;

fn thrown(error: TrainError) -> Error {
    Error::new(error.code(), error.to_string())
}

#[napi]
pub struct Finetune {
    session: Session,
}

#[napi]
impl Finetune {
    /// `options`: `FinetuneOptions` as JSON. The run starts at once, on threads of its own.
    #[napi(constructor)]
    pub fn new(options: String) -> Result<Self> {
        let options = serde_json::from_str(&options)
            .map_err(|error| Error::new("OPTION_INVALID", format!("finetune: {error}")))?;
        Ok(Self { session: Session::start(options).map_err(thrown)? })
    }

    /// Answers with the events that are ready as a JSON array, when there are some, and with nothing after the last.
    #[napi]
    pub fn next(&self, mailbox: &Mailbox, id: u32) {
        let done = mailbox.answer(id);
        self.session.next(Box::new(move |events| {
            let answer = match events {
                Ok(Some(events)) => serde_json::to_string(&events)
                    .map(Answer::plain)
                    .map_err(|error| Failure::new("INTERNAL", error.to_string())),
                Ok(None) => Ok(Answer::plain(())),
                Err(error) => Err(error.into()),
            };
            done(answer);
        }));
    }

    /// The run writes a checkpoint and ends.
    #[napi]
    pub fn cancel(&self) {
        self.session.cancel();
    }
}
