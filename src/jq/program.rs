//! Compiles a jq program and runs it on values. Pure, but for time and memory: used in workers only.

use jaq_core::data::JustLut;
use jaq_core::load::{self, Arena, File, Loader, lex};
use jaq_core::{Compiler, Ctx, Exn, Filter, Vars, compile};
use jaq_json::Val;

use super::{delete, json};

/// Functions that end the process, look around in it or write: no program may call them.
const LEFT_OUT: [&str; 12] = [
    "debug",
    "debug_empty",
    "env",
    "halt",
    "halt_error",
    "input",
    "inputs",
    "input_filename",
    "localtime",
    "stderr",
    "stderr_empty",
    "strflocaltime",
];

/// Characters of an error's text that are kept of its start and of its end.
const KEPT: (usize, usize) = (300, 100);

/// What is wrong with a program. Line and column count from 1, the column in characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct CompileError {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

/// A filter's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The first output is `true`.
    True,
    /// It is something else, or there is none.
    False,
    /// It is an error.
    Error(String),
}

/// A transformer's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The output is longer than the limit.
    TooLarge,
    /// Anything else.
    Error(String),
}

/// A compiled program.
pub(super) struct Program(Filter<JustLut<Val>>);

impl Program {
    /// Compiles a program.
    pub(super) fn compile(code: &str) -> Result<Self, CompileError> {
        let (arena, loader) = (Arena::default(), Loader::new(definitions()));
        let loaded = loader.load(&arena, File { code, path: () });
        let modules = loaded.map_err(|errors| first(code, errors, load_errors))?;
        // Else the variable of an imported file would be missing when the program runs.
        load::import(&modules, |_| Err("files cannot be imported".to_owned()))
            .map_err(|errors| first(code, errors, load_errors))?;
        let functions = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
        let functions = functions.filter(|(name, ..)| !LEFT_OUT.contains(name)).chain([delete::native()]);
        let compiled = Compiler::default().with_funs(functions).compile(modules);
        let filter = compiled.map_err(|errors| first(code, errors, undefined))?;
        Ok(Self(filter))
    }

    /// Runs it as a filter. Only its first output counts.
    pub(super) fn filter(&self, value: &Val) -> Verdict {
        match self.outputs(value).next() {
            Some(Ok(Val::Bool(true))) => Verdict::True,
            Some(Ok(_)) | None => Verdict::False,
            Some(Err(error)) => Verdict::Error(error),
        }
    }

    /// Runs it as a transformer: the JSON of its one output.
    pub(super) fn transform(&self, value: &Val, limit: usize) -> Result<Vec<u8>, Failure> {
        let mut outputs = self.outputs(value);
        let output = outputs.next().ok_or_else(|| Failure::Error("no output".to_owned()))?;
        let output = output.map_err(Failure::Error)?;
        match outputs.next() {
            None => {}
            Some(Ok(_)) => return Err(Failure::Error("more than one output".to_owned())),
            Some(Err(error)) => return Err(Failure::Error(error)),
        }
        json::to_json(&output, limit).map_err(|unwritten| match unwritten {
            json::Unwritten::TooLarge => Failure::TooLarge,
            json::Unwritten::NotJson(what) => {
                Failure::Error(format!("the output is not JSON: it has {what}"))
            }
        })
    }

    fn outputs(&self, value: &Val) -> impl Iterator<Item = Result<Val, String>> {
        let context = Ctx::<JustLut<Val>>::new(&self.0.lut, Vars::new([]));
        self.0.id.run((context, value.clone())).map(|output| output.map_err(text))
    }
}

/// All definitions of jaq but those that are left out or replaced.
fn definitions() -> impl Iterator<Item = load::parse::Def<&'static str>> {
    let all = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let ours = load::parse(delete::DEFINITIONS, |parser| parser.defs()).unwrap_or_default();
    all.filter(|def| !LEFT_OUT.contains(&def.name) && !delete::NAMES.contains(&def.name)).chain(ours)
}

/// A place in the code with what is wrong there.
type Found<'a> = (&'a str, String);

/// The error that comes first in the code.
fn first<'a, E>(
    code: &'a str,
    errors: load::Errors<&'a str, (), E>,
    list: impl Fn(E) -> Vec<Found<'a>>,
) -> CompileError {
    let offset = |part: &str| (part.as_ptr() as usize).saturating_sub(code.as_ptr() as usize);
    let found = errors.into_iter().flat_map(|(_, error)| list(error));
    let found = found.map(|(part, message)| (offset(part), message)).min_by_key(|(at, _)| *at);
    let (at, message) = found.unwrap_or_else(|| (0, "not a jq program".to_owned()));
    let before = code.get(..at).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    CompileError { line, column: before[line_start..].chars().count() + 1, message }
}

fn load_errors<'a>(error: load::Error<&'a str>) -> Vec<Found<'a>> {
    match error {
        load::Error::Io(errors) => errors,
        load::Error::Lex(errors) => errors.into_iter().map(lex_error).collect(),
        load::Error::Parse(errors) => {
            let message = |(expected, found): load::parse::Error<&'a str>| {
                (found, format!("expected {}{}", expected.as_str(), but_found(found)))
            };
            errors.into_iter().map(message).collect()
        }
    }
}

fn lex_error<'a>((expected, found): lex::Error<&'a str>) -> Found<'a> {
    match expected {
        // The end says nothing about where the mistake is.
        lex::Expect::Delim(open) if found.is_empty() => (open, format!("this {open} is never closed")),
        expected => (found, format!("expected {}{}", expected.as_str(), but_found(found))),
    }
}

fn but_found(found: &str) -> String {
    let word: String = found.chars().take_while(|c| !c.is_whitespace()).take(20).collect();
    if found.is_empty() { " but the program ends".to_owned() } else { format!(" but found {word}") }
}

fn undefined(errors: Vec<compile::Error<&str>>) -> Vec<Found<'_>> {
    let message = |(name, undefined)| match undefined {
        compile::Undefined::Filter(_) if LEFT_OUT.contains(&name) => {
            (name, format!("the function {name} is not available here"))
        }
        compile::Undefined::Filter(arity) => (name, format!("undefined function {name}/{arity}")),
        undefined => (name, format!("undefined {} {name}", undefined.as_str())),
    };
    errors.into_iter().map(message).collect()
}

/// An error's text, shortened.
fn text(exception: Exn<'_, Val>) -> String {
    match exception.get_err().map(jaq_core::Error::into_val) {
        // As in jq, without quotes.
        Ok(Val::TStr(text)) => shortened(&String::from_utf8_lossy(&text)),
        Ok(value) => shortened(&value.to_string()),
        Err(_) => "the program ended in an unexpected way".to_owned(),
    }
}

/// jq quotes values within its messages, so both ends of a message matter.
fn shortened(text: &str) -> String {
    let (start, end) = KEPT;
    let cut = text.char_indices().nth(start).map(|(at, _)| at);
    let tail = text.char_indices().nth_back(end - 1).map(|(at, _)| at);
    match (cut, tail) {
        (Some(cut), Some(tail)) if cut < tail => format!("{} … {}", &text[..cut], &text[tail..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use jaq_json::read::parse_single;

    use super::*;

    fn filter(code: &str, event: &str) -> Verdict {
        Program::compile(code).unwrap().filter(&parse_single(event.as_bytes()).unwrap())
    }

    fn transform(code: &str, event: &str) -> Result<String, Failure> {
        let json = Program::compile(code).unwrap().transform(&parse_single(event.as_bytes()).unwrap(), 1000);
        json.map(|json| String::from_utf8(json).unwrap())
    }

    fn error(code: &str) -> (usize, usize, String) {
        let CompileError { line, column, message } = Program::compile(code).err().unwrap();
        (line, column, message)
    }

    #[test]
    fn only_true_passes() {
        for code in [".a", "true", "true, error", ".b == 1", "(.b, .c) == 1", "any(.d[]; . > 1)"] {
            assert_eq!(filter(code, r#"{"a":true,"b":1,"d":[1,2]}"#), Verdict::True, "{code}");
        }
        for code in ["false", "null", "1", "\"true\"", "empty", ".a", "false, true", "[true]", ".[]?"] {
            assert_eq!(filter(code, r#"{"a":0}"#), Verdict::False, "{code}");
        }
        assert_eq!(filter("error(\"no\")", "1"), Verdict::Error("no".to_owned()));
        assert_eq!(filter("error, true", "{\"a\":1}"), Verdict::Error(r#"{"a":1}"#.to_owned()));
        assert_eq!(filter(".a", "1"), Verdict::Error(r#"cannot index 1 with "a""#.to_owned()));
    }

    #[test]
    fn a_transformer_has_one_output() {
        assert_eq!(
            transform("{b, a: [.a, 1.50]}", r#"{"a":1e2,"b":2}"#).unwrap(),
            r#"{"b":2,"a":[1e2,1.50]}"#
        );
        for (code, message) in [
            ("empty", "no output"),
            ("1, 2", "more than one output"),
            ("1, error(\"late\")", "late"),
            ("{(1): 2}", "the output is not JSON: it has an object with a key that is no string"),
        ] {
            assert_eq!(transform(code, "{}"), Err(Failure::Error(message.to_owned())), "{code}");
        }
        assert_eq!(transform("[range(1000)]", "{}"), Err(Failure::TooLarge));
    }

    #[test]
    fn numbers_and_the_order_of_keys_survive() {
        let event = r#"{"z":12345678901234567890,"b":{"y":1,"x":2},"a":0.10,"m":[1.0,1E5]}"#;
        assert_eq!(transform(".", event).unwrap(), event);
        assert_eq!(
            transform(".b.w = 3 | .z += 1", event).unwrap(),
            event.replace("890,", "891,").replace("2}", "2,\"w\":3}")
        );
        assert_eq!(
            transform("with_entries(select(.key != \"b\"))", event).unwrap(),
            event.replace(r#""b":{"y":1,"x":2},"#, "")
        );
    }

    #[test]
    fn deletions_keep_the_order() {
        for (code, event, wanted) in [
            ("del(.a)", r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2,"c":3}"#),
            ("del(.a.x, .b)", r#"{"a":{"x":1,"y":2,"z":3},"b":2,"c":3}"#, r#"{"a":{"y":2,"z":3},"c":3}"#),
            ("del(.a.x)", "{}", "{}"),
            ("del(.a)", "null", "null"),
            ("del(.)", "1", "null"),
            ("del(.[0, 1], .[-1], .[9])", "[1,2,3,4]", "[3]"),
            ("del(.[1:3])", "[1,2,3,4]", "[1,4]"),
            ("del(.[1:3][0])", "[1,2,3,4]", "[1,3,4]"),
            ("del(.[] | select(. > 1))", "[1,2,3,1]", "[1,1]"),
            ("del(..|.x?)", r#"{"x":1,"a":[{"x":2,"y":3}]}"#, r#"{"a":[{"y":3}]}"#),
            ("delpaths([[\"a\"],[\"b\",0]])", r#"{"a":1,"b":[1,2],"c":3}"#, r#"{"b":[2],"c":3}"#),
            ("try del(.a) catch \"no\"", "1", "\"no\""),
            ("to_entries | map(.key) | del(first)", r#"{"a":1,"b":2}"#, r#"["b"]"#),
        ] {
            assert_eq!(transform(code, event).as_deref(), Ok(wanted), "{code}");
        }
    }

    #[test]
    fn the_usual_functions_are_there() {
        for (code, event, wanted) in [
            ("@base64d | fromjson | .t", r#""eyJ0IjoxfQ==""#, "1"),
            ("test(\"^a+$\")", r#""aaa""#, "true"),
            ("capture(\"(?<n>[0-9]+)\").n | tonumber", r#""press-12""#, "12"),
            ("fromdate", r#""2026-01-02T03:04:05Z""#, "1767323045"),
            ("strptime(\"%Y\")? // 1", "\"x\"", "1"),
            ("[limit(2; repeat(1))] | add", "0", "2"),
            ("\"\\(.a)!\"", r#"{"a":1}"#, "\"1!\""),
            ("now > 0 and (sqrt | floor) == 2", "5", "true"),
            ("nan", "0", "null"),
        ] {
            assert_eq!(transform(code, event).as_deref(), Ok(wanted), "{code}");
        }
    }

    #[test]
    fn nothing_reaches_out_of_a_program() {
        for name in LEFT_OUT {
            let wanted = (1, 5, format!("the function {name} is not available here"));
            assert_eq!(error(&format!(". | {name}")), wanted);
        }
        for code in ["halt(1)", "halt_error(1)", "debug(1)", "$ENV", "$__prog_args", "get_search_list"] {
            assert_eq!(error(code).0, 1, "{code}");
        }
        assert_eq!(error("include \"a\"; .").2, "module loading not supported");
        assert_eq!(error("import \"a\" as a; .").2, "module loading not supported");
        assert_eq!(error("import \"a\" as $a; $a"), (1, 9, "files cannot be imported".to_owned()));
    }

    #[test]
    fn errors_have_a_place() {
        let place = |line, column, message: &str| (line, column, message.to_owned());
        assert_eq!(error(""), place(1, 1, "expected term but the program ends"));
        assert_eq!(error(".a ==\n\n"), place(3, 1, "expected term but the program ends"));
        assert_eq!(error(".a |\n  (.b"), place(2, 3, "this ( is never closed"));
        assert_eq!(error(".a | \"ü"), place(1, 6, "this \" is never closed"));
        assert_eq!(error("\"ü\" | § | ."), place(1, 7, "expected token but found §"));
        assert_eq!(error("\"ü\" |\r\n  foo(1)"), place(2, 3, "undefined function foo/1"));
        assert_eq!(error(". as $x | $y, $z"), place(1, 11, "undefined variable $y"));
        assert_eq!(error("if . then 1 els 2"), place(1, 13, "expected else or end but found els"));
        assert_eq!(error("{a: 1 b}"), place(1, 7, "expected comma or right brace but found b"));
        assert_eq!(error("1 )"), place(1, 3, "expected token but found )"));
        assert_eq!(error("\"\\q\""), place(1, 3, "expected string escape sequence but found q\""));
    }

    #[test]
    fn a_long_error_keeps_both_ends() {
        let event = format!("[{}1]", "1,".repeat(1000));
        let Verdict::Error(text) = filter(".a", &event) else { panic!("no error") };
        assert!(text.starts_with("cannot index [1,1") && text.ends_with("1] with \"a\""), "{text}");
        assert!(text.chars().count() <= KEPT.0 + KEPT.1 + 3);
    }
}
