//! The pool of jq workers against programs that loop, hoard, crash and lie.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use triggercast::jq::{CheckError, CompileError, Limits, Outcome, Pool, Reason, Steps};

const BINARY: &str = env!("CARGO_BIN_EXE_triggercast");

/// Enough for all that ends by itself, even in a debug build on a busy machine.
const AMPLE: Duration = Duration::from_secs(20);

fn pool(time: Duration, workers: usize) -> Pool {
    let limits = Limits { time, workers, ..Limits::default() };
    Pool::new(BINARY.into(), vec!["jq-worker".into()], limits, Handle::current())
}

fn filter(code: &str) -> Steps {
    Steps { filter: Some(code.into()), transformer: None }
}

fn transformer(code: &str) -> Steps {
    Steps { filter: None, transformer: Some(code.into()) }
}

fn events(json: &[&str]) -> Vec<Bytes> {
    json.iter().map(|json| Bytes::copy_from_slice(json.as_bytes())).collect()
}

fn changed(json: &str) -> Outcome {
    Outcome::Changed(Bytes::copy_from_slice(json.as_bytes()))
}

fn error(text: &str) -> Outcome {
    Outcome::Dropped(Reason::Error(text.to_owned()))
}

const OVER: Outcome = Outcome::Dropped(Reason::OverBudget);

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + AMPLE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A name of the binary that no other test uses, to find the workers by.
struct Alias(PathBuf);

impl Alias {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("jq-{name}-{}", std::process::id()));
        std::os::unix::fs::symlink(BINARY, &path).unwrap();
        Self(path)
    }

    fn pool(&self, workers: usize) -> Pool {
        let limits = Limits { time: AMPLE, workers, ..Limits::default() };
        Pool::new(self.0.clone(), vec!["jq-worker".into()], limits, Handle::current())
    }

    fn workers(&self) -> Vec<u32> {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        ids.filter(|id| called(*id, &self.0)).collect()
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn called(id: u32, path: &Path) -> bool {
    // Empty for one that has ended and was not waited for.
    let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    command.split(|byte| *byte == 0).next() == Some(path.as_os_str().as_encoded_bytes())
}

fn kill(id: u32) {
    assert!(Command::new("kill").args(["-9", &id.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn a_filter_and_a_transformer_in_order() {
    let pool = pool(AMPLE, 1);
    let events =
        events(&[r#"{"a":true,"t":1.50}"#, r#"{"a":false}"#, r#"{"a":1}"#, "[]", "{", r#"{"a":true,"t":0}"#]);
    let steps = Steps {
        filter: Some(".a".into()),
        transformer: Some("{z: 10000000000000000000000, t} | if .t == 0 then 1, 2 end".into()),
    };
    let outcomes = pool.run(&steps, &events).await.unwrap();
    assert_eq!(outcomes[0], changed(r#"{"z":10000000000000000000000,"t":1.50}"#));
    assert_eq!(outcomes[1..3], [Outcome::Dropped(Reason::False), Outcome::Dropped(Reason::False)]);
    assert_eq!(outcomes[3], error(r#"filter: cannot index [] with "a""#));
    assert!(matches!(&outcomes[4], Outcome::Dropped(Reason::Error(text)) if text.contains("not JSON")));
    assert_eq!(outcomes[5], error("transformer: more than one output"));

    assert_eq!(pool.run(&filter(".a"), &events[..1]).await.unwrap(), [Outcome::Unchanged]);
    assert_eq!(
        pool.run(&transformer("empty"), &events[..1]).await.unwrap(),
        [error("transformer: no output")]
    );
    assert_eq!(
        pool.run(&transformer("error(\"x\")"), &events[..1]).await.unwrap(),
        [error("transformer: x")]
    );
    assert_eq!(
        pool.run(&Steps::default(), &events[..2]).await.unwrap(),
        [Outcome::Unchanged, Outcome::Unchanged]
    );
    assert_eq!(pool.run(&filter("."), &[]).await.unwrap(), []);
}

#[tokio::test]
async fn endless_programs_cost_their_event_only() {
    let pool = pool(Duration::from_secs(1), 1);
    for code in ["def f: f; f", "last(range(1e15))", "[limit(1e12; repeat(1))]", "first(repeat(empty))"] {
        let steps = transformer(&format!("if . == 0 then {code} end"));
        let outcomes = pool.run(&steps, &events(&["1", "0", "2"])).await.unwrap();
        assert_eq!(outcomes, [changed("1"), OVER, changed("2")], "{code}");
    }
    // The second output would never come.
    assert_eq!(pool.run(&transformer("., last(repeat(1))"), &events(&["1"])).await.unwrap(), [OVER]);
    assert_eq!(
        pool.run(&filter("true, last(repeat(1))"), &events(&["1"])).await.unwrap(),
        [Outcome::Unchanged]
    );
}

#[tokio::test]
async fn hoarders_cost_their_event_only() {
    let pool = pool(Duration::from_secs(3), 1);
    for code in [
        r#""x" * 1e10"#,
        r#""x" * 10000000000"#,
        "[] | .[1000000000] = 1",
        "[limit(1000000000; repeat(0))]",
        "[range(1000000000)] | length",
        "reduce range(60) as $i (10; . * .)",
        "[repeat(\"xxxxxxxxxxxxxxxx\" * 1000)]",
        "def f: [f]; f",
        "def f: 1 + f; f",
        "reduce range(10000000) as $i (0; [.]) | tojson",
    ] {
        let steps = transformer(&format!("if . == 0 then ({code}) | 1 end"));
        let started = Instant::now();
        let outcomes = pool.run(&steps, &events(&["1", "0", "2"])).await.unwrap();
        println!("{code}: {:?} after {:?}", outcomes[1], started.elapsed());
        assert_eq!([&outcomes[0], &outcomes[2]], [&changed("1"), &changed("2")], "{code}");
        assert!(matches!(&outcomes[1], Outcome::Dropped(Reason::OverBudget | Reason::Error(_))), "{code}");
    }
    assert_eq!(
        pool.run(&transformer("[range(300000)]"), &events(&["1"])).await.unwrap(),
        [Outcome::Dropped(Reason::OutputTooLarge)]
    );
}

#[tokio::test]
async fn nothing_ends_or_leaves_a_worker() {
    let pool = pool(AMPLE, 1);
    for code in
        ["halt", "halt(1)", "\"a\" | halt_error", "env", "$ENV", "input", "[inputs]", "debug", "stderr"]
    {
        assert!(matches!(pool.check(code).await, Err(CheckError::Compile(_))), "{code}");
        let outcomes = pool.run(&filter(code), &events(&["1", "2"])).await.unwrap();
        assert!(matches!(
            &outcomes[..],
            [Outcome::Dropped(Reason::Error(_)), Outcome::Dropped(Reason::Error(_))]
        ));
    }
}

#[tokio::test]
async fn checks_say_where_and_what() {
    let pool = pool(AMPLE, 1);
    assert_eq!(pool.check(".a == \"ü\" and\n  (.b | test(\"x\"))").await, Ok(()));
    for (code, line, column, message) in [
        (".a ==\n  § 1", 2, 3, "expected token but found §"),
        ("\"ü\" |\n .b | nothing(1)", 2, 7, "undefined function nothing/1"),
        (".a |", 1, 5, "expected term but the program ends"),
    ] {
        let wanted = CompileError { line, column, message: message.to_owned() };
        assert_eq!(pool.check(code).await, Err(CheckError::Compile(wanted)));
    }
    for open in ["(", "[", "{", "\"\\(", "-", "def f: ", ".[", "if "] {
        let checked = pool.check(&open.repeat(65_536 / open.len())).await;
        println!("{open}: {:?}", checked.as_ref().map_err(ToString::to_string));
        assert!(matches!(checked, Err(CheckError::Compile(_) | CheckError::TooLarge)), "{open}");
    }
    // Deep, but right.
    let deep = format!("{}.{}", "(".repeat(1_000), ")".repeat(1_000));
    assert_eq!(pool.check(&deep).await, Ok(()));
    assert_eq!(pool.run(&transformer(&deep), &events(&["1"])).await.unwrap(), [changed("1")]);
    assert_eq!(pool.check(&format!(".{}", "+ 1 ".repeat(4_000))).await, Ok(()));
}

#[tokio::test]
async fn deep_events_and_recursion_work() {
    let pool = pool(AMPLE, 1);
    let deep = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    assert_eq!(pool.run(&transformer("."), &events(&[&deep])).await.unwrap(), [changed(&deep)]);
    let sum = transformer("def sum: if . == 0 then 0 else . + (. - 1 | sum) end; sum");
    assert_eq!(pool.run(&sum, &events(&["3000"])).await.unwrap(), [changed("4501500")]);
    let abyss = "[".repeat(3_000_000);
    let outcomes = pool.run(&transformer("."), &events(&["1", &abyss, "2"])).await.unwrap();
    assert_eq!([&outcomes[0], &outcomes[2]], [&changed("1"), &changed("2")]);
    assert!(matches!(outcomes[1], Outcome::Dropped(_)));
}

#[tokio::test]
async fn large_events_do_not_block_the_pipes() {
    let pool = pool(AMPLE, 1);
    let events: Vec<_> = (0..40).map(|n| Bytes::from(format!("[{n},\"{}\"]", "x".repeat(700_000)))).collect();
    let outcomes = pool.run(&transformer("."), &events).await.unwrap();
    let wanted: Vec<_> = events.into_iter().map(Outcome::Changed).collect();
    assert!(outcomes == wanted);
    let huge = Bytes::from(format!("\"{}\"", "x".repeat(64 * 1024 * 1024)));
    assert_eq!(
        pool.run(&filter("true"), &[huge, Bytes::from_static(b"1")]).await.unwrap(),
        [OVER, Outcome::Unchanged]
    );
}

#[tokio::test]
async fn many_runs_share_few_workers() {
    let alias = Alias::new("many");
    let pool = alias.pool(2);
    let runs = (0..64).map(|n| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let steps = transformer(&format!(". + {n}"));
            let events: Vec<_> = (0..100).map(|i| Bytes::from(i.to_string())).collect();
            let wanted: Vec<_> = (n..n + 100).map(|i: u32| changed(&i.to_string())).collect();
            assert_eq!(pool.run(&steps, &events).await.unwrap(), wanted);
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
    assert_eq!(alias.workers().len(), 2);
    drop(pool);
    until("the workers end with their pool", || alias.workers().is_empty()).await;
}

#[tokio::test]
async fn more_programs_than_a_worker_keeps() {
    let pool = pool(AMPLE, 1);
    for n in (0..300).chain(0..3) {
        let steps =
            Steps { filter: Some(format!(". == {n}").into()), transformer: Some(format!(". + {n}").into()) };
        let outcomes = pool.run(&steps, &events(&[&n.to_string(), "-1"])).await.unwrap();
        assert_eq!(outcomes, [changed(&(2 * n).to_string()), Outcome::Dropped(Reason::False)]);
    }
}

#[tokio::test]
async fn a_killed_worker_is_replaced() {
    let alias = Alias::new("killed");
    let pool = alias.pool(1);
    assert_eq!(pool.run(&filter("true"), &events(&["1"])).await.unwrap(), [Outcome::Unchanged]);
    // While it is idle: nothing is lost.
    let idle = alias.workers()[0];
    kill(idle);
    until("the idle worker ends", || !called(idle, &alias.0)).await;
    assert_eq!(pool.run(&filter("true"), &events(&["1"])).await.unwrap(), [Outcome::Unchanged]);

    // At work: the event is tried once more, and nothing else is lost.
    let first = alias.workers()[0];
    let run = tokio::spawn({
        let pool = pool.clone();
        async move { pool.run(&filter(". != 0 or last(repeat(1))"), &events(&["1", "0", "2"])).await }
    });
    kill(first);
    let mut second = None;
    until("a new worker", || {
        second = alias.workers().into_iter().find(|id| *id != first);
        second.is_some()
    })
    .await;
    run.abort();
    drop(run.await);
    until("a run that is dropped ends its worker", || alias.workers().is_empty()).await;
    assert_eq!(pool.run(&filter("true"), &events(&["1"])).await.unwrap(), [Outcome::Unchanged]);
}

#[tokio::test]
async fn a_worker_ends_with_its_parent() {
    // Its standard input stays open here, so only the parent's end can tell it.
    let script = format!("exec 3<&0; '{BINARY}' jq-worker <&3 & read line <&3; wait");
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let input = shell.stdin.take();
    let mut output = shell.stdout.take().unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let mut ready = [0; 5];
        output.read_exact(&mut ready).unwrap();
        shell.kill().unwrap();
        shell.wait().unwrap();
        output.read_to_end(&mut Vec::new()).unwrap()
    });
    assert_eq!(tokio::time::timeout(AMPLE, ended).await.unwrap().unwrap(), 0);
    drop(input);

    // And by the end of its standard input.
    let mut worker =
        Command::new(BINARY).arg("jq-worker").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    drop(worker.stdin.take());
    until("the worker ends", || worker.try_wait().unwrap().is_some()).await;
    assert!(worker.wait().unwrap().success());
}

#[tokio::test]
async fn without_a_worker_the_pool_is_unavailable() {
    for (program, arguments) in [("/nowhere/jq", vec![]), (BINARY, vec![]), ("true", vec![])] {
        let pool = Pool::new(program.into(), arguments, Limits::default(), Handle::current());
        assert!(pool.run(&filter("true"), &events(&["1"])).await.is_err(), "{program}");
        assert!(matches!(pool.check("true").await, Err(CheckError::Unavailable(_))), "{program}");
    }
}

#[tokio::test]
async fn one_slow_run_does_not_hold_the_only_worker() {
    let pool = pool(Duration::from_millis(300), 1);
    let slow = tokio::spawn({
        let pool = pool.clone();
        async move { pool.run(&filter("last(repeat(1))"), &vec![Bytes::from_static(b"1"); 20]).await }
    });
    let other: Arc<str> = "true".into();
    let steps = Steps { filter: Some(other), transformer: None };
    assert_eq!(pool.run(&steps, &events(&["1"])).await.unwrap(), [Outcome::Unchanged]);
    assert!(!slow.is_finished());
    slow.abort();
}
