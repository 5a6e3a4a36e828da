//! One worker as the server sees it: started, told programs and events, read answer by answer. Used by `pool`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::future::pending;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{self, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::program::CompileError;
use super::wire::{self, Answer, Request};
use super::{Limits, Outcome, Reason, Steps, Unavailable};

/// Time for a child to start. Generous, as the machine may be busy.
const START_TIME: Duration = Duration::from_secs(10);

/// Time to compile one program.
const COMPILE_TIME: Duration = Duration::from_secs(5);

/// Programs that a worker keeps. One more, and it forgets all others.
const MAX_PROGRAMS: usize = 256;

/// Code of the programs that a worker keeps, together. Compiled, code takes up to 200 times its size.
const MAX_CODE_BYTES: usize = 512 * 1024;

/// Bytes of an answer besides an event's JSON: a kind, or an error's text.
const ANSWER_BYTES: usize = 64 * 1024;

/// Why a worker is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It took too long.
    Late,
    /// It ended, or says what makes no sense.
    Ended,
}

/// The numbers of compiled steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compiled {
    filter: Option<u32>,
    transformer: Option<u32>,
}

/// A worker. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Child {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What the worker keeps, by code.
    programs: HashMap<Arc<str>, u32>,
    code_bytes: usize,
    /// What is sent with the next program.
    unsent: Vec<u8>,
    _process: process::Child,
}

impl Child {
    /// Starts a worker and waits until its limits are set.
    pub(super) async fn start(program: &Path, arguments: &[OsString]) -> Result<Self, Unavailable> {
        let mut process = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Unavailable(format!("failed to start {}: {error}", program.display())))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Unavailable("the worker has no pipes".to_owned()));
        };
        let output = BufReader::with_capacity(64 * 1024, output);
        let mut child = Self {
            input,
            output,
            programs: HashMap::new(),
            code_bytes: 0,
            unsent: Vec::new(),
            _process: process,
        };
        match timeout(START_TIME, answer(&mut child.output, 0)).await {
            Ok(Ok(Answer::Ready)) => Ok(child),
            Ok(_) => Err(Unavailable("the worker ended as it started".to_owned())),
            Err(_) => Err(Unavailable("the worker does not start in time".to_owned())),
        }
    }

    /// The numbers of the steps' programs in this worker. What is new is compiled.
    pub(super) async fn compile(&mut self, steps: &Steps) -> Result<Result<Compiled, CompileError>, Broken> {
        let codes = [&steps.filter, &steps.transformer];
        let new = codes.into_iter().flatten().filter(|code| !self.programs.contains_key(*code));
        let (programs, code_bytes) = new.fold((0, 0), |(n, bytes), code| (n + 1, bytes + code.len()));
        if self.programs.len() + programs > MAX_PROGRAMS || self.code_bytes + code_bytes > MAX_CODE_BYTES {
            self.programs.clear();
            self.code_bytes = 0;
            // Something new follows, or there would be enough room.
            Request::Forget.encode(&mut self.unsent);
        }
        let mut compiled = [None; 2];
        for (compiled, code) in compiled.iter_mut().zip(codes) {
            let Some(code) = code else { continue };
            match self.program(code).await? {
                Ok(program) => *compiled = Some(program),
                Err(error) => return Ok(Err(error)),
            }
        }
        let [filter, transformer] = compiled;
        Ok(Ok(Compiled { filter, transformer }))
    }

    async fn program(&mut self, code: &Arc<str>) -> Result<Result<u32, CompileError>, Broken> {
        if let Some(program) = self.programs.get(code) {
            return Ok(Ok(*program));
        }
        // No more than are kept.
        let program = self.programs.len() as u32;
        let mut frames = std::mem::take(&mut self.unsent);
        Request::Compile { program, code }.encode(&mut frames);
        let answer = tokio::select! {
            biased;
            never = write(&mut self.input, &frames) => never,
            answer = timeout(COMPILE_TIME, answer(&mut self.output, 0)) => answer.map_err(|_| Broken::Late)??,
        };
        match answer {
            Answer::Compiled => {
                self.code_bytes += code.len();
                self.programs.insert(Arc::clone(code), program);
                Ok(Ok(program))
            }
            Answer::NotCompiled(error) => Ok(Err(error)),
            _ => Err(Broken::Ended),
        }
    }

    /// Passes events through the steps. Outcomes are appended one by one, so that after an error the first
    /// event without one is the one that broke the worker.
    pub(super) async fn run(
        &mut self,
        Compiled { filter, transformer }: Compiled,
        events: &[Bytes],
        limits: &Limits,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Broken> {
        let mut frames = Vec::with_capacity(events.iter().map(|event| event.len() + 32).sum());
        let output_bytes = u32::try_from(limits.output_bytes).unwrap_or(u32::MAX);
        for event in events {
            Request::Run { filter, transformer, output_bytes, event }.encode(&mut frames);
        }
        let read = async {
            for _ in events {
                let answer = timeout(limits.time, answer(&mut self.output, limits.output_bytes)).await;
                outcomes.push(outcome(answer.map_err(|_| Broken::Late)??)?);
            }
            Ok(())
        };
        // Both at once: a worker that cannot write its answers does not read either.
        tokio::select! {
            biased;
            never = write(&mut self.input, &frames) => never,
            read = read => read,
        }
    }
}

/// Writes, and leaves it to the reader to see how that ended.
async fn write<T>(input: &mut ChildStdin, frames: &[u8]) -> T {
    drop(input.write_all(frames).await);
    pending().await
}

async fn answer(output: &mut BufReader<ChildStdout>, output_bytes: usize) -> Result<Answer, Broken> {
    let read = async {
        let len = output.read_u32_le().await? as usize;
        if len > ANSWER_BYTES.saturating_add(output_bytes) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; len];
        output.read_exact(&mut frame).await?;
        Ok::<_, io::Error>(Bytes::from(frame))
    };
    Answer::decode(&read.await.map_err(|_| Broken::Ended)?).ok_or(Broken::Ended)
}

fn outcome(answer: Answer) -> Result<Outcome, Broken> {
    match answer {
        Answer::Unchanged => Ok(Outcome::Unchanged),
        Answer::Changed(json) => Ok(Outcome::Changed(json)),
        Answer::False => Ok(Outcome::Dropped(Reason::False)),
        Answer::Failed(error) => Ok(Outcome::Dropped(Reason::Error(error))),
        Answer::OutputTooLarge => Ok(Outcome::Dropped(Reason::OutputTooLarge)),
        Answer::Ready | Answer::Compiled | Answer::NotCompiled(_) | Answer::Unknown => Err(Broken::Ended),
    }
}

/// Whether a worker takes a frame with that much in it.
pub(super) fn fits(bytes: usize) -> bool {
    bytes.saturating_add(64) <= wire::MAX_FRAME
}
