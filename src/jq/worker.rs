//! The child's side: reads requests from standard input, runs programs, answers on standard output.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::parent_id;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use jaq_json::read::parse_single;
use rlimit::Resource;

use super::program::{Failure, Program, Verdict};
use super::wire::{self, Answer, Request};

/// Address space of a worker, its stack included.
const MEMORY_BYTES: u64 = 512 * 1024 * 1024;

/// Stack of the thread that compiles and runs. Programs and events may be deeply nested.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of the buffers that are kept from event to event.
const KEPT_BYTES: usize = 1024 * 1024;

/// How often a worker looks whether its parent still lives.
const PARENT_CHECK: Duration = Duration::from_secs(1);

/// The argument that makes the binary a worker.
pub const COMMAND: &str = "jq-worker";

/// Runs until standard input ends. What goes wrong is told by the end alone: there is no log here.
pub fn run() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn start() -> io::Result<()> {
    let parent = parent_id();
    let (_, most) = Resource::AS.get()?;
    let memory = MEMORY_BYTES.min(most);
    Resource::AS.set(memory, memory)?;
    Resource::CORE.set(0, 0)?;
    // The end of standard input tells it, too, but nobody reads that while a program runs.
    thread::Builder::new().spawn(move || {
        while parent_id() == parent {
            thread::sleep(PARENT_CHECK);
        }
        std::process::exit(1);
    })?;
    // Files, as `std::io::Stdout` writes a frame in two parts if there is a newline in it.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let serve = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || serve(input, output))?;
    serve.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

fn serve(input: File, mut output: File) -> io::Result<()> {
    let mut input = BufReader::with_capacity(64 * 1024, input);
    let mut programs = Programs::new();
    let (mut frame, mut out) = (Vec::new(), Vec::new());
    Answer::Ready.encode(&mut out);
    loop {
        output.write_all(&out)?;
        out.clear();
        // One large event is not to hold its memory for ever.
        frame.shrink_to(KEPT_BYTES);
        out.shrink_to(KEPT_BYTES);
        if !wire::read(&mut input, &mut frame)? {
            return Ok(());
        }
        let request = Request::decode(&frame).ok_or(io::ErrorKind::InvalidData)?;
        if let Some(answer) = answer(request, &mut programs) {
            answer.encode(&mut out);
        }
    }
}

/// The compiled programs. Their parent bounds them: it knows what it sent, and says when to forget.
type Programs = HashMap<u32, Program>;

fn answer(request: Request<'_>, programs: &mut Programs) -> Option<Answer> {
    // jaq should not panic. If it does, it has nothing that would be left half done.
    let answer = catch_unwind(AssertUnwindSafe(|| match request {
        Request::Compile { program, code } => Some(match Program::compile(code) {
            Ok(compiled) => {
                programs.insert(program, compiled);
                Answer::Compiled
            }
            Err(error) => Answer::NotCompiled(error),
        }),
        Request::Forget => {
            programs.clear();
            None
        }
        Request::Run { filter, transformer, output_bytes, event } => {
            let kept = |program: Option<u32>| match program {
                Some(program) => programs.get(&program).map(Some),
                None => Some(None),
            };
            Some(match (kept(filter), kept(transformer)) {
                (Some(filter), Some(transformer)) => pass(filter, transformer, output_bytes as usize, event),
                _ => Answer::Unknown,
            })
        }
    }));
    answer.unwrap_or_else(|_| Some(Answer::Failed("jq failed in an unexpected way".to_owned())))
}

fn pass(
    filter: Option<&Program>,
    transformer: Option<&Program>,
    output_bytes: usize,
    event: &[u8],
) -> Answer {
    let value = match parse_single(event) {
        Ok(value) => value,
        Err(error) => return Answer::Failed(format!("the event is not JSON: {error}")),
    };
    match filter.map(|filter| filter.filter(&value)) {
        Some(Verdict::True) | None => {}
        Some(Verdict::False) => return Answer::False,
        Some(Verdict::Error(error)) => return Answer::Failed(format!("filter: {error}")),
    }
    match transformer.map(|transformer| transformer.transform(&value, output_bytes)) {
        None => Answer::Unchanged,
        Some(Ok(json)) => Answer::Changed(json.into()),
        Some(Err(Failure::TooLarge)) => Answer::OutputTooLarge,
        Some(Err(Failure::Error(error))) => Answer::Failed(format!("transformer: {error}")),
    }
}
